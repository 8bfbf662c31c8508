"""Frames with labelled hands, and the interface that all sources share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.datasets import VisionDataset

from handful.images import BadImage, decode
from handful.labels import COUNT_UNKNOWN, NO_HAND
from training.data.registry import Label
from training.errors import BadData


@dataclass(frozen=True)
class Frame:
    """An image and the hands in it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (K, 4) float32: x0, y0, x1, y1 tight around each hand without its forearm, in pixels.
        targets: (K,) int64, see `handful.labels.encode`.
        mask: (H, W) uint8, 255 on hand, forearm and sleeve, 0 on the background, soft at the edge;
            None where hands cannot be segmented.
        fingers: (K,) int64, which fingers of each hand are raised: the sum of 1 for the thumb, 2 for the index finger,
            4, 8, 16, or `FINGERS_UNKNOWN`; None if that is not known of any.
    """

    image: np.ndarray
    boxes: np.ndarray
    targets: np.ndarray
    mask: np.ndarray | None = None
    fingers: np.ndarray | None = None


def counted(frame: Frame) -> Frame | None:
    """Return a frame as it is evaluated: with its hands only, None if one of them is in a pose that is no count."""
    if (frame.targets == COUNT_UNKNOWN).any():
        return None
    hands = frame.targets != NO_HAND
    fingers = None if frame.fingers is None else frame.fingers[hands]
    return replace(frame, boxes=frame.boxes[hands], targets=frame.targets[hands], fingers=fingers)


class FrameDataset(VisionDataset):
    """A set of frames, read one at a time.

    Attributes:
        files: the images.
        extra_files: other files that frames are made of, such as a table of labels.
        labels: label of each class name, for sets with class names.
        groups: the person or recording session of each image. Images of one group are near duplicates: a group must
            not be split between training and validation.
        validation: (N,) bool: the image is held out for validation.
    """

    labels: Mapping[str, Label] = {}

    def __init__(self, root: str | Path, files: Sequence[Path], extra_files: Sequence[Path] = ()):
        super().__init__(root)
        if not files:
            raise BadData(f"{root}: no images here. Fetch the data set with: python -m training data")
        self.files, self.extra_files = files, extra_files
        self.groups = [""] * len(files)
        self.validation = np.zeros(len(files), bool)

    def hold_out(self, groups: Sequence[str], validation: Callable[[str], bool]) -> None:
        """Set the group of each image, and hold out the groups that `validation` accepts."""
        self.groups = list(groups)
        self.validation = np.array([validation(group) for group in groups], bool)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Frame:
        return self.frame(index)

    def frame(self, index: int) -> Frame:
        """Read one frame."""
        raise NotImplementedError

    def path(self, index: int) -> Path:
        """Return a path that names one image: its file, where it has a file to itself."""
        return self.files[index]

    def traits(self) -> dict[str, tuple[list[str], list[str]]]:
        """Return what frames differ in: for each trait its values, in order, and the value of each frame."""
        return {}

    def metadata(self) -> dict[str, Any]:
        """Return what checkpoints record of the set: how many images are trained on and held out."""
        return {"training": int((~self.validation).sum()), "validation": int(self.validation.sum())}


def read_rgb(file: Path) -> np.ndarray:
    """Read an image, (H, W, 3) uint8 RGB.

    Raises:
        BadData: it cannot be read.
    """
    try:
        return decode(file)
    except BadImage as error:
        raise BadData(f"{file}: {error} Delete the data set and fetch it again.") from None
