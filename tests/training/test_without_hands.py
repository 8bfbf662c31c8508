"""Pictures without hands: how they are read, and how what a model takes for a hand there is found."""

import csv

import numpy as np
import pytest

from handful.labels import NO_HAND
from tests.builders import SAMPLES, write_image
from training.data import mine, registry
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


def open_people(root, **options):
    return WithoutHands(root, "*.jpg", lambda file: file.stem[0], "b".__eq__, **options)


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


def test_pictures_with_a_hand_and_near_duplicates_are_left_out(tmp_path):
    root = write_people(tmp_path, a1=GREY, a2=GREY, a3=GREY, b1=GREY)
    frames = open_people(root, exclude=lambda file: file.name == "a1.jpg", stride=2)
    assert [file.name for file in frames.files] == ["a2.jpg", "b1.jpg"]
    with pytest.raises(BadData, match="python -m training data"):
        open_people(tmp_path / "nothing")


def test_what_a_model_takes_for_a_hand_is_added_to_the_boxes(tmp_path, monkeypatch, capsys):
    from handful.images import decode

    hand = decode(SAMPLES / "5R_0.jpg")
    root = write_people(tmp_path, a1=hand, a2=GREY, b1=hand)
    row = Source(
        name="faces", title="", short_title="", work="", path="people/Faces", without_hands=True,
        reader="training.data.sources.without_hands:WithoutHands",
        options={"pattern": "*.jpg", "group": lambda file: file.stem[0], "validation": "b".__eq__},
    )  # fmt: skip
    monkeypatch.setattr(registry, "SOURCES", {"faces": row})
    monkeypatch.setattr(mine, "SOURCES", {"faces": row})
    monkeypatch.setattr(
        mine, "export", lambda detector, classifier, config, output: output.write_bytes(detector.read_bytes())
    )
    for _ in range(2):
        mine.mine(tmp_path, runs=tmp_path / "runs")
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
        mine.mine(tmp_path / "nothing", runs=tmp_path / "runs")
