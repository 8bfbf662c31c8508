"""Kaggle Fingers: fetched, checked, and split so that near duplicates stay together."""

import shutil
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from handful.labels import CLASSES
from tests.builders import draw_hand, write_fingers
from training.augment.pipeline import Augment
from training.data.crops import CropDataModule, cached_crops
from training.data.sources import fingers
from training.data.sources.fingers import Fingers, fetch, label_of, prepare, split_groups, summarize
from training.errors import BadData


@pytest.fixture
def folder(tmp_path):
    return write_fingers(tmp_path / "fingers", train=2, test=1)


@pytest.fixture
def published_sizes(monkeypatch):
    """Publish as many images as `folder` has."""
    monkeypatch.setattr(fingers, "SPLIT_SIZES", {"train": 24, "test": 12})


def test_labels_come_from_file_names(folder):
    frames = Fingers(folder, "train")
    assert len(frames) == 24
    for file, target in zip(frames.files, frames.targets, strict=True):
        assert file.stem.endswith(CLASSES[target])


def test_the_label_is_at_the_end_of_the_name(tmp_path):
    assert label_of(tmp_path / "000e7aa6-100b-4c6b-9ff0-e7a8e53e4465_3L.png") == "3L"


@pytest.mark.parametrize("name", ["hand.png", "x_6L.png", "x_3X.png", "x_3L.jpg", "_3L.png"])
def test_a_file_with_an_unexpected_name_is_refused(folder, name):
    (folder / "train" / name).write_bytes(b"")
    with pytest.raises(BadData, match=name):
        Fingers(folder, "train")


def test_hidden_files_are_ignored(folder):
    (folder / "train" / ".DS_Store").write_bytes(b"")
    assert len(Fingers(folder, "train")) == 24


def test_an_image_comes_with_the_mask_of_its_hand(folder):
    frames = Fingers(folder, "train")
    frame = frames[5]
    grey, mask = frame.image[..., 0], frame.mask
    assert (grey == cv2.imread(str(frames.files[5]), cv2.IMREAD_GRAYSCALE)).all()
    assert frame.targets == frames.targets[5]
    assert grey[mask > 250].mean() > 120 > 60 > grey[mask < 5].mean()


def test_the_box_is_tight_around_the_mask(folder):
    frame = Fingers(folder, "train")[5]
    assert frame.image.shape == (128, 128, 3)
    x0, y0, x1, y1 = frame.boxes[0].astype(int)
    assert (frame.mask[y0:y1, x0:x1] > 127).sum() == (frame.mask > 127).sum() > 500
    assert x1 - x0 < 120


def shorten_chunk(png):
    """Halve the length of the pixel data in its header, so that no chunk follows: a SyntaxError of Pillow's."""
    at = png.index(b"IDAT")
    length = int.from_bytes(png[at - 4 : at], "big")
    return png[: at - 4] + (length // 2).to_bytes(4, "big") + png[at:]


@pytest.mark.parametrize("damage", [lambda png: png[:200], shorten_chunk], ids=["truncated", "short chunk"])
def test_a_damaged_image_is_named(folder, damage):
    broken = Fingers(folder, "train").files[3]
    broken.write_bytes(damage(broken.read_bytes()))
    with pytest.raises(BadData, match=f"{broken.name}: cannot be read"):
        Fingers(folder, "train")


def test_an_image_of_another_size_is_refused(folder):
    cv2.imwrite(str(Fingers(folder, "train").files[3]), np.zeros((64, 128), np.uint8))
    with pytest.raises(BadData, match=r"128×64 pixels"):
        Fingers(folder, "train")


def test_a_missing_split_says_how_to_fetch_it(folder):
    shutil.rmtree(folder / "test")
    with pytest.raises(BadData, match="python -m training data"):
        Fingers(folder, "test")


# Near duplicates


def test_hashes_are_cached_until_an_image_changes(folder, monkeypatch):
    Fingers(folder, "train")
    reads = []
    read_grey = fingers.read_grey
    monkeypatch.setattr(fingers, "read_grey", lambda file: reads.append(file) or read_grey(file))
    changed = Fingers(folder, "train").files[0]
    assert not reads
    cv2.imwrite(str(changed), draw_hand("5L", np.random.default_rng(9)))
    Fingers(folder, "train")
    assert len(reads) == 24


def test_near_duplicates_are_one_group(folder):
    first = Fingers(folder, "train").files[0]
    for i in range(3):
        image = cv2.imread(str(first), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(first.with_name(f"copy{i}_{first.stem[-2:]}.png")), np.roll(image, i, axis=1))
    frames = Fingers(folder, "train")
    copies = [i for i, file in enumerate(frames.files) if file == first or file.name.startswith("copy")]
    assert len({frames.groups[i] for i in copies}) == 1
    assert len(set(frames.groups)) > 5


def test_validation_takes_whole_groups():
    groups = np.repeat(np.arange(500), 4)
    held_out = split_groups(groups, 0.1)
    assert 0.08 < held_out.mean() <= 0.1
    assert set(groups[held_out]).isdisjoint(groups[~held_out])
    assert (held_out == split_groups(groups, 0.1)).all()


def test_training_and_validation_share_no_crop(tmp_path):
    write_fingers(tmp_path / "fingers", train=30, test=1)
    data = CropDataModule({"fingers": 120}, Augment(), str(tmp_path))
    data.prepare_data()
    data.setup("fit")
    assert len(data.val) > 0
    assert set(data.train.rows).isdisjoint(data.val.rows)
    assert len(data.train) + len(data.val) == 360


def test_the_hand_is_in_the_middle_of_its_crop(folder):
    frames = Fingers(folder, "train")
    images, targets, boxes, *_ = cached_crops("fingers", frames, 96, 1.3, folder / "cache")
    assert images.shape == (24, 96, 96, 4)
    assert sorted(targets) == sorted(frames.targets.tolist())
    for image, (x0, y0, x1, y1) in zip(images, boxes, strict=True):
        assert max(x1 - x0, y1 - y0) == pytest.approx(96 / 1.3, abs=0.01)
        rows, columns = np.nonzero(image[..., 3] > 127)
        assert (columns.min(), columns.max() + 1) == pytest.approx((x0, x1), abs=2)
        assert (rows.min(), rows.max() + 1) == pytest.approx((y0, y1), abs=2)


# Fetching


def test_it_is_downloaded_from_kaggle(folder, tmp_path, monkeypatch):
    requests = []
    kaggle = SimpleNamespace(dataset_download=lambda name: requests.append(name) or str(folder.parent))
    monkeypatch.setitem(sys.modules, "kagglehub", kaggle)
    fetch(tmp_path / "data")
    assert requests == ["koryakinp/fingers"]
    assert len(Fingers(tmp_path / "data", "train")) == 24
    assert len(Fingers(tmp_path / "data", "test")) == 12


def test_without_a_connection_the_error_says_how_to_use_a_copy(tmp_path, monkeypatch):
    def fail(name):
        raise ConnectionError("no route")

    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=fail))
    with pytest.raises(BadData, match=r"no route.*--fingers FOLDER"):
        fetch(tmp_path / "data")


def test_a_copy_without_both_splits_is_refused(tmp_path):
    with pytest.raises(BadData, match="train and test"):
        fetch(tmp_path / "data", tmp_path)


@pytest.mark.usefixtures("published_sizes")
def test_a_local_copy_is_used_and_summarized(folder, tmp_path, capsys):
    train = sorted((folder / "train").iterdir())
    test = next(file for file in sorted((folder / "test").iterdir()) if file.stem[-2:] == train[0].stem[-2:])
    shutil.copyfile(train[0], test)
    prepare(tmp_path / "data", folder)
    printed = capsys.readouterr().out
    assert "train: 24\ntest: 12\nper class: 2 / 1" in printed
    assert "test images also in train: 1" in printed


@pytest.mark.usefixtures("published_sizes")
def test_an_incomplete_download_is_completed(folder, tmp_path, monkeypatch, capsys):
    kaggle = SimpleNamespace(dataset_download=lambda name: str(folder))
    monkeypatch.setitem(sys.modules, "kagglehub", kaggle)
    shutil.copytree(folder, tmp_path / "data")
    next((tmp_path / "data/test").glob("*.png")).unlink()
    prepare(tmp_path / "data")
    assert "test: 12" in capsys.readouterr().out


@pytest.mark.usefixtures("published_sizes")
def test_an_incomplete_class_is_an_error(folder):
    next((folder / "train").glob("*_4R.png")).unlink()
    with pytest.raises(BadData, match=r"2 images a class.*'4R': 1"):
        summarize(folder)
