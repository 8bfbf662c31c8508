"""The Samples page, with a small dataset."""

import os
import sys
from pathlib import Path

import pytest

import web.widgets
from handful import CLASSES, shared_counter
from handful.images import decode
from handful.labels import describe
from tests.app.pages import file_name, headline, load_page, open_page, probability_bars, sent_to_the_browser
from tests.builders import sample_png, write_fingers
from web.widgets import is_correct, label_from_name


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """The folder of a small Kaggle Fingers dataset: 12 training pictures, 36 test pictures."""
    write_fingers(tmp_path / "fingers", train=1, test=3)
    monkeypatch.setattr(web.widgets, "DATA", tmp_path)
    return tmp_path


def test_the_test_split_is_shown_first_page_by_page(data):
    page = open_page("samples")
    assert any("1–24 of 36 pictures" in caption.value for caption in page.caption)
    assert len(page.button) == 24
    page.pagination[0].set_value(2).run()
    assert len(page.button) == 12


def test_pictures_are_filtered_by_split_count_and_side(data):
    page = open_page("samples")
    split, count, side, _ = page.segmented_control
    split.set_value("train").run()
    assert len(page.button) == 12
    count.set_value([3, 4]).run()
    assert sorted(button.label for button in page.button) == ["3 left", "3 right", "4 left", "4 right"]
    side.set_value("left").run()
    assert sorted(button.label for button in page.button) == ["3 left", "4 left"]


@pytest.mark.parametrize("verdict", ["correct", "incorrect"])
def test_pictures_are_filtered_by_the_prediction(data, verdict):
    expected = [
        path
        for path in (data / "fingers/test").iterdir()
        if is_correct(shared_counter()(decode(path)), path) == (verdict == "correct")
    ]
    page = open_page("samples")
    page.segmented_control[3].set_value(verdict).run()
    assert not page.exception
    assert len(page.button) == min(len(expected), 24)
    assert bool(page.info) == (not expected)


def test_pictures_are_found_by_name(data):
    page = open_page("samples")
    name = sorted((data / "fingers/test").iterdir())[7].name
    page.text_input[0].set_value(f" {name[:-6].upper()} ").run()
    assert 1 <= len(page.button) < 24
    page.text_input[0].set_value("in no name").run()
    assert page.info[0].value.startswith("No pictures match")


def test_the_hardest_pictures_come_first(data):
    def label_probability(path: Path) -> float:
        hands = shared_counter()(decode(path)).hands
        target = CLASSES.index(label_from_name(path))
        return max((float(hand.probabilities[target]) for hand in hands), default=0)

    expected = sorted(sorted((data / "fingers/test").iterdir()), key=label_probability)[:24]
    page = open_page("samples")
    page.toggle[0].set_value(True).run()
    assert not page.exception
    assert [button.label for button in page.button] == [describe(label_from_name(path)) for path in expected]


def test_all_that_is_chosen_is_in_the_address(data):
    page = load_page("samples")
    page.query_params.update({"set": "train", "fingers": ["3", "4"], "hand": "left", "hardest": "true"})
    page.run()
    assert not page.exception
    assert sorted(button.label for button in page.button) == ["3 left", "4 left"]
    assert page.toggle[0].value
    page = load_page("samples")
    page.query_params["page"] = "2"
    page.run()
    assert any("25–36 of 36 pictures" in caption.value for caption in page.caption)


def test_another_list_starts_on_its_first_page(data):
    page = load_page("samples")
    page.query_params["page"] = "2"
    page.run()
    page.segmented_control[2].set_value("left").run()
    assert any("1–18 of 18 pictures" in caption.value for caption in page.caption)
    page.segmented_control[2].set_value(None).run()
    assert any("1–24 of 36 pictures" in caption.value for caption in page.caption)


def test_an_address_that_leads_nowhere_shows_the_first_page(data):
    page = load_page("samples")
    page.query_params.update({"set": "nothing", "fingers": "9", "page": "99"})
    page.run()
    assert not page.exception
    assert any("1–24 of 36 pictures" in caption.value for caption in page.caption)


def test_a_click_opens_the_prediction(data):
    page = open_page("samples")
    page.button[0].click().run()
    assert not page.exception
    assert headline(page)
    assert len(probability_bars(page)) == 1


def test_a_damaged_picture_shows_an_error_when_opened(data):
    next((data / "fingers/train").glob("*_0L.png")).write_bytes(sample_png("0L")[:100])
    page = open_page("samples")
    page.segmented_control[0].set_value("train").run()
    page.segmented_control[1].set_value([0]).run()
    page.segmented_control[2].set_value("left").run()
    page.segmented_control[3].set_value("incorrect").run()
    page.button[0].click().run()
    assert not page.exception
    assert "damaged" in page.error[0].value


@pytest.mark.timeout(60)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux allows any bytes in a name")
def test_pipes_are_left_out_and_names_that_are_no_utf8_are_shown(data):
    os.mkfifo(data / "fingers/test/a_0L.png")
    (data / "fingers/test" / os.fsdecode(b"\xe9 zz_0L.png")).write_bytes(sample_png("0L"))
    page = open_page("samples")
    assert any("1–24 of 37 pictures" in caption.value for caption in page.caption)
    page.text_input[0].set_value("zz").run()
    page.button[0].click().run()
    assert not page.exception
    assert file_name(page) == "\N{REPLACEMENT CHARACTER} zz_0L.png"


def test_browsers_are_not_told_where_the_pictures_are(data):
    page, folder = open_page("samples"), data / "fingers/test"
    assert "thumbnail samples" in sent_to_the_browser(page)
    assert str(data) not in sent_to_the_browser(page)
    listed = folder.stat()
    min(folder.iterdir()).unlink()
    os.utime(folder, ns=(listed.st_atime_ns, listed.st_mtime_ns))  # deleted meanwhile
    page.button[0].click().run()
    assert page.error
    assert str(data) not in sent_to_the_browser(page)


def test_without_the_dataset_bundled_samples_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(web.widgets, "DATA", tmp_path)
    page = open_page("samples")
    assert "Dataset not installed" in page.info[0].value
    assert page.button
