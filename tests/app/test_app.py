"""The pages, without a browser, and what happens to the frames of a webcam."""

import dataclasses
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import handful
import web.inference
import web.widgets
from handful import CLASSES, shared_counter
from handful.images import decode
from tests.builders import write_fingers

PAGES = Path(__file__).parents[2] / "pages"


def open_page(name: str) -> AppTest:
    """Run a page, as a visitor who comes to it does."""
    page = AppTest.from_file(PAGES / f"{name}.py", default_timeout=60).run()
    assert not page.exception
    return page


def fingers(page: AppTest) -> str:
    return next(metric.value for metric in page.metric if metric.label == "Fingers")


def bars(page: AppTest) -> list[str]:
    return [element.body for element in page.html if "bars" in element.body]


def name(page: AppTest) -> str:
    """Of the picture that is shown."""
    return next(found[1] for element in page.html if (found := re.fullmatch("<h3.*?>(.*)</h3>", element.body)))


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """A small data set in place of the real one."""
    write_fingers(tmp_path / "fingers", train=1, test=3)
    monkeypatch.setattr(web.widgets, "DATA", tmp_path)
    return tmp_path


def hand(label: str) -> bytes:
    return cv2.imencode(".png", cv2.imread(str(web.widgets.BUNDLED / f"{label}_0.jpg")))[1].tobytes()


# Pictures


def test_pictures_offers_examples_and_opens_one():
    page = open_page("pictures")
    examples = [button for button in page.button if button.key.startswith("examples")]
    assert len(examples) == len(CLASSES)
    examples[3].click().run()
    assert not page.exception
    assert fingers(page) == "3"
    assert len(bars(page)) == 1


def test_one_picture_is_shown_with_its_reading():
    page = open_page("pictures")
    page.file_uploader[0].set_value(("hand.png", hand("3L"), "image/png")).run()
    assert not page.exception
    prediction = shared_counter()(decode(hand("3L")))
    assert fingers(page) == str(prediction.total)
    assert name(page) == "hand.png"
    assert page.selectbox[0].value == prediction.hands[0].label
    assert "0 left" in page.selectbox[0].options
    assert not page.dataframe
    page.selectbox[0].set_value("5R").run()
    assert not page.exception


@pytest.mark.parametrize("size", [(2920, 2920), (50_000, 9)], ids=["large", "long"])
def test_a_large_picture_is_drawn_upon_as_large_as_it_is_shown(monkeypatch, size):
    drawn = []
    monkeypatch.setattr(
        web.widgets, "draw", lambda image, prediction, **how: drawn.append((image, prediction)) or image
    )
    monkeypatch.setattr(web.inference, "shared_counter", lambda: lambda image: prediction)
    x, y = size
    one = shared_counter()(decode(hand("3L"))).hands[0]
    box, crop = (0.1 * x, 0.2 * y, 0.5 * x, 0.6 * y), (0.0, 0.1 * y, 0.6 * x, 0.7 * y)
    prediction = handful.Prediction((dataclasses.replace(one, box=box, crop=crop),), x, y, 1.0)
    page = open_page("pictures")
    picture = cv2.imencode(".png", np.zeros((y, x, 3), np.uint8))[1].tobytes()
    page.file_uploader[0].set_value(("hand.png", picture, "image/png")).run()
    assert not page.exception
    [(image, shown)] = drawn
    height, width = image.shape[:2]
    assert (max(height, width), min(height, width)) == (1460, max(1, round(1460 / max(size) * min(size))))
    scale = 1460 / max(size)
    assert shown.hands[0].box == pytest.approx(tuple(scale * at for at in box))
    assert shown.hands[0].crop == pytest.approx(tuple(scale * at for at in crop))
    monkeypatch.setattr(handful.images, "decode", None)  # once is enough
    page.selectbox[0].set_value("5R").run()
    assert not page.exception
    assert drawn[1][0] is image


def test_of_two_hands_both_are_shown_and_of_none_that(monkeypatch):
    one = shared_counter()(decode(hand("3L")))
    two = dataclasses.replace(one, hands=one.hands * 2)
    none = dataclasses.replace(one, hands=())
    for prediction in two, none:
        monkeypatch.setattr(web.inference, "shared_counter", lambda prediction=prediction: lambda image: prediction)
        page = open_page("pictures")
        page.file_uploader[0].set_value(("hand.png", hand("3L"), "image/png")).run()
        assert not page.exception
        assert len(bars(page)) == len(prediction.hands)
        assert bool(page.info) == (not prediction.hands)
        assert page.image


def test_a_bad_picture_among_many_loses_nothing():
    page = open_page("pictures")
    files = [
        ("three.png", hand("3L"), "image/png"),
        ("notes.png", b"no picture", "image/png"),
        ("empty.jpg", b"", "image/jpeg"),
        ("five.png", hand("5R"), "image/png"),
    ]
    page.file_uploader[0].set_value(files).run()
    assert not page.exception
    table = page.dataframe[0].value
    assert list(table["file"]) == ["three.png", "notes.png", "empty.jpg", "five.png"]
    assert list(table["fingers"].isna()) == [False, True, True, False]
    assert "PNG" in table["error"][1]
    assert "empty" in table["error"][2]
    assert table["error"].isna()[0]
    assert [button.label for button in page.get("download_button")] == ["CSV", "JSON"]
    assert name(page) == "three.png"
    # What went wrong stands beside the name, where a phone shows it; where nothing did, it has no column.
    assert list(page.dataframe[0].proto.column_order) == ["file", "error", "fingers", "side", "confidence", "ms"]
    page.file_uploader[0].set_value([files[0], files[3]]).run()
    assert list(page.dataframe[0].proto.column_order) == ["file", "fingers", "side", "confidence", "ms"]


def test_a_file_s_name_is_shown_as_it_is():
    page = open_page("pictures")
    page.file_uploader[0].set_value(("![](a.png) $5 and $6 <b>.png", hand("3L"), "image/png")).run()
    assert name(page) == "![](a.png) $5 and $6 &lt;b&gt;.png"
    assert not page.subheader


def test_of_pictures_that_are_taken_away_nothing_stays():
    page = open_page("pictures")
    three, five = ((f"{label}.png", hand(label), "image/png") for label in ("3L", "5R"))
    page.file_uploader[0].set_value([three, five]).run()
    assert [prediction.total for prediction in page.session_state.predictions.values()] == [3, 5]
    page.file_uploader[0].set_value([five]).run()
    assert [prediction.total for prediction in page.session_state.predictions.values()] == [5]
    assert page.session_state.drawn.keys() == page.session_state.predictions.keys()
    page.file_uploader[0].set_value([]).run()
    assert not page.session_state.drawn


def test_the_camera_is_asked_for_only_on_its_tab():
    page = open_page("pictures")
    assert not page.camera_input


# Samples


def test_samples_shows_the_test_split_first(data):
    page = open_page("samples")
    assert any("1–24 of 36 pictures" in caption.value for caption in page.caption)
    assert len(page.button) == 24
    page.pagination[0].set_value(2).run()
    assert len(page.button) == 12


def test_samples_by_split_class_and_side(data):
    page = open_page("samples")
    split, count, side, _ = page.segmented_control
    split.set_value("train").run()
    assert len(page.button) == 12
    count.set_value([3, 4]).run()
    assert sorted(button.label for button in page.button) == ["3 left", "3 right", "4 left", "4 right"]
    side.set_value("left").run()
    assert sorted(button.label for button in page.button) == ["3 left", "4 left"]


@pytest.mark.parametrize("verdict", ["right", "wrong"])
def test_samples_that_are_right_or_wrong(data, verdict):
    expected = [
        path
        for path in (data / "fingers/test").iterdir()
        if web.widgets.is_right(shared_counter()(decode(path)), path) == (verdict == "right")
    ]
    page = open_page("samples")
    page.segmented_control[3].set_value(verdict).run()
    assert not page.exception
    assert len(page.button) == min(len(expected), 24)
    assert bool(page.info) == (not expected)


def test_samples_are_found_by_name(data):
    page = open_page("samples")
    name = sorted((data / "fingers/test").iterdir())[7].name
    page.text_input[0].set_value(f" {name[:-6].upper()} ").run()
    assert 1 <= len(page.button) < 24
    page.text_input[0].set_value("nothing is called so").run()
    assert page.info[0].value.startswith("No picture is like that")


def test_the_most_surprising_samples_come_first(data):
    def surprise(path: Path) -> float:
        hands = shared_counter()(decode(path)).hands
        true = CLASSES.index(web.widgets.truth(path))
        return 1 - max((float(hand.probabilities[true]) for hand in hands), default=0)

    pictures = sorted((data / "fingers/test").iterdir())
    expected = sorted(pictures, key=surprise, reverse=True)[:24]
    page = open_page("samples")
    page.toggle[0].set_value(True).run()
    assert not page.exception
    labels = [button.label for button in page.button]
    assert labels == [web.widgets.words(web.widgets.truth(path)) for path in expected]


def test_a_click_opens_a_sample(data):
    page = open_page("samples")
    page.button[0].click().run()
    assert not page.exception
    assert fingers(page)
    assert len(bars(page)) == 1


def test_a_damaged_sample_says_so_when_opened(data):
    next((data / "fingers/train").glob("*_0L.png")).write_bytes(hand("0L")[:100])
    page = open_page("samples")
    page.segmented_control[0].set_value("train").run()
    page.segmented_control[1].set_value([0]).run()
    page.segmented_control[2].set_value("left").run()
    page.segmented_control[3].set_value("wrong").run()
    page.button[0].click().run()
    assert not page.exception
    assert "damaged" in page.error[0].value


def test_without_the_data_set_samples_shows_bundled_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(web.widgets, "DATA", tmp_path)
    page = open_page("samples")
    assert "python -m training data" in page.info[0].value
    assert page.button


# Record


def test_what_is_to_be_recorded_stays_chosen_as_the_recording_does():
    page = AppTest.from_file(PAGES / "navigation.py", default_timeout=60).switch_page("teach.py").run()
    page.pills[0].set_value([3]).run()
    page.pills[1].set_value(["right"]).run()
    page.segmented_control[0].set_value(6).run()
    page.switch_page("samples.py").run()
    page.switch_page("teach.py").run()
    assert not page.exception
    assert [control.value for control in (*page.pills, *page.segmented_control)] == [[3], ["right"], 6]
    assert page.subheader[0].value == "Show 3 with your right hand"


# All of them


def test_navigation_leads_to_every_page(monkeypatch):
    # Without a server there is no session for streamlit-webrtc to ask.
    monkeypatch.setattr("streamlit_webrtc.component.get_this_session_info", lambda: None)
    page = AppTest.from_file(PAGES / "navigation.py", default_timeout=60).run()
    assert not page.exception
    assert fingers(page) == "–"
