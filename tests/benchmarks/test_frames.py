"""The frames that benchmarks run on: which, in which order, with which totals and sessions."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from benchmarks import ROOT
from benchmarks.frames import FRAME_SETS, LabelledPicture, digest, load_frames
from handful.labels import COUNTS, count_of
from tests.builders import write_fingers
from training.data.corruptions import CONDITIONS
from training.data.registry import open_held_out, open_source


def write_picture(path, level=100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (level, level, level)).save(path)


def write_webcam(root, train: list[tuple[str, int]], test: list[tuple[str, int]] = ()) -> None:
    """Write HandsDataset with a hand for each file name and count. The level of a picture is 100 + count."""
    folder = root / "data/people/HandsDataset"
    (folder / "data").mkdir(parents=True)
    for split, hands in ("train", train), ("test", test):
        rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
        for name, count in hands:
            write_picture(folder / f"images/{split}/{name}", 100 + count)
            rows.append(f"{name},8,8,{count}-hand,1,2,3,4")
        (folder / f"data/{split}_labels.csv").write_text("\n".join(rows))


def test_a_missing_set_is_skipped_and_its_source_named(tmp_path, capsys):
    assert all(load_frames(name, tmp_path) == [] for name in FRAME_SETS)
    assert "Kaggle Fingers: skipped. " in (errors := capsys.readouterr().err)
    assert "python -m training data" in errors


def test_bundled_samples_show_every_count():
    assert {one.total for one in load_frames("samples", ROOT)} == set(COUNTS)


def test_a_limited_number_of_frames_is_evenly_spread(tmp_path):
    files = sorted((write_fingers(tmp_path / "data/fingers", train=1, test=1) / "test").iterdir())
    pictures = load_frames("fingers-test", tmp_path, 6)
    assert [one.path for one in pictures] == [files[k] for k in (0, 2, 4, 7, 9, 11)]
    assert [one.total for one in pictures] == [int(one.path.stem[-2]) for one in pictures]
    assert len(load_frames("fingers-test", tmp_path)) == 12


def test_webcam_frames_are_the_evaluated_ones_by_session_in_order_of_time(tmp_path):
    train = [("5_pic00002.jpg", 4), ("5_pic00002.jpg", 5), ("2_pic00001.jpg", 3), ("Hand_0000002.jpg", 5)]
    write_webcam(tmp_path, train, [("5_pic00001.jpg", 0), ("pic00001.jpg", 2), ("25_pic00001.jpg", 2)])
    assert [(one.path.parent.name, one.path.name, one.total) for one in load_frames("webcam", tmp_path)] == [
        ("test", "5_pic00001.jpg", 0),
        ("train", "5_pic00002.jpg", 9),
        ("test", "pic00001.jpg", 2),
    ]
    pictures = load_frames("webcam-all", tmp_path)
    assert len(pictures) == len(open_source("webcam", tmp_path / "data")) == 5
    for prefix in ("5_", "pic"):
        assert len({one.session for one in pictures if one.path.name.startswith(prefix)}) == 1
    assert len({one.session for one in pictures}) == 4


def test_finger_counting_frames_are_in_order_of_their_numbers(tmp_path):
    folder = tmp_path / "data/people/Human-Robot_Finger-Counting_Dataset/Raw_Images/Human/Set1"
    for name in "0/imbk.jpg", "1/one_10.jpg", "1/one_2.jpg", "3/three_1.jpg":
        write_picture(folder / name)
    pictures = load_frames("counting-all", tmp_path)
    assert [(one.path.name, one.session) for one in pictures] == [
        ("one_2.jpg", "1"),
        ("one_10.jpg", "1"),
        ("three_1.jpg", "3"),
    ]


def test_rendered_hands_are_the_composites_that_are_evaluated(tmp_path):
    shutil.copytree(ROOT / "training/tiny_data/render/train", tmp_path / "data/render/val")
    pictures = load_frames("rendered", tmp_path, 6)
    frames, indices = open_held_out("rendered", tmp_path / "data")
    by_name = {frames.path(i).name: frames.frame(i) for i in indices}
    for one in pictures:
        frame = by_name[one.path.name]
        assert one.total == count_of(frame.targets[0])
        assert np.array_equal(one.image, frame.image)
    assert len({one.total for one in pictures}) > 1
    assert len({one.session for one in pictures}) == 6, "none follows another"


def test_corrupted_webcam_frames_are_sessions_in_each_condition(tmp_path):
    write_webcam(tmp_path, [("5_pic2.jpg", 4), ("5_pic1.jpg", 3), ("26_pic1.jpg", 1)])
    pictures = load_frames("webcam-harder", tmp_path)
    assert len(pictures) == 3 * len(CONDITIONS)
    assert {one.path.parent.name for one in pictures} == set(CONDITIONS)
    dim = [one for one in pictures if one.path.parent.name == "a fifth of the light"]
    assert [(one.path.name, one.total) for one in dim] == [("26_pic1.jpg", 1), ("5_pic1.jpg", 3), ("5_pic2.jpg", 4)]
    assert len({one.session for one in dim}) == 2
    assert len({one.session for one in pictures}) == 2 * len(CONDITIONS), "no session spans two conditions"
    assert [one.image.mean() for one in dim] == pytest.approx([20.2, 20.6, 20.8], abs=1.5)
    again = load_frames("webcam-harder", tmp_path)[pictures.index(dim[0]) :][:3]
    assert digest(dim) == digest(again)


def test_webcam_frames_of_one_hand_are_resized_to_that_of_webcams(tmp_path):
    write_webcam(tmp_path, [(name, 3) for name in ("5_pic1.jpg", "5_pic2.jpg", "5_pic2.jpg", "26_pic1.jpg")])
    pictures = load_frames("webcam-one", tmp_path)
    assert [(one.path.name, one.total) for one in pictures] == [("26_pic1.jpg", 3), ("5_pic1.jpg", 3)]
    assert {one.image.shape for one in pictures} == {(480, 640, 3)}


def test_the_digest_depends_on_pixels_and_totals(tmp_path):
    write_picture(tmp_path / "a.png")
    before = digest([LabelledPicture(tmp_path / "a.png", 1)])
    assert re.fullmatch("[0-9a-f]{12}", before)
    assert digest([LabelledPicture(tmp_path / "a.png", 2)]) != before
    write_picture(tmp_path / "a.png", 101)
    assert digest([LabelledPicture(tmp_path / "a.png", 1)]) != before
