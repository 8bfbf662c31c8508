"""The pages in a real browser, as a visitor sees them."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

import tests.browser
from model import CLASSES, shared_counter
from model.images import decode
from tests.drawn import write_fingers
from tests.server import ROOT, camera_arguments, film, running

CHROMIUM = tests.browser.find()
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: python tests/browser.py")
PICTURE = ROOT / "assets/samples/3L_0.jpg"
# What the first visitor to a page waits for, on a busy machine.
WAIT = 30_000


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    data = tmp_path_factory.mktemp("data")
    write_fingers(data / "fingers", train=1, test=2)
    with running(tmp_path_factory.mktemp("log") / "log", HANDFUL_DATA=str(data)) as address:
        yield address


@pytest.fixture(scope="module")
def filmed(tmp_path_factory) -> tuple[Path, np.ndarray]:
    video = tmp_path_factory.mktemp("camera") / "camera.y4m"
    return video, film(PICTURE, video)


@pytest.fixture(scope="module")
def browser(filmed) -> Iterator[Browser]:
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*quiet, *camera_arguments(filmed[0])])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address) -> Iterator[Page]:
    page = browser.new_page(base_url=address, viewport={"width": 1280, "height": 900})
    page.set_default_timeout(WAIT)
    yield page
    page.close()


def metric(page: Page, label: str):
    return page.get_by_test_id("stMetric").filter(has_text=label).get_by_test_id("stMetricValue").first


def test_live_counts_what_the_camera_shows(page, filmed):
    page.goto("/")
    expect(metric(page, "Fingers")).to_have_text("–", timeout=WAIT)
    page.frame_locator("iframe").get_by_role("button", name="Start").click()
    told = shared_counter()(filmed[1])
    assert told.total == int(PICTURE.name[0])
    expect(metric(page, "Fingers")).to_have_text(str(told.total), timeout=WAIT)
    expect(page.get_by_text(f"{told.hands[0].side} hand")).to_be_visible()
    expect(page.get_by_text(re.compile(r"[1-9]\d* frames a second, \d+ ms each"))).to_be_visible(timeout=WAIT)
    # The stream goes on while the settings change.
    page.get_by_text("Show where the model looks").click()
    page.get_by_text("Mirror").click()
    page.wait_for_timeout(1500)
    expect(metric(page, "Fingers")).to_have_text(str(told.total))
    page.frame_locator("iframe").get_by_role("button", name="Stop").click()
    expect(metric(page, "Fingers")).to_have_text("–", timeout=WAIT)


def test_a_picture_is_dropped_and_read(page):
    page.goto("/pictures")
    page.get_by_test_id("stFileUploaderDropzone").wait_for()
    transfer = page.evaluate_handle(
        """async bytes => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "hand.jpg", {type: "image/jpeg"}));
            return transfer;
        }""",
        list(PICTURE.read_bytes()),
    )
    page.get_by_test_id("stFileUploaderDropzone").dispatch_event("drop", {"dataTransfer": transfer})
    hand = shared_counter()(decode(PICTURE)).hands[0]
    assert hand.label == PICTURE.name[:2]
    expect(metric(page, "Fingers")).to_have_text(str(hand.fingers), timeout=WAIT)
    expect(metric(page, "Side")).to_have_text(hand.side)
    shares = page.locator(".bars > span:not(.track):not(.head)")
    expect(shares).to_have_count(len(CLASSES))
    assert sum(int(text.rstrip("%")) for text in shares.all_inner_texts()) == pytest.approx(100, abs=6)
    overlay = page.get_by_test_id("stImage").locator("img")
    first = overlay.get_attribute("src")
    assert overlay.evaluate("image => image.decode().then(() => image.naturalWidth)") == 256
    # Another class has another map.
    page.get_by_test_id("stSelectbox").locator("input").click()
    page.get_by_role("option", name="0 right").click()
    expect(overlay).not_to_have_attribute("src", first, timeout=WAIT)


def test_a_click_on_a_sample_opens_it(page):
    page.goto("/samples")
    expect(page.get_by_text("24 of 24 pictures")).to_be_visible(timeout=WAIT)
    thumbnail = page.locator("[class*=st-key-thumbnail]").nth(5)
    box = thumbnail.locator("img").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text(re.compile("Right|Wrong"))).to_be_visible(timeout=WAIT)
    expect(metric(page, "Fingers")).to_have_text(re.compile("[0-5]"))
    expect(dialog.get_by_test_id("stImage").locator("img")).to_be_visible()


def test_a_cell_of_the_confusion_matrix_tells_its_pictures(page):
    page.goto("/evaluation")
    expect(page.locator(".scores").first).to_contain_text("Kaggle Fingers", timeout=WAIT)
    expect(metric(page, "Pictures")).to_have_text(re.compile("[1-9]"), timeout=WAIT)
    page.get_by_test_id("stSelectbox").locator("input").click()
    page.get_by_role("option", name="Kaggle Fingers").click()
    expect(metric(page, "Pictures")).to_have_text("3,600", timeout=WAIT)
    cells = page.get_by_test_id("stVegaLiteChart").first.locator(".mark-rect path")
    expect(cells).to_have_count(12 * 12, timeout=WAIT)
    cells.last.click(force=True)  # its number is written over it
    expect(page.get_by_text("5R, and told so")).to_be_visible(timeout=WAIT)
    # Those of the data set that is here.
    expect(page.locator("[class*=st-key-thumbnail-right]")).to_have_count(2, timeout=WAIT)


@pytest.mark.parametrize("path", ["/", "/pictures", "/samples", "/evaluation"])
def test_nothing_is_wider_than_a_phone(browser, address, path):
    page = browser.new_page(base_url=address, viewport={"width": 390, "height": 844}, color_scheme="dark")
    page.goto(path)
    page.get_by_test_id("stMainBlockContainer").get_by_test_id("stElementContainer").nth(5).wait_for(timeout=WAIT)
    page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')", timeout=WAIT)
    widest = page.evaluate(
        "Math.max(...['html', '[data-testid=stMain]'].map(q => document.querySelector(q).scrollWidth))"
    )
    assert widest <= 390
    page.close()
