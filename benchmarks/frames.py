"""Frames whose number of raised fingers is known: the bundled samples, and what Handful itself is measured on.

Sets are named as by `python -m training evaluate`, and read as there. Those that end in -all hold what Handful
learned from: MediaPipe's share of them stands beside that of a model that left them out
(`python -m training leave-out`). Everyone can run the benchmarks with the sets that they have:
`python -m training data` fetches them.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image


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
        session: the run of frames that a file belongs to: the next one does not follow it.
        limit: how many frames are taken, evenly spread. 0: all.
        favour: the hand fills the picture, which MediaPipe is not made for: it gets these pictures larger,
            with more contrast and with a border, "edges" or "black" (see `mediapipe.favour`).
    """

    title: str
    source: str
    session: Callable[[Path], str] = lambda file: ""
    limit: int = 0
    favour: str = ""


def recording(file: Path) -> str:
    return file.name.partition("pic")[0] or "pic"


def digit(file: Path) -> str:
    return file.parent.name


FINGERS = "kaggle.com/datasets/koryakinp/fingers, CC0"
WEBCAM = "github.com/SubhiH/HandsDataset, Apache-2.0"
DIGITS = "github.com/ardamavi/Sign-Language-Digits-Dataset, Apache-2.0"
COUNTING = "github.com/EPSRC-NUMBERS/Human-Robot_Finger-Counting_Dataset, CC BY-SA 4.0"
SETS = {
    "samples": FrameSet("Rendered samples", "bundled with Handful", favour="edges"),
    "fingers-test": FrameSet("Fingers test", FINGERS, limit=300, favour="black"),
    "webcam": FrameSet("Webcam frames", WEBCAM, recording),
    "digits": FrameSet("Sign language 1-5", DIGITS, digit, favour="edges"),
    "rendered": FrameSet("Rendered hands", "rendered by training/render", lambda file: file.stem),
    "webcam-all": FrameSet("All webcam frames", WEBCAM, recording),
    "digits-all": FrameSet("All sign language 1-5", DIGITS, digit, favour="edges"),
    "counting-all": FrameSet("All finger counting", COUNTING, digit),
}


def frames(name: str, root: Path, limit: int = 0) -> list[Frame]:
    """The frames of a set, each session in order of time, from the project's folder.

    At most `limit` of them, evenly spread (0: as many as the set says); [] where it is not there, which stderr tells.
    """
    wanted = SETS[name]
    if name == "samples":
        files = {file: file for file in (root / "assets/samples").glob("[0-5][LR]_*.jpg")}
    else:
        from training.data import open_source  # torch, for those alone who read more than the samples
        from training.data.frames import BadData
        from training.evaluate import held_out

        try:
            if name.endswith("-all"):
                source = open_source(name.removesuffix("-all"), root / "data")
                index = range(len(source))
            else:
                source, index = held_out(name, root / "data")
        except BadData as error:
            print(f"{wanted.title}: left out. {error}", file=sys.stderr)
            return []
        # Rendered hands become frames with their places: those are written below.
        made = root / "data/cache/rendered-frames"
        files = {i: made / f"{i:05}.png" if name == "rendered" else source.files[i] for i in index}
    # Numbers count, where they are not padded: one_2.jpg comes before one_10.jpg.
    order = sorted(files, key=lambda i: (wanted.session(files[i]), len(files[i].name), files[i].name))
    most = min(limit or len(order), wanted.limit or len(order), len(order))
    found = []
    for i in (order[k] for k in np.linspace(0, len(order) - 1, most).round().astype(int)):
        if name == "samples":
            total = int(i.name[0])
        else:
            frame = source.frame(i)
            total = int((frame.targets % 6).sum())
        if name == "rendered":
            made.mkdir(parents=True, exist_ok=True)
            Image.fromarray(frame.image).save(files[i])
        found.append(Frame(files[i], total, wanted.session(files[i])))
    return found


def digest(frames: Iterable[Frame]) -> str:
    """Names the very frames: 12 hex digits over their names, counts and bytes."""
    sha = hashlib.sha256()
    for frame in frames:
        sha.update(f"{frame.path.name} {frame.total}\n".encode() + frame.path.read_bytes())
    return sha.hexdigest()[:12]
