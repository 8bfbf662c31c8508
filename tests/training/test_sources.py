"""Sources, read from small stand-ins in the layout of each data set, and the registry that lists them."""

import subprocess
import sys
from pathlib import Path

import cv2
import kagglehub
import numpy as np
import pytest
import yaml

from handful.labels import CLASSES, COUNT_UNKNOWN, COUNTS, SIDE_UNKNOWN, encode
from tests.builders import (
    draw_person,
    open_at,
    write_counting,
    write_digits,
    write_fingers,
    write_image,
    write_webcam_tables,
)
from tests.training.conftest import COMMIT, github_zip
from training.augment.pipeline import Augment
from training.data import panoramas, registry
from training.data.backgrounds import background_files
from training.data.crops import CropDataModule
from training.data.frames import counted
from training.data.masks import hand_box
from training.data.registry import SOURCES, Label, Source, name_before_pic, open_source, prepare
from training.data.scenes import hand_boxes
from training.data.sources import fingers
from training.data.sources.boxes import BoxLabelledFrames
from training.data.sources.finger_counting import SET1
from training.data.sources.folders import OneHandFolder
from training.data.sources.rendered import RENDER_OPTIONS
from training.errors import BadData
from training.evaluation import gestures

ROOT = Path(__file__).parents[2]


def iou(a, b):
    """Intersection over union of two masks."""
    return (a & b).sum() / (a | b).sum()


def box_iou(box, hand):
    """Intersection over union of a box and the bounding box of a mask."""
    boxes = np.zeros((2, *hand.shape), bool)
    y, x = np.nonzero(hand)
    boxes[0, y.min() : y.max() + 1, x.min() : x.max() + 1] = True
    x0, y0, x1, y1 = box.round().astype(int)
    boxes[1, y0:y1, x0:x1] = True
    return iou(*boxes)


# Folders of one class each


@pytest.fixture
def digit_folder(tmp_path):
    return write_digits(tmp_path)


def test_digits_are_right_hands_grouped_by_person(digit_folder):
    frames = open_at(digit_folder, "digits", validation=lambda group: int(group) >= 2)
    assert len(frames) == len(frames.files) == 15
    assert [CLASSES[frame.targets[0]] for frame in frames] == [f"{d}R" for d in "111222333444555"]
    assert frames.groups == ["000", "001", "002"] * 5
    assert frames.validation.tolist() == [False, False, True] * 5
    assert frames.metadata() == {"training": 10, "validation": 5}


def test_an_image_in_the_wrong_folder_can_be_relabelled(digit_folder):
    frames = open_at(digit_folder, "digits", relabel={"IMG_1002.JPG": "3"})
    assert [CLASSES[frame.targets[0]] for frame in frames][3:6] == ["3R", "2R", "2R"]


def test_classes_may_be_folders_below_people(tmp_path):
    for person in ("07", "41"):
        image, *_ = draw_person("3L", np.full((100, 100, 3), 200, np.uint8), scale=0.7)
        write_image(tmp_path / person / "three-left" / "1.jpg", image)
    frames = OneHandFolder(
        tmp_path,
        pattern="*/{}/*.jpg",
        labels={"three-left": Label(3, side="left"), "two-right": Label(2, side="right")},
        group=lambda file, position: file.parents[1].name,
        validation=lambda person: int(person) >= 40,
    )
    assert [CLASSES[frame.targets[0]] for frame in frames] == ["3L", "3L"]
    assert (frames.groups, frames.validation.tolist()) == (["07", "41"], [False, True])


@pytest.mark.parametrize("digit", [1, 3, 5])
def test_a_digit_comes_with_mask_and_box_of_its_hand(digit, digit_folder):
    frame = open_at(digit_folder, "digits")[3 * digit - 3]
    _, whole, hand = draw_person(f"{digit}R", np.full((100, 100, 3), 200, np.uint8), scale=0.7)
    assert frame.image.shape == (100, 100, 3)
    assert frame.mask.dtype == np.uint8
    assert iou(frame.mask > 127, whole) > 0.85
    assert frame.boxes.shape == (1, 4)
    assert frame.boxes.dtype == np.float32
    assert box_iou(frame.boxes[0], hand) > 0.8


def test_an_empty_wall_is_a_frame_without_hands(digit_folder):
    write_image(digit_folder / "Dataset" / "1" / "IMG_0001.JPG", np.full((100, 100, 3), 200, np.uint8))
    frame = open_at(digit_folder, "digits")[0]
    assert frame.boxes.shape == (0, 4)
    assert frame.targets.shape == (0,)


def test_a_broken_image_is_named(digit_folder):
    file = digit_folder / "Dataset" / "1" / "IMG_1001.JPG"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(BadData, match="IMG_1001"):
        open_at(digit_folder, "digits")[0]


@pytest.fixture
def counting_folder(tmp_path):
    return write_counting(tmp_path)


def test_finger_counting_has_no_sides_and_nothing_to_validate_with(counting_folder):
    frames = open_at(counting_folder, "counting")
    assert [int(frame.targets[0]) - SIDE_UNKNOWN for frame in frames] == [1, 2, 3, 4, 5]
    assert set(frames.groups) == {"Set1"}
    assert not frames.validation.any()


def test_backgrounds_are_in_order_of_their_numbers(counting_folder):
    files = background_files(counting_folder, SOURCES["counting"].backgrounds)
    assert [file.stem for file in files] == ["1", "2", "10"]


@pytest.mark.parametrize("count", COUNTS[1:])
def test_a_tilted_forearm_is_in_the_mask_but_not_in_the_box(count, counting_folder):
    frame = open_at(counting_folder, "counting")[count - 1]
    _, whole, hand = draw_person(f"{count}L", np.full((300, 400, 3), 112, np.uint8), tilt=20 * count - 60)
    assert iou(frame.mask > 127, whole) > 0.9
    assert box_iou(frame.boxes[0], hand) > 0.8


def test_a_missing_image_of_the_empty_wall_is_an_error(counting_folder):
    (counting_folder / SET1 / "0" / "imbk.jpg").unlink()
    with pytest.raises(BadData, match="the empty wall is missing"):
        open_at(counting_folder, "counting")


def test_a_hand_that_touches_no_border_keeps_its_whole_box():
    mask = np.zeros((60, 80), np.uint8)
    mask[10:50, 20:40] = 255
    assert hand_box(mask).tolist() == [20, 10, 40, 50]


def test_the_palm_is_in_the_skin_even_if_the_sleeve_is_wider():
    mask, skin = np.zeros((2, 200, 100), np.uint8)
    cv2.circle(skin, (50, 50), 15, 255, -1)
    mask[80:, 20:80] = 255
    mask[50:80, 42:58] = skin[50:80, 42:58] = 255
    x0, y0, x1, y1 = hand_box(cv2.max(mask, skin), skin)
    assert (x0, y0, x1) == (35, 35, 66)
    assert 65 < y1 < 80


# Boxes


def test_boxes_of_a_csv_table_are_scaled_to_the_image(tmp_path):
    write_webcam_tables(
        tmp_path,
        train=[
            "2_pic00001.jpg,640,480,2-hand,100,50,300,450",
            "2_pic00001.jpg,640,480,0-hand,600,0,660,100",
            "pic00002.jpg,320,240,5-hand,10,20,30,40",
        ],
        test=["26_pic00003.jpg,640,480,4-hand,0,0,64,48", "Hand_0000002.jpg,640,480,5-hand,0,0,64,48"],
    )
    write_image(tmp_path / "images/train/2_pic00009.jpg", np.zeros((240, 320, 3), np.uint8))
    frames = open_at(tmp_path, "webcam")
    index = {file.name: i for i, file in enumerate(frames.files)}
    assert "2_pic00009.jpg" not in index  # not labelled: there may be hands in it
    two = frames[index["2_pic00001.jpg"]]
    assert two.boxes.tolist() == [[50, 25, 150, 225], [300, 0, 320, 50]]  # clipped to the image
    assert two.targets.tolist() == [SIDE_UNKNOWN + 2, SIDE_UNKNOWN + 0]
    assert two.targets.dtype == np.int64
    assert two.mask is None
    held_out = dict(zip(frames.groups, frames.validation.tolist(), strict=True))
    assert held_out == {"2_": False, "pic": True, "26_": True}  # no Hand_… image: not free to use


def test_missing_images_of_labels_are_counted(tmp_path):
    write_webcam_tables(tmp_path, train=[f"5_pic{i}.jpg,320,240,2-hand,10,10,90,90" for i in range(3)])
    (tmp_path / "images/train/5_pic1.jpg").unlink()
    with pytest.warns(UserWarning, match="1 of 3 labelled images are missing"):
        assert len(open_at(tmp_path, "webcam")) == 2


@pytest.mark.parametrize(
    ("name", "session"),
    [
        ("5_pic00001.jpg", "5_"),
        ("1528664299.56_pic1.jpg", "1528664299.56_"),
        ("pic3.jpg", "pic"),
        ("Hand_7.jpg", "Hand_7"),
    ],
)
def test_the_name_of_a_webcam_image_has_its_session(name, session):
    assert name_before_pic(Path(name)) == session


@pytest.mark.parametrize(
    "row",
    [
        "a.jpg,640,480,7-hand,1,1,9,9",
        "a.jpg,640,480,fist,1,1,9,9",
        "a.jpg,0,480,1-hand,1,1,9,9",
        "a.jpg,640",
        "a.jpg,640,480,1-hand,9,1,9,9",
    ],
)
def test_unexpected_labels_of_a_csv_table_are_refused(row, tmp_path):
    write_webcam_tables(tmp_path, train=[row])
    with pytest.raises(BadData, match=r"unexpected (labels|class)"):
        open_at(tmp_path, "webcam")


def write_yolo(folder, labels):
    """Write a YOLO data set of 100×50 images, with the lines of their label files by name."""
    (folder / "data.yaml").parent.mkdir(parents=True, exist_ok=True)
    (folder / "data.yaml").write_text("names: [two, three left, ok]\n")
    for name, lines in labels.items():
        file = folder / "train/labels" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(lines)
        write_image(folder / "train/images" / f"{name}.jpg", np.full((50, 100, 3), 90, np.uint8))
    return folder


YOLO = {
    "labels": {"two": Label(2, "index middle"), "three left": Label(3, side="left"), "ok": None},
    "group": lambda file: file.stem[0],
    "validation": lambda group: group == "b",
}


def test_yolo_labels_are_boxes_polygons_or_nothing(tmp_path):
    labels = {"a1": "0 0.5 0.5 0.2 0.4\n1 0.1 0.1 0.2 0.1 0.2 0.3", "a2": "", "b1": "0 0.9 0.5 0.4 0.2"}
    frames = BoxLabelledFrames(write_yolo(tmp_path, labels), **YOLO)
    assert [file.stem for file in frames.files] == ["a1", "a2", "b1"]
    both, empty, clipped = frames
    assert both.boxes.round(3).tolist() == [[40, 15, 60, 35], [10, 5, 20, 15]]
    assert both.targets.tolist() == [encode(2), encode(3, "left")]
    assert (empty.boxes.shape, empty.targets.shape) == ((0, 4), (0,))
    assert clipped.boxes.round(3).tolist() == [[70, 20, 100, 30]]
    assert frames.validation.tolist() == [False, False, True]


def test_frames_with_a_hand_that_shows_no_count_are_left_out(tmp_path):
    hand = "0.5 0.5 0.2 0.4"
    frames = BoxLabelledFrames(write_yolo(tmp_path, {"a1": f"0 {hand}\n2 {hand}", "a2": f"0 {hand}"}), **YOLO)
    assert [file.stem for file in frames.files] == ["a2"]


@pytest.mark.parametrize("line", ["7 0.5 0.5 0.2 0.4", "0 0.5 0.5 0 0.4", "0 0.5", "zero 0.5 0.5 0.2 0.4"])
def test_unexpected_yolo_labels_are_refused_by_file(line, tmp_path):
    with pytest.raises(BadData, match=r"a1\.txt: unexpected labels"):
        BoxLabelledFrames(write_yolo(tmp_path, {"a1": line}), **YOLO)


def test_a_class_without_a_label_rule_is_refused(tmp_path):
    write_yolo(tmp_path, {"a1": "1 0.5 0.5 0.2 0.4"})
    with pytest.raises(BadData, match="unexpected class 'three left'"):
        BoxLabelledFrames(tmp_path, **YOLO | {"labels": {"two": Label(2)}})


# The registry


@pytest.mark.parametrize("name", ["webcam", "digits", "counting", "fingers"])
def test_a_missing_data_set_says_how_to_fetch_it(name, tmp_path):
    with pytest.raises(BadData, match="Fetch the data set with: python -m training data"):
        open_source(name, tmp_path)


def test_an_unknown_source_is_refused(tmp_path):
    with pytest.raises(BadData, match="'fours' is not a source: choose from webcam, digits, counting"):
        open_source("fours", tmp_path)


def test_label_rules_agree_with_themselves():
    for source in SOURCES.values():
        for label in source.options.get("labels", {}).values():
            assert label is None or label.raised is None or len(label.raised.split()) == label.count


def test_published_sources_have_address_and_licence():
    for source in SOURCES.values():
        assert (source.commit or source.fetch) == "" or (source.url and source.licence)
    assert SOURCES["webcam"].credit == "HandsDataset by SubhiH, github.com/SubhiH/HandsDataset (Apache-2.0)"
    assert SOURCES["own"].credit == "pictures of the user's own hand, recorded with Handful"


def test_dvc_tracks_the_folders_that_sources_are_fetched_and_rendered_to():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    fetched = {Path(path) for out in stages["data"]["outs"] for path in out}
    rendered = {Path("data/render") / key for key in yaml.safe_load((ROOT / "params.yaml").read_text())["render"]}
    for source in SOURCES.values():
        if source.commit or source.fetch:
            assert fetched & {Path("data") / source.path, *(Path("data") / source.path).parents}
    trained_on = yaml.safe_load((ROOT / "training/configs/classifier.yaml").read_text())["data"]["sources"]
    for source in map(SOURCES.__getitem__, trained_on):
        if source.path.startswith("render/"):
            assert Path("data") / source.path in rendered
    others = {path for source in SOURCES.values() for path in (source.held_out_path, source.calibration)}
    assert {Path("data") / path for path in others - {"", "validation"}} <= rendered | fetched


def test_hints_name_the_options_that_dvc_renders_with():
    for key, options in yaml.safe_load((ROOT / "params.yaml").read_text())["render"].items():
        command = f"--count {options['count']} --seed {options['seed']} {options['hands']}".split()
        assert set(RENDER_OPTIONS[key].split()) <= set(command)


def test_the_registry_needs_no_pytorch():
    code = "import sys; import training.data.registry; print(sorted({'torch', 'torchvision'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_new_source_is_one_row(server, tmp_path, monkeypatch, capsys):
    # Fetched from GitHub, labelled for YOLO: the row is all it takes.
    row = Source(
        name="threes",
        title="Hands that show three (Threes)",
        short_title="Threes",
        work="Threes by Some One",
        url="github.com/someone/hands",
        licence="CC0",
        path="people/threes",
        options={
            "labels": {"three": Label(3, "index middle ring", "left"), "ok": Label(None)},
            "group": lambda file: file.stem,
            "validation": lambda group: group == "1",
        },
        commit=COMMIT,
        members=("data.yaml", "*.jpg", "*.txt"),
        held_out="people never trained on",
    )
    image = cv2.imencode(".jpg", np.full((100, 100, 3), 200, np.uint8))[1].tobytes()
    files = {"data.yaml": b"names: {0: three, 1: ok}"}
    for k in range(3):
        files |= {f"images/{k}.jpg": image, f"labels/{k}.txt": b"0 0.5 0.55 0.6 0.7"}
    server.content = github_zip(files | {"README.md": b""})
    monkeypatch.setattr(registry, "SOURCES", {"threes": row, "fingers": SOURCES["fingers"]})
    monkeypatch.setattr(fingers, "SPLIT_SIZES", {"train": 12, "test": 12})
    monkeypatch.setattr(panoramas, "MEMBERS", {})
    monkeypatch.setattr(gestures, "COMMIT", COMMIT)
    monkeypatch.setattr(gestures, "IMAGES", "images")

    with pytest.raises(BadData, match="train and test"):
        prepare(tmp_path, tmp_path)
    assert capsys.readouterr().out == "", "a wrong copy is refused before anything is downloaded"

    # Kaggle comes last: where it refuses, all else is there.
    def refuse(name: str) -> str:
        raise ConnectionError("no access")

    monkeypatch.setattr(kagglehub, "dataset_download", refuse)
    with pytest.raises(BadData, match="Kaggle could not be reached"):
        prepare(tmp_path)
    assert "threes: 3 images, 1 of them held out for validation" in capsys.readouterr().out
    assert (tmp_path / gestures.FOLDER / "images/0.jpg").exists(), "what is evaluated only is fetched, too"
    prepare(tmp_path, write_fingers(tmp_path / "mine", train=1, test=1))
    assert "train: 12" in capsys.readouterr().out

    hands = CropDataModule({"threes": 4}, Augment(size=32), str(tmp_path), batch_size=4, workers=0)
    hands.prepare_data()
    hands.setup("fit")
    assert hands.credits == ["Threes by Some One, github.com/someone/hands (CC0)"]
    assert (len(hands.train), len(hands.val)) == (2, 1)
    images, targets, raised = next(iter(hands.train_dataloader()))
    assert images.shape == (4, 32, 32, 3)
    assert raised.tolist() == [14] * 4
    assert {CLASSES[target] for target in targets} <= {"3L", "3R"}, "some are flipped"
    with pytest.raises(BadData, match="no backgrounds without hands"):
        CropDataModule({"threes": 4}, Augment(), str(tmp_path), empty=2).setup("fit")


# Lists made by eye


@pytest.mark.parametrize("folder", sorted(path.name for path in registry.LISTS.iterdir()))
def test_lists_are_of_a_source_that_is_trained_on_and_sorted(folder):
    assert any(source.path == f"people/{folder}" for source in SOURCES.values())
    for file in (registry.LISTS / folder).glob("*.txt"):
        lines = file.read_text(encoding="utf-8").splitlines()
        assert lines
        assert lines == sorted(set(lines))


def test_files_are_listed_by_name_by_original_or_with_their_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "LISTS", tmp_path)
    (tmp_path / "set").mkdir()
    (tmp_path / "set/excluded.txt").write_text("a.jpg\nB1_jpg\nval/3.jpg\n")
    is_listed = registry.listed("set", "excluded")
    assert is_listed(Path("x/a.jpg"))
    assert is_listed(Path("x/B1_jpg.rf.0123.jpg")), "each augmented copy of an original"
    assert is_listed(Path("x/val/3.jpg"))
    assert not is_listed(Path("x/train/3.jpg"))
    assert not is_listed(Path("x/B12_jpg.rf.0123.jpg"))


def test_groups_follow_from_file_names():
    assert registry.whatsapp_batch(Path("IMG-20230312-WA0525_jpg.rf.1.jpg")) == "0312-0524"
    assert registry.whatsapp_batch(Path("IMG-20230312-WA0523_jpg.rf.1.jpg")) == "0312-0508"
    assert registry.whatsapp_batch(Path("IMG_20230314_101010_jpg.rf.1.jpg")) == "camera IMG_20230314"
    assert registry.chilean_signer(Path("N-12-_jpeg_jpg.rf.1.jpg")) == "blue walls"
    assert registry.chilean_signer(Path("IMG-20221104-WA0001_jpg.rf.1.jpg")) == "20221104"


def yolo_square(root: Path, side: int = 100) -> Path:
    """Write one square frame with a hand of each class, one and other, and its YOLO labels."""
    write_image(root / "images/1.jpg", np.full((side, side, 3), 200, np.uint8))
    (root / "labels").mkdir()
    (root / "labels/1.txt").write_text("0 0.25 0.5 0.1 0.4\n1 0.75 0.5 0.1 0.4\n")
    (root / "data.yaml").write_text("names: [one, other]")
    return root


def test_a_hand_in_a_pose_that_is_no_count_is_a_hand(tmp_path):
    labels = {"one": Label(1, "index"), "other": Label(None)}
    frames = BoxLabelledFrames(yolo_square(tmp_path), labels, lambda file: "")
    frame = frames.frame(0)
    assert frame.targets.tolist() == [SIDE_UNKNOWN + 1, COUNT_UNKNOWN]
    assert frame.fingers.tolist() == [2, registry.FINGERS_UNKNOWN]
    assert len(hand_boxes(frame)) == 2, "the detector learns both"
    assert counted(frame) is None, "what it counts cannot be evaluated"


def test_frames_that_were_stretched_into_squares_are_stretched_back(tmp_path):
    labels = dict.fromkeys(("one", "other"), Label(1))
    frames = BoxLabelledFrames(yolo_square(tmp_path), labels, lambda file: "", aspect=2)
    frame = frames.frame(0)
    assert frame.image.shape == (50, 100, 3)
    np.testing.assert_allclose(frame.boxes, [[20, 15, 30, 35], [70, 15, 80, 35]], atol=0.01)
