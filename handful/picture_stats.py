"""A picture and its reading in a few numbers: what can be kept, and compared, where pictures cannot.

>>> from model import FingerCounter
>>> from handful.images import decode
>>> image = decode("assets/samples/3L_0.jpg")
>>> describe(image, FingerCounter()(image))["fingers"]
3
"""

import cv2
import numpy as np

from handful.counter import Hand, Prediction

SIDE = 320  # pixels of the longer side: sharpness is comparable only at one size
COLUMNS = (
    *("width", "height", "brightness", "contrast", "sharpness"),
    *("hands", "hand_size", "fingers", "side", "confidence"),
)


def describe(image: np.ndarray, prediction: Prediction) -> dict[str, float | str | None]:
    """What `COLUMNS` name, of a picture, (H, W, 3) uint8 RGB, and what was read in it.

    - brightness: mean of grey, 0-255.
    - contrast: standard deviation of grey (RMS contrast; Peli, 1990).
    - sharpness: standard deviation of grey's Laplacian over the contrast; without contrast, 0. The Laplacian's variance
      is the usual measure of focus (Pech-Pacheco et al., 2000); over the contrast, it does not tell of light once more.
    - hands: how many there are. What follows is of the largest one, and None without any.
    - hand_size: area of its box, as a share of the picture, 0-1.
    - fingers, side, confidence: as of `Hand`.
    """
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    grey = cv2.cvtColor(small.astype(np.float32), cv2.COLOR_RGB2GRAY)
    brightness, contrast = (round(one.item(), 1) for one in cv2.meanStdDev(grey))
    # Fractions and a little blur: rounding to whole grey values would make dark pictures sharp.
    edges = cv2.meanStdDev(cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 1), cv2.CV_32F))[1].item()
    hand = max(prediction.hands, key=area, default=None)
    return {
        "width": width,
        "height": height,
        "brightness": brightness,
        "contrast": contrast,
        "sharpness": round(edges / contrast, 4) if contrast else 0.0,
        "hands": len(prediction.hands),
        "hand_size": None if hand is None else round(area(hand) / (width * height), 4),
        "fingers": None if hand is None else hand.fingers,
        "side": None if hand is None else hand.side,
        "confidence": None if hand is None else round(hand.confidence, 4),
    }


def area(hand: Hand) -> float:
    """Of a hand's box, in square pixels."""
    x0, y0, x1, y1 = hand.box
    return (x1 - x0) * (y1 - y0)
