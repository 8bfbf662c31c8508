"""Crops of hands, their cache, and batches of them."""

import pickle

import numpy as np
import pytest

from handful.labels import CLASSES, COUNT_UNKNOWN, SIDE_UNKNOWN
from tests.builders import open_at, write_counting, write_digits, write_image, write_webcam_tables
from training.augment.pipeline import Augment
from training.data import crops as crops_module
from training.data.crops import CropDataModule, CropDataset, Crops, cached_crops, roi_crop
from training.data.registry import Label


@pytest.fixture
def digit_folder(tmp_path):
    return write_digits(tmp_path)


def test_a_crop_is_a_square_around_its_box():
    image = np.zeros((50, 80, 3), np.uint8)
    image[20:30, 30:50] = (250, 100, 50)
    crop = roi_crop(image, np.array([30, 20, 50, 30]), 40, margin=2)
    assert crop.shape == (40, 40, 4)
    assert crop.dtype == np.uint8
    expected = np.zeros((40, 40), bool)
    expected[15:25, 10:30] = True
    assert ((crop[..., 0] > 125) == expected).all()
    assert (crop[..., 3] == 255).all()


@pytest.mark.parametrize("size", [16, 100])
@pytest.mark.parametrize("mask", [None, np.full((40, 40), 255, np.uint8)])
def test_a_crop_is_transparent_black_outside_the_image(size, mask):
    image = np.full((40, 40, 3), 200, np.uint8)
    crop = roi_crop(image, np.array([0, 0, 20, 40]), size, margin=2, mask=mask)
    quarter = size // 4
    assert (crop[:, : quarter - 1] == 0).all()
    assert (crop[quarter + 1 : -quarter - 1, 2 * quarter : 3 * quarter - 1, 3] == 255).all()


def test_a_crop_much_smaller_than_its_box_is_averaged():
    image = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    crop = roi_crop(image, np.array([0, 0, 512, 512]), 16, margin=1)
    assert abs(crop[..., :3].astype(float) - 128).max() < 30


def test_crops_are_cut_once_and_again_when_an_image_changes(digit_folder, tmp_path, monkeypatch):
    def open_folder():
        return open_at(digit_folder, "digits", validation=lambda group: int(group) >= 2)

    frames, cache = open_folder(), tmp_path / "cache"
    images, targets, boxes, validation, fingers = cached_crops("digits", frames, 32, 1.3, cache)
    assert isinstance(images, np.memmap)
    assert images.shape == (15, 32, 32, 4)
    frame = frames[4]
    assert (images[4] == roi_crop(frame.image, frame.boxes[0], 32, mask=frame.mask)).all()
    assert [CLASSES[t] for t in targets] == [f"{d}R" for d in "111222333444555"]
    assert boxes.shape == (15, 4)
    assert (boxes[:, 2:] - boxes[:, :2]).max(1) == pytest.approx(32 / 1.3, abs=0.01)
    assert validation.tolist() == frames.validation.tolist()
    assert fingers.tolist() == [2] * 3 + [6] * 3 + [7] * 3 + [30] * 3 + [31] * 3, "1 is the thumb, 2 the index finger …"

    read, frame_of = [], type(frames).frame
    monkeypatch.setattr(type(frames), "frame", lambda self, i: read.append(i) or frame_of(self, i))
    assert (cached_crops("digits", frames, 32, 1.3, cache).images == images).all()
    assert not read
    write_image(frames.files[0], np.full((100, 100, 3), 200, np.uint8))
    images, targets, boxes, *_ = cached_crops("digits", open_folder(), 32, 1.3, cache)
    assert len(read) == 15
    assert len(images) == len(targets) == len(boxes) == 14, "no hand is left in the changed one"
    assert len(list(cache.iterdir())) == 2, "the older crops are deleted"


@pytest.mark.parametrize("change", ["version", "labels"])
def test_crops_are_cut_again_when_the_code_or_a_label_rule_changes(change, tmp_path, monkeypatch):
    frames = open_at(write_webcam_tables(tmp_path, train=["5_pic1.jpg,320,240,2-hand,10,10,90,90"]), "webcam")
    cached_crops("webcam", frames, 8, 1.3, tmp_path / "cache")
    before = set((tmp_path / "cache").iterdir())
    if change == "version":
        monkeypatch.setattr(crops_module, "CROP_CACHE_VERSION", crops_module.CROP_CACHE_VERSION + 1)
    else:
        frames.labels = dict(frames.labels) | {"2-hand": Label(2, side="left")}
    targets = cached_crops("webcam", frames, 8, 1.3, tmp_path / "cache").targets
    assert targets.tolist() == [SIDE_UNKNOWN + 2 if change == "version" else 2]
    assert not before & set((tmp_path / "cache").iterdir())


def test_an_interrupted_run_leaves_nothing_behind(digit_folder, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(crops_module, "roi_crop", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cached_crops("digits", open_at(digit_folder, "digits"), 32, 1.3, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_crops_are_pickled_by_file_name(digit_folder, tmp_path):
    images = cached_crops("digits", open_at(digit_folder, "digits"), 32, 1.3, tmp_path).images
    packed = pickle.dumps(images)
    assert len(packed) < 1000
    assert (pickle.loads(packed) == images).all()
    assert (pickle.loads(pickle.dumps(images[2:4])) == images[2:4]).all()


def test_crops_are_cut_again_when_a_label_is_corrected(tmp_path):
    write_webcam_tables(tmp_path, train=["5_pic1.jpg,320,240,2-hand,10,10,90,90"])
    cached_crops("webcam", open_at(tmp_path, "webcam"), 8, 1.3, tmp_path / "cache")
    table = tmp_path / "data/train_labels.csv"
    table.write_text(table.read_text().replace("2-hand", "4-hand"))
    assert cached_crops("webcam", open_at(tmp_path, "webcam"), 8, 1.3, tmp_path / "cache").targets == [SIDE_UNKNOWN + 4]


def test_crops_are_cut_again_when_the_image_of_the_wall_changes(tmp_path):
    write_counting(tmp_path)
    before = cached_crops("counting", open_at(tmp_path, "counting"), 8, 1.3, tmp_path / "cache").images
    shaded = np.full((300, 400, 3), (110, 118, 112), np.uint8)
    shaded[:, 200:] //= 2
    write_image(tmp_path / "Raw_Images/Human/Set1/0/imbk.jpg", shaded)
    after = cached_crops("counting", open_at(tmp_path, "counting"), 8, 1.3, tmp_path / "cache").images
    assert before.tobytes() != after.tobytes()


def test_crops_are_cut_again_when_an_image_moves_to_another_class(digit_folder, tmp_path):
    for number in (1002, 1012):  # so that it stays in its place in the order of names
        (digit_folder / f"Dataset/2/IMG_{number}.JPG").unlink()
    cached_crops("digits", open_at(digit_folder, "digits"), 8, 1.3, tmp_path / "cache")
    (digit_folder / "Dataset/1/IMG_1021.JPG").rename(digit_folder / "Dataset/2/IMG_1021.JPG")
    targets = cached_crops("digits", open_at(digit_folder, "digits"), 8, 1.3, tmp_path / "cache").targets
    assert [CLASSES[target] for target in targets[:4]] == ["1R", "1R", "2R", "2R"]


def test_each_hand_of_a_frame_is_a_crop(tmp_path):
    rows = ["5_pic1.jpg,320,240,2-hand,10,10,90,90", "5_pic1.jpg,320,240,0-hand,200,10,290,90"]
    frames = open_at(write_webcam_tables(tmp_path, train=rows), "webcam")
    crops = cached_crops("webcam", frames, 8, 1.3, tmp_path / "cache")
    assert crops.images.shape == (2, 8, 8, 4)
    assert crops.targets.tolist() == [SIDE_UNKNOWN + 2, SIDE_UNKNOWN]
    assert crops.validation.tolist() == [True, True]


def test_counts_and_hands_in_other_poses_are_drawn_equally_often(tmp_path, monkeypatch):
    rows = [f"1_pic{k}.jpg,320,240,{name}-hand,10,10,90,90" for k, name in enumerate(["1", "0", "0", "0"])]
    frames = open_at(write_webcam_tables(tmp_path, train=rows), "webcam")
    frames.labels = dict(frames.labels) | {"0-hand": Label(None)}
    monkeypatch.setattr(crops_module, "open_source", lambda name, folder: frames)
    hands = CropDataModule({"webcam": 6}, Augment(size=32), str(tmp_path), batch_size=4, workers=0)
    hands.prepare_data()
    hands.setup("fit")
    assert dict(zip(hands.train.targets.tolist(), hands.weights, strict=True)) == {
        SIDE_UNKNOWN + 1: pytest.approx(3),
        COUNT_UNKNOWN: pytest.approx(1),
    }


def test_a_batch_has_crops_of_all_sources():
    def crops_of(value, *targets):
        boxes = np.tile(np.float32([2, 2, 6, 6]), (3, 1))
        images = np.full((3, 8, 8, 4), value, np.uint8)
        return Crops(images, np.array(targets), boxes, np.zeros(3, bool), np.array(targets) + 10)

    mixed = CropDataset([(crops_of(1, 0, 1, 2), np.array([2, 0])), (crops_of(2, 13, 14, 15), np.array([1]))])
    images, targets, fingers = mixed.__getitems__([2, 0, 1])
    assert images[:, 0, 0, 0].tolist() == [2, 1, 1]
    assert targets.tolist() == [14, 2, 0]
    assert fingers.tolist() == [24, 12, 10]
