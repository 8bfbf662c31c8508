"""All pages on a phone, in dark and light, and for users of keyboards and screen readers."""

import re
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.browser.actions import PICTURE, TIMEOUT_MS, headline, total
from training import npm

PATHS = ["/", "/pictures", "/videos", "/samples", "/teach", "/evaluation", "/about"]


@pytest.fixture(scope="session")
def axe(tmp_path_factory) -> str:
    """Deque's accessibility checker, a script."""
    if not shutil.which("npm"):
        pytest.skip("needs npm")
    sha256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
    [script] = npm.fetch_files("axe-core", "4.14.1", {"axe.min.js": sha256}, tmp_path_factory.mktemp("axe"))
    return script.read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=PATHS)
def phone(request, browser, address) -> Iterator[Page]:
    """Each page, complete, on a phone with a dark theme."""
    page = browser.new_page(base_url=address, viewport={"width": 390, "height": 844}, color_scheme="dark")
    page.goto(request.param)
    if request.param in ("/", "/teach"):
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


def test_tables_of_evaluation_fit_on_a_phone_when_they_are_unfolded(browser, address):
    page = browser.new_page(base_url=address, viewport={"width": 390, "height": 844})
    page.goto("/evaluation")
    titles = page.get_by_test_id("stExpander").locator("summary")
    titles.nth(4).wait_for(timeout=TIMEOUT_MS)
    for title in titles.all():
        title.click()
    tables = page.locator(".scores, .rates")
    expect(tables.filter(has_text="Close crops (")).to_be_visible(timeout=TIMEOUT_MS)
    overflow = """tables => tables.map((table) => {
        const [inner, outer] = [table, table.closest(".stHtml")].map((one) => one.getBoundingClientRect().right);
        return inner - outer;
    })"""
    assert max(tables.evaluate_all(overflow)) < 1
    page.close()


def test_no_serious_accessibility_violations(phone, axe, runtime):
    """Names for screen readers, contrast and roles, on a wide page: dark and idle, then light and in use."""
    phone.set_viewport_size({"width": 1280, "height": 900})
    assert serious_violations(phone, axe) == {}
    dark = phone.get_by_test_id("stApp").evaluate("app => getComputedStyle(app).backgroundColor")
    phone.emulate_media(color_scheme="light")
    expect(phone.get_by_test_id("stApp")).not_to_have_css("background-color", dark, timeout=TIMEOUT_MS)
    use(phone)
    assert serious_violations(phone, axe) == {}


@pytest.fixture
def about(browser, address) -> Iterator[Page]:
    """The About page on a phone, for a visitor who asks for less motion."""
    size = {"width": 390, "height": 844}
    page = browser.new_page(base_url=address, viewport=size, reduced_motion="reduce")
    page.set_default_timeout(TIMEOUT_MS)
    page.goto("/about")
    page.get_by_role("heading", name="About").wait_for()
    yield page
    page.close()


def test_the_pages_are_behind_a_button_that_says_menu_on_a_phone(about):
    for name in "Evaluation", "Samples":  # the button is made anew each time
        button = about.get_by_role("button", name="Menu", exact=True)
        assert "Menu" in button.evaluate("button => getComputedStyle(button, '::after').content")
        button.click()
        expect(about.get_by_role("button", name="Close menu")).to_be_visible(timeout=TIMEOUT_MS)
        about.get_by_test_id("stSidebarNav").get_by_role("link", name=name).click()
        expect(about).to_have_title(f"{name} · Handful", timeout=TIMEOUT_MS)
        if about.get_by_role("button", name="Close menu").is_visible():
            about.get_by_role("button", name="Close menu").click()


def test_pages_begin_right_below_the_header(about):
    header = about.get_by_test_id("stHeader").bounding_box()
    heading = about.get_by_role("heading", name="About").bounding_box()
    gap = heading["y"] - header["y"] - header["height"]
    assert 0 <= gap < 30


def test_nothing_moves_for_those_who_ask_for_less_motion(about):
    still = """() => 0.001 > Math.max(...[...document.querySelectorAll("*")].flatMap(one => {
        const style = getComputedStyle(one);
        return `${style.transitionDuration}, ${style.animationDuration}`.split(", ").map(parseFloat);
    }))"""
    about.wait_for_function(still)  # once the style sheet is there


def test_the_reference_of_the_api_is_linked(about):
    with about.context.expect_page() as opened:
        about.get_by_role("link", name="API reference").click()
    expect(opened.value).to_have_title(re.compile("API"), timeout=TIMEOUT_MS)


def use(page: Page) -> None:
    """Do what the page is for; Live by keyboard alone."""
    match urlsplit(page.url)[2:4]:
        case "/", _:
            start = page.get_by_role("button", name="Start", exact=True)
            for _ in range(60):  # the page may take the focus away once, as its theme changes
                page.keyboard.press("Tab")
                if start.evaluate("button => button.matches(':focus')"):
                    break
            page.keyboard.press("Enter")
            expect(total(page)).to_have_text(PICTURE.name[0])
        case "/pictures", _:
            page.locator("input[type=file]").first.set_input_files(PICTURE)
            expect(headline(page)).to_contain_text(PICTURE.name[0], timeout=TIMEOUT_MS)
        case "/videos", _:
            page.get_by_role("button", name="Use this video").click()
            page.get_by_role("slider", name="Position in the video").wait_for(timeout=TIMEOUT_MS)
        case "/evaluation", _:
            for summary in page.locator("[data-testid=stExpander] summary").all():
                summary.click()
            expect(page.get_by_test_id("stMetric").first).to_be_visible(timeout=TIMEOUT_MS)
        case "/about", _:
            page.locator("[data-testid=stExpander] summary").click()
            expect(page.get_by_role("heading", name="How it works")).to_be_visible(timeout=TIMEOUT_MS)
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
