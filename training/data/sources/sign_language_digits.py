"""Sign-Language-Digits-Dataset: right hands of some 200 people, palm to the camera, before a light wall.

    <folder>/Dataset/<digit>/IMG_<number>.JPG     100×100 colour

Source: github.com/ardamavi/Sign-Language-Digits-Dataset, by students of Ankara Ayrancı Anadolu High
School (Zeynep Dikle, Arda Mavi; arXiv:2011.08927). Apache-2.0.
"""

from pathlib import Path

import cv2
import numpy as np

from handful import CLASSES
from training.data.frames import Frame, FrameDataset, fetch_archive, largest, one_hand, read_rgb, soften

REPOSITORY = "ardamavi/Sign-Language-Digits-Dataset"
COMMIT = "306fffc703199e5986ab003935914b72483733ec"
# People from this place in the order of names are kept for validation.
VALIDATION = 120
# Pictures that lie in the folder of another number than the fingers they show.
MISPLACED = {"IMG_5176.JPG": 3}


class SignLanguageDigits(FrameDataset):
    """The digits 1-5 of Sign-Language-Digits-Dataset: one right hand a picture, with its mask.

    Each is as many raised fingers as it says (3 is thumb, index and middle finger). Palms face the
    camera and thumbs lie to the viewer's right: right hands. Digit 0 is left out: it is an O made of
    thumb and fingers, which is neither a fist nor any number of raised fingers, and people who show
    it to a counter may mean something else. Digits 6-9 touch thumb and a finger: no counts either.

    The k-th picture of every digit, by name, is nearly always the same person: group k.

    >>> pictures = SignLanguageDigits("data/digits")
    >>> frame = pictures[0]
    >>> frame.image.shape, CLASSES[frame.targets[0]]
    ((100, 100, 3), '1R')

    Raises:
        BadData: no pictures in `root`, or one that cannot be read.
    """

    credit = (
        "Sign Language Digits Dataset by Zeynep Dikle, Arda Mavi and students of Ankara Ayrancı Anadolu High School, "
        "github.com/ardamavi/Sign-Language-Digits-Dataset (Apache-2.0)"
    )

    def __init__(self, root: str | Path):
        digits = [sorted((Path(root) / "Dataset" / str(digit)).glob("*.JPG")) for digit in range(1, 6)]
        super().__init__(root, [file for files in digits for file in files])
        people = [k for files in digits for k in range(len(files))]
        self.groups = [f"{k:03}" for k in people]
        self.validation = np.array(people) >= VALIDATION

    def frame(self, index: int) -> Frame:
        file = self.files[index]
        image = read_rgb(file)
        fingers = MISPLACED.get(file.name, file.parent.name)
        return one_hand(image, hand_mask(image), CLASSES.index(f"{fingers}R"))


def hand_mask(image: np.ndarray) -> np.ndarray:
    """The hand in front of a light wall: (H, W) uint8, from (H, W, 3) uint8 RGB."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    # The wall's colour changes across the picture (lamps, corners): a smooth surface is laid through
    # each channel of what is taken for wall; at first the picture's rim, then all that is near the last.
    h, w = image.shape[:2]
    y, x = np.mgrid[:h, :w].astype(np.float32)
    terms = np.stack([np.ones_like(x), x / w - 0.5, y / h - 0.5, (x / w - 0.5) ** 2, (y / h - 0.5) ** 2], -1)
    wall = np.zeros((h, w), bool)
    wall[: h // 2, : w // 12] = wall[: h // 2, -w // 12 :] = wall[: h // 25] = True
    for used, near in ((terms[..., :3], 10), (terms, 7), (terms, 7)):
        fit, *_ = np.linalg.lstsq(used[wall], lab[wall], rcond=None)
        off = lab - used @ fit
        # Shadows on the wall are darker but not coloured: lightness counts less than colour.
        distance = np.sqrt((0.2 * off[..., 0]) ** 2 + off[..., 1] ** 2 + off[..., 2] ** 2)
        wall = distance < near
    smooth = cv2.GaussianBlur(np.clip(distance * 6, 0, 255).astype(np.uint8), (0, 0), 0.7)
    level, _ = cv2.threshold(smooth, 0, 255, cv2.THRESH_OTSU)
    solid = np.where(smooth > min(level, 50), 255, 0).astype(np.uint8)
    hand = largest(np.asarray(cv2.morphologyEx(solid, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)), np.uint8))
    # JPEG lets colour bleed onto the wall: pixels at the edge as light as the wall are peeled off, twice.
    light = (off[..., 0] > -20) & (np.hypot(off[..., 1], off[..., 2]) < 18)
    for _ in range(2):
        hand[light & (cv2.erode(hand, np.ones((3, 3), np.uint8)) == 0)] = 0
    return soften(largest(hand), 0.8)


def fetch(folder: Path) -> None:
    """Download the digits used, at a set commit, into `folder`.

    Raises:
        BadData: no network, no room, or a broken archive; the text says what to do.
    """
    fetch_archive(REPOSITORY, COMMIT, folder, lambda path: path.startswith(tuple(f"Dataset/{d}/" for d in range(1, 6))))
