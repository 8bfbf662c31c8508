"""Frames whose number of raised fingers is known: each set a folder and a small loader.

A loader gives what its folder holds and nothing where there is none, so that everyone can run the
benchmark with the sets that they have. The bundled samples are always there; `python -m training data`
fetches the others.

Sets are named as by `python -m training evaluate`. Those that end in -all hold what Handful learned
from: MediaPipe's share of them stands beside that of a model that left them out
(`python -m training leave-out`).
"""

import csv
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

# Recordings of HandsDataset kept for validation: nothing is learned from them.
SESSIONS = ("", "5_", "26_", "35_")
# Pictures of Sign-Language-Digits that lie in the folder of another number than the fingers they show.
MISPLACED = {"IMG_5176.JPG": 3}


@dataclass(frozen=True)
class Frame:
    """A picture's file, the fingers raised in it, and the run of frames that it belongs to."""

    path: Path
    total: int
    session: str = ""


@dataclass(frozen=True)
class FrameSet:
    """A set of frames.

    Attributes:
        title: what the table calls it.
        source: whose pictures they are.
        folder: where they lie, from the root of the project.
        load: reads the folder: frames in order.
        limit: how many frames are taken of them, evenly spread. 0: all.
        favour: the hand fills the picture, which MediaPipe is not made for: it gets these pictures larger,
            with more contrast and with a border, "edges" or "black" (see `mediapipe.favour`).
    """

    title: str
    source: str
    folder: str
    load: Callable[[Path], Iterable[Frame]]
    limit: int = 0
    favour: str = ""

    def frames(self, root: Path, limit: int = 0) -> list[Frame]:
        """The frames below `root`, at most `limit` of them (0: as many as the set says); [] without the folder."""
        folder = root / self.folder
        found = list(self.load(folder)) if folder.is_dir() else []
        limit = min((n for n in (limit, self.limit, len(found)) if n), default=0)
        return [found[i] for i in np.linspace(0, len(found) - 1, limit).round().astype(int)] if found else []


def natural(path: Path) -> list:
    """Sorts one_2.jpg before one_10.jpg."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def fingers(folder: Path) -> Iterable[Frame]:
    """<uuid>_<0-5><L|R>.png"""
    return (Frame(path, int(path.stem[-2])) for path in sorted(folder.glob("*_[0-5][LR].png")))


def samples(folder: Path) -> Iterable[Frame]:
    """<0-5><L|R>_<k>.jpg"""
    return (Frame(path, int(path.name[0])) for path in sorted(folder.glob("[0-5][LR]_*.jpg"), key=natural))


def hands_dataset(folder: Path, sessions: Collection[str] = ()) -> Iterable[Frame]:
    """images/{train,test}/<session>pic<number>.jpg, with a row a hand in data/{train,test}_labels.csv.

    Of these sessions, or of all.
    """
    totals: dict[Path, int] = defaultdict(int)
    for split in "train", "test":
        with open(folder / f"data/{split}_labels.csv", newline="") as file:
            for row in csv.DictReader(file):
                totals[folder / "images" / split / row["filename"]] += int(row["class"][0])
    # The repository deals the frames of one recording out to train and test: in order of time again.
    for path in sorted(totals, key=lambda path: path.name):
        session = path.name.partition("pic")[0]
        if not sessions or session in sessions:
            yield Frame(path, totals[path], session)


def sign_language(folder: Path, first: int = 0) -> Iterable[Frame]:
    """Dataset/<digit>/IMG_<number>.JPG: 1-5 are counts; of each the people from the `first` on."""
    for digit in range(1, 6):
        for path in sorted((folder / f"Dataset/{digit}").glob("IMG_*.JPG"))[first:]:
            yield Frame(path, MISPLACED.get(path.name, digit), str(digit))


def finger_counting(folder: Path) -> Iterable[Frame]:
    """Raw_Images/Human/Set1/<1-5>/<word>_<number>.jpg"""
    for digit in range(1, 6):
        for path in sorted((folder / f"Raw_Images/Human/Set1/{digit}").glob("*.jpg"), key=natural):
            yield Frame(path, digit, str(digit))


def rendered(folder: Path, every: int = 5) -> Iterable[Frame]:
    """One in so many of the frames that `python -m training evaluate` makes of rendered hands, written as PNGs."""
    from training.evaluate import held_out  # torch, for those alone who have rendered some

    frames, index = held_out("rendered", folder.parents[1])
    written = folder.parents[1] / "cache/rendered-frames"
    written.mkdir(parents=True, exist_ok=True)
    for i in index[::every]:
        frame, path = frames.frame(i), written / f"{i}.png"
        Image.fromarray(frame.image).save(path)
        yield Frame(path, int((frame.targets % 6).sum()), str(i))


SETS = {
    "samples": FrameSet("Rendered samples", "bundled with Handful", "assets/samples", samples, favour="edges"),
    "fingers-test": FrameSet(
        "Fingers test",
        "kaggle.com/datasets/koryakinp/fingers, CC0",
        "data/fingers/test",
        fingers,
        limit=300,
        favour="black",
    ),
    "webcam": FrameSet(
        "Webcam frames",
        "github.com/SubhiH/HandsDataset, Apache-2.0",
        "data/people/HandsDataset",
        partial(hands_dataset, sessions=SESSIONS),
    ),
    "digits": FrameSet(
        "Sign language 1-5",
        "github.com/ardamavi/Sign-Language-Digits-Dataset, Apache-2.0",
        "data/people/Sign-Language-Digits-Dataset",
        partial(sign_language, first=120),
        favour="edges",
    ),
    "rendered": FrameSet("Rendered hands", "rendered by training/render", "data/render/val", rendered),
    "webcam-all": FrameSet(
        "All webcam frames",
        "github.com/SubhiH/HandsDataset, Apache-2.0",
        "data/people/HandsDataset",
        hands_dataset,
    ),
    "digits-all": FrameSet(
        "All sign language 1-5",
        "github.com/ardamavi/Sign-Language-Digits-Dataset, Apache-2.0",
        "data/people/Sign-Language-Digits-Dataset",
        sign_language,
        favour="edges",
    ),
    "counting-all": FrameSet(
        "All finger counting",
        "github.com/EPSRC-NUMBERS/Human-Robot_Finger-Counting_Dataset, CC BY-SA 4.0",
        "data/people/Human-Robot_Finger-Counting_Dataset",
        finger_counting,
    ),
}


def digest(frames: Iterable[Frame]) -> str:
    """Names the very frames: 12 hex digits over their names, counts and bytes."""
    sha = hashlib.sha256()
    for frame in frames:
        sha.update(f"{frame.path.name} {frame.total}\n".encode() + frame.path.read_bytes())
    return sha.hexdigest()[:12]
