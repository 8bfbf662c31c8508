"""Take the README's screenshots of the running app: `python docs/screenshots.py`.

Without the dataset, Samples shows the bundled hands: no person's pictures get into the repository.
"""

import re
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import chromium  # noqa: E402
from benchmarks.app_server import camera_arguments, run_app, write_still_video  # noqa: E402

OUTPUT = ROOT / "docs/screenshots"
SAMPLES = ROOT / "assets/samples"
TIMEOUT_MS = 60_000
FADE_IN_MS = 1500
HISTORY_MS = 12_000  # of the chart on Live


def main() -> None:
    if (ROOT / "data/fingers").exists():
        sys.exit("The dataset is installed and would be in the screenshots: take them in a fresh clone.")
    OUTPUT.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        run_app(Path(folder, "log")) as address,
        sync_playwright() as playwright,
    ):
        video = Path(folder, "camera.y4m")
        write_still_video(SAMPLES / "3L_0.jpg", video)
        browser = playwright.chromium.launch(
            executable_path=chromium.find(), args=["--no-sandbox", "--disable-gpu", *camera_arguments(video)]
        )
        page = browser.new_page(base_url=address, viewport={"width": 1280, "height": 720})
        page.set_default_timeout(TIMEOUT_MS)
        expect.set_options(timeout=TIMEOUT_MS)
        for show in (show_live, show_pictures, show_samples, show_evaluation):
            show(page)
            page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')")
            page.mouse.move(0, 0)
            page.wait_for_timeout(FADE_IN_MS)
            page.screenshot(path=OUTPUT / f"{show.__name__.removeprefix('show_')}.png")
        browser.close()


def show_live(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_text(" ms per frame")).to_be_visible()
    page.wait_for_timeout(HISTORY_MS)
    page.get_by_test_id("stMain").evaluate("element => element.scrollTo(0, 0)")


def show_pictures(page: Page) -> None:
    page.goto("/pictures")
    files = [SAMPLES / name for name in ("5L_2.jpg", "2R_0.jpg", "3L_0.jpg")]
    page.locator("input[type=file]").first.set_input_files(files)
    expect(page.get_by_text("Explain class")).to_be_visible()
    page.get_by_test_id("stMain").evaluate("element => element.scrollTo(0, 260)")


def show_samples(page: Page) -> None:
    page.goto("/samples")
    page.locator("[class*=st-key-thumbnail] .stButton button").nth(8).click()
    expect(page.get_by_role("dialog").get_by_text(re.compile("Correct|Incorrect"))).to_be_visible()


def show_evaluation(page: Page) -> None:
    page.goto("/evaluation")
    expect(page.locator(".answer")).to_be_visible()


if __name__ == "__main__":
    main()
