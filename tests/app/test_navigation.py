"""From page to page."""

from tests.app.pages import load_page


def test_live_is_the_first_page():
    page = load_page("navigation").run()
    assert not page.exception
    [component] = page.get("bidi_component")
    assert component.proto.component_name.endswith("handful_live")


def test_the_settings_of_teach_survive_a_visit_to_another_page():
    page = load_page("navigation").switch_page("teach.py").run()
    page.pills[0].set_value([3]).run()
    page.pills[1].set_value(["right"]).run()
    page.segmented_control[0].set_value(6).run()
    page.switch_page("samples.py").run()
    page.switch_page("teach.py").run()
    assert not page.exception
    assert [control.value for control in (*page.pills, *page.segmented_control)] == [[3], ["right"], 6]
    assert page.subheader[0].value == "Show 3 fingers with your right hand"
