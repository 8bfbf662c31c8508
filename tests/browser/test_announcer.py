"""The number of fingers as sound or speech, in a browser whose voice and ticks are recorded."""

from itertools import pairwise

import pytest
from playwright.sync_api import Page

from tests.browser.components import open_component

SCRIPT = """
    window.said = [];
    const voice = { speak: ({ text }) => text && said.push(text), cancel: () => {} };
    Object.defineProperty(window, "speechSynthesis", { value: voice, configurable: true });
    window.ticks = [];
    window.OscillatorNode = class extends OscillatorNode {
        start(seconds) { ticks.push(seconds); super.start(seconds); }
    };
    window.announcer = new module.Announcer();
    window.seconds = 0;
    window.show = (total, duration) => {
        for (let frame = 0; frame < Math.round(10 * duration); frame++) {
            announcer.update({ total, seconds: (seconds += 0.1) });
        }
    };
"""


@pytest.fixture
def page(component_page) -> Page:
    open_component(component_page, "announcer", SCRIPT)
    return component_page


def show(page: Page, *shown: tuple[int | None, float]) -> None:
    """Show numbers, each for some seconds."""
    page.evaluate("shown => shown.forEach(([total, seconds]) => show(total, seconds))", [list(one) for one in shown])


def test_off_by_default(page):
    show(page, (3, 2))
    assert page.evaluate("[announcer.mode, said, ticks]") == ["off", [], []]


def test_speech_says_a_number_once_when_it_has_settled(page):
    page.evaluate("announcer.mode = 'speech'")
    show(page, (None, 2), (3, 2), (4, 0.4), (5, 2), (5, 2))
    assert page.evaluate("said") == ["3", "5"]
    show(page, (None, 2), (5, 2))
    assert page.evaluate("said") == ["3", "5", "no hand", "5"]


def test_sound_ticks_once_a_finger(page):
    page.evaluate("announcer.mode = 'sound'")
    show(page, (7, 2), (None, 2))
    ticks = page.evaluate("ticks")
    assert len(ticks) == 7
    gaps = [round(b - a, 2) for a, b in pairwise(ticks)]
    assert gaps == [0.16] * 4 + [0.32, 0.16]  # a pause after five
    assert page.evaluate("said") == []


@pytest.mark.parametrize("mode", ["sound", "speech"])
def test_a_browser_without_sound_and_speech_stays_silent(page, mode):
    page.evaluate(
        """mode => {
        Object.defineProperty(window, "speechSynthesis", { value: undefined });
        window.AudioContext = undefined;
        announcer.mode = mode;
    }""",
        mode,
    )
    show(page, (3, 2), (None, 2), (0, 2))
    assert page.evaluate("[said, ticks]") == [[], []]
