"""The game "Show me", in a browser, with frames made up: its time is that of the frames."""

import csv
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.components import open_component

SCRIPT = """
    window.states = [];
    window.game = new module.ShowMe(container, { onStateChange: (state) => states.push(state) });
    window.seconds = 100;
    // Show a number for so long, at 10 frames per second.
    window.play = (total, duration) => {
        for (let i = 0; i < Math.round(10 * duration); i++) game.update({ total, seconds: (seconds += 0.1) });
    };
    play(null, 0.1);
    root.querySelector("button").onclick = () => game.start();
"""
BOX = "width: 640px; height: 480px"
ANSWER_S = 0.8  # a little more than a number must be held
RESULT_S = 0.9  # the same of the tick or cross
TIME_LIMIT_S = 4.1


@pytest.fixture
def page(component_page) -> Page:
    """A page with the game, which its button starts."""
    open_component(component_page, "show_me", SCRIPT, BOX)
    return component_page


def start(page: Page) -> None:
    page.get_by_role("button", name="Outside").click()


def play(page: Page, total: int | None, seconds: float) -> None:
    page.evaluate("([total, seconds]) => play(total, seconds)", [total, seconds])


def status(page: Page) -> Locator:
    """Return what a screen reader announces."""
    return page.get_by_role("status")


def asked(page: Page) -> int:
    """Return the number that is asked for, in large type."""
    number = int(page.locator(".show-me-number").inner_text())
    two_hands = ", with two hands" if number > 5 else ""
    expect(status(page)).to_have_text(f"Show me {number}{two_hands}.")
    return number


def play_game(page: Page, answers: list[str]) -> list[int]:
    """Play ten rounds, with answers "correct", "incorrect" or "none", and return the numbers asked for."""
    numbers = []
    for answer in answers:
        number = asked(page)
        numbers.append(number)
        if answer == "correct":
            play(page, number, ANSWER_S)
        else:
            play(page, None if answer == "none" else number % 10 + 1, TIME_LIMIT_S)
        play(page, None, RESULT_S)
    return numbers


def score_rows(page: Page) -> list[list[str]]:
    rows = page.get_by_role("dialog").get_by_role("row").all()
    return [row.get_by_role("cell").all_inner_texts() for row in rows[:2]]


def download(page: Page, button: str) -> Path:
    with page.expect_download() as info:
        page.get_by_role("button", name=button).click()
    return Path(info.value.path())


def test_a_number_held_for_a_moment_is_correct(page):
    start(page)
    number = asked(page)
    play(page, number, 0.5)
    assert asked(page) == number
    play(page, number, ANSWER_S - 0.5)
    expect(status(page)).to_have_text("Correct.")
    expect(page.locator(".show-me-tick")).to_be_visible()
    expect(page.locator(".show-me-number")).to_be_hidden()
    play(page, number, RESULT_S)
    assert asked(page) != number


def test_a_number_passed_on_the_way_to_another_is_no_answer(page):
    start(page)
    number = asked(page)
    for total in (number, number + 1) * 3:
        play(page, total, 0.5)
    assert asked(page) == number


def test_another_number_until_the_time_limit_is_incorrect(page):
    start(page)
    number = asked(page)
    play(page, number + 1, 3.8)
    assert asked(page) == number
    play(page, number + 1, 0.3)
    expect(status(page)).to_have_text(f"Incorrect: {number + 1} shown.")
    expect(page.locator(".show-me-cross")).to_be_visible()
    expect(page.locator(".show-me-tick")).to_be_hidden()
    expect(page.locator(".show-me-hint")).to_have_text(f"{number + 1} shown")


def test_no_hand_until_the_time_limit_is_incorrect(page):
    start(page)
    play(page, None, TIME_LIMIT_S)
    expect(status(page)).to_have_text("Incorrect: no hand.")


def test_a_number_shown_just_in_time_may_be_held_to_the_end(page):
    start(page)
    number = asked(page)
    play(page, None, 3.8)
    play(page, number, ANSWER_S)
    expect(status(page)).to_have_text("Correct.")


def test_a_stalled_video_takes_no_time_from_the_player(page):
    start(page)
    number = asked(page)
    play(page, None, 1)
    page.evaluate("seconds += 60")
    play(page, None, 1)
    assert asked(page) == number


def test_the_ring_counts_down_and_another_closes_while_the_number_is_held(page):
    start(page)
    number = asked(page)

    def ring(name: str) -> float:
        return 1 - float(page.locator(f".show-me-{name}").evaluate("ring => ring.style.strokeDashoffset"))

    assert (ring("time"), ring("hold")) == (1, 0)
    play(page, None, 1)
    assert ring("time") == pytest.approx(0.75)
    play(page, number, 0.4)
    assert (ring("time"), ring("hold")) == pytest.approx((0.65, 0.5))


def test_with_reduced_motion_the_ring_counts_whole_seconds(page):
    page.emulate_media(reduced_motion="reduce")
    start(page)
    play(page, None, 0.6)
    assert page.locator(".show-me-time").evaluate("ring => ring.style.strokeDashoffset") == "0"
    play(page, None, 1)
    assert page.locator(".show-me-time").evaluate("ring => ring.style.strokeDashoffset") == "0.25"
    assert page.evaluate("document.getAnimations().length") == 0
    page.emulate_media(reduced_motion="no-preference")


def test_a_game_of_ten_rounds_ends_with_a_score_card(page):
    answers = ["correct", "incorrect", "none", *["correct"] * 7]
    start(page)
    numbers = play_game(page, answers)
    card = page.get_by_role("dialog", name="Score")
    expect(card).to_contain_text("8 of 10 correct")
    expect(card).to_contain_text("Median time 0.1 s, fastest 0.1 s")
    expect(status(page)).to_have_text("8 of 10 correct. Median time 0.1 s, fastest 0.1 s.")
    shown = [str(number) for number in numbers]
    shown[1:3] = [str(numbers[1] % 10 + 1), "–"]
    assert score_rows(page) == [[str(number) for number in numbers], shown]
    progress = page.locator(".show-me-progress i").evaluate_all("dots => dots.map((dot) => dot.className)")
    assert progress == ["correct", "incorrect", "incorrect", *["correct"] * 7]
    results = card.get_by_role("row", name="Result").get_by_role("img").all()
    assert [mark.get_attribute("aria-label") for mark in results] == [
        "correct" if answer == "correct" else "incorrect" for answer in answers
    ]
    assert page.evaluate("states") == ["playing", "score"]
    assert not page.evaluate("game.playing")


def test_the_first_numbers_need_one_hand_and_none_follows_itself(page):
    start(page)
    numbers = []
    for _ in range(8):
        game = play_game(page, ["correct"] * 10)
        assert max(game[:3]) <= 5
        assert all(a != b for a, b in pairwise(game))
        numbers += game
        page.get_by_role("button", name="Play again").click()
    assert set(numbers) == set(range(1, 11))


def test_a_number_that_is_shown_already_is_not_asked_for(page):
    for total in (1, 2, 3, 4, 5) * 3:
        play(page, total, 0.1)
        start(page)
        assert asked(page) != total


def test_a_game_without_an_answer_has_a_score_card_too(page):
    start(page)
    play_game(page, ["none"] * 10)
    expect(page.get_by_role("dialog")).to_contain_text("0 of 10 correct")
    expect(page.get_by_role("dialog")).not_to_contain_text("Median")


def test_the_score_card_as_a_picture_and_as_csv(page):
    start(page)
    numbers = play_game(page, ["correct", "none", "incorrect", *["correct"] * 7])
    picture = cv2.imdecode(np.fromfile(download(page, "Save picture"), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert picture.shape == (630, 1200, 3)
    assert picture[0, 0].tolist() == [0xFC, 0xFC, 0xFA]
    for color, rounds in (((24, 154, 74), [0, *range(3, 10)]), ((220, 63, 71), [1, 2])):  # ticks, crosses
        columns = np.flatnonzero((np.abs(picture.astype(int) - color).max(2) < 6).any(0))
        assert sorted({int((column - 66) // 106.8) for column in columns}) == rounds
    with download(page, "CSV").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["asked"]) for row in rows] == numbers
    assert rows[0] == {
        "round": "1",
        "asked": str(numbers[0]),
        "shown": str(numbers[0]),
        "correct": "true",
        "seconds": "0.10",
    }
    assert [(row["shown"], row["correct"], row["seconds"]) for row in rows[1:3]] == [
        ("", "false", ""),
        (str(numbers[2] % 10 + 1), "false", ""),
    ]


def test_play_again_starts_anew(page):
    start(page)
    play_game(page, ["none"] * 10)
    page.keyboard.press("Enter")  # on "Play again", which has the focus
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="End game")).to_be_focused()
    play_game(page, ["correct"] * 10)
    expect(page.get_by_role("dialog")).to_contain_text("10 of 10 correct")
    assert page.evaluate("states") == ["playing", "score"] * 2


@pytest.mark.parametrize("rounds", [0, 10])
def test_escape_ends_the_game_and_closes_its_card(page, rounds):
    start(page)
    play_game(page, ["correct"] * rounds)
    page.keyboard.press("Escape")
    expect(page.locator(".show-me-stage")).to_be_hidden()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="Outside")).to_be_focused()
    assert page.evaluate("states.at(-1)") == "idle"
    play(page, 3, 10)  # frames go on
    page.keyboard.press("Escape")
    assert page.evaluate("states.filter((state) => state === 'idle').length") == 1


def test_buttons_are_reached_by_keyboard(page):
    start(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="End game")).to_be_focused()
    play_game(page, ["correct"] * 10)
    for name in ("Play again", "Save picture", "CSV", "Close"):
        expect(page.get_by_role("button", name=name)).to_be_focused()
        page.keyboard.press("Tab")
    page.get_by_role("button", name="Close").press("Enter")
    expect(page.get_by_role("button", name="Outside")).to_be_focused()


@pytest.mark.parametrize("size", [(358, 268), (358, 477), (700, 394)])
def test_number_and_card_fit_any_camera_picture(component_page, size):
    page = component_page
    width, height = size
    open_component(page, "show_me", SCRIPT, f"width: {width}px; height: {height}px")
    start(page)
    container = page.locator("#container").bounding_box()
    number = page.locator(".show-me-number").bounding_box()
    assert number["height"] >= 0.26 * min(size)
    assert number["y"] >= container["y"]
    play_game(page, ["none"] * 10)
    scrim = page.locator(".show-me-scrim")
    assert scrim.evaluate("one => [one.scrollWidth, one.scrollHeight]") == [width, height]
