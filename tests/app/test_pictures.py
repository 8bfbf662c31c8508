"""The Pictures page."""

import dataclasses

import cv2
import numpy as np
import pytest

import web.widgets
from handful import CLASSES, Prediction, shared_counter
from handful.images import decode
from tests.app.pages import file_name, finger_marks, metric, open_page, probability_bars
from tests.builders import sample_png
from web import inference

DISPLAY_SIDE = 1460  # pixels; `st.image` sends none wider


def upload(label: str, name: str = "hand.png") -> tuple[str, bytes, str]:
    return name, sample_png(label), "image/png"


def test_without_a_picture_the_page_offers_examples():
    page = open_page("pictures")
    examples = [button for button in page.button if button.key.startswith("examples")]
    assert len(examples) == len(CLASSES)
    examples[3].click().run()
    assert not page.exception
    assert metric(page) == "3"
    assert len(probability_bars(page)) == 1
    [badge] = [text.value for text in page.markdown if "badge" in text.value]
    assert "Correct: 3 fingers, left hand" in badge


def test_one_picture_is_shown_with_its_prediction():
    page = open_page("pictures")
    page.file_uploader[0].set_value(upload("3L")).run()
    assert not page.exception
    prediction = shared_counter()(decode(sample_png("3L")))
    assert metric(page) == str(prediction.total)
    assert file_name(page) == "hand.png"
    assert page.selectbox[0].value == prediction.hands[0].label
    assert page.selectbox[0].options[:4] == ["0 left", "1 left", "2 left", "3 left (predicted)"]
    assert not page.dataframe
    page.selectbox[0].set_value("5R").run()
    assert not page.exception


@pytest.mark.parametrize("size", [(2920, 2920), (20_000, 101)], ids=["large", "long"])
def test_a_large_picture_is_annotated_at_its_display_size_and_decoded_once(monkeypatch, size):
    annotated = []
    monkeypatch.setattr(
        web.widgets, "draw", lambda image, prediction, **options: annotated.append((image, prediction)) or image
    )
    monkeypatch.setattr(inference, "shared_counter", lambda: lambda image: prediction)
    x, y = size
    hand = shared_counter()(decode(sample_png("3L"))).hands[0]
    box, crop = (0.1 * x, 0.2 * y, 0.5 * x, 0.6 * y), (0.0, 0.1 * y, 0.6 * x, 0.7 * y)
    prediction = Prediction((dataclasses.replace(hand, box=box, crop=crop),), x, y, 1.0)
    page = open_page("pictures")
    data = cv2.imencode(".png", np.zeros((y, x, 3), np.uint8))[1].tobytes()
    page.file_uploader[0].set_value(("hand.png", data, "image/png")).run()
    assert not page.exception
    [(image, shown)] = annotated
    scale = DISPLAY_SIDE / max(size)
    height, width = image.shape[:2]
    assert (max(height, width), min(height, width)) == (DISPLAY_SIDE, max(1, round(scale * min(size))))
    assert shown.hands[0].box == pytest.approx(tuple(scale * x for x in box))
    assert shown.hands[0].crop == pytest.approx(tuple(scale * x for x in crop))
    monkeypatch.setattr(inference, "decoder_turn", None)
    page.selectbox[0].set_value("5R").run()
    assert not page.exception
    assert annotated[1][0] is image


@pytest.mark.parametrize("hands", [0, 2])
def test_every_hand_has_its_probability_bars(monkeypatch, hands):
    prediction = shared_counter()(decode(sample_png("3L")))
    prediction = dataclasses.replace(prediction, hands=prediction.hands * hands)
    monkeypatch.setattr(inference, "shared_counter", lambda: lambda image: prediction)
    page = open_page("pictures")
    page.file_uploader[0].set_value(upload("3L")).run()
    assert not page.exception
    assert len(probability_bars(page)) == hands
    assert finger_marks(page) == [f"raised: {', '.join(hand.raised)}" for hand in prediction.hands]
    assert [info.value for info in page.info] == ([] if hands else ["No hand was detected in this picture."])
    assert page.image


def test_several_pictures_are_a_table_in_which_errors_have_a_column():
    page = open_page("pictures")
    files = [
        upload("3L", "three.png"),
        ("notes.png", b"no picture", "image/png"),
        ("empty.jpg", b"", "image/jpeg"),
        upload("5R", "five.png"),
    ]
    page.file_uploader[0].set_value(files).run()
    assert not page.exception
    table = page.dataframe[0].value
    assert list(table["file"]) == ["three.png", "notes.png", "empty.jpg", "five.png"]
    assert list(table["fingers"].isna()) == [False, True, True, False]
    assert table["raised"][3] == "thumb+index+middle+ring+little"
    assert "PNG" in table["error"][1]
    assert "empty" in table["error"][2]
    assert table["error"].isna()[0]
    assert [button.label for button in page.get("download_button")] == ["CSV", "JSON"]
    assert file_name(page) == "three.png"
    # Second, where a phone shows it; without errors, there is none.
    assert list(page.dataframe[0].proto.column_order) == ["file", "error", "fingers", "side", "confidence", "ms"]
    page.file_uploader[0].set_value([files[0], files[3]]).run()
    assert list(page.dataframe[0].proto.column_order) == ["file", "fingers", "side", "confidence", "ms"]


def test_a_file_name_is_escaped():
    page = open_page("pictures")
    page.file_uploader[0].set_value(upload("3L", "![](a.png) $5 and $6 <b>.png")).run()
    assert file_name(page) == "![](a.png) $5 and $6 &lt;b&gt;.png"
    assert not page.subheader


def test_results_of_removed_pictures_are_dropped():
    page = open_page("pictures")
    three, five = (upload(label, f"{label}.png") for label in ("3L", "5R"))
    page.file_uploader[0].set_value([three, five]).run()
    assert [prediction.total for prediction in page.session_state.predictions.values()] == [3, 5]
    page.file_uploader[0].set_value([five]).run()
    assert [prediction.total for prediction in page.session_state.predictions.values()] == [5]
    assert page.session_state.displayed.keys() == page.session_state.predictions.keys()
    page.file_uploader[0].set_value([]).run()
    assert not page.session_state.displayed


def test_the_browser_asks_for_the_camera_only_on_its_tab():
    assert not open_page("pictures").camera_input
