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
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from handful.images import decode


@dataclass(frozen=True)
class Frame:
    """A picture, the fingers raised in it, and the run of frames that it belongs to.

    Attributes:
        path: its file, or the name of one that is made when it is read.
        total: fingers raised.
        session: the run of frames; the first of another does not follow it.
        made: makes it, (H, W, 3) uint8 RGB; without, it is in its file.
    """

    path: Path
    total: int
    session: str = ""
    made: Callable[[], np.ndarray] | None = None

    @property
    def image(self) -> np.ndarray:
        """The picture, (H, W, 3) uint8 RGB."""
        return self.made() if self.made else decode(self.path)


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
        size: width and height that those of one hand alone are given; None: as they are, with any number of hands.
    """

    title: str
    source: str
    session: Callable[[Path], str] = lambda file: ""
    limit: int = 0
    favour: str = ""
    size: tuple[int, int] | None = None


def recording(file: Path) -> str:
    return file.name.partition("pic")[0] or "pic"


def digit(file: Path) -> str:
    return file.parent.name


CAMERA = (640, 480)  # width and height of a webcam's frame
FINGERS = "kaggle.com/datasets/koryakinp/fingers, CC0"
WEBCAM = "github.com/SubhiH/HandsDataset, Apache-2.0"
DIGITS = "github.com/ardamavi/Sign-Language-Digits-Dataset, Apache-2.0"
COUNTING = "github.com/EPSRC-NUMBERS/Human-Robot_Finger-Counting_Dataset, CC BY-SA 4.0"
SETS = {
    "samples": FrameSet("Rendered samples", "bundled with Handful", favour="edges"),
    "fingers-test": FrameSet("Fingers test", FINGERS, limit=300, favour="black"),
    "webcam": FrameSet("Webcam frames", WEBCAM, recording),
    # Those that times are told of: as large as webcams make them.
    "webcam-one": FrameSet("Webcam frames of one hand, 640×480", WEBCAM, recording, size=CAMERA),
    # Each of them in every condition: those of one follow each other.
    "webcam-harder": FrameSet("Webcam frames, harder", WEBCAM, lambda file: f"{file.parent.name}/{recording(file)}"),
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
    files: dict[Any, Path]
    if name == "samples":
        files = {file: file for file in (root / "assets/samples").glob("[0-5][LR]_*.jpg")}
    else:
        # torch, for those alone who read more than the samples
        from training.data import open_source
        from training.data.backgrounds import places
        from training.data.corruptions import CorruptedFrames
        from training.errors import BadData
        from training.evaluation.evaluate import held_out

        data = root / "data"
        try:
            if name.endswith("-all"):
                source = open_source(name.removesuffix("-all"), data)
                index = range(len(source))
            else:
                source, index = held_out(name.removesuffix("-harder").removesuffix("-one"), data)
        except BadData as error:
            print(f"{wanted.title}: left out. {error}", file=sys.stderr)
            return []
        if wanted.size:
            index = [i for i in index if len(source.frame(i).boxes) == 1]
        if name == "webcam-harder":
            source = CorruptedFrames(source, index, places(data, validation=True))
            (_, conditions), *_ = source.traits().values()
            files = {i: Path(condition) / source.files[i].name for i, condition in enumerate(conditions)}
        elif name == "rendered":
            files = {i: Path(f"{i:05}") for i in index}
        else:
            files = {i: source.files[i] for i in index}

    def picture(i: int) -> np.ndarray:
        image = source.frame(i).image
        return cv2.resize(image, wanted.size) if wanted.size else image

    # Numbers count, where they are not padded: one_2.jpg comes before one_10.jpg.
    order = sorted(files, key=lambda i: (wanted.session(files[i]), len(files[i].name), files[i].name))
    most = min(limit or len(order), wanted.limit or len(order), len(order))
    found = []
    for i in (order[k] for k in np.linspace(0, len(order) - 1, most).round().astype(int)):
        total = int(i.name[0]) if name == "samples" else int((source.frame(i).targets % 6).sum())
        made = None if files[i].is_file() and not wanted.size else partial(picture, i)
        found.append(Frame(files[i], total, wanted.session(files[i]), made))
    return found


def digest(frames: Iterable[Frame]) -> str:
    """Names the very frames: 12 hex digits over their names, counts and bytes, of pixels where there is no file."""
    sha = hashlib.sha256()
    for frame in frames:
        inside = frame.image.tobytes() if frame.made else frame.path.read_bytes()
        sha.update(f"{frame.path.name} {frame.total}\n".encode() + inside)
    return sha.hexdigest()[:12]
