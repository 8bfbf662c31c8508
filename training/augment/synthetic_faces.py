"""Drawn heads: skin that most resembles a hand in front of a webcam, as negative examples."""

import cv2
import numpy as np

from training.augment.pipeline import composite, multiply, random_background, relight


def draw_head(
    skin: np.ndarray, centre: np.ndarray, half_height: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a head with neck and shoulders, slightly rotated and turned.

    Args:
        skin: (s, s, 3) uint8 RGB, nothing but skin: a head then differs from a hand by its shape alone.
        centre: x, y of the face.
        half_height: of the face, pixels.
        rng: decides on hair, brows, eyes, nose, mouth, beard, glasses, cloth and light.

    Returns:
        The image, (s, s, 3) uint8 RGB, and its mask, (s, s) uint8.
    """
    size = len(skin)
    half_width, tilt, yaw = half_height * rng.uniform(0.66, 0.82), rng.normal(0, 10), rng.uniform(-0.3, 0.3)
    angle = np.radians(tilt)
    axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * (half_width, half_height)
    image, mask = skin.copy(), np.zeros((size, size), np.uint8)
    tone = np.array(cv2.mean(skin)[:3])
    hair = tone * rng.uniform(0.08, 0.5) if rng.random() < 0.8 else np.full(3, rng.uniform(60, 200))

    def at(x: float, y: float) -> tuple[int, int]:
        """Return the pixel at x, y of a face that spans -1 to 1."""
        x, y = centre + axes @ (x, y)
        return round(float(x)), round(float(y))

    def ellipse(
        canvas: np.ndarray, x: float, y: float, rx: float, ry: float, colour: np.ndarray, thickness: int = -1
    ) -> None:
        radii = max(1, round(rx * half_width)), max(1, round(ry * half_height))
        cv2.ellipse(canvas, at(x, y), radii, tilt, 0, 360, np.atleast_1d(colour).tolist(), thickness, cv2.LINE_AA)

    stroke = max(1, round(half_height * 0.06))
    cloth, opaque = random_background(size, rng), np.array([255.0])
    shoulders = np.zeros_like(mask)
    ellipse(shoulders, 0, 2.6, rng.uniform(2, 3.2), 1.4, opaque)
    cv2.copyTo(cloth, shoulders, image)
    neck = np.array([at(x, y) for x, y in ((-0.5, 0.6), (0.5, 0.6), (0.6, 1.5), (-0.6, 1.5))])
    for canvas, colour in ((image, tone * 0.8), (mask, opaque)):
        cv2.fillConvexPoly(canvas, neck, colour.tolist(), cv2.LINE_AA)
    cv2.max(mask, shoulders, mask)
    if rng.random() < 0.85:
        length = rng.uniform(0, 0.6)
        for canvas, colour in ((image, hair), (mask, opaque)):
            ellipse(canvas, 0, length - 0.25, rng.uniform(1.02, 1.25), 0.95 + length, colour)
    ellipse(mask, 0, 0, 1, 1, opaque)
    face = np.zeros_like(mask)
    ellipse(face, 0, 0.08, 0.98, 0.95, opaque)
    shade = (1 + rng.normal(0, 0.25) * ((np.arange(size) - centre[0]) / half_width).clip(-1, 1)).astype(np.float32)
    cv2.copyTo(multiply(skin, np.tile(shade, (size, 1))), face, image)
    if rng.random() < 0.3:  # beard
        ellipse(image, yaw, 0.62, 0.62, 0.4, (hair + tone) / 2)
    for side in (-1, 1):  # eyes and brows
        x = yaw + 0.4 * side
        ellipse(image, x, -0.08, 0.17, 0.08, np.clip(tone * 1.5, 0, 235))
        ellipse(image, x, -0.08, 0.08, 0.07, tone * 0.15)
        cv2.line(image, at(x - 0.2, -0.28), at(x + 0.2, -0.28), hair.tolist(), stroke, cv2.LINE_AA)
    cv2.line(image, at(yaw * 1.3, 0), at(yaw * 1.5 + 0.08, 0.3), (tone * 0.7).tolist(), stroke, cv2.LINE_AA)  # nose
    lips = tone * (0.85, 0.55, 0.55)
    cv2.line(image, at(yaw - 0.27, 0.58), at(yaw + 0.27, 0.58), lips.tolist(), stroke, cv2.LINE_AA)
    if rng.random() < 0.35:  # glasses
        for side in (-1, 1):
            ellipse(image, yaw + 0.4 * side, -0.08, 0.3, 0.2, np.full(3, rng.uniform(0, 60)), max(1, stroke // 2))
    sigma = max(0.4, half_height * 0.02)
    return cv2.GaussianBlur(image, (0, 0), sigma), cv2.GaussianBlur(mask, (0, 0), sigma)


def add_head(background: np.ndarray, crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a head into the middle of a background (s, s, 3) uint8 RGB, as large as hands are in their crops.

    Its skin is the centre of a hand's crop, (s, s, 4) uint8 RGBA.
    """
    size = len(background)
    palm = np.s_[round(size * 0.44) : round(size * 0.56)]
    skin = cv2.resize(np.ascontiguousarray(crop[palm, palm, :3]), (size, size))
    centre, half_height = size * rng.normal(0.5, 0.05, 2), size * rng.uniform(0.15, 0.35)
    image, mask = draw_head(skin, centre, half_height, rng)
    return composite(relight(image, mask, rng), mask, background)
