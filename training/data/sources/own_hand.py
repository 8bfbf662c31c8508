"""One's own hand, recorded on the app's Record page.

<folder>/<recording>.zip, or, unpacked:
<folder>/<recording>/<class>/<number>.jpg    as the camera sees it, not mirrored; a class is 3L, say
<folder>/<recording>/hands.csv               file,round,x0,y0,x1,y1; no box where no hand was found
"""

import csv
import warnings
import zipfile
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torchvision.ops import box_iou

from handful import CLASSES
from handful.images import BadImage, decode
from training.data.frames import Frame, FrameDataset
from training.errors import BadData

TABLE = "hands.csv"


@dataclass(frozen=True)
class Shot:
    """A picture of a recording: the ZIP or table that tells of it, where it is, what it shows, in which round."""

    recording: Path
    picture: Path | zipfile.Path
    target: int
    round: int
    box: np.ndarray | None  # (4,) float32

    @property
    def burst(self) -> tuple[int, int]:
        return self.target, self.round

    @property
    def file(self) -> Path:
        """What changes when the picture does."""
        return self.picture if isinstance(self.picture, Path) else self.recording

    def read(self) -> bytes:
        """The picture, as JPEG.

        Raises:
            BadData: it is not there.
        """
        try:
            return self.picture.read_bytes()
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise self.bad(error) from None

    def bad(self, error: Exception) -> BadData:
        return BadData(f"{self.picture}: {error} Take it out of {TABLE}, or unpack the ZIP anew.")


class OwnHand(FrameDataset):
    """One hand a picture, its side known; boxes as the app found them. No masks.

    Pictures of one burst are much alike: of each class that was asked for more than once, a recording's last burst
    is kept for validation. A picture without a box, between two of its burst whose boxes overlap by half, gets their
    mean. The others without one are left out, and a warning tells how many. A picture that lies in two recordings, as
    downloads of one that grew have them, is taken once.

    >>> pictures = OwnHand("data/own")
    >>> frame = pictures[0]
    >>> frame.image.shape, CLASSES[frame.targets[0]]
    ((480, 640, 3), '0L')

    Raises:
        BadData: no recording in `root`, a damaged one, no hand in it, or nothing that was asked for twice.
    """

    credit = "pictures of the user's own hand, recorded with Handful"

    def __init__(self, root: str | Path):
        recordings = [*sorted(Path(root).glob("*.zip")), *sorted(Path(root).rglob(TABLE))]
        if not recordings:
            raise BadData(f"{root}: no recording here. Make one on the app's Record page, and put the ZIP here.")
        shots: list[Shot] = []
        seen: set[bytes] = set()
        for recording in recordings:
            told = []
            for _, burst in groupby(sorted(read_table(recording), key=lambda shot: shot.burst), lambda s: s.burst):
                told += with_guesses(list(burst))
            # Of one that was downloaded again when it had grown, what is kept for validation here was learned there.
            content = [shot.read() for shot in told]
            shots += [shot for shot, jpeg in zip(told, content, strict=True) if jpeg not in seen]
            seen |= set(content)
        self.shots = [shot for shot in shots if shot.box is not None]
        if missed := len(shots) - len(self.shots):
            warnings.warn(f"{root}: {missed} of {len(shots)} pictures are left out: no hand was found.", stacklevel=2)
        if not self.shots:
            raise BadData(f"{root}: no hand was found in any picture. Record again, in even light and all in view.")
        super().__init__(root, [shot.file for shot in self.shots], recordings)
        self.groups = [f"{shot.recording} {CLASSES[shot.target]} {shot.round}" for shot in self.shots]
        rounds = defaultdict(set)
        for shot in self.shots:
            rounds[shot.recording, shot.target].add(shot.round)
        last = {key: max(told) for key, told in rounds.items() if len(told) > 1}
        self.validation = np.array([last.get((shot.recording, shot.target)) == shot.round for shot in self.shots])
        if not last:
            raise BadData(f"{root}: nothing was recorded in two rounds, so nothing is left to measure with. Record on.")

    def frame(self, index: int) -> Frame:
        shot = self.shots[index]
        assert shot.box is not None
        try:
            image = decode(shot.read())
        except BadImage as error:
            raise shot.bad(error) from None
        return Frame(image, shot.box[None], np.array([shot.target]))


def read_table(recording: Path) -> list[Shot]:
    """The pictures of a recording: a ZIP, or the table of one that is unpacked.

    Raises:
        BadData: it is damaged, or something else.
    """
    try:
        folder = zipfile.Path(recording) if recording.suffix == ".zip" else recording.parent
        shots = []
        for row in csv.DictReader((folder / TABLE).read_text(encoding="utf-8").splitlines()):
            corners = [row[corner] for corner in ("x0", "y0", "x1", "y1")]
            box = np.array(corners, np.float32) if all(corners) else None
            if box is not None and not (np.isfinite(box).all() and (box[2:] > box[:2]).all()):
                raise ValueError(f"{row['file']} has a box of no size")
            target = CLASSES.index(row["file"].partition("/")[0])
            shots.append(Shot(recording, folder / row["file"], target, int(row["round"]), box))
    except (OSError, KeyError, TypeError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise BadData(f"{recording}: not a recording of the Record page ({error!r}). Download it again.") from None
    return shots


def with_guesses(burst: list[Shot]) -> list[Shot]:
    """A burst whose pictures without a box have one where those before and after agree: the hand moves little."""
    known = [(i, shot.box) for i, shot in enumerate(burst) if shot.box is not None]
    guessed = burst.copy()
    for i, shot in enumerate(burst):
        before, after = [box for k, box in known if k < i], [box for k, box in known if k > i]
        if shot.box is None and before and after:
            pair = np.stack([before[-1], after[0]])
            if box_iou(*torch.from_numpy(pair)[:, None])[0, 0] > 0.5:
                guessed[i] = replace(shot, box=pair.mean(0))
    return guessed
