"""The benchmark of long streams."""

import time

from benchmarks.streams import Tab


def test_a_tab_goes_on_while_no_debugger_is_attached(browser, tmp_path):
    tab = Tab(tmp_path / "profile", tmp_path / "camera.y4m")
    try:
        with tab.attach(browser.browser_type) as page:
            page.evaluate("window.ticks = 0; setInterval(() => ticks++, 50)")
        time.sleep(1)
        with tab.attach(browser.browser_type) as page:
            assert page.evaluate("ticks") > 5
        assert 10 < tab.mb() < 1000
    finally:
        tab.close()
    assert not tab.process.is_running()
