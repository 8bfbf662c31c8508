"""Frames as harder conditions would show them: from farther away, in little light, out of focus. To measure with."""

from collections.abc import Sequence

import cv2
import numpy as np

from handful.images import decode
from training.data.frames import Frame, FrameDataset


def dim(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A fifth of the light, and the noise that cameras have then."""
    return (image * 0.2 + rng.normal(0, 5, image.shape)).round().clip(0, 255).astype(np.uint8)


def glaring(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Twice the light: what was bright is white."""
    return cv2.convertScaleAbs(image, alpha=2)


def lamplight(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The colour of a bulb, with a camera set for daylight."""
    return (image * [1.0, 0.75, 0.4]).round().astype(np.uint8)


def grey(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)


def blurred(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Out of focus, by 1% of the shorter side."""
    return cv2.GaussianBlur(image, (0, 0), 0.01 * min(image.shape[:2]))


def compressed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """JPEG at a quality of 10 of 100, as over a poor line."""
    return decode(cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 10])[1].tobytes())


LOOKS = {
    "a fifth of the light": dim,
    "twice the light": glaring,
    "lamplight": lamplight,
    "grey": grey,
    "out of focus": blurred,
    "poor line": compressed,
}
DISTANCES = {"1.4 times as far": 1 / 1.4, "twice as far": 1 / 2}
CONDITIONS = ("as recorded", *DISTANCES, *LOOKS)


class CorruptedFrames(FrameDataset):
    """Each of some frames in every condition, one after the other, the same every time.

    Args:
        frames: the set that they are of.
        index: which of its frames.
        places: what is around a frame whose hands are farther away, (H, W, 3) uint8 RGB.
    """

    def __init__(self, frames: FrameDataset, index: Sequence[int] | np.ndarray, places: Sequence[np.ndarray]):
        super().__init__(frames.root, [frames.files[i] for i in index for _ in CONDITIONS])
        self.frames, self.index, self.places = frames, index, places

    def frame(self, index: int) -> Frame:
        which, condition = index // len(CONDITIONS), CONDITIONS[index % len(CONDITIONS)]
        frame, rng = self.frames.frame(self.index[which]), np.random.default_rng(which)
        if condition in LOOKS:
            return Frame(LOOKS[condition](frame.image, rng), frame.boxes, frame.targets)
        if condition in DISTANCES:
            return farther(frame, DISTANCES[condition], self.places[which % len(self.places)], rng)
        return frame

    def traits(self) -> dict[str, tuple[list[str], list[str]]]:
        """The conditions, in order, and the one of each frame, as `Rendered.traits` tells its groups."""
        return {"conditions": (list(CONDITIONS), [*CONDITIONS] * len(self.index))}


def farther(frame: Frame, share: float, place: np.ndarray, rng: np.random.Generator) -> Frame:
    """A frame at that share of its size, somewhere in a place, (H, W, 3) uint8 RGB, of the size that it had."""
    height, width = frame.image.shape[:2]
    image = cv2.resize(place, (width, height), interpolation=cv2.INTER_AREA)
    small = cv2.resize(frame.image, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    y, x = rng.integers(0, np.subtract(image.shape[:2], small.shape[:2]) + 1)
    image[y : y + small.shape[0], x : x + small.shape[1]] = small
    return Frame(image, (frame.boxes * share + [x, y, x, y]).astype(np.float32), frame.targets)
