"""Pictures out: a reading, drawn on its picture."""

import math

import cv2
import numpy as np

from handful.counter import Hand, Prediction

# RGB. Told apart by colour-blind eyes too, and dark enough for white text.
COLORS = {"left": (0, 98, 177), "right": (190, 76, 0)}
HEAT = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)[..., ::-1].copy()
MAX_ALPHA = 0.7


def draw(
    image: np.ndarray, prediction: Prediction, *, label: str | None = None, gradcam: bool = False, mirror: bool = False
) -> np.ndarray:
    """Draw each hand's box with its caption, such as "left · 3", and where the classifier looked.

    Args:
        image: (H, W, 3) uint8 RGB, the picture that was read. It stays as it is.
        reading: what was read in it.
        label: the class, one of `CLASSES`, whose Grad-CAM heat is drawn; by default the class told.
        gradcam: draw the heat: from clear where there is none to bright yellow where it is highest.
        mirror: flip the picture first, as in a mirror. The captions still read from left to right,
            and still tell the side of the person's own hand.

    Returns:
        (H, W, 3) uint8 RGB, a new array.

    Raises:
        ValueError: `gradcam`, and `label` is not one of `CLASSES`.
    """
    canvas = cv2.flip(image, 1) if mirror else image.copy()
    if gradcam:
        for hand in prediction.hands:
            _draw_heat(canvas, hand, label, mirror)
    for hand in prediction.hands:
        _draw_box(canvas, hand, mirror)
    return canvas


def _draw_heat(canvas: np.ndarray, hand: Hand, label: str | None, mirror: bool) -> None:
    height, width = canvas.shape[:2]
    heat = hand.gradcam(label)
    x0, y0, x1, y1 = hand.crop
    if mirror:
        heat, x0, x1 = cv2.flip(heat, 1), width - x1, width - x0
    # The part of the crop inside the picture, in whole pixels.
    left, top = max(math.floor(x0), 0), max(math.floor(y0), 0)
    right, bottom = min(math.ceil(x1), width), min(math.ceil(y1), height)
    # From the centre of each of these pixels to a place on the map, whose cells have centres too.
    sx, sy = heat.shape[1] / (x1 - x0), heat.shape[0] / (y1 - y0)
    place = np.array([[sx, 0, (left + 0.5 - x0) * sx - 0.5], [0, sy, (top + 0.5 - y0) * sy - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    heat = cv2.warpAffine(heat, place, (right - left, bottom - top), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    color = cv2.applyColorMap((255 * heat).astype(np.uint8), HEAT)
    alpha = MAX_ALPHA * heat
    part = canvas[top:bottom, left:right]
    part[:] = cv2.blendLinear(part, color, 1 - alpha, alpha)


def _draw_box(canvas: np.ndarray, hand: Hand, mirror: bool) -> None:
    height, width = canvas.shape[:2]
    x0, y0, x1, y1 = hand.box
    if mirror:
        x0, x1 = width - x1, width - x0
    line = max(1, min(height, width) // 240)
    # Inside the picture, all of the line: the box may be the whole picture.
    left, top = max(round(x0), line // 2), max(round(y0), line // 2)
    right, bottom = min(round(x1), width - line // 2) - 1, min(round(y1), height - line // 2) - 1
    cv2.rectangle(canvas, (left, top), (right, bottom), COLORS[hand.side], line)

    size = max(12, min(height, width) // 18)
    text = f"{hand.side} · {hand.fingers}"
    # A font of this call's own: one shared by threads mixes up their texts.
    font = cv2.FontFace("sans")
    text_width = cv2.getTextSize((width, height), text, (0, 0), font, size, 600)[2]
    pad = size // 3
    # Above the box, or as near to that as the picture allows.
    x = max(min(left, width - text_width - 2 * pad), 0)
    y = max(top - size - 2 * pad, 0)
    cv2.rectangle(canvas, (x, y), (x + text_width + 2 * pad, y + size + 2 * pad), COLORS[hand.side], cv2.FILLED)
    cv2.putText(canvas, text, (x + pad, y + pad + round(0.85 * size)), (255, 255, 255), font, size, 600)
