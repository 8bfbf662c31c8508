"""Sets of real people's hands, read from stand-ins in the same layout, and fetched from a server on this machine."""

import errno
import io
import pickle
import re
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import cv2
import kagglehub
import numpy as np
import pytest
from torchvision.datasets import VisionDataset

from handful import CLASSES
from handful.labels import SIDE_UNKNOWN
from tests.builders import draw_hand, write_fingers
from training import data
from training.augment.pipeline import Augment
from training.data import CropDataModule, Source, frames, panoramas
from training.data.frames import Frame, FrameDataset, crops, fetch_archive, hand_box, roi_crop
from training.data.sources import finger_counting as counting
from training.data.sources import hands_dataset as webcam
from training.data.sources import sign_language_digits as digits
from training.data.sources.finger_counting import FingerCounting, rooms
from training.data.sources.hands_dataset import HandsDataset, session
from training.data.sources.sign_language_digits import SignLanguageDigits
from training.errors import BadData

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SKIN, SLEEVE = (205, 160, 125), (60, 70, 75)


def write(file, rgb):
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])


def paint(label, wall, tilt=0.0, scale=1.0):
    """A hand with a forearm out of a sleeve before a wall (RGB); with (H, W) bool: all of it, and the hand alone."""
    height, width = wall.shape[:2]
    hand = (draw_hand(label, np.random.default_rng(7)) > 90).astype(np.uint8)
    x, y = np.flatnonzero(hand.any(0)), np.flatnonzero(hand.any(1))
    palm = (float(x.mean()), float(y.max() - 15))
    arm, sleeve = np.zeros((2, 400, 128), np.uint8)
    cv2.line(arm, (round(palm[0]), round(palm[1])), (round(palm[0]), 399), 1, 15)
    cv2.line(sleeve, (round(palm[0]), y.max() + 35), (round(palm[0]), 399), 1, 25)
    move = cv2.getRotationMatrix2D(palm, tilt, scale)
    move[:, 2] += np.array([width / 2, height * 0.6]) - palm
    hand, arm, sleeve = (cv2.warpAffine(part, move, (width, height)) > 0 for part in (hand, arm, sleeve))
    picture = wall.copy()
    picture[hand | arm] = SKIN
    picture[sleeve] = SLEEVE
    return picture, hand | arm | sleeve, hand


def overlap(a, b):
    """Intersection over union of two masks."""
    return (a & b).sum() / (a | b).sum()


def box_overlap(box, hand):
    """Intersection over union of a box and the box of a mask."""
    boxes = np.zeros((2, *hand.shape), bool)
    y, x = np.nonzero(hand)
    boxes[0, y.min() : y.max() + 1, x.min() : x.max() + 1] = True
    x0, y0, x1, y1 = box.round().astype(int)
    boxes[1, y0:y1, x0:x1] = True
    return overlap(*boxes)


@pytest.fixture
def digit_folder(tmp_path):
    light = np.linspace(1, 0.85, 100)[:, None, None]
    wall = (np.full((100, 100, 3), (200, 200, 205)) * light).astype(np.uint8)
    for digit in range(6):
        for person in range(3):
            picture, *_ = paint(f"{digit}R", wall, scale=0.7)
            write(tmp_path / "Dataset" / str(digit) / f"IMG_{1000 + 10 * person + digit}.JPG", picture)
    return tmp_path


def test_digits_are_right_hands_grouped_by_person(digit_folder, monkeypatch):
    monkeypatch.setattr(digits, "VALIDATION", 2)
    pictures = SignLanguageDigits(digit_folder)
    assert isinstance(pictures, VisionDataset)
    assert len(pictures) == len(pictures.files) == 15
    assert [CLASSES[frame.targets[0]] for frame in pictures] == [f"{d}R" for d in "111222333444555"]
    assert pictures.groups == ["000", "001", "002"] * 5
    assert pictures.validation.tolist() == [False, False, True] * 5


def test_a_digit_in_the_wrong_folder_is_what_its_hand_shows(digit_folder, monkeypatch):
    monkeypatch.setattr(digits, "MISPLACED", {"IMG_1002.JPG": 3})
    targets = [int(frame.targets[0]) for frame in SignLanguageDigits(digit_folder)]
    assert [CLASSES[t] for t in targets[3:6]] == ["3R", "2R", "2R"]


@pytest.mark.parametrize("fingers", [1, 3, 5])
def test_a_digit_comes_with_mask_and_box_of_its_hand(fingers, digit_folder):
    pictures = SignLanguageDigits(digit_folder)
    frame = pictures[3 * fingers - 3]
    light = np.full((100, 100, 3), 200, np.uint8)
    _, whole, hand = paint(f"{fingers}R", light, scale=0.7)
    assert frame.image.shape == (100, 100, 3)
    assert frame.mask.dtype == np.uint8
    assert overlap(frame.mask > 127, whole) > 0.85
    assert frame.boxes.shape == (1, 4)
    assert frame.boxes.dtype == np.float32
    assert box_overlap(frame.boxes[0], hand) > 0.8


def test_an_empty_wall_is_a_frame_without_hands(digit_folder):
    write(digit_folder / "Dataset" / "1" / "IMG_0001.JPG", np.full((100, 100, 3), 200, np.uint8))
    frame = SignLanguageDigits(digit_folder)[0]
    assert frame.boxes.shape == (0, 4)
    assert frame.targets.shape == (0,)


@pytest.fixture
def counting_folder(tmp_path):
    rng = np.random.default_rng(0)
    wall = np.full((300, 400, 3), (110, 118, 112), np.uint8)
    folder = tmp_path / "Raw_Images" / "Human" / "Set1"
    write(folder / "0" / "imbk.jpg", wall)
    for fingers in range(1, 6):
        # The light drifts from picture to picture, a little in each channel.
        light = rng.uniform(0.5, 0.65) * rng.uniform(0.97, 1.03, 3)
        picture, *_ = paint(f"{fingers}L", wall, tilt=20 * fingers - 60)
        write(folder / str(fingers) / f"n_{fingers}.jpg", (picture * light).clip(0, 255).astype(np.uint8))
    for room in (1, 2, 10):
        write(tmp_path / "Backgrounds" / "Office" / f"{room}.jpg", wall)
    return tmp_path


def test_counts_have_no_side_and_nothing_is_kept_for_validation(counting_folder):
    pictures = FingerCounting(counting_folder)
    assert [int(frame.targets[0]) - SIDE_UNKNOWN for frame in pictures] == [1, 2, 3, 4, 5]
    assert set(pictures.groups) == {"Set1"}
    assert not pictures.validation.any()
    assert [room.stem for room in rooms(counting_folder)] == ["1", "2", "10"]


@pytest.mark.parametrize("fingers", [1, 2, 3, 4, 5])
def test_a_tilted_arm_is_in_the_mask_but_not_in_the_box(fingers, counting_folder):
    frame = FingerCounting(counting_folder)[fingers - 1]
    wall = np.full((300, 400, 3), 112, np.uint8)
    _, whole, hand = paint(f"{fingers}L", wall, tilt=20 * fingers - 60)
    assert overlap(frame.mask > 127, whole) > 0.9
    assert box_overlap(frame.boxes[0], hand) > 0.8


def test_no_empty_wall_no_masks(counting_folder):
    (counting_folder / "Raw_Images" / "Human" / "Set1" / "0" / "imbk.jpg").unlink()
    with pytest.raises(BadData, match="the empty wall is missing"):
        FingerCounting(counting_folder)


def write_webcam(folder, rows):
    for split in ("train", "test"):
        lines = ["filename,width,height,class,xmin,ymin,xmax,ymax", *rows.get(split, [])]
        (folder / "data").mkdir(parents=True, exist_ok=True)
        (folder / "data" / f"{split}_labels.csv").write_text("\n".join(lines))
        for name in {row.partition(",")[0] for row in lines[1:]}:
            write(folder / "images" / split / name, np.full((240, 320, 3), 90, np.uint8))
    return folder


def test_webcam_boxes_are_in_the_pixels_of_the_picture(tmp_path):
    rows = {
        "train": [
            "2_pic00001.jpg,640,480,2-hand,100,50,300,450",
            "2_pic00001.jpg,640,480,0-hand,600,0,660,100",
            "pic00002.jpg,320,240,5-hand,10,20,30,40",
        ],
        "test": ["26_pic00003.jpg,640,480,4-hand,0,0,64,48", "Hand_0000002.jpg,640,480,5-hand,0,0,64,48"],
    }
    write_webcam(tmp_path, rows)
    write(tmp_path / "images" / "train" / "2_pic00009.jpg", np.zeros((240, 320, 3), np.uint8))
    pictures = HandsDataset(tmp_path)
    found = {file.name: i for i, file in enumerate(pictures.files)}
    assert "2_pic00009.jpg" not in found  # in no list: perhaps with hands
    two = pictures[found["2_pic00001.jpg"]]
    assert two.boxes.tolist() == [[50, 25, 150, 225], [300, 0, 320, 50]]  # what reaches outside is cut
    assert two.targets.tolist() == [SIDE_UNKNOWN + 2, SIDE_UNKNOWN + 0]
    assert two.targets.dtype == np.int64
    assert two.mask is None
    kept = dict(zip(pictures.groups, pictures.validation.tolist(), strict=True))
    assert kept == {"2_": False, "pic": True, "26_": True}  # no Hand_… photo: not free to use


def test_webcam_pictures_that_are_missing_are_counted(tmp_path):
    rows = [f"5_pic{i}.jpg,320,240,2-hand,10,10,90,90" for i in range(3)]
    write_webcam(tmp_path, {"train": rows})
    (tmp_path / "images/train/5_pic1.jpg").unlink()
    with pytest.warns(UserWarning, match="1 of 3 pictures with labels are not there"):
        assert len(HandsDataset(tmp_path)) == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("5_pic00001.jpg", "5_"),
        ("1528664299.56_pic1.jpg", "1528664299.56_"),
        ("pic3.jpg", "pic"),
        ("Hand_7.jpg", "Hand_7"),
    ],
)
def test_sessions_are_told_by_names(name, expected):
    assert session(name) == expected


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
def test_webcam_labels_of_another_form_are_refused(row, tmp_path):
    write_webcam(tmp_path, {"train": [row]})
    with pytest.raises(BadData, match="not labels of HandsDataset"):
        HandsDataset(tmp_path)


@pytest.mark.parametrize("kind", [SignLanguageDigits, FingerCounting, HandsDataset])
def test_a_folder_without_the_set_says_what_to_do(kind, tmp_path):
    with pytest.raises(BadData, match="Fetch the set"):
        kind(tmp_path)
    assert re.search(r"github\.com/\S+ \(.+\)", kind.credit)


def test_a_broken_picture_is_named(digit_folder):
    file = digit_folder / "Dataset" / "1" / "IMG_1001.JPG"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(BadData, match="IMG_1001"):
        SignLanguageDigits(digit_folder)[0]


def test_a_hand_that_touches_no_edge_keeps_its_whole_box():
    mask = np.zeros((60, 80), np.uint8)
    mask[10:50, 20:40] = 255
    assert hand_box(mask).tolist() == [20, 10, 40, 50]


def test_the_palm_is_found_where_skin_shows_though_the_sleeve_is_wider():
    mask, bare = np.zeros((2, 200, 100), np.uint8)
    cv2.circle(bare, (50, 50), 15, 255, -1)
    mask[80:, 20:80] = 255
    mask[50:80, 42:58] = bare[50:80, 42:58] = 255
    x0, y0, x1, y1 = hand_box(cv2.max(mask, bare), bare)
    assert (x0, y0, x1) == (35, 35, 66)
    assert 65 < y1 < 80


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
def test_nothing_is_beyond_the_picture(size, mask):
    image = np.full((40, 40, 3), 200, np.uint8)
    crop = roi_crop(image, np.array([0, 0, 20, 40]), size, margin=2, mask=mask)
    quarter = size // 4
    assert (crop[:, : quarter - 1] == 0).all()
    assert (crop[quarter + 1 : -quarter - 1, 2 * quarter : 3 * quarter - 1, 3] == 255).all()


def test_a_crop_much_smaller_than_its_box_is_averaged():
    image = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    crop = roi_crop(image, np.array([0, 0, 512, 512]), 16, margin=1)
    assert abs(crop[..., :3].astype(float) - 128).max() < 30


def test_crops_are_cut_once_and_again_when_a_picture_changes(digit_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "VALIDATION", 2)
    pictures, cache = SignLanguageDigits(digit_folder), tmp_path / "cache"
    array, targets, boxes, validation = crops(pictures, 32, 1.3, cache)
    assert isinstance(array, np.memmap)
    assert array.shape == (15, 32, 32, 4)
    frame = pictures[4]
    assert (array[4] == roi_crop(frame.image, frame.boxes[0], 32, mask=frame.mask)).all()
    assert [CLASSES[t] for t in targets] == [f"{d}R" for d in "111222333444555"]
    assert boxes.shape == (15, 4)
    assert (boxes[:, 2:] - boxes[:, :2]).max(1) == pytest.approx(32 / 1.3, abs=0.01)
    assert validation.tolist() == pictures.validation.tolist()

    read = []
    monkeypatch.setattr(digits, "read_rgb", lambda file: read.append(file) or frames.read_rgb(file))
    again, *_ = crops(pictures, 32, 1.3, cache)
    assert (again == array).all()
    assert not read
    write(pictures.files[0], np.full((100, 100, 3), 200, np.uint8))
    array, targets, boxes, _ = crops(SignLanguageDigits(digit_folder), 32, 1.3, cache)
    assert len(read) == 15
    assert len(array) == len(targets) == len(boxes) == 14  # no hand is left in the changed one
    assert len(list(cache.iterdir())) == 2, "those of the older state are gone"


def test_cutting_out_that_breaks_off_leaves_nothing_behind(digit_folder, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(frames, "roi_crop", stop)
    with pytest.raises(KeyboardInterrupt):
        crops(SignLanguageDigits(digit_folder), 32, 1.3, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_crops_go_to_workers_by_the_name_of_their_file(digit_folder, tmp_path):
    array, *_ = crops(SignLanguageDigits(digit_folder), 32, 1.3, tmp_path)
    packed = pickle.dumps(array)
    assert len(packed) < 1000
    assert (pickle.loads(packed) == array).all()
    assert (pickle.loads(pickle.dumps(array[2:4])) == array[2:4]).all()


def test_a_corrected_label_is_learned(tmp_path):
    write_webcam(tmp_path, {"train": ["5_pic1.jpg,320,240,2-hand,10,10,90,90"]})
    crops(HandsDataset(tmp_path), 8, 1.3, tmp_path / "cache")
    table = tmp_path / "data/train_labels.csv"
    table.write_text(table.read_text().replace("2-hand", "4-hand"))
    assert crops(HandsDataset(tmp_path), 8, 1.3, tmp_path / "cache")[1] == [SIDE_UNKNOWN + 4]


def test_masks_are_made_anew_when_the_empty_wall_is_another(counting_folder, tmp_path):
    before, *_ = crops(FingerCounting(counting_folder), 8, 1.3, tmp_path / "cache")
    shaded = np.full((300, 400, 3), (110, 118, 112), np.uint8)
    shaded[:, 200:] //= 2
    write(counting_folder / "Raw_Images/Human/Set1/0/imbk.jpg", shaded)
    after, *_ = crops(FingerCounting(counting_folder), 8, 1.3, tmp_path / "cache")
    assert before.tobytes() != after.tobytes()


def test_a_picture_moved_to_another_count_is_cut_again(digit_folder, tmp_path):
    for number in (1002, 1012):  # so that it stays in its place in the order of names
        (digit_folder / f"Dataset/2/IMG_{number}.JPG").unlink()
    crops(SignLanguageDigits(digit_folder), 8, 1.3, tmp_path / "cache")
    (digit_folder / "Dataset/1/IMG_1021.JPG").rename(digit_folder / "Dataset/2/IMG_1021.JPG")
    _, targets, *_ = crops(SignLanguageDigits(digit_folder), 8, 1.3, tmp_path / "cache")
    assert [CLASSES[target] for target in targets[:4]] == ["1R", "1R", "2R", "2R"]


def test_crops_of_a_picture_with_two_hands(tmp_path):
    rows = ["5_pic1.jpg,320,240,2-hand,10,10,90,90", "5_pic1.jpg,320,240,0-hand,200,10,290,90"]
    pictures = HandsDataset(write_webcam(tmp_path, {"train": rows}))
    array, targets, _, validation = crops(pictures, 8, 1.3, tmp_path / "cache")
    assert array.shape == (2, 8, 8, 4)
    assert targets.tolist() == [SIDE_UNKNOWN + 2, SIDE_UNKNOWN]
    assert validation.tolist() == [True, True]


# --- Fetching, from a server on this machine ---


def archive(files, commit=COMMIT, name="hands"):
    """A zip as GitHub makes them."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path, content in files.items():
            zipped.writestr(f"{name}-{commit}/{path}", content)
        zipped.comment = commit.encode()
    return packed.getvalue()


class Server(ThreadingHTTPServer):
    """Serves `content` at every address; `breaks` says after how many bytes each next answer ends."""

    content, status = b"", 200

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.breaks = [], []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def do_GET(self):
        server = self.server
        server.asked.append(self.path)
        if server.status != 200:
            return self.send_error(server.status)
        self.send_response(200)
        self.send_header("Content-Length", str(len(server.content)))
        self.end_headers()
        return self.wfile.write(server.content[: server.breaks.pop(0)] if server.breaks else server.content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    with Server() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        monkeypatch.setattr(frames, "GITHUB", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(frames.time, "sleep", lambda seconds: None)
        server.files = {
            "README.md": b"hands",
            "images/1.jpg": np.random.default_rng(1).bytes(3000),
            "images/2.jpg": np.random.default_rng(2).bytes(3000),
        }
        server.content = archive(server.files)
        yield server
        server.shutdown()
        thread.join()


def fetched(folder):
    return {str(file.relative_to(folder).as_posix()): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_an_archive_is_fetched_and_what_is_kept_unpacked(server, tmp_path):
    folder = tmp_path / "sets" / "hands"
    fetch_archive("someone/hands", COMMIT, folder, lambda path: path.startswith("images/"))
    assert server.asked == [f"/someone/hands/archive/{COMMIT}.zip"]
    assert fetched(folder) == {path: content for path, content in server.files.items() if path != "README.md"}
    assert list(folder.parent.iterdir()) == [folder]
    fetch_archive("someone/hands", COMMIT, folder)
    assert len(server.asked) == 1  # it is there


def test_a_broken_transfer_is_begun_again(server, tmp_path):
    server.breaks = [1000, 2000]
    fetch_archive("someone/hands", COMMIT, tmp_path / "hands")
    assert len(server.asked) == 3
    assert fetched(tmp_path / "hands") == server.files


def test_a_transfer_that_keeps_breaking_is_told_and_leaves_nothing_behind(server, tmp_path):
    server.breaks = [100] * 5
    with pytest.raises(BadData, match=r"could not be downloaded .* Check the network and run this again\.$"):
        fetch_archive("someone/hands", COMMIT, tmp_path / "hands")
    assert not list(tmp_path.iterdir())


def test_a_server_in_trouble_is_asked_again(server, tmp_path):
    server.status = 503
    with pytest.raises(BadData, match="503"):
        fetch_archive("someone/hands", COMMIT, tmp_path / "hands")
    assert len(server.asked) == 5


def test_a_commit_that_is_not_there_is_not_asked_for_again(server, tmp_path):
    server.status = 404
    with pytest.raises(BadData, match=r"answered 404.*save the file, unpack it"):
        fetch_archive("someone/hands", COMMIT, tmp_path / "hands")
    assert len(server.asked) == 1


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "GITHUB", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(frames.time, "sleep", lambda seconds: None)
    with pytest.raises(BadData, match="Check the network"):
        fetch_archive("someone/hands", COMMIT, tmp_path / "hands")
    assert not list(tmp_path.iterdir())


def corrupted(content):
    middle = content.index(b"images/1.jpg") + 1000
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (corrupted, "Bad CRC|invalid"),
        (lambda content: content[: len(content) // 2], "not a zip"),
        (lambda content: b"<html>Please log in to this network</html>", "not a zip"),
        (lambda content: archive({"images/2.jpg": b""}, commit="f" * 40), "not commit 0123"),
        (lambda content: archive({"README.md": b""}), "none of the files"),
    ],
    ids=["a changed byte", "half of it", "a page", "another commit", "nothing to keep"],
)
def test_a_broken_archive_is_not_kept_and_the_next_one_is_good(spoil, words, server, tmp_path):
    good, server.content = server.content, spoil(server.content)

    def keep(path):
        return path == "images/2.jpg"

    with pytest.raises(BadData, match=f"({words}).*run this again to download anew"):
        fetch_archive("someone/hands", COMMIT, tmp_path / "hands", keep)
    assert not list(tmp_path.iterdir())
    server.content = good
    fetch_archive("someone/hands", COMMIT, tmp_path / "hands", keep)
    assert list(fetched(tmp_path / "hands")) == ["images/2.jpg"]


@pytest.mark.parametrize("path", ["../../out.jpg", "a/../../../out.jpg", "c:\\out.jpg", "..\\out.jpg"])
def test_nothing_is_written_outside_the_folder(path, server, tmp_path):
    server.content = archive({path: b"out"})
    with pytest.raises(BadData, match="outside the folder"):
        fetch_archive("someone/hands", COMMIT, tmp_path / "sets" / "hands")
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_links_are_left_out(server, tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as zipped:
        link = zipfile.ZipInfo(f"hands-{COMMIT}/link")
        link.external_attr = 0o120777 << 16
        zipped.writestr(link, "/etc")
        zipped.writestr(f"hands-{COMMIT}/link/file", b"1")
        zipped.comment = COMMIT.encode()
    server.content = packed.getvalue()
    fetch_archive("someone/hands", COMMIT, tmp_path / "hands")
    assert fetched(tmp_path / "hands") == {"link/file": b"1"}


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "cannot be written")])
def test_a_disk_that_refuses_says_so(code, words, server, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(code, "no")

    monkeypatch.setattr(frames.shutil, "copyfileobj", refuse)
    with pytest.raises(BadData, match=words):
        fetch_archive("someone/hands", COMMIT, tmp_path / "hands")
    assert not (tmp_path / "hands").exists()
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("module", "kind", "kept", "left"),
    [
        (digits, SignLanguageDigits, "Dataset/5/IMG_1.JPG", "Dataset/0/IMG_1.JPG"),
        (counting, FingerCounting, "Raw_Images/Human/Set1/5/five_1.jpg", "Raw_Images/Human/Set2/5/five_1.jpg"),
        (webcam, HandsDataset, "images/train/2_pic1.jpg", "images/2_pic1.jpg"),
    ],
)
def test_each_set_is_fetched_at_its_commit(module, kind, kept, left, server, tmp_path):
    picture = cv2.imencode(".jpg", np.full((100, 100, 3), 200, np.uint8))[1].tobytes()
    header = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    extra = {
        "Raw_Images/Human/Set1/0/imbk.jpg": picture,
        "Backgrounds/Office/1.jpg": picture,
        "data/train_labels.csv": f"{header}2_pic1.jpg,100,100,3-hand,10,10,50,50".encode(),
        "data/test_labels.csv": header.encode(),
    }
    server.content = archive({kept: picture, left: picture, "README.md": b"", **extra}, module.COMMIT)
    module.fetch(tmp_path / "set")
    assert server.asked[0] == f"/{module.REPOSITORY}/archive/{module.COMMIT}.zip"
    assert kept in fetched(tmp_path / "set")
    assert not {left, "README.md"} & set(fetched(tmp_path / "set"))
    assert len(kind(tmp_path / "set")) == 1


class Threes(FrameDataset):
    """A source as CONTRIBUTING.md tells to add one: what is in a picture, and what is kept for validation."""

    credit = "Threes by someone, github.com/someone/hands (CC0)"

    def __init__(self, root):
        super().__init__(root, sorted(root.glob("*.jpg")))
        self.groups = [file.stem for file in self.files]
        self.validation = np.array([group == "1" for group in self.groups])

    def frame(self, index):
        image = frames.read_rgb(self.files[index])
        return Frame(image, np.float32([[20, 20, 80, 90]]), np.array([CLASSES.index("3L")]))


def test_a_source_is_a_class_and_a_line(server, tmp_path, monkeypatch, capsys):
    picture = cv2.imencode(".jpg", np.full((100, 100, 3), 200, np.uint8))[1].tobytes()
    server.content = archive({f"{k}.jpg": picture for k in range(3)})
    monkeypatch.setattr(data.fingers_source, "PICTURES", {"train": 12, "test": 12})
    monkeypatch.setattr(panoramas, "MEMBERS", {})
    line = Source(Threes, "people/threes", lambda folder: fetch_archive("someone/hands", COMMIT, folder))
    monkeypatch.setattr(data, "SOURCES", {"threes": line})

    with pytest.raises(BadData, match="train and test"):
        data.prepare(tmp_path, tmp_path)
    assert capsys.readouterr().out == "", "a copy that is none is told before anything is downloaded"

    # Kaggle comes last: where it lets nobody in, all else is there.
    def closed(name: str) -> str:
        raise ConnectionError("no way in")

    monkeypatch.setattr(kagglehub, "dataset_download", closed)
    with pytest.raises(BadData, match="Kaggle could not be reached"):
        data.prepare(tmp_path)
    assert "threes: 3 pictures, 1 of them kept for validation" in capsys.readouterr().out
    data.prepare(tmp_path, write_fingers(tmp_path / "mine", train=1, test=1))
    assert "train: 12" in capsys.readouterr().out
    hands = CropDataModule({"threes": 4}, Augment(size=32), str(tmp_path), batch_size=4, workers=0)
    hands.prepare_data()
    hands.setup("fit")
    assert hands.credits == [Threes.credit]
    assert (len(hands.train), len(hands.val)) == (2, 1)
    images, targets = next(iter(hands.train_dataloader()))
    assert images.shape == (4, 32, 32, 3)
    assert {CLASSES[target] for target in targets} <= {"3L", "3R"}, "some are mirrored"

    with pytest.raises(BadData, match="no places without hands"):
        CropDataModule({"threes": 4}, Augment(), str(tmp_path), empty=2).setup("fit")
    with pytest.raises(BadData, match="'fours' is no source: choose from threes"):
        data.open_source("fours", tmp_path)
