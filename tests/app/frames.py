"""Hands, predictions and video frames for tests of webcam streams."""

from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np

from handful import CLASSES, Hand, Prediction
from handful.images import decode
from handful.labels import SIDES
from handful.labels import decode as decode_label
from tests.builders import SAMPLES
from web.webcam import Stream

IMAGE = decode(SAMPLES / "3L_0.jpg")
LIKELY = (0.1, 0.9, 0.8, 0.3, 0.2)  # the order in which people raise most fingers: index, middle, ring, little, thumb


def make_prediction(*hands: Hand) -> Prediction:
    return Prediction(hands, 640, 480, 5.0)


def make_hand(
    label: str, box=(200.0, 100.0, 400.0, 400.0), confidence: float = 0.99, fingers: Sequence[float] = LIKELY
) -> Hand:
    """Return a hand of class `label`; `fingers` are the probabilities that they are raised."""
    count, side = decode_label(CLASSES.index(label))
    assert side in SIDES
    probabilities = np.full(len(CLASSES), (1 - confidence) / (len(CLASSES) - 1), np.float32)
    probabilities[CLASSES.index(label)] = confidence
    maps = np.zeros((len(CLASSES), 8, 8), np.float32)
    return Hand(box, box, count, side, confidence, probabilities, maps, np.array(fingers, np.float32))


def feed(stream: Stream, prediction: Prediction, start: float, seconds: float, brightness: float = 120) -> None:
    """Update a stream with the same prediction, 20 times a second."""
    for frame in range(round(20 * seconds) + 1):
        stream.update(prediction, start + frame / 20, brightness)


def video_frame(image: np.ndarray) -> av.VideoFrame:
    """Return a video frame of (H, W, 3) uint8 RGB."""
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    frame.pts, frame.time_base = 0, Fraction(1, 90_000)
    return frame
