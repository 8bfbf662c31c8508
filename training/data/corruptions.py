"""Corrupted frames for evaluation: smaller hands, little or too much light, blur, compression."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from handful.images import decode
from training.data.frames import Frame, FrameDataset


def low_light(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Reduce light to a fifth, with the sensor noise that comes with it."""
    return (image * 0.2 + rng.normal(0, 5, image.shape)).round().clip(0, 255).astype(np.uint8)


def overexpose(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Double the light: highlights clip."""
    return cv2.convertScaleAbs(image, alpha=2)


def tungsten(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light with a bulb, white balance set for daylight."""
    return (image * [1.0, 0.75, 0.4]).round().astype(np.uint8)


def greyscale(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Remove colour."""
    return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)


def defocus(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur with a sigma of 1% of the shorter side."""
    return cv2.GaussianBlur(image, (0, 0), 0.01 * min(image.shape[:2]))


def compress(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Compress as JPEG of quality 10, as a slow connection does."""
    return decode(cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 10])[1].tobytes())


# The names are keys of the metrics.
CORRUPTIONS = {
    "a fifth of the light": low_light,
    "twice the light": overexpose,
    "lamplight": tungsten,
    "grey": greyscale,
    "out of focus": defocus,
    "poor line": compress,
}
DISTANCES = {"1.4 times as far": 1 / 1.4, "twice as far": 1 / 2}  # scale of the frame
CONDITIONS = ("as recorded", *DISTANCES, *CORRUPTIONS)


class CorruptedFrames(FrameDataset):
    """Frames in every condition, all of the first frame first; deterministic.

    Args:
        frames: the original frames.
        index: which of them, (N,).
        backgrounds: what surrounds frames that are scaled down, (H, W, 3) uint8 RGB each.
    """

    def __init__(self, frames: FrameDataset, index: Sequence[int] | np.ndarray, backgrounds: Sequence[np.ndarray]):
        super().__init__(frames.root, [frames.files[i] for i in index for _ in CONDITIONS])
        self.frames, self.index, self.backgrounds = frames, index, backgrounds
        self.groups = [frames.groups[i] for i in index for _ in CONDITIONS]

    def frame(self, index: int) -> Frame:
        i, condition = index // len(CONDITIONS), CONDITIONS[index % len(CONDITIONS)]
        frame, rng = self.frames.frame(self.index[i]), np.random.default_rng(i)
        if condition in CORRUPTIONS:
            return Frame(CORRUPTIONS[condition](frame.image, rng), frame.boxes, frame.targets)
        if condition in DISTANCES:
            return zoom_out(frame, DISTANCES[condition], self.backgrounds[i % len(self.backgrounds)], rng)
        return frame

    def path(self, index: int) -> Path:
        return self.frames.path(self.index[index // len(CONDITIONS)])

    def traits(self) -> dict[str, tuple[list[str], list[str]]]:
        return {"conditions": (list(CONDITIONS), [*CONDITIONS] * len(self.index))}


def zoom_out(frame: Frame, scale: float, background: np.ndarray, rng: np.random.Generator) -> Frame:
    """Scale a frame down and put it somewhere on a background, (H, W, 3) uint8 RGB; the image keeps its size."""
    height, width = frame.image.shape[:2]
    image = cv2.resize(background, (width, height), interpolation=cv2.INTER_AREA)
    small = cv2.resize(frame.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    y, x = rng.integers(0, np.subtract(image.shape[:2], small.shape[:2]) + 1)
    image[y : y + small.shape[0], x : x + small.shape[1]] = small
    return Frame(image, (frame.boxes * scale + [x, y, x, y]).astype(np.float32), frame.targets)
