"""The Pictures page."""

import csv
import dataclasses
import io
import json
import re

import cv2
import numpy as np
import pytest
import streamlit as st

import web.widgets
from handful import CLASSES, Prediction, cli, shared_counter
from handful.images import decode
from tests.app.pages import file_name, finger_marks, headline, load_page, open_page, probability_bars, refused
from tests.builders import SAMPLES, counting_on, sample_png
from web import inference, personal
from web.personal import Received

DISPLAY_SIDE = 1460  # pixels; `st.image` sends none wider


@pytest.fixture
def downloads(monkeypatch) -> dict[str, object]:
    """What the download buttons of the last runs deliver, by file name."""
    files: dict[str, object] = {}

    def record(coordinates, data, button, mimetype, file_name, **options):
        files[file_name] = data

    monkeypatch.setattr("streamlit.elements.widgets.button.marshall_file", record)
    return files


def two_hands() -> tuple[str, bytes, str]:
    """Upload a picture of two open hands."""
    hands = [cv2.imread(str(SAMPLES / name)) for name in ("5L_0.jpg", "5R_1.jpg")]
    return "two.png", cv2.imencode(".png", np.hstack(hands))[1].tobytes(), "image/png"


def upload(label: str, name: str = "hand.png") -> tuple[str, bytes, str]:
    return name, sample_png(label), "image/png"


def test_without_a_picture_the_page_offers_examples():
    page = open_page("pictures")
    examples = [button for button in page.button if button.key.startswith("examples")]
    assert len(examples) == len(CLASSES)
    examples[3].click().run()
    assert not page.exception
    assert headline(page) == "3 fingers · 1 hand"
    assert len(probability_bars(page)) == 1
    [badge] = [text.value for text in page.markdown if "badge" in text.value]
    assert "Correct: 3 fingers, left hand" in badge


def test_the_visitors_personal_head_predicts_and_another_head_anew():
    page = load_page("pictures")
    page.session_state["personal"] = Received("first", counting_on())
    page.run()
    page.file_uploader[0].set_value(upload("3L")).run()
    assert headline(page) == "4 fingers · 1 hand"
    page.session_state["personal"] = Received("second", counting_on(2))
    page.run()
    assert headline(page) == "5 fingers · 1 hand"
    page.session_state["personal"] = Received()
    page.run()
    assert headline(page) == "3 fingers · 1 hand"


@pytest.mark.parametrize(
    ("text", "count", "words"),
    [
        (counting_on().to_json(), 4, ""),
        ("", 3, ""),
        ("a forged message", 3, "not a personal head"),
        (dataclasses.replace(counting_on(), model="0" * 64).to_json(), 3, "another model"),
    ],
    ids=["a head", "none", "forged", "of another model"],
)
def test_what_the_browser_gives_as_a_head_is_checked(monkeypatch, text, count, words):
    state: dict = {personal.KEY: {"head": {"id": "an id", "text": text}}}
    monkeypatch.setattr(st, "session_state", state)
    personal.receive()
    received = state["personal"]
    assert received.id == "an id"
    assert shared_counter()(decode(SAMPLES / "3L_0.jpg"), received.head).total == count
    assert re.search(words, received.problem)
    assert bool(words) == bool(received.problem)


def test_one_picture_is_shown_with_its_prediction():
    page = open_page("pictures")
    page.file_uploader[0].set_value(upload("3L")).run()
    assert not page.exception
    assert headline(page) == "3 fingers · 1 hand"
    assert file_name(page) == "hand.png"
    assert page.selectbox[0].options[:3] == ["As predicted", "0 left", "1 left"]
    assert not page.dataframe
    assert [button.label for button in page.get("download_button")] == ["Annotated picture", "CSV", "JSON"]
    page.selectbox[0].set_value("5R").run()
    assert not page.exception


def test_two_hands_are_added_up_and_each_has_a_card_in_the_colour_of_its_side():
    page = open_page("pictures")
    page.file_uploader[0].set_value(two_hands()).run()
    assert not page.exception
    assert headline(page) == "10 fingers · 2 hands"
    left, right = probability_bars(page)
    assert 'class="hand left"' in left
    assert 'class="hand right"' in right
    for card in (left, right):
        assert "<b>5 fingers</b>" in card
        assert "raised: thumb, index, middle, ring, little</span>" in card
        assert "<details >" in card  # two open ones would not fit on a screen


def test_the_table_to_download_has_a_row_per_hand_as_that_of_the_command_line(downloads):
    page = open_page("pictures")
    page.file_uploader[0].set_value([two_hands(), ("empty.jpg", b"", "image/jpeg")]).run()
    assert not page.exception
    left, right, empty = csv.DictReader(io.StringIO(downloads["fingers.csv"]))
    assert tuple(left) == cli.COLUMNS
    assert [(row["file"], row["side"], row["fingers"], row["total"]) for row in (left, right)] == [
        ("two.png", "left", "5", "10"),
        ("two.png", "right", "5", "10"),
    ]
    assert left["raised"] == "thumb+index+middle+ring+little"
    assert (empty["file"], empty["fingers"], empty["error"]) == (
        "empty.jpg",
        "",
        "This file is empty. Choose another picture.",
    )
    assert [line["file"] for line in json.loads(downloads["fingers.json"])] == ["two.png", "empty.jpg"]


def test_the_annotated_picture_can_be_downloaded(downloads):
    page = open_page("pictures")
    page.file_uploader[0].set_value(two_hands()).run()
    with_heatmap = decode(downloads["two-annotated.jpg"]())
    assert with_heatmap.shape == (DISPLAY_SIDE / 2, DISPLAY_SIDE, 3)
    page.toggle[0].set_value(False).run()
    without = decode(downloads["two-annotated.jpg"]())
    assert (np.abs(without.astype(int) - (0, 98, 177)) < 25).all(2).sum() > 1000  # the blue of the caption
    assert np.abs(without.astype(int) - with_heatmap).mean() > 5


def test_a_picture_from_the_camera_is_named_so(downloads):
    page = load_page("pictures")
    page.session_state["source"] = "Camera"
    page.run()
    jpeg = (SAMPLES / "3L_0.jpg").read_bytes()
    page.camera_input[0].set_value(("camera_input_2026-11-29.jpg", jpeg, "image/jpeg")).run()
    assert not page.exception
    assert headline(page) == "3 fingers · 1 hand"
    assert file_name(page) == "Camera picture"
    assert "Camera picture-annotated.jpg" in downloads
    assert next(csv.DictReader(io.StringIO(downloads["fingers.csv"])))["file"] == "Camera picture"


@pytest.mark.parametrize("size", [(2920, 2920), (20_000, 101)], ids=["large", "long"])
def test_a_large_picture_is_annotated_at_its_display_size_and_decoded_once(monkeypatch, size):
    annotated = []
    monkeypatch.setattr(
        web.widgets, "draw", lambda image, prediction, **options: annotated.append((image, prediction)) or image
    )
    monkeypatch.setattr(inference, "shared_counter", lambda: lambda image, personal: prediction)
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


@pytest.mark.parametrize("hands", [0, 3, 4])
def test_every_hand_has_a_card_and_four_may_not_be_all(monkeypatch, hands):
    prediction = shared_counter()(decode(sample_png("3L")))
    prediction = dataclasses.replace(prediction, hands=prediction.hands * hands)
    monkeypatch.setattr(inference, "shared_counter", lambda: lambda image, personal: prediction)
    page = open_page("pictures")
    page.file_uploader[0].set_value(upload("3L")).run()
    assert not page.exception
    assert headline(page) == (f"{3 * hands} fingers · {hands} hands" if hands else "No hand found")
    assert len(probability_bars(page)) == hands
    assert finger_marks(page) == [f"raised: {', '.join(hand.raised)}" for hand in prediction.hands]
    assert [info.value[:19] for info in page.info] == ([] if hands else ["Show the whole hand"])
    assert any("At most 4 hands" in caption.value for caption in page.caption) == (hands == 4)
    assert page.image


def test_of_several_pictures_the_refused_ones_are_listed_with_the_reason_and_the_others_are_a_table():
    page = open_page("pictures")
    files = [
        upload("3L", "three.png"),
        ("notes.png", b"no picture", "image/png"),
        ("empty.jpg", b"", "image/jpeg"),
        upload("5R", "five.png"),
    ]
    page.file_uploader[0].set_value(files).run()
    assert not page.exception
    assert refused(page) == [
        ("notes.png", "This is not a picture that can be read. Use PNG, JPEG, WebP, GIF, BMP, TIFF, HEIC or AVIF."),
        ("empty.jpg", "This file is empty. Choose another picture."),
    ]
    table = page.dataframe[0].value
    assert list(table["file"]) == ["three.png", "five.png"]
    assert list(table["fingers"]) == [3, 5]
    assert list(table["hands"]) == ["left 3", "right 5"]
    cards = " ".join(html.proto.body for html in page.get("html"))
    assert f">{table['confidence'][0]}% confidence<" in cards  # of the one that is shown
    assert [button.label for button in page.get("download_button")] == ["CSV", "JSON", "Annotated picture"]
    assert file_name(page) == "three.png"


def test_where_all_files_are_refused_only_the_reasons_are_shown():
    page = open_page("pictures")
    page.file_uploader[0].set_value([("a.png", b"", "image/png"), ("b.png", b"", "image/png")]).run()
    assert not page.exception
    assert [name for name, _ in refused(page)] == ["a.png", "b.png"]
    assert not page.dataframe
    assert not page.header


def test_a_file_name_is_escaped():
    page = open_page("pictures")
    page.file_uploader[0].set_value(upload("3L", "![](a.png) $5 and $6 <b>.png")).run()
    assert file_name(page) == "![](a.png) $5 and $6 &lt;b&gt;.png"
    page.file_uploader[0].set_value(("![](a.png) <i>.png", b"", "image/png")).run()
    assert refused(page)[0][0] == "![](a.png) &lt;i&gt;.png"


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
