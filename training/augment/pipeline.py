"""Augmentation: the same hand turned, mirrored, in other light, in another place, before another camera.

One picture at a time, on uint8 with OpenCV, in the processes that read the data: light is a table of
256 entries a channel. (In torch, on batches of float, a CPU waits for memory most of the time.)
"""

import math
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import torch.nn.functional as F
from torch import Tensor

from handful import CLASSES
from training.networks.backbone import normalize

VIEW = 1.5  # side of a crop, in sides of what the classifier sees: it can be turned and shifted without corners


@dataclass
class Augment:
    """Vary a hand.

    Takes a crop (S, S, 4) uint8 RGBA, alpha being the hand's mask (where it is not known: the picture), its
    target, and the hand's box in it, x0, y0, x1, y1 in pixels. Gives (size, size, 3) uint8 RGB, and the target: a
    mirrored hand is the other hand.

    Args:
        size: width and height of the pictures that come out.
        tilt: largest turn in the picture's plane, degrees.
        zoom: smallest and largest scale: as wrong as the detector's boxes are on hands of a kind it has not seen.
        shift: largest shift, as a share of the picture; as wide for the same reason.
        arms: share of the hands with a mask whose arm is drawn anew.
        background: share of hands put before another background.
        colour: share of grey hands given a skin tone.
        edge: share of hands at the edge of the frame, black beyond.
        erase: share of pictures that lose a rectangle.
    """

    size: int = 128
    tilt: float = 40
    zoom: tuple[float, float] = (0.68, 1.45)
    shift: float = 0.12
    arms: float = 0.7
    background: float = 0.75
    colour: float = 0.5
    edge: float = 0.2
    erase: float = 0.25

    def __call__(
        self, crop: np.ndarray, target: int, box: np.ndarray, rng: np.random.Generator, rooms: np.ndarray | None = None
    ) -> tuple[np.ndarray, int]:
        """One way to see the hand. `rooms` (M, h, w, 3) uint8 RGB are photographs to put hands into."""
        mirrored = rng.random() < 0.5
        matrix = self.move(len(crop), mirrored, rng)
        moved = cv2.warpAffine(crop, matrix, (self.size, self.size))
        if rng.random() < self.arms:
            hand = alone(crop, box)
            if hand is not None:
                moved = arm(moved, cv2.warpAffine(hand, matrix, (self.size, self.size)), rng)
        picture, mask = np.ascontiguousarray(moved[..., :3]), np.ascontiguousarray(moved[..., 3])
        if rng.random() < self.colour and is_grey(picture):
            picture = tone(picture, rng)
        if rng.random() < self.background:
            if not mask.all():
                picture = relight(picture, mask, rng)
                picture = texture(picture, rng) if rng.random() < 0.5 else picture
            picture = place(picture, mask, room(self.size, rng, rooms))
        picture = camera(light(picture, rng), rng)
        if rng.random() < self.edge:
            picture = cut_off(picture, rng)
        if rng.random() < self.erase:
            picture = erase(picture, rng)
        return picture, mirror(target) if mirrored else target

    def move(self, side: int, mirrored: bool, rng: np.random.Generator) -> np.ndarray:
        """Turn, scale, stretch, shear, shift and mirror a crop of that side: the matrix (2, 3) that does."""
        angle = math.radians(rng.uniform(-self.tilt, self.tilt))
        zoom = math.exp(rng.uniform(*np.log(self.zoom))) * VIEW * self.size / side
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        shear = np.array([[-1.0 if mirrored else 1.0, rng.uniform(-0.15, 0.15)], [0, rng.uniform(0.85, 1.18)]])
        linear = zoom * turn @ shear
        middle = (self.size - 1) / 2 + self.size * rng.uniform(-self.shift, self.shift, 2)
        return np.column_stack([linear, middle - linear @ np.full(2, (side - 1) / 2)])


def alone(crop: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """The hand's mask in a crop (S, S, 4) uint8 RGBA without its arm, (S, S) uint8; None where there is no mask."""
    mask = np.zeros(crop.shape[:2], np.uint8)
    (left, top), (right, bottom) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
    inside = np.s_[max(0, top) : bottom, max(0, left) : right]
    mask[inside] = crop[inside][..., 3]
    # A box that is full from edge to edge is no hand's outline.
    return mask if cv2.sumElems(mask)[0] < 250 * mask[inside].size else None


def is_grey(picture: np.ndarray) -> bool:
    """Whether red and blue are the same everywhere."""
    return np.array_equal(picture[..., 0], picture[..., 2])


def tone(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A grey hand with a skin tone: light follows grey, shadows are redder than lights."""
    red = rng.uniform(0.45, 1) + rng.uniform(-0.05, 0.05)  # dark … light skin
    green = red * rng.uniform(0.62, 0.85)
    skin = np.array([red, green, green * rng.uniform(0.65, 0.95)]) * 1.3
    return apply(RAMP ** np.array([0.8, 1.0, 1.1]) * skin, picture)


def relight(picture: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The hand darker or lighter, as other light or skin would have it: not as its old room did."""
    mean = np.mean(cv2.mean(picture, (mask > 127).astype(np.uint8))[:3]) + 1
    gain = np.clip(rng.uniform(50, 200) / mean, 0.4, 3) if rng.random() < 0.5 else 1
    return apply(RAMP * gain * np.exp(rng.normal(0, 0.06, 3)), picture)


def texture(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lighter and darker spots, fine to coarse: veins, creases and hair, which rendered hands have less of."""
    height, width = picture.shape[:2]
    spots = np.ones((height, width), np.float32)
    for field in spotted():
        y, x = rng.integers(len(field) - height), rng.integers(len(field) - width)
        spots += field[y : y + height, x : x + width] * np.float32(0.12 * rng.random() * rng.random())
    return cv2.multiply(picture, cv2.merge([spots] * 3), dtype=cv2.CV_8U)


def room(size: int, rng: np.random.Generator, rooms: np.ndarray | None = None) -> np.ndarray:
    """Something to stand before, (size, size, 3) uint8: a part of a photograph, or a wall with soft shapes."""
    if rooms is not None and rng.random() < 0.65:
        photograph = rooms[rng.integers(len(rooms))]
        side = int(len(photograph) * rng.uniform(0.4, 1))
        x, y = rng.integers(len(photograph) - side + 1, size=2)
        part = photograph[y : y + side, x : x + side, :]
        return cv2.resize(part[:, ::-1] if rng.random() < 0.5 else part, (size, size))
    wall = np.full((size, size, 3), rng.random() + rng.normal(0, 0.12, 3), np.float32)
    for cells, most in ((2, 0.3), (4, 0.25), (9, 0.15), (24, 0.08)):
        shapes = rng.normal(size=(cells, cells, 1)) + 0.5 * rng.normal(size=(cells, cells, 3))
        smooth = cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_NEAREST
        wall += cv2.resize((rng.random() ** 2 * most * shapes).astype(np.float32), (size, size), interpolation=smooth)
    return (wall.clip(0, 1) * 255).astype(np.uint8)


def place(picture: np.ndarray, mask: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """What the mask shows of a picture, before another one of the same size."""
    alpha = cv2.merge([mask] * 3)
    return cv2.add(cv2.multiply(picture, alpha, scale=1 / 255), cv2.multiply(behind, 255 - alpha, scale=1 / 255))


def arm(cutout: np.ndarray, hand: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A cut-out (S, S, 4) uint8 RGBA whose wrist goes on as a bare arm or a sleeve until the picture ends.

    One arm in three goes on as it came; the others are drawn anew from the heel of the hand, bent there by up to 100°:
    who shows a finger straight up to a camera often has the forearm across the picture.

    `hand` (S, S) uint8 is the part of its mask without the wrist; a cut-out without a wrist stays as it is.
    """
    size = len(cutout)
    wrist = cv2.subtract(cutout[..., 3], hand)
    found = cv2.moments(wrist, binaryImage=True)
    area = found["m00"]
    if area < 0.02 * np.count_nonzero(hand):
        return cutout
    both = found, cv2.moments(hand, binaryImage=True)
    wrist_at, hand_at = [np.array([of["m10"], of["m01"]]) / of["m00"] for of in both]
    along = (wrist_at - hand_at) / (np.linalg.norm(wrist_at - hand_at) + 1e-6)
    across = np.array([-along[1], along[0]])
    # Second moments: how far the wrist reaches across the arm; an even strip of that spread is √12 times as wide.
    spread = np.array([[found["mu20"], found["mu11"]], [found["mu11"], found["mu02"]]]) / area
    half = np.sqrt(12 * max(1.0, across @ spread @ across)) / 2
    near, far = float(half * rng.uniform(0.85, 1.3)), float(half * rng.uniform(1, 2))
    mask, start, angle = cutout[..., 3], wrist_at, np.arctan2(along[1], along[0])
    if rng.random() < 0.35:
        angle += rng.normal(0, 0.3)
    else:
        y, x = np.indices(hand.shape)
        down = (x - hand_at[0]) * along[0] + (y - hand_at[1]) * along[1]
        heel = np.percentile(down[hand > 127], 98) * rng.uniform(0.6, 0.95)
        start = hand_at + along * heel
        joint = cv2.circle(np.zeros_like(hand), start.round().astype(int).tolist(), round(near), 255, -1, cv2.LINE_AA)
        mask = cv2.min(mask, cv2.max(np.where(down < heel, hand, np.uint8(0)), joint))
        angle += rng.uniform(-1.7, 1.7)
    strip = np.zeros_like(hand)
    # To the elbow, and from there at another angle until the picture ends.
    for length, bend, first, last in (
        (half * rng.uniform(4, 12), 0.0, near, far),
        (2 * size, rng.uniform(-1.1, 1.1), far, far),
    ):
        angle += bend
        ahead = np.array([np.cos(angle), np.sin(angle)])
        aside, end = np.array([-ahead[1], ahead[0]]), start + ahead * length
        corners = np.array([start + aside * first, end + aside * last, end - aside * last, start - aside * first])
        cv2.fillConvexPoly(strip, (corners * 16).round().astype(np.int32), 255, cv2.LINE_AA, 4)
        cv2.circle(strip, (end * 16).round().astype(int).tolist(), round(last * 16), 255, -1, cv2.LINE_AA, 4)
        start = end
    if rng.random() < 0.35 and not is_grey(np.ascontiguousarray(cutout[..., :3])):
        cover = room(size, rng)  # cloth with soft shapes
    else:
        blotches = cv2.resize(
            rng.normal(1, 0.07, (8, 8)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC
        )
        skin = cv2.mean(cutout, wrist if rng.random() < 0.4 else hand)  # that of the wrist may be a sleeve's
        cover = np.full((size, size, 3), skin[:3], np.uint8)
        cover = cv2.multiply(cover, cv2.merge([blotches] * 3), dtype=cv2.CV_8U)
    # The arm is round: darker towards its edges, and at one side.
    rim = 1 - (cv2.distanceTransform(strip, cv2.DIST_L2, 3) / np.float32(half)).clip(0, 1)
    aside = ((np.indices((size, size))[::-1].T - wrist_at) @ across / half).T.clip(-1, 1)
    shade = (1 - rng.uniform(0, 0.5) * rim**2) * (1 + rng.normal(0, 0.25) * aside)
    cover = cv2.multiply(cover, cv2.merge([shade.astype(np.float32)] * 3), dtype=cv2.CV_8U)
    mask = np.ascontiguousarray(mask)
    return np.dstack([place(np.ascontiguousarray(cutout[..., :3]), mask, cover), cv2.max(strip, mask)])


def light(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exposure, contrast, gamma, white balance, a lamp from one side, a `look`; some pictures lose their colour."""
    contrast, middle = rng.uniform(0.7, 1.3), np.mean(cv2.mean(picture)[:3]) / 255
    levels = ((RAMP - middle) * contrast + middle).clip(1e-3, 1) ** math.exp(rng.uniform(-0.35, 0.35))
    white = np.exp(rng.normal(0, 0.08, 3))
    picture = apply(levels * math.exp(rng.uniform(-0.5, 0.4)) * white, picture)
    if rng.random() < 0.5:
        lamp = cv2.resize(rng.normal(1, 0.2, (2, 2)).astype(np.float32), picture.shape[1::-1])
        picture = cv2.multiply(picture, cv2.merge([lamp] * 3), dtype=cv2.CV_8U)
    if rng.random() < 0.15:
        picture = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return look(picture, rng)


def look(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What rooms and cameras do besides, to two pictures in five: shadows, sharpening, other colours, few levels."""
    way = rng.random()
    if way < 0.12:
        dark = rng.uniform(0.3, 1.3, (rng.integers(2, 5),) * 2).astype(np.float32)
        shadows = cv2.resize(dark, picture.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        return cv2.multiply(picture, cv2.merge([shadows] * 3), dtype=cv2.CV_8U)
    if way < 0.2:
        return cv2.addWeighted(picture, 1.8, cv2.GaussianBlur(picture, (0, 0), 1.5), -0.8, 0)
    if way < 0.28:
        return cv2.transform(picture, np.eye(3) + rng.normal(0, 0.15, (3, 3)))
    if way < 0.34:
        return picture & np.uint8(256 - 2 ** rng.integers(3, 6))
    if way < 0.42:
        light, red, blue = cv2.split(cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb))
        return cv2.cvtColor(cv2.merge([cv2.equalizeHist(light), red, blue]), cv2.COLOR_YCrCb2RGB)
    return picture


def camera(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Few pixels, a hand that moves, grain, JPEG."""
    height, width = picture.shape[:2]
    if rng.random() < 0.3:
        share = rng.uniform(0.25, 0.9)
        few = cv2.resize(picture, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
        picture = cv2.resize(few, (width, height))
    if rng.random() < 0.12:
        length, angle = int(rng.integers(3, 9)), rng.uniform(0, 180)
        line = np.zeros((length, length), np.float32)
        line[length // 2] = 1
        turned = cv2.warpAffine(line, cv2.getRotationMatrix2D(((length - 1) / 2,) * 2, angle, 1), (length, length))
        picture = cv2.filter2D(picture, -1, turned / turned.sum())
    if rng.random() < 0.5:
        start = rng.integers(len(grain()) - height * width)
        speck = grain()[start : start + height * width].reshape(height, width) * np.float32(rng.uniform(0, 15))
        picture = cv2.add(picture, cv2.merge([speck] * 3), dtype=cv2.CV_8U)
    if rng.random() < 0.3:
        _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 95))])
        picture = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB))
    return picture


def cut_off(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The frame ends beside the hand, or a little inside it: black beyond."""
    picture = picture.copy()
    for side in rng.choice(4, rng.choice((1, 2)), replace=False):
        view = (picture, picture[::-1], picture.swapaxes(0, 1), picture.swapaxes(0, 1)[::-1])[side]
        view[: int(len(view) * rng.uniform(0, 0.2))] = 0
    return picture


def erase(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Something small in front of the hand (random erasing: Zhong et al., 2017, arXiv:1708.04896)."""
    picture = picture.copy()
    size = np.array(picture.shape[:2])
    centre, half = rng.random(2) * size, rng.uniform(0.05, 0.15, 2) * size
    (top, left), (bottom, right) = (centre - half).clip(0).astype(int), (centre + half).astype(int)
    picture[top:bottom, left:right] = rng.integers(256, size=3)
    return picture


RAMP = np.linspace(0, 1, 256)[:, None]  # every level of a channel, as light; (256, 1)


def apply(levels: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Replace every level of every channel by what `levels` (256, 3), 0 … 1, has for it."""
    return cv2.LUT(picture, (levels.clip(0, 1) * 255).astype(np.uint8)[None])


@cache
def grain() -> np.ndarray:
    """A million numbers of normal noise, to be cut from: drawing them anew would take longest of all."""
    return np.random.default_rng(0).normal(size=1_000_000).astype(np.float32)


@cache
def spotted() -> list[np.ndarray]:
    """Noise of mean 0 and deviation 1, fine to coarse, to be cut from: four of (640, 640) float32."""
    rng = np.random.default_rng(0)
    fields = [cv2.GaussianBlur(rng.normal(size=(640, 640)), (0, 0), sigma) for sigma in (0.8, 1.5, 3, 6)]
    return [(field / field.std()).astype(np.float32) for field in fields]


def mirror(target: int) -> int:
    """The class of the same hand seen in a mirror: as many fingers, the other side where it is known."""
    return (target + 6) % 12 if target < len(CLASSES) else target


def plain(images: Tensor, size: int) -> Tensor:
    """What the classifier sees of crops, unvaried: (N, S, S, 4) uint8 RGBA to (N, 3, size, size) float, -1 … 1."""
    side = images.shape[1]
    rim = round(side * (1 - 1 / VIEW) / 2)
    seen = images[:, rim : side - rim, rim : side - rim, :3].permute(0, 3, 1, 2)
    if seen.shape[2] == size:
        return normalize(seen)
    return normalize(F.interpolate(seen.float(), (size, size), mode="bilinear", antialias=True))
