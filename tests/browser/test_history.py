"""The history of the number of fingers, in a browser."""

import csv

import pytest
from playwright.sync_api import Page

from tests.browser.components import open_component

SCRIPT = """
    window.chart = new module.History(container);
    window.seconds = 1000;
    // Push frames with one hand that shows a number, for so long, at 10 frames per second.
    window.show = (total, duration) => {
        for (let frame = 0; frame < Math.round(10 * duration); frame++) {
            const hands = total === null ? [] : [{ side: "left", fingers: total, confidence: 0.9 }];
            chart.push({ seconds: (seconds += 0.1), total, hands });
        }
    };
"""


@pytest.fixture
def page(component_page) -> Page:
    open_component(component_page, "history", SCRIPT, "width: 400px")
    return component_page


def show(page: Page, total: int | None, seconds: float) -> None:
    page.evaluate("([total, seconds]) => show(total, seconds)", [total, seconds])


# Of the drawn line: [seconds, fingers] of its points, one list for each piece between gaps.
PIECES = """path => path.getAttribute("d").split("M").slice(1).map((piece) => {
    let [x, y] = piece.split(/[ HV]/).map(Number);
    y = -y;
    const points = [[x, y]];
    for (const [, command, value] of piece.matchAll(/([HV])([-\\d.]+)/g)) {
        [x, y] = command === "H" ? [Number(value), y] : [x, -value];
        points.push([x, y]);
    }
    return points.filter(([x, y], i) => !i || x !== points[i - 1][0] || y !== points[i - 1][1]);
})"""


def pieces(page: Page) -> list[list[list[float]]]:
    return page.locator(".history-steps").evaluate(PIECES)


def rows(page: Page) -> list[dict[str, str]]:
    return list(csv.DictReader(page.evaluate("chart.toCsv()").splitlines()))


def test_the_number_is_drawn_as_steps_up_to_now(page):
    show(page, 2, 1)
    show(page, 5, 2)
    assert pieces(page) == [[[-2.9, 2], [-1.9, 2], [-1.9, 5], [0, 5]]]


def test_no_hand_is_a_gap_and_a_fist_is_zero(page):
    show(page, 3, 1)
    show(page, None, 1)
    show(page, 0, 1)
    assert pieces(page) == [[[-2.9, 3], [-1.9, 3]], [[-0.9, 0], [0, 0]]]


def test_a_video_that_stalled_is_a_gap(page):
    show(page, 3, 1)
    page.evaluate("seconds += 4.9")
    show(page, 3, 1)
    assert pieces(page) == [[[-6.8, 3], [-5.9, 3]], [[-0.9, 3], [0, 3]]]


def test_only_the_last_half_minute_is_drawn_and_all_of_it_saved(page):
    show(page, 1, 10)
    show(page, 2, 10)
    show(page, 3, 25)
    (points,) = pieces(page)
    assert {fingers for _, fingers in points} == {2, 3}
    assert [rows(page)[i]["seconds"] for i in (0, -1)] == ["0.000", "44.900"]


def test_the_axes_have_whole_numbers_and_words_and_the_chart_never_moves(page):
    def texts() -> list[str]:
        return page.locator(".history span").all_inner_texts()

    chart = page.get_by_role("img", name="Number of raised fingers over the last 30 seconds")
    before = chart.bounding_box()
    assert before["height"] == 110
    assert texts() == ["0", "5", "10", "fingers", "30 seconds ago", "15", "now"]
    show(page, 7, 1)
    assert texts()[:3] == ["0", "5", "10"]
    show(page, 13, 1)  # three hands
    assert texts()[:3] == ["0", "10", "20"]
    assert chart.bounding_box() == before


def test_the_csv_has_a_row_for_each_frame(page):
    page.evaluate("""() => {
        const hand = (side, fingers, confidence) => ({ side, fingers, confidence });
        chart.push({ seconds: 7.5, total: 5, hands: [hand("right", 3, 0.98765), hand("left", 2, 0.9)] });
        chart.push({ seconds: 7.625, total: null, hands: [] });
        chart.push({ seconds: 7.75, total: 0, hands: [hand("right", 0, 0.8)] });
        chart.push({ seconds: 7.875, total: 6, hands: [hand("left", 2, 0.9), hand("left", 4, 0.7)] });
    }""")
    assert page.evaluate("chart.toCsv()") == (
        "seconds,total,left,left_confidence,right,right_confidence\n"
        "0.000,5,2,0.900,3,0.988\n"
        "0.125,,,,,\n"
        "0.250,0,,,0,0.800\n"
        "0.375,6,6,0.700,,\n"
    )


def test_the_csv_has_at_most_the_last_hour(page):
    show(page, 1, 1)
    show(page, 2, 5400)  # at 10 frames per second, an hour of 15
    assert len(rows(page)) == 54_000
    assert {row["total"] for row in rows(page)} == {"2"}


def test_clear_starts_a_new_session(page):
    show(page, 4, 2)
    page.evaluate("chart.clear()")
    assert (pieces(page), rows(page)) == ([], [])
    show(page, 1, 1)
    assert len(rows(page)) == 10
    assert rows(page)[0]["seconds"] == "0.000"
