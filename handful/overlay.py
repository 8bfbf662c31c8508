"""Draw predictions on their picture: boxes, captions and Grad-CAM heatmaps."""

import math
from dataclasses import replace

import cv2
import numpy as np

from handful.counter import Box, Hand, Prediction

# RGB. Distinguishable with colour blindness, and dark enough for white text.
COLORS = {"left": (0, 98, 177), "right": (190, 76, 0)}
COLORMAP = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)[..., ::-1].copy()
MAX_ALPHA = 0.7  # opacity of a heatmap where it is hottest


def _fade(size: int) -> np.ndarray:
    """Return a mask (size, size) float32: 1 in the middle, smoothly to 0 at the edge, along a rounded square."""
    axis = np.abs((np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1) ** 4
    distance = (axis[:, None] + axis) ** 0.25  # 1 in the middle of the edges, more in the corners
    t = ((1 - distance) / 0.4).clip(0, 1)
    return t * t * (3 - 2 * t)


FADE = _fade(64)  # over a crop, so that no square shows where its heatmap ends


def draw(
    image: np.ndarray, prediction: Prediction, *, label: str | None = None, gradcam: bool = False, mirror: bool = False
) -> np.ndarray:
    """Draw each hand's box with a caption such as "left · 3", and optionally its Grad-CAM heatmap.

    Args:
        image: (H, W, 3) uint8 RGB, the picture that `prediction` is for. It is not modified.
        prediction: the hands to draw.
        label: the class whose heatmap is drawn, one of `CLASSES`; by default each hand's predicted class.
        gradcam: draw the heatmaps, from transparent where cold to bright yellow where hottest. They fade out
            towards the edge of the hand's crop.
        mirror: flip the picture horizontally first. Captions stay readable, and still name the side of the
            person's own hand.

    Returns:
        (H, W, 3) uint8 RGB, a new array.

    Raises:
        ValueError: `gradcam` is set and `label` is not one of `CLASSES`.
    """
    canvas = cv2.flip(image, 1) if mirror else image.copy()
    if gradcam:
        for hand in prediction.hands:
            _draw_heatmap(canvas, hand, label, mirror)
    for hand in prediction.hands:
        _draw_box(canvas, hand, mirror)
    return canvas


def resize(image: np.ndarray, prediction: Prediction, longer_side: int) -> tuple[np.ndarray, Prediction]:
    """Scale an image, (H, W, 3) uint8 RGB, and its prediction. Captions drawn then are sharp at that size."""
    height, width = image.shape[:2]
    scale = longer_side / max(height, width)
    if scale == 1:
        return image, prediction

    def scaled(box: Box) -> Box:
        x0, y0, x1, y1 = (scale * x for x in box)
        return x0, y0, x1, y1

    hands = tuple(replace(hand, box=scaled(hand.box), crop=scaled(hand.crop)) for hand in prediction.hands)
    width, height = max(1, round(scale * width)), max(1, round(scale * height))
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return resized, replace(prediction, hands=hands, width=width, height=height)


def browser_colors() -> dict:
    """Return the colours for a drawing in the browser, ready for JSON.

    Returns:
        {"sides": {"left": "#0062b1", "right": "#be4c00"},
        "colormap": 16 rows [r, g, b] of 0-255, evenly spaced from cold to hot, to be interpolated linearly
        (which is within 7 of 255 of the full colormap),
        "max_alpha": 0.7}
    """
    sides = {side: "#{:02x}{:02x}{:02x}".format(*color) for side, color in COLORS.items()}
    return {"sides": sides, "colormap": COLORMAP[::17, 0].tolist(), "max_alpha": MAX_ALPHA}


def _draw_heatmap(canvas: np.ndarray, hand: Hand, label: str | None, mirror: bool) -> None:
    height, width = canvas.shape[:2]
    x0, y0, x1, y1 = hand.crop
    heatmap = cv2.resize(hand.gradcam(label), FADE.shape, interpolation=cv2.INTER_CUBIC).clip(0, 1) * FADE
    if mirror:
        heatmap, x0, x1 = cv2.flip(heatmap, 1), width - x1, width - x0
    # The part of the crop inside the picture, in whole pixels.
    left, top = max(math.floor(x0), 0), max(math.floor(y0), 0)
    right, bottom = min(math.ceil(x1), width), min(math.ceil(y1), height)
    # Maps centres of these pixels to coordinates in the heatmap, whose cells are addressed by their centres too.
    sx, sy = heatmap.shape[1] / (x1 - x0), heatmap.shape[0] / (y1 - y0)
    matrix = np.array([[sx, 0, (left + 0.5 - x0) * sx - 0.5], [0, sy, (top + 0.5 - y0) * sy - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    heatmap = cv2.warpAffine(heatmap, matrix, (right - left, bottom - top), flags=flags)
    color = cv2.applyColorMap((255 * heatmap).astype(np.uint8), COLORMAP)
    alpha = MAX_ALPHA * heatmap
    region = canvas[top:bottom, left:right]
    region[:] = cv2.blendLinear(region, color, 1 - alpha, alpha)


def _draw_box(canvas: np.ndarray, hand: Hand, mirror: bool) -> None:
    height, width = canvas.shape[:2]
    x0, y0, x1, y1 = hand.box
    if mirror:
        x0, x1 = width - x1, width - x0
    thickness = max(1, min(height, width) // 240)
    # The whole line stays inside the picture, even where the box is the picture itself.
    left, top = max(round(x0), thickness // 2), max(round(y0), thickness // 2)
    right, bottom = min(round(x1), width - thickness // 2) - 1, min(round(y1), height - thickness // 2) - 1
    cv2.rectangle(canvas, (left, top), (right, bottom), COLORS[hand.side], thickness)

    size = max(12, min(height, width) // 18)
    text = f"{hand.side} · {hand.fingers}"
    # A new font for each call: threads that share one mix up their texts.
    font = cv2.FontFace("sans")
    text_width = cv2.getTextSize((width, height), text, (0, 0), font, size, 600)[2]
    pad = size // 3
    # Above the box, or as close to that as the picture allows.
    x = max(min(left, width - text_width - 2 * pad), 0)
    y = max(top - size - 2 * pad, 0)
    cv2.rectangle(canvas, (x, y), (x + text_width + 2 * pad, y + size + 2 * pad), COLORS[hand.side], cv2.FILLED)
    cv2.putText(canvas, text, (x + pad, y + pad + round(0.85 * size)), (255, 255, 255), font, size, 600)
