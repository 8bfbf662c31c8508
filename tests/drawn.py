"""Hands drawn with a few strokes, in the layout and look of Kaggle Fingers: data for tests that learn."""

import uuid
from pathlib import Path

import cv2
import numpy as np

from model import CLASSES

# Where a left palm's fingers point, in degrees from straight up: thumb … little finger.
POINTING = (-65, -22, -4, 13, 32)
RAISED = ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), (0, 1, 2, 3, 4))


def draw_hand(label: str, rng: np.random.Generator) -> np.ndarray:
    """A light hand on dark noise, (128, 128) uint8, showing `label` such as "3L"."""
    picture = rng.normal(40, 8, (128, 128)).clip(0, 255).astype(np.uint8)
    x, y = 64 + rng.integers(-8, 9), 84 + rng.integers(-8, 9)
    shade = int(rng.integers(150, 220))
    cv2.ellipse(picture, (x, y), (16, 20), 0, 0, 360, shade, -1)
    for finger in RAISED[int(label[0])]:
        angle = np.radians(POINTING[finger] + rng.normal(0, 3))
        length = 36 if finger == 0 else 48
        tip = (round(x + length * np.sin(angle)), round(y - length * np.cos(angle)))
        cv2.line(picture, (x, y), tip, shade, 8)
    cv2.circle(picture, (x - 14, y + 6), 6, shade - 60, -1)  # the ball of the thumb tells the side
    return picture if label[1] == "L" else np.ascontiguousarray(picture[:, ::-1])


def write_fingers(folder: Path, train: int, test: int) -> Path:
    """A Fingers data set with so many pictures a class in each split."""
    rng = np.random.default_rng(0)
    for split, each in (("train", train), ("test", test)):
        (folder / split).mkdir(parents=True)
        for label in CLASSES:
            for _ in range(each):
                name = f"{uuid.UUID(bytes=rng.bytes(16))}_{label}.png"
                cv2.imwrite(str(folder / split / name), draw_hand(label, rng))
    return folder
