"""Human-Robot Finger-Counting Dataset: a man's hands before a grey wall, and empty rooms.

    <folder>/Raw_Images/Human/Set1/<fingers>/<name>.jpg     0 is the empty wall
    <folder>/Backgrounds/Office/<number>.jpg                40 rooms

Source: github.com/EPSRC-NUMBERS/Human-Robot_Finger-Counting_Dataset, by the EPSRC project NUMBERS,
University of Sheffield. CC BY-SA 4.0.
"""

from pathlib import Path

import cv2
import numpy as np

from handful.labels import SIDE_UNKNOWN
from training.data.frames import Frame, FrameDataset, fetch_archive, largest, one_hand, read_rgb, soften
from training.errors import BadData

REPOSITORY = "EPSRC-NUMBERS/Human-Robot_Finger-Counting_Dataset"
COMMIT = "a5e69055cd723f1521f06aba3d7d5013a0ddbb1b"
HANDS = "Raw_Images/Human/Set1"
ROOMS = "Backgrounds/Office"


class FingerCounting(FrameDataset):
    """Set1 of the Human-Robot Finger-Counting Dataset: one hand a picture, 1-5 fingers, with its mask.

    One man's hands, both sides of both, at any tilt, a sleeve often in view: the side is not told.
    All of it is one person, so nothing is kept for validation.

    >>> pictures = FingerCounting("data/counting")
    >>> frame = pictures[0]
    >>> frame.image.shape, frame.targets[0] - SIDELESS
    ((600, 800, 3), 1)

    Raises:
        BadData: no pictures or no empty wall in `root`, or one that cannot be read.
    """

    credit = (
        "Human-Robot Finger-Counting Dataset by EPSRC-NUMBERS, "
        "github.com/EPSRC-NUMBERS/Human-Robot_Finger-Counting_Dataset (CC BY-SA 4.0)"
    )

    def __init__(self, root: str | Path):
        folder = Path(root) / HANDS
        files = [file for fingers in range(1, 6) for file in sorted((folder / str(fingers)).glob("*.jpg"))]
        walls = sorted((folder / "0").glob("*.jpg"))
        super().__init__(root, files, walls[:1])
        if not walls:
            raise BadData(f"{folder / '0'}: the picture of the empty wall is missing. Fetch the set again.")
        self.groups = ["Set1"] * len(self.files)
        self.wall = read_rgb(walls[0])

    def frame(self, index: int) -> Frame:
        image = read_rgb(self.files[index])
        mask, skin = hand_mask(image, self.wall)
        return one_hand(image, mask, SIDE_UNKNOWN + int(self.files[index].parent.name), skin)


def hand_mask(image: np.ndarray, wall: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hand and sleeve, and skin alone: two (H, W) uint8, from (H, W, 3) uint8 RGB with and without them."""
    if wall.shape != image.shape:
        wall = np.asarray(cv2.resize(wall, image.shape[1::-1], interpolation=cv2.INTER_AREA))
    # Pictures are dark and the camera's exposure drifts, channel by channel: what counts is by how
    # much each channel changed, and the median change is the wall's own, which is most of the picture.
    change = 100 * (np.log(image + np.float32(2)) - np.log(wall + np.float32(2)))
    change = cv2.GaussianBlur(change - np.median(change[::4, ::4], (0, 1)), (0, 0), image.shape[1] / 500)
    light = change.mean(2)
    tint = change - light[..., None]
    off = np.sqrt((0.6 * light) ** 2 + 2 * (tint**2).sum(2))
    # Light stripes of the sleeve look like the wall: closed, they do not cut the arm.
    near = 2 * max(1, image.shape[1] // 130) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (near, near))
    arm, skin = (
        largest(np.asarray(cv2.morphologyEx(part.astype(np.uint8), cv2.MORPH_CLOSE, kernel), np.uint8))
        for part in (off > 18, tint[..., 0] - tint[..., 2] > 25)
    )
    return soften(arm, image.shape[1] / 500), skin


def rooms(root: str | Path) -> list[Path]:
    """Pictures of empty rooms, to put hands in. They come with the set."""
    return sorted((Path(root) / ROOMS).glob("*.jpg"), key=lambda file: (len(file.stem), file.stem))


def fetch(folder: Path) -> None:
    """Download Set1 and the rooms, at a set commit, into `folder`.

    Raises:
        BadData: no network, no room, or a broken archive; the text says what to do.
    """
    fetch_archive(REPOSITORY, COMMIT, folder, lambda path: path.startswith((f"{HANDS}/", f"{ROOMS}/")))
