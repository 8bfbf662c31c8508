"""Summarize a picture and its prediction in a few numbers, which can be stored and compared where pictures cannot.

>>> from handful import FingerCounter
>>> from handful.images import decode
>>> image = decode("assets/samples/3L_0.jpg")
>>> compute_stats(image, FingerCounter()(image))["fingers"]
3
"""

import cv2
import numpy as np

from handful.counter import Hand, Prediction

LONGER_SIDE = 320  # pixels: sharpness is comparable only at one size
COLUMNS = (
    *("width", "height", "brightness", "contrast", "sharpness"),
    *("hands", "hand_size", "fingers", "side", "confidence"),
)


def compute_stats(image: np.ndarray, prediction: Prediction) -> dict[str, float | str | None]:
    """Return the values of `COLUMNS` for a picture, (H, W, 3) uint8 RGB, and its prediction.

    - brightness: mean of grey, 0-255.
    - contrast: standard deviation of grey (RMS contrast; Peli, 1990).
    - sharpness: standard deviation of grey's Laplacian over the contrast; 0 without contrast. The Laplacian's variance
      is the usual measure of focus (Pech-Pacheco et al., 2000); dividing by the contrast makes it independent of light.
    - hands: number of hands. The rest is about the largest one, and None if there is none.
    - hand_size: area of its box, as a fraction of the picture, 0-1.
    - fingers, side, confidence: as in `Hand`.
    """
    height, width = image.shape[:2]
    scale = LONGER_SIDE / max(height, width)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    grey = cv2.cvtColor(small.astype(np.float32), cv2.COLOR_RGB2GRAY)
    brightness, contrast = (round(value.item(), 1) for value in cv2.meanStdDev(grey))
    # In float, and blurred a little: rounding to integers would add edges to dark pictures.
    edges = cv2.meanStdDev(cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 1), cv2.CV_32F))[1].item()
    hand = max(prediction.hands, key=box_area, default=None)
    return {
        "width": width,
        "height": height,
        "brightness": brightness,
        "contrast": contrast,
        "sharpness": round(edges / contrast, 4) if contrast else 0.0,
        "hands": len(prediction.hands),
        "hand_size": None if hand is None else round(box_area(hand) / (width * height), 4),
        "fingers": None if hand is None else hand.fingers,
        "side": None if hand is None else hand.side,
        "confidence": None if hand is None else round(hand.confidence, 4),
    }


def box_area(hand: Hand) -> float:
    """Return the area of a hand's box, in square pixels."""
    x0, y0, x1, y1 = hand.box
    return (x1 - x0) * (y1 - y0)
