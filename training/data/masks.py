"""Masks of hands before plain backgrounds, and the boxes of hands in them."""

import cv2
import numpy as np

from training.data.frames import Frame
from training.data.registry import Label

WRIST = 1.4  # where the forearm is cut off, in palm radii


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected component of a (H, W) uint8 mask, small holes filled; 0 or 255."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count == 1:
        return np.zeros_like(mask)
    component = np.where(labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax(), 255, 0).astype(np.uint8)
    # A small hole is a highlight or a nail; a large one is background between fingers.
    count, labels, stats, _ = cv2.connectedComponentsWithStats(255 - component, connectivity=4)
    for i in range(1, count):
        if stats[i, cv2.CC_STAT_AREA] < 0.01 * np.count_nonzero(component):
            component[labels == i] = 255
    return component


def soften_mask(mask: np.ndarray, sigma: float) -> np.ndarray:
    """Blur the edge of a binary (H, W) uint8 mask inwards, by `sigma` pixels.

    Inwards, so that a pasted hand has no rim of its old background.
    """
    soft = cv2.GaussianBlur(mask, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return np.clip((soft.astype(np.float32) - 96) * (255 / 159), 0, 255).astype(np.uint8)


def hand_box(mask: np.ndarray, skin: np.ndarray | None = None) -> np.ndarray:
    """Return the box of a hand without its forearm: x0, y0, x1, y1, (4,) float32, in pixels.

    The palm is the largest inscribed circle, and the forearm is what reaches the image border. Pixels more than
    `WRIST` palm radii from the palm's centre in the direction of the forearm are cut off.

    Args:
        mask: (H, W) uint8, > 127 on hand and forearm, one connected component.
        skin: (H, W) uint8, > 127 on bare skin; keeps the palm out of wide sleeves.
    """
    solid = np.where(mask > 127, 255, 0).astype(np.uint8)
    bare = solid if skin is None else np.where(skin > 127, solid, 0).astype(np.uint8)
    if not bare.any():
        bare = solid
    # Padded: the distance transform would otherwise count the image border as far inside.
    depth = cv2.distanceTransform(cv2.copyMakeBorder(bare, 1, 1, 1, 1, cv2.BORDER_CONSTANT), cv2.DIST_L2, 5)[1:-1, 1:-1]
    radius, centre = depth.max(), np.array(np.unravel_index(depth.argmax(), depth.shape)[::-1], float)

    border = np.ones_like(solid)
    border[1:-1, 1:-1] = 0
    y, x = np.nonzero(solid)
    at_border = border[y, x] > 0
    if at_border.any():
        forearm = np.array([x[at_border].mean(), y[at_border].mean()]) - centre
        forearm /= max(np.linalg.norm(forearm), 1e-6)
        hand = (x - centre[0]) * forearm[0] + (y - centre[1]) * forearm[1] <= WRIST * radius
        x, y = x[hand], y[hand]
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], np.float32)


def one_hand_frame(image: np.ndarray, mask: np.ndarray, label: Label, skin: np.ndarray | None) -> Frame:
    """Return a frame of one hand, its box taken from its mask; of no hand, if the mask is empty; see `hand_box`."""
    boxes = np.array([hand_box(mask, skin)] if (mask > 127).any() else [], np.float32).reshape(-1, 4)
    targets, fingers = (np.full(len(boxes), value, np.int64) for value in (label.target, label.fingers))
    return Frame(image, boxes, targets, mask, fingers)


def segment_light_wall(image: np.ndarray) -> np.ndarray:
    """Segment a hand before a light wall: a soft mask (H, W) uint8 of an image (H, W, 3) uint8 RGB."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    # The wall's colour varies across the image (lamps, corners): fit a smooth surface to each channel of the wall,
    # taken at first from the image border, then from all pixels near the last fit.
    h, w = image.shape[:2]
    y, x = np.mgrid[:h, :w].astype(np.float32)
    terms = np.stack([np.ones_like(x), x / w - 0.5, y / h - 0.5, (x / w - 0.5) ** 2, (y / h - 0.5) ** 2], -1)
    wall = np.zeros((h, w), bool)
    wall[: h // 2, : w // 12] = wall[: h // 2, -w // 12 :] = wall[: h // 25] = True
    for used, threshold in ((terms[..., :3], 10), (terms, 7), (terms, 7)):
        coefficients, *_ = np.linalg.lstsq(used[wall], lab[wall], rcond=None)
        residual = lab - used @ coefficients
        # Shadows on the wall are darker but not coloured: lightness counts less than colour.
        distance = np.sqrt((0.2 * residual[..., 0]) ** 2 + residual[..., 1] ** 2 + residual[..., 2] ** 2)
        wall = distance < threshold
    smooth = cv2.GaussianBlur(np.clip(distance * 6, 0, 255).astype(np.uint8), (0, 0), 0.7)
    otsu, _ = cv2.threshold(smooth, 0, 255, cv2.THRESH_OTSU)
    solid = np.where(smooth > min(otsu, 50), 255, 0).astype(np.uint8)
    hand = largest_component(np.asarray(cv2.morphologyEx(solid, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)), np.uint8))
    # JPEG bleeds colour onto the wall: peel off edge pixels as light as the wall, twice.
    light = (residual[..., 0] > -20) & (np.hypot(residual[..., 1], residual[..., 2]) < 18)
    for _ in range(2):
        hand[light & (cv2.erode(hand, np.ones((3, 3), np.uint8)) == 0)] = 0
    return soften_mask(largest_component(hand), 0.8)
