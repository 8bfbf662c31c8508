"""All pages on a phone, in dark and light, and for users of keyboards and screen readers."""

import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.browser.actions import PICTURE, TIMEOUT_MS, metric, total

PATHS = ["/", "/pictures", "/videos", "/samples", "/teach", "/evaluation"]


@pytest.fixture(scope="session")
def axe(tmp_path_factory) -> str:
    """Deque's accessibility checker, a script."""
    if not shutil.which("npm"):
        pytest.skip("needs npm")
    folder = tmp_path_factory.mktemp("axe")
    subprocess.run(["npm", "pack", "--silent", "axe-core@4.14.1"], cwd=folder, check=True)
    with tarfile.open(folder / "axe-core-4.14.1.tgz") as package:
        return package.extractfile("package/axe.min.js").read().decode()


@pytest.fixture(scope="module", params=PATHS)
def phone(request, browser, address) -> Iterator[Page]:
    """Each page, complete, on a phone with a dark theme."""
    page = browser.new_page(base_url=address, viewport={"width": 390, "height": 844}, color_scheme="dark")
    page.goto(request.param)
    if request.param == "/":
        page.locator(".start:enabled").wait_for(timeout=TIMEOUT_MS)
    else:
        elements = page.get_by_test_id("stMainBlockContainer").get_by_test_id("stElementContainer")
        elements.filter(visible=True).nth(3).wait_for(timeout=TIMEOUT_MS)
    page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')", timeout=TIMEOUT_MS)
    yield page
    page.close()


def test_nothing_overflows_or_is_cut_off_on_a_phone(phone):
    width = phone.evaluate(
        "Math.max(...['html', '[data-testid=stMain]'].map(q => document.querySelector(q).scrollWidth))"
    )
    assert width <= 390
    labels = phone.get_by_test_id("stWidgetLabel").get_by_test_id("stMarkdownContainer")
    cut_off = "labels => labels.filter(one => one.scrollWidth > one.clientWidth).map(one => one.textContent)"
    assert labels.evaluate_all(cut_off) == []


def test_no_serious_accessibility_violations(phone, axe, runtime):
    """Names for screen readers, contrast and roles, on a wide page: dark and idle, then light and in use."""
    phone.set_viewport_size({"width": 1280, "height": 900})
    assert serious_violations(phone, axe) == {}
    dark = phone.get_by_test_id("stApp").evaluate("app => getComputedStyle(app).backgroundColor")
    phone.emulate_media(color_scheme="light")
    expect(phone.get_by_test_id("stApp")).not_to_have_css("background-color", dark, timeout=TIMEOUT_MS)
    use(phone)
    assert serious_violations(phone, axe) == {}


def use(page: Page) -> None:
    """Do what the page is for; Live by keyboard alone."""
    match urlsplit(page.url)[2:4]:
        case "/", _:
            start = page.get_by_role("button", name="Start", exact=True)
            for _ in range(20):
                page.keyboard.press("Tab")
                if start.evaluate("button => button.matches(':focus')"):
                    break
            page.keyboard.press("Enter")
            expect(total(page)).to_have_text(PICTURE.name[0])
        case "/pictures", _:
            page.locator("input[type=file]").first.set_input_files(PICTURE)
            expect(metric(page, "Fingers")).to_have_text(PICTURE.name[0], timeout=TIMEOUT_MS)
        case "/samples", _:
            page.locator("[class*=st-key-thumbnail] .stButton button").first.click()
            expect(page.get_by_role("dialog").get_by_text(re.compile("Correct|Incorrect"))).to_be_visible(
                timeout=TIMEOUT_MS
            )


# Elements that fade in are opaque; spinners may go on.
ANIMATIONS_FINISHED = """document.getAnimations().every(
    one => one.playState === 'finished' || one.effect.getComputedTiming().endTime === Infinity
)"""


def serious_violations(page: Page, axe: str) -> dict[str, str]:
    """Return the rules that are seriously violated, each with an element."""
    page.wait_for_function(ANIMATIONS_FINISHED)
    page.evaluate(axe)
    violations = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then(result => result.violations)")
    return {one["id"]: one["nodes"][0]["html"] for one in violations if one["impact"] in ("serious", "critical")}
