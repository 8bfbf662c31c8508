"""Human-Robot Finger-Counting Dataset: one man's hands before a grey wall, and empty rooms.

    <folder>/Raw_Images/Human/Set1/<fingers>/<name>.jpg     0 is the empty wall
    <folder>/Backgrounds/Office/<number>.jpg                40 rooms

Source: github.com/EPSRC-NUMBERS/Human-Robot_Finger-Counting_Dataset, by the EPSRC project NUMBERS, University of
Sheffield. CC BY-SA 4.0.
"""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from training.data.frames import read_rgb
from training.data.masks import largest_component, soften_mask
from training.data.registry import Label
from training.data.sources.folders import OneHandFolder
from training.errors import BadData

SET1 = "Raw_Images/Human/Set1"


class FingerCounting(OneHandFolder):
    """Set1: one hand an image, 1-5 fingers, with its mask, from the difference to an image of the empty wall.

    Palms and backs of both hands at any rotation, often with a sleeve: the side is not labelled. It is all one
    person, so nothing is held out for validation.

    >>> frame = FingerCounting("data/counting", labels={"1": Label(1)})[0]
    >>> frame.image.shape, decode(frame.targets[0])
    ((600, 800, 3), (1, None))

    Raises:
        BadData: no images or no empty wall in `root`, or one that cannot be read.
    """

    def __init__(self, root: str | Path, labels: Mapping[str, Label]):
        super().__init__(root, f"{SET1}/{{}}/*.jpg", labels, lambda file, position: "Set1")
        walls = sorted((Path(root) / SET1 / "0").glob("*.jpg"))
        if not walls:
            raise BadData(f"{Path(root) / SET1 / '0'}: the image of the empty wall is missing. Fetch the set again.")
        self.extra_files, self.wall = walls[:1], read_rgb(walls[0])

    def segment(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return subtract_wall(image, self.wall)


def subtract_wall(image: np.ndarray, wall: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Segment hand with sleeve, and bare skin: masks (H, W) uint8, from (H, W, 3) uint8 RGB with and without them."""
    if wall.shape != image.shape:
        wall = np.asarray(cv2.resize(wall, image.shape[1::-1], interpolation=cv2.INTER_AREA))
    # Images are dark, and exposure drifts in each channel: compare log ratios, less their median, which is that of the
    # wall, as most of the image is wall.
    change = 100 * (np.log(image + np.float32(2)) - np.log(wall + np.float32(2)))
    change = cv2.GaussianBlur(change - np.median(change[::4, ::4], (0, 1)), (0, 0), image.shape[1] / 500)
    lightness = change.mean(2)
    tint = change - lightness[..., None]
    distance = np.sqrt((0.6 * lightness) ** 2 + 2 * (tint**2).sum(2))
    # Light stripes of the sleeve look like the wall: closing keeps them from cutting the forearm.
    size = 2 * max(1, image.shape[1] // 130) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    forearm, skin = (
        largest_component(np.asarray(cv2.morphologyEx(part.astype(np.uint8), cv2.MORPH_CLOSE, kernel), np.uint8))
        for part in (distance > 18, tint[..., 0] - tint[..., 2] > 25)
    )
    return soften_mask(forearm, image.shape[1] / 500), skin
