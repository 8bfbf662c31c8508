"""The user's own hand, recorded on the app's Teach page.

<folder>/<recording>.zip, or unpacked:
<folder>/<recording>/<class>/<number>.jpg    not mirrored; a class is 3L, for example, or 3, where the side is unknown
<folder>/<recording>/hands.csv               file,round,x0,y0,x1,y1; no box where no hand was detected
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

from handful.images import BadImage, decode
from handful.labels import CLASSES, encode
from training.data.frames import Frame, FrameDataset
from training.errors import BadData

TABLE = "hands.csv"


@dataclass(frozen=True)
class RecordedImage:
    """An image of a recording: the ZIP or table that lists it, its path, label, round and box, (4,) float32."""

    recording: Path
    path: Path | zipfile.Path
    target: int
    round: int
    box: np.ndarray | None

    @property
    def burst(self) -> tuple[int, int]:
        """Class and round: images taken within a second."""
        return self.target, self.round

    @property
    def file(self) -> Path:
        """The file that changes when the image does."""
        return self.path if isinstance(self.path, Path) else self.recording

    def read(self) -> bytes:
        """Read the JPEG.

        Raises:
            BadData: it is missing.
        """
        try:
            return self.path.read_bytes()
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise self.bad(error) from None

    def bad(self, error: Exception) -> BadData:
        """Return an error that names the image."""
        return BadData(f"{self.path}: {error} Remove it from {TABLE}, or unpack the ZIP anew.")


class OwnHand(FrameDataset):
    """One hand an image, mostly with its side; boxes as detected by the app. No masks.

    Images of one burst are near duplicates: of each class with more than one round, the last burst of a recording is
    held out for validation. An image without a box, between two of its burst whose boxes overlap by half, gets their
    mean. Others without a box are left out, with a warning. An image in two recordings, as downloads of one that grew
    have them, is read once.

    >>> frame = OwnHand("data/own")[0]
    >>> frame.image.shape, CLASSES[frame.targets[0]]
    ((480, 640, 3), '0L')

    Raises:
        BadData: no recording in `root`, a damaged one, no hand in it, or no class with two rounds.
    """

    def __init__(self, root: str | Path):
        recordings = [*sorted(Path(root).glob("*.zip")), *sorted(Path(root).rglob(TABLE))]
        if not recordings:
            raise BadData(f"{root}: no recording here. Make one on the app's Teach page, and put the ZIP here.")
        images: list[RecordedImage] = []
        seen: set[bytes] = set()
        for recording in recordings:
            recorded = []
            for _, burst in groupby(sorted(read_recording(recording), key=lambda r: r.burst), lambda r: r.burst):
                recorded += interpolate_boxes(list(burst))
            # In a later download of the same recording, training images of this one may be held out.
            content = [image.read() for image in recorded]
            images += [image for image, jpeg in zip(recorded, content, strict=True) if jpeg not in seen]
            seen |= set(content)
        self.images = [image for image in images if image.box is not None]
        if missed := len(images) - len(self.images):
            warnings.warn(f"{root}: {missed} of {len(images)} images are left out: no hand detected.", stacklevel=2)
        if not self.images:
            raise BadData(f"{root}: no hand detected in any image. Record again, in even light, the hand in view.")
        super().__init__(root, [image.file for image in self.images], recordings)
        self.groups = [f"{image.recording} {image.target} {image.round}" for image in self.images]
        rounds = defaultdict(set)
        for image in self.images:
            rounds[image.recording, image.target].add(image.round)
        last = {key: max(numbers) for key, numbers in rounds.items() if len(numbers) > 1}
        self.validation = np.array([last.get((image.recording, image.target)) == image.round for image in self.images])
        if not last:
            raise BadData(f"{root}: no class was recorded in two rounds, so nothing is left for validation. Record on.")

    def frame(self, index: int) -> Frame:
        recorded = self.images[index]
        assert recorded.box is not None
        try:
            image = decode(recorded.read())
        except BadImage as error:
            raise recorded.bad(error) from None
        return Frame(image, recorded.box[None], np.array([recorded.target]))


def read_recording(recording: Path) -> list[RecordedImage]:
    """Read a recording: a ZIP, or the table of an unpacked one.

    Raises:
        BadData: it is damaged, or something else.
    """
    try:
        folder = zipfile.Path(recording) if recording.suffix == ".zip" else recording.parent
        images = []
        for row in csv.DictReader((folder / TABLE).read_text(encoding="utf-8").splitlines()):
            corners = [row[corner] for corner in ("x0", "y0", "x1", "y1")]
            box = np.array(corners, np.float32) if all(corners) else None
            if box is not None and not (np.isfinite(box).all() and (box[2:] > box[:2]).all()):
                raise ValueError(f"{row['file']} has an empty box")
            label = row["file"].partition("/")[0]
            target = CLASSES.index(label) if label in CLASSES else encode(int(label))
            images.append(RecordedImage(recording, folder / row["file"], target, int(row["round"]), box))
    except (OSError, KeyError, TypeError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise BadData(f"{recording}: not a recording of the Teach page ({error!r}). Download it again.") from None
    return images


def interpolate_boxes(burst: list[RecordedImage]) -> list[RecordedImage]:
    """Fill in missing boxes of a burst where the boxes before and after agree: the hand moves little."""
    known = [(i, image.box) for i, image in enumerate(burst) if image.box is not None]
    filled = burst.copy()
    for i, image in enumerate(burst):
        before, after = [box for k, box in known if k < i], [box for k, box in known if k > i]
        if image.box is None and before and after:
            pair = np.stack([before[-1], after[0]])
            if box_iou(*torch.from_numpy(pair)[:, None])[0, 0] > 0.5:
                filled[i] = replace(image, box=pair.mean(0))
    return filled
