"""Drawn heads: what is most like a hand in front of a webcam, and must not be taken for one."""

import cv2
import numpy as np

from training.augment.pipeline import place, relight, room


def head(skin: np.ndarray, middle: np.ndarray, tall: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A head with its neck and shoulders, a little turned and tilted, in a picture as large as the skin.

    Args:
        skin: (s, s, 3) uint8 RGB of nothing but skin: a head differs from a hand by its shape alone.
        middle: x, y of the face.
        tall: half of the face's height, pixels.
        rng: decides on hair, brows, eyes, nose, mouth, beard, glasses, cloth and light.

    Returns:
        The picture, (s, s, 3) uint8 RGB, and the mask of what is to be seen of it, (s, s) uint8.
    """
    size = len(skin)
    wide, tilt, turned = tall * rng.uniform(0.66, 0.82), rng.normal(0, 10), rng.uniform(-0.3, 0.3)
    angle = np.radians(tilt)
    axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * (wide, tall)
    picture, mask = skin.copy(), np.zeros((size, size), np.uint8)
    own = np.array(cv2.mean(skin)[:3])
    hair = own * rng.uniform(0.08, 0.5) if rng.random() < 0.8 else np.full(3, rng.uniform(60, 200))

    def at(x: float, y: float) -> tuple[int, int]:
        """The pixel at x, y of a face that reaches from -1 to 1."""
        x, y = middle + axes @ (x, y)
        return round(float(x)), round(float(y))

    def oval(canvas: np.ndarray, x: float, y: float, rx: float, ry: float, colour: np.ndarray, line: int = -1) -> None:
        radii = max(1, round(rx * wide)), max(1, round(ry * tall))
        cv2.ellipse(canvas, at(x, y), radii, tilt, 0, 360, np.atleast_1d(colour).tolist(), line, cv2.LINE_AA)

    thick = max(1, round(tall * 0.06))
    cloth, opaque = room(size, rng), np.array([255.0])
    shoulders = np.zeros_like(mask)
    oval(shoulders, 0, 2.6, rng.uniform(2, 3.2), 1.4, opaque)
    cv2.copyTo(cloth, shoulders, picture)
    neck = np.array([at(x, y) for x, y in ((-0.5, 0.6), (0.5, 0.6), (0.6, 1.5), (-0.6, 1.5))])
    for canvas, colour in ((picture, own * 0.8), (mask, opaque)):
        cv2.fillConvexPoly(canvas, neck, colour.tolist(), cv2.LINE_AA)
    cv2.max(mask, shoulders, mask)
    if rng.random() < 0.85:
        long = rng.uniform(0, 0.6)
        for canvas, colour in ((picture, hair), (mask, opaque)):
            oval(canvas, 0, long - 0.25, rng.uniform(1.02, 1.25), 0.95 + long, colour)
    oval(mask, 0, 0, 1, 1, opaque)
    face = np.zeros_like(mask)
    oval(face, 0, 0.08, 0.98, 0.95, opaque)
    shade = (1 + rng.normal(0, 0.25) * ((np.arange(size) - middle[0]) / wide).clip(-1, 1)).astype(np.float32)
    lit = cv2.multiply(skin, np.dstack([np.tile(shade, (size, 1))] * 3), dtype=cv2.CV_8U)
    cv2.copyTo(lit, face, picture)
    if rng.random() < 0.3:  # a beard
        oval(picture, turned, 0.62, 0.62, 0.4, (hair + own) / 2)
    for side in (-1, 1):
        x = turned + 0.4 * side
        oval(picture, x, -0.08, 0.17, 0.08, np.clip(own * 1.5, 0, 235))
        oval(picture, x, -0.08, 0.08, 0.07, own * 0.15)
        cv2.line(picture, at(x - 0.2, -0.28), at(x + 0.2, -0.28), hair.tolist(), thick, cv2.LINE_AA)
    cv2.line(picture, at(turned * 1.3, 0), at(turned * 1.5 + 0.08, 0.3), (own * 0.7).tolist(), thick, cv2.LINE_AA)
    lips = own * (0.85, 0.55, 0.55)
    cv2.line(picture, at(turned - 0.27, 0.58), at(turned + 0.27, 0.58), lips.tolist(), thick, cv2.LINE_AA)
    if rng.random() < 0.35:  # glasses
        for side in (-1, 1):
            oval(picture, turned + 0.4 * side, -0.08, 0.3, 0.2, np.full(3, rng.uniform(0, 60)), max(1, thick // 2))
    soft = max(0.4, tall * 0.02)
    return cv2.GaussianBlur(picture, (0, 0), soft), cv2.GaussianBlur(mask, (0, 0), soft)


def with_head(square: np.ndarray, crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A place (s, s, 3) uint8 RGB with a head in the middle, as large as hands are in their crops.

    Its skin is that in the middle of such a crop, (s, s, 4) uint8 RGBA.
    """
    size = len(square)
    palm = np.s_[round(size * 0.44) : round(size * 0.56)]
    skin = cv2.resize(np.ascontiguousarray(crop[palm, palm, :3]), (size, size))
    middle, tall = size * rng.normal(0.5, 0.05, 2), size * rng.uniform(0.15, 0.35)
    picture, mask = head(skin, middle, tall, rng)
    return place(relight(picture, mask, rng), mask, square)
