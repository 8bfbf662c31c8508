"""Takes the README's screenshots from the running app: `python docs/screenshots.py`.

Run it where no data set lies: Samples then shows the bundled hands, and no one's pictures come into the repository.
"""

import re
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import chromium  # noqa: E402
from benchmarks.app_server import camera_arguments, run_app, write_still_video  # noqa: E402

OUTPUT = ROOT / "docs/screenshots"
SAMPLES = ROOT / "assets/samples"
WAIT = 60_000


def main() -> None:
    if (ROOT / "data/fingers").exists():
        sys.exit("The data set is here, and would be in the pictures: take them from a fresh clone.")
    OUTPUT.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        run_app(Path(folder, "log")) as address,
        sync_playwright() as playwright,
    ):
        write_still_video(SAMPLES / "3L_0.jpg", Path(folder, "camera.y4m"))
        browser = playwright.chromium.launch(
            executable_path=chromium.find(),
            args=["--no-sandbox", "--disable-gpu", *camera_arguments(Path(folder, "camera.y4m"))],
        )
        page = browser.new_page(base_url=address, viewport={"width": 1280, "height": 720})
        page.set_default_timeout(WAIT)

        def take(name: str) -> None:
            page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')")
            page.mouse.move(0, 0)
            page.wait_for_timeout(1500)  # for what fades in
            page.screenshot(path=OUTPUT / f"{name}.png")

        page.goto("/")
        page.frame_locator("iframe").get_by_role("button", name="Start").click()
        expect(page.get_by_text(" ms per frame")).to_be_visible(timeout=WAIT)
        # The film starts coarse, and gets finer as the browser finds that the network can take it.
        page.wait_for_timeout(12_000)
        take("live")

        page.goto("/pictures")
        files = [SAMPLES / name for name in ("5L_2.jpg", "2R_0.jpg", "3L_0.jpg")]
        page.locator("input[type=file]").first.set_input_files(files)
        expect(page.get_by_text("Explain class")).to_be_visible(timeout=WAIT)
        page.get_by_test_id("stMain").evaluate("element => element.scrollTo(0, 260)")
        take("pictures")

        page.goto("/samples")
        page.locator("[class*=st-key-thumbnail] .stButton button").nth(8).click()
        expect(page.get_by_role("dialog").get_by_text(re.compile("Correct|Incorrect"))).to_be_visible(timeout=WAIT)
        take("samples")

        page.goto("/evaluation")
        expect(page.locator(".scores").first).to_be_visible(timeout=WAIT)
        take("evaluation")
        browser.close()


if __name__ == "__main__":
    main()
