"""The Fingers data set: fetched, checked, split so that near duplicates stay together."""

import shutil
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from handful import CLASSES
from tests.builders import draw_hand, write_fingers
from training.augment.pipeline import Augment
from training.data import CropDataModule, Crops
from training.data.frames import crops
from training.data.sources import fingers
from training.data.sources.fingers import Fingers, fetch, label_of, prepare, split_groups, summary
from training.errors import BadData


@pytest.fixture
def folder(tmp_path):
    return write_fingers(tmp_path / "fingers", train=2, test=1)


def test_labels_come_from_the_names(folder):
    pictures = Fingers(folder, "train")
    assert len(pictures) == 24
    for file, target in zip(pictures.files, pictures.targets, strict=True):
        assert file.stem.endswith(CLASSES[target])


def test_a_picture_comes_with_the_mask_of_its_hand(folder):
    pictures = Fingers(folder, "train")
    frame = pictures[5]
    grey, mask = frame.image[..., 0], frame.mask
    assert (grey == cv2.imread(str(pictures.files[5]), cv2.IMREAD_GRAYSCALE)).all()
    assert frame.targets == pictures.targets[5]
    assert grey[mask > 250].mean() > 120 > 60 > grey[mask < 5].mean()


def test_pictures_are_compared_once_and_again_when_one_changes(folder, monkeypatch):
    Fingers(folder, "train")
    reads = []
    read = fingers.read_grey
    monkeypatch.setattr(fingers, "read_grey", lambda file: reads.append(file) or read(file))
    changed = Fingers(folder, "train").files[0]
    assert not reads
    cv2.imwrite(str(changed), draw_hand("5L", np.random.default_rng(9)))
    Fingers(folder, "train")
    assert len(reads) == 24


@pytest.mark.parametrize("name", ["hand.png", "x_6L.png", "x_3X.png", "x_3L.jpg", "_3L.png"])
def test_a_wrong_name_is_named(folder, name):
    (folder / "train" / name).write_bytes(b"")
    with pytest.raises(BadData, match=name):
        Fingers(folder, "train")


def test_a_name_tells_its_label(tmp_path):
    assert label_of(tmp_path / "000e7aa6-100b-4c6b-9ff0-e7a8e53e4465_3L.png") == "3L"


def half_a_chunk(png):
    """Its pixels end early by what it says, and no chunk follows there: Pillow tells that as a syntax error."""
    at = png.index(b"IDAT")
    length = int.from_bytes(png[at - 4 : at], "big")
    return png[: at - 4] + (length // 2).to_bytes(4, "big") + png[at:]


@pytest.mark.parametrize("spoil", [lambda png: png[:200], half_a_chunk])
def test_an_unreadable_picture_is_named(folder, spoil):
    broken = Fingers(folder, "train").files[3]
    broken.write_bytes(spoil(broken.read_bytes()))
    with pytest.raises(BadData, match=f"{broken.name}: cannot be read"):
        Fingers(folder, "train")


def test_a_wrong_size_is_named(folder):
    wrong = Fingers(folder, "train").files[3]
    cv2.imwrite(str(wrong), np.zeros((64, 128), np.uint8))
    with pytest.raises(BadData, match=r"128×64 pixels"):
        Fingers(folder, "train")


def test_a_missing_split_says_how_to_get_it(folder):
    shutil.rmtree(folder / "test")
    with pytest.raises(BadData, match="python -m training data"):
        Fingers(folder, "test")


def test_files_that_the_system_hides_are_left_alone(folder):
    (folder / "train" / ".DS_Store").write_bytes(b"")
    assert len(Fingers(folder, "train")) == 24


def test_kaggle_is_asked_for_the_set(folder, tmp_path, monkeypatch):
    asked = []
    kaggle = SimpleNamespace(dataset_download=lambda name: asked.append(name) or str(folder.parent))
    monkeypatch.setitem(sys.modules, "kagglehub", kaggle)
    fetch(tmp_path / "data")
    assert asked == ["koryakinp/fingers"]
    assert len(Fingers(tmp_path / "data", "train")) == 24
    assert len(Fingers(tmp_path / "data", "test")) == 12


def test_without_a_connection_the_way_by_hand_is_told(tmp_path, monkeypatch):
    def fail(name):
        raise ConnectionError("no route")

    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=fail))
    with pytest.raises(BadData, match=r"no route.*--fingers FOLDER"):
        fetch(tmp_path / "data")


def test_a_folder_that_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(BadData, match="train and test"):
        fetch(tmp_path / "data", tmp_path)


def test_a_folder_at_hand_is_taken_and_summed_up(folder, tmp_path, monkeypatch, capsys):
    train = sorted((folder / "train").iterdir())
    test = next(file for file in sorted((folder / "test").iterdir()) if file.stem[-2:] == train[0].stem[-2:])
    shutil.copyfile(train[0], test)
    monkeypatch.setattr(fingers, "PICTURES", {"train": 24, "test": 12})
    prepare(tmp_path / "data", folder)
    told = capsys.readouterr().out
    assert "train: 24\ntest: 12\na class: 2 / 1" in told
    assert "test pictures also in train: 1" in told


def test_pictures_that_a_fetch_did_not_come_to_are_fetched(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fingers, "PICTURES", {"train": 24, "test": 12})
    kaggle = SimpleNamespace(dataset_download=lambda name: str(folder))
    monkeypatch.setitem(sys.modules, "kagglehub", kaggle)
    shutil.copytree(folder, tmp_path / "data")
    next((tmp_path / "data/test").glob("*.png")).unlink()
    prepare(tmp_path / "data")
    assert "test: 12" in capsys.readouterr().out


def test_a_set_with_pictures_missing_is_not_passed_as_whole(folder, monkeypatch):
    monkeypatch.setattr(fingers, "PICTURES", {"train": 24, "test": 12})
    gone = next((folder / "train").glob("*_4R.png"))
    gone.unlink()
    with pytest.raises(BadData, match=r"2 pictures a class.*'4R': 1"):
        summary(folder)


def test_near_duplicates_stay_on_one_side(folder):
    first = Fingers(folder, "train").files[0]
    for i in range(3):
        copy = cv2.imread(str(first), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(first.with_name(f"copy{i}_{first.stem[-2:]}.png")), np.roll(copy, i, axis=1))
    pictures = Fingers(folder, "train")
    groups = pictures.groups
    alike = [i for i, file in enumerate(pictures.files) if file == first or file.name.startswith("copy")]
    assert len({groups[i] for i in alike}) == 1
    assert len(set(groups)) > 5


def test_validation_takes_whole_groups():
    groups = np.repeat(np.arange(500), 4)
    kept = split_groups(groups, 0.1)
    assert 0.08 < kept.mean() <= 0.1
    assert set(groups[kept]).isdisjoint(groups[~kept])
    assert (kept == split_groups(groups, 0.1)).all()


def test_a_frame_has_the_hand_in_its_box(folder):
    frame = Fingers(folder, "train").frame(5)
    assert frame.image.shape == (128, 128, 3)
    x0, y0, x1, y1 = frame.boxes[0].astype(int)
    assert (frame.mask[y0:y1, x0:x1] > 127).sum() == (frame.mask > 127).sum() > 500
    assert x1 - x0 < 120


def test_a_crop_holds_the_hand_in_the_middle(folder):
    pictures, targets, boxes, _ = crops(Fingers(folder, "train"), 96, 1.3, folder / "cache")
    assert pictures.shape == (24, 96, 96, 4)
    assert sorted(targets) == sorted(Fingers(folder, "train").targets.tolist())
    for picture, (x0, y0, x1, y1) in zip(pictures, boxes, strict=True):
        assert max(x1 - x0, y1 - y0) == pytest.approx(96 / 1.3, abs=0.01)
        mask = picture[..., 3] > 127
        rows, columns = np.nonzero(mask)
        assert (columns.min(), columns.max() + 1) == pytest.approx((x0, x1), abs=2)
        assert (rows.min(), rows.max() + 1) == pytest.approx((y0, y1), abs=2)


def test_train_and_validation_share_no_picture(tmp_path):
    write_fingers(tmp_path / "fingers", train=30, test=1)
    data = CropDataModule({"fingers": 120}, Augment(), str(tmp_path))
    data.prepare_data()
    data.setup("fit")
    assert len(data.val) > 0
    assert set(data.train.rows).isdisjoint(data.val.rows)
    assert len(data.train) + len(data.val) == 360


def test_a_batch_of_crops_comes_from_all_sources():
    pictures = [np.full((3, 8, 8, 4), value, np.uint8) for value in (1, 2)]
    boxes = np.float32([[32, 32, 160, 160]] * 3)
    mixed = Crops(
        [
            (pictures[0], np.array([0, 1, 2]), boxes, np.array([2, 0])),
            (pictures[1], np.array([13, 14, 15]), boxes, np.array([1])),
        ]
    )
    images, targets = mixed.__getitems__([2, 0, 1])
    assert images[:, 0, 0, 0].tolist() == [2, 1, 1]
    assert targets.tolist() == [14, 2, 0]
