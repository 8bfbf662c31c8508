"""One server and one Chromium for all browser tests; each test has a page with its own cookies."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from benchmarks import chromium
from benchmarks.app_server import camera_arguments, run_app, write_still_video
from handful import Prediction, shared_counter
from tests.browser.actions import PICTURE, TIMEOUT_MS
from tests.builders import write_fingers
from web.browser_camera import RUNTIME, RUNTIME_DIR

expect.set_options(timeout=TIMEOUT_MS)


@pytest.fixture(scope="session")
def address(idle_machine, tmp_path_factory) -> Iterator[str]:
    """The app, with a small copy of Kaggle Fingers."""
    data = tmp_path_factory.mktemp("data")
    write_fingers(data / "fingers", train=1, test=2)
    with run_app(tmp_path_factory.mktemp("app") / "log", HANDFUL_DATA=str(data)) as address:
        yield address


@pytest.fixture(scope="session")
def camera_video(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """The video that the browser's camera shows, and its only frame, (480, 640, 3) uint8 RGB."""
    video = tmp_path_factory.mktemp("camera") / "camera.y4m"
    return video, write_still_video(PICTURE, video, fps=10)


@pytest.fixture(scope="session")
def camera_frame(camera_video) -> np.ndarray:
    return camera_video[1]


@pytest.fixture(scope="session")
def expected(camera_frame) -> Prediction:
    """The prediction for the camera's frame: one hand, with the fingers of `PICTURE`."""
    prediction = shared_counter()(camera_frame)
    assert [hand.label for hand in prediction.hands] == [PICTURE.name[:2]]
    return prediction


@pytest.fixture(scope="session")
def browser(idle_machine, camera_video) -> Iterator[Browser]:
    path = chromium.find()
    if not path:
        pytest.skip("needs Chromium: python benchmarks/chromium.py")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=[*arguments, *camera_arguments(camera_video[0])]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address) -> Iterator[Page]:
    page = browser.new_page(base_url=address, viewport={"width": 1280, "height": 900})
    page.set_default_timeout(TIMEOUT_MS)
    yield page
    page.close()


@pytest.fixture(scope="module")
def component_page(browser) -> Iterator[Page]:
    """A page for `open_component`, without the app."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(10_000)
    yield page
    page.close()


@pytest.fixture(scope="session")
def runtime() -> None:
    """onnxruntime-web, installed beside the app unless it is there."""
    if not all((RUNTIME_DIR / name).exists() for name in RUNTIME["files"]):
        if not shutil.which("npm"):
            pytest.skip("needs npm, once: make browser")
        subprocess.run(["sh", "runtime.sh"], cwd=RUNTIME_DIR.parent, check=True)
