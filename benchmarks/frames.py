"""Frames with known totals of raised fingers: the bundled samples, and the sets that Handful is evaluated on.

Sets are named as by `python -m training evaluate`, and read alike. Those that end in -all hold what Handful was trained
on: there, MediaPipe's accuracy is compared with that of a model trained without them (`python -m training leave-out`).
Pictures of faces, students and homes show no hand.
Benchmarks run with the sets that are there; `python -m training data` fetches them.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from handful.images import decode
from handful.labels import NO_HAND, count_of
from training.data.registry import HELD_OUT, SOURCES, Source, open_held_out, open_source
from training.errors import BadData

if TYPE_CHECKING:
    from training.data.frames import FrameDataset

WEBCAM_SIZE = (640, 480)  # width and height


@dataclass(frozen=True)
class LabelledPicture:
    """A picture and its total.

    Attributes:
        path: its file, or a name if it is made when loaded.
        total: raised fingers, of all hands.
        session: the recording that it belongs to; a tracker restarts where the next picture has another one.
        group: the person or the session that it shows, "" if it is alone: pictures of one group are alike.
        load: makes the picture, (H, W, 3) uint8 RGB; None: it is decoded from its file.
    """

    path: Path
    total: int
    session: str = ""
    group: str = ""
    load: Callable[[], np.ndarray] | None = None

    @property
    def image(self) -> np.ndarray:
        """The picture, (H, W, 3) uint8 RGB."""
        return self.load() if self.load else decode(self.path)


@dataclass(frozen=True)
class FrameSet:
    """A set of pictures to benchmark with.

    Attributes:
        title: its name in tables.
        source: name in `SOURCES` of the source, or in `HELD_OUT` of its held-out part; "": there are only `files`.
        whole: all of the source, of which Handful was trained on most, instead of the held-out part.
        without_hands: frames of the source that are held out for validation and show no hand.
        files: return the files below the project's folder with their totals, if they are of no source.
        work: whose they are.
        groups: return groups of the pictures that are reported too: the names of the folders of each.
        stills: no frame follows another: there is nothing to track.
        corrupted: each frame in each of the conditions of `CorruptedFrames`.
        size: width and height that frames are resized to, of which only those of one hand are used; None: all, as they
            are.
        max_frames: how many are used, evenly spread; 0: all.
        border: "edges" or "black" where hands fill the picture, which MediaPipe is not made for: it gets such pictures
            with a border (see `benchmarks.mediapipe.pad`).
    """

    title: str
    source: str = ""
    whole: bool = False
    without_hands: bool = False
    files: Callable[[Path], dict[Path, int]] = lambda root: {}
    work: str = ""
    groups: Callable[[], dict[str, Sequence[str]]] = dict
    stills: bool = False
    corrupted: bool = False
    size: tuple[int, int] | None = None
    max_frames: int = 0
    border: str = ""

    @property
    def credit(self) -> str:
        """Whose pictures they are."""
        return self.row.credit if self.source else self.work

    @property
    def row(self) -> Source:
        """Its row of the registry."""
        return (SOURCES if self.whole or self.without_hands else HELD_OUT)[self.source]

    def session(self, path: Path) -> str:
        """Return the recording session of a picture."""
        if not self.source:
            return ""
        session = self.row.session(path)
        return f"{path.parent.name}/{session}" if self.corrupted else session


def held_out_set(source: str, title: str = "", **options) -> FrameSet:
    return FrameSet(title or HELD_OUT[source].short_title, source, **options)


def whole_set(source: str, **options) -> FrameSet:
    return FrameSet(f"{SOURCES[source].short_title}, all", source, whole=True, **options)


def sample_files(root: Path) -> dict[Path, int]:
    """Return the bundled samples and their totals."""
    return {file: int(file.name[0]) for file in sorted((root / "assets/samples").glob("[0-5][LR]_*.jpg"))}


def hagrid_files(root: Path) -> dict[Path, int]:
    """Return HaGRID's pictures of gestures that people count with, and their totals."""
    from training.evaluation.gestures import COUNTING, GESTURES, PATH

    folders = {root / "data" / PATH / gesture: GESTURES[gesture].count or 0 for gesture in COUNTING}
    return {file: total for folder, total in folders.items() for file in sorted(folder.glob("*.jpg"))}


def hagrid_groups() -> dict[str, Sequence[str]]:
    """Return the gestures whose fingers are apart, and those whose fingers touch."""
    from training.evaluation.gestures import GROUPS

    return {name: GROUPS[name] for name in ("fingers spread", "fingers together")}


FRAME_SETS = {
    "samples": FrameSet("Rendered samples", files=sample_files, work="bundled with Handful", border="edges"),
    "fingers-test": held_out_set("fingers-test", max_frames=300, border="black"),
    "webcam": held_out_set("webcam"),
    # At a webcam's size: the one whose times are published.
    "webcam-one": held_out_set("webcam", "Webcam frames of one hand, 640×480", size=WEBCAM_SIZE),
    "webcam-harder": held_out_set("webcam", "Webcam frames, harder", corrupted=True),
    "digits": held_out_set("digits", border="edges"),
    "rendered": held_out_set("rendered"),
    "webcam-all": whole_set("webcam"),
    "digits-all": whole_set("digits", border="edges"),
    "counting-all": whole_set("counting"),
    **{
        f"{name}-all": whole_set(name, max_frames=300)
        for name, source in SOURCES.items()
        if source.fold and name not in ("webcam", "digits", "counting")
    },
    "hagrid": FrameSet(
        "People at home, by gesture",
        files=hagrid_files,
        work="HaGRID by Kapitanov et al., github.com/andrewchen3019/vlm-edge-hagrid (CC BY-SA 4.0)",
        groups=hagrid_groups,
        stills=True,
    ),
    # As in `python -m training evaluate`: pictures to calibrate with are left out.
    **{
        name: FrameSet(source.title, name, without_hands=True, stills=True)
        for name, source in SOURCES.items()
        if source.without_hands and not source.calibration
    },
}


def load_frames(name: str, root: Path, max_frames: int = 0) -> list[LabelledPicture]:
    """Return the frames of a set below the project's folder, the sessions one after the other, each in order of time.

    Args:
        name: in `FRAME_SETS`.
        root: the project's folder.
        max_frames: how many, evenly spread; 0: as many as the set says.

    Returns:
        The frames; [] if the set is not there, which is printed to stderr.
    """
    frame_set = FRAME_SETS[name]
    max_frames = max_frames or frame_set.max_frames
    if not frame_set.source:
        files = frame_set.files(root)
        if not files:
            print(f"{frame_set.title}: skipped. There are no pictures.", file=sys.stderr)
        return [LabelledPicture(file, files[file]) for file in spread(list(files), max_frames)]
    try:
        frames, paths = open_set(frame_set, root / "data")
    except BadData as error:
        print(f"{frame_set.title}: skipped. {error}", file=sys.stderr)
        return []
    # Numbers without leading zeros are in their order, too: one_2.jpg before one_10.jpg.
    order = sorted(paths, key=lambda i: (frame_set.session(paths[i]), len(paths[i].name), paths[i].name))
    return [to_picture(frame_set, frames, i, paths[i]) for i in spread(order, max_frames)]


def open_set(frame_set: FrameSet, data: Path) -> tuple["FrameDataset", dict[int, Path]]:
    """Return a set's frames, and the indices of those to use with a path for each.

    Raises:
        BadData: it is not in the data folder.
    """
    if frame_set.whole:
        from training.data.frames import counted

        frames = open_source(frame_set.source, data)
        indices = np.array([i for i in range(len(frames)) if counted(frames.frame(i)) is not None], int)
    elif frame_set.without_hands:
        frames = open_source(frame_set.source, data)
        indices = np.flatnonzero(frames.validation)
    else:
        frames, indices = open_held_out(frame_set.source, data)
    if frame_set.size:
        indices = np.array([i for i in indices if len(frames.frame(int(i)).boxes) == 1], int)
    if frame_set.corrupted:
        from training.data.backgrounds import load_backgrounds
        from training.data.corruptions import CorruptedFrames

        corrupted = CorruptedFrames(frames, indices, load_backgrounds(data, validation=True))
        conditions = corrupted.traits()["conditions"][1]
        return corrupted, {i: Path(condition, corrupted.path(i).name) for i, condition in enumerate(conditions)}
    return frames, {i: frames.path(i) for i in indices.tolist()}


def to_picture(frame_set: FrameSet, frames: "FrameDataset", index: int, path: Path) -> LabelledPicture:
    """Return one frame of a set."""

    def load() -> np.ndarray:
        image = frames.frame(index).image
        return cv2.resize(image, frame_set.size) if frame_set.size else image

    targets = frames.frame(index).targets
    total = int(count_of(targets[targets < NO_HAND]).sum())
    is_file = path.is_file() and not frame_set.size
    return LabelledPicture(path, total, frame_set.session(path), frames.groups[index], None if is_file else load)


def spread(items: Sequence, count: int) -> list:
    """Return so many of the items, evenly spread; 0: all."""
    count = min(count or len(items), len(items))
    return [items[k] for k in np.linspace(0, len(items) - 1, count).round().astype(int)]


def digest(pictures: Iterable[LabelledPicture]) -> str:
    """Identify pictures by 12 hex digits: of their names, totals and bytes, those of the pixels if there is no file."""
    sha = hashlib.sha256()
    for picture in pictures:
        content = picture.image.tobytes() if picture.load else picture.path.read_bytes()
        sha.update(f"{picture.path.name} {picture.total}\n".encode() + content)
    return sha.hexdigest()[:12]
