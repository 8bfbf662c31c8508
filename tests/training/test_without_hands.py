"""Pictures without hands: how they are read, and how what a model takes for a hand there is found."""

import csv

import numpy as np
import pytest

from handful.images import decode
from handful.labels import NO_HAND
from tests.builders import SAMPLES, write_image
from training.data import backgrounds, mine, registry
from training.data.registry import Source
from training.data.scenes import hand_boxes
from training.data.sources.without_hands import WithoutHands, mined_table
from training.errors import BadData
from training.export.export import stored_config

GREY = np.full((120, 160, 3), 128, np.uint8)


def write_people(data, **images):
    """Write pictures of the data set Faces: NAME=image."""
    for name, image in images.items():
        write_image(data / f"people/Faces/{name}.jpg", image)
    return data / "people/Faces"


def open_people(root, exclude=lambda file: False):
    return WithoutHands(root, "*.jpg", lambda file: file.stem[0], "b".__eq__, exclude)


def people_row() -> Source:
    options = {"group": lambda file: file.stem[0], "validation": "b".__eq__, "exclude": lambda file: False}
    return Source(
        name="faces",
        title="",
        short_title="",
        work="",
        path="people/Faces",
        reader="training.data.sources.without_hands:WithoutHands",
        options={"pattern": "*.jpg", **options},
        without_hands=True,
    )


def test_boxes_are_no_hands_and_inside_the_picture(tmp_path):
    frames = open_people(write_people(tmp_path, a1=GREY, a2=GREY, b1=GREY))
    assert frames.groups == ["a", "a", "b"]
    assert frames.validation.tolist() == [False, False, True]
    for frame in map(frames.frame, range(3)):
        assert (frame.targets == NO_HAND).all()
        assert len(frame.boxes) == 2
        assert (frame.boxes[:, :2] >= 0).all()
        assert (frame.boxes[:, 2:] <= [160, 120]).all()
        assert hand_boxes(frame).shape == (0, 4), "the detector learns that there is none"
    assert not np.array_equal(frames.frame(0).boxes, frames.frame(1).boxes)
    np.testing.assert_array_equal(frames.frame(1).boxes, frames.frame(1).boxes)


def test_pictures_that_show_a_hand_after_all_are_left_out(tmp_path):
    root = write_people(tmp_path, a1=GREY, a2=GREY, b1=GREY)
    frames = open_people(root, exclude=lambda file: file.name == "a1.jpg")
    assert [file.name for file in frames.files] == ["a2.jpg", "b1.jpg"]
    with pytest.raises(BadData, match="python -m training data"):
        open_people(tmp_path / "nothing")


def test_some_of_the_pictures_are_backgrounds(tmp_path, monkeypatch):
    root = write_people(tmp_path, **{f"a{k}": GREY for k in range(4)}, b1=GREY)
    monkeypatch.setattr(backgrounds, "open_source", lambda name, folder: open_people(root))
    monkeypatch.setattr(backgrounds, "SOURCES", {"faces": people_row()})
    monkeypatch.setattr(backgrounds, "MAX_WITHOUT_HANDS", 3)
    assert len(backgrounds.load_backgrounds(tmp_path, sources=["faces"])) == 3, "rooms are not to be outnumbered"
    assert len(backgrounds.load_backgrounds(tmp_path, validation=True, sources=["faces"])) == 1
    assert backgrounds.load_backgrounds(tmp_path, sources=["webcam"]) == []


def test_what_a_model_takes_for_a_hand_is_added_to_the_boxes(tmp_path, monkeypatch, capsys):
    hand = decode(SAMPLES / "5R_0.jpg")
    root = write_people(tmp_path, a1=hand, a2=GREY, b1=hand)
    for module in registry, mine:
        monkeypatch.setattr(module, "SOURCES", {"faces": people_row()})
    for _ in range(2):
        mine.mine(tmp_path)
    rows = list(csv.reader(mined_table(root).open()))
    assert [row[0] for row in rows] == ["a1.jpg"], "once, and nothing of the picture that is held out"
    assert "1 boxes in 1 of 3 pictures" in capsys.readouterr().out
    frames = open_people(root)
    assert [len(frames.frame(i).boxes) for i in range(3)] == [3, 2, 2]
    assert frames.frame(0).boxes[0].tolist() == list(map(float, rows[0][1:]))
    assert frames.extra_files == [mined_table(root)], "crops are cut anew when it changes"
    low = mine.LEAST_SCORE
    assert low < min(stored_config(mine.MODEL).threshold, stored_config(mine.MODEL).other_threshold)
    with pytest.raises(BadData, match="python -m training data"):
        mine.mine(tmp_path / "nothing")
