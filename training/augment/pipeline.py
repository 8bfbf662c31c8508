"""Augmentation of hand crops: geometry, forearm, background, light, camera.

One crop at a time, on uint8 with OpenCV, in the worker processes of the data loader: photometric changes are lookup
tables of 256 levels per channel. (On float batches in torch, a CPU waits for memory most of the time.)
"""

import math
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import torch.nn.functional as F
from torch import Tensor

from handful.labels import mirror
from training.networks.backbone import normalize

CROP_CONTEXT = 1.5  # side of a crop, in sides of the classifier's input: room to rotate and shift without black corners
LEVELS = np.linspace(0, 1, 256)[:, None]  # of a uint8 channel, as light; (256, 1)


@dataclass
class Augment:
    """Augment a crop of a hand.

    Args:
        size: width and height of the result, pixels.
        tilt: largest rotation, degrees.
        turn: probability of any rotation instead: hands that point down or aside are rare in every data set.
        zoom: smallest and largest scale: as far off as the detector's boxes are on unfamiliar hands.
        shift: largest translation, as a share of `size`; as far off for the same reason.
        arms: probability that the forearm of a segmented hand is redrawn.
        background: probability of another background.
        colour: probability that a grey hand is given a skin tone.
        edge: probability that the frame ends next to the hand, black beyond.
        erase: probability of random erasing.
    """

    size: int = 112
    tilt: float = 40
    turn: float = 0.15
    zoom: tuple[float, float] = (0.68, 1.45)
    shift: float = 0.12
    arms: float = 0.7
    background: float = 0.75
    colour: float = 0.5
    edge: float = 0.2
    erase: float = 0.25

    def __call__(
        self,
        crop: np.ndarray,
        target: int,
        box: np.ndarray,
        rng: np.random.Generator,
        backgrounds: np.ndarray | None = None,
    ) -> tuple[np.ndarray, int]:
        """Return an augmented image, (size, size, 3) uint8 RGB, and its target: a flipped hand changes side.

        Args:
            crop: (S, S, 4) uint8 RGBA; alpha is the mask of the hand, or 255 all over.
            target: see `handful.labels.encode`.
            box: x0, y0, x1, y1 of the hand in the crop, pixels.
            rng: source of all randomness.
            backgrounds: (M, h, w, 3) uint8 RGB, images to composite hands onto.
        """
        flip = rng.random() < 0.5
        matrix = self.random_matrix(len(crop), flip, rng)
        warped = cv2.warpAffine(crop, matrix, (self.size, self.size))
        if rng.random() < self.arms:
            hand = hand_only_mask(crop, box)
            if is_segmented(hand, box):
                warped = draw_forearm(warped, cv2.warpAffine(hand, matrix, (self.size, self.size)), rng)
        image, mask = np.ascontiguousarray(warped[..., :3]), np.ascontiguousarray(warped[..., 3])
        if rng.random() < self.colour and is_grey(image):
            image = recolour_grey(image, rng)
        if rng.random() < self.background:
            if not mask.all():
                image = relight(image, mask, rng)
                image = add_skin_texture(image, rng) if rng.random() < 0.5 else image
            image = composite(image, mask, random_background(self.size, rng, backgrounds))
        image = simulate_camera(colour_jitter(image, rng), rng)
        if rng.random() < self.edge:
            image = black_border(image, rng)
        if rng.random() < self.erase:
            image = random_erasing(image, rng)
        return image, mirror(target) if flip else target

    def random_matrix(self, side: int, flip: bool, rng: np.random.Generator) -> np.ndarray:
        """Return a random affine matrix (2, 3) from a crop of that side to the result."""
        tilt = 180 if rng.random() < self.turn else self.tilt
        angle = math.radians(rng.uniform(-tilt, tilt))
        scale = math.exp(rng.uniform(*np.log(self.zoom))) * CROP_CONTEXT * self.size / side
        rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        shear = np.array([[-1.0 if flip else 1.0, rng.uniform(-0.15, 0.15)], [0, rng.uniform(0.85, 1.18)]])
        linear = scale * rotation @ shear
        centre = (self.size - 1) / 2 + self.size * rng.uniform(-self.shift, self.shift, 2)
        return np.column_stack([linear, centre - linear @ np.full(2, (side - 1) / 2)])


def center_crop(crops: Tensor, size: int) -> Tensor:
    """Return the classifier's input without augmentation: (N, S, S, 4) uint8 RGBA to (N, 3, size, size), -1 … 1."""
    side = crops.shape[1]
    border = round(side * (1 - 1 / CROP_CONTEXT) / 2)
    images = crops[:, border : side - border, border : side - border, :3].permute(0, 3, 1, 2)
    if images.shape[2] == size:
        return normalize(images)
    return normalize(F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True))


def hand_only_mask(crop: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the mask of a crop (S, S, 4) uint8 RGBA inside the hand's box, so without forearm: (S, S) uint8."""
    mask, inside = np.zeros(crop.shape[:2], np.uint8), box_slices(box)
    mask[inside] = crop[inside][..., 3]
    return mask


def is_segmented(hand: np.ndarray, box: np.ndarray) -> bool:
    """Return whether a hand-only mask is an outline: a box filled to its edges means that the set has no masks."""
    return cv2.sumElems(hand)[0] < 250 * hand[box_slices(box)].size


def box_slices(box: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns of all pixels that a box x0, y0, x1, y1 touches."""
    (x0, y0), (x1, y1) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
    return slice(max(0, y0), y1), slice(max(0, x0), x1)


def is_grey(image: np.ndarray) -> bool:
    """Return whether red and blue are equal everywhere."""
    return np.array_equal(image[..., 0], image[..., 2])


def recolour_grey(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give a grey hand a random skin tone: lightness follows grey, shadows are redder than highlights."""
    red = rng.uniform(0.45, 1) + rng.uniform(-0.05, 0.05)  # dark … light skin
    green = red * rng.uniform(0.62, 0.85)
    skin = np.array([red, green, green * rng.uniform(0.65, 0.95)]) * 1.3
    return apply_lut(image, LEVELS ** np.array([0.8, 1.0, 1.1]) * skin)


def relight(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change brightness and tint of a hand, so that they do not give away its original background."""
    mean = np.mean(cv2.mean(image, (mask > 127).astype(np.uint8))[:3]) + 1
    gain = np.clip(rng.uniform(50, 200) / mean, 0.4, 3) if rng.random() < 0.5 else 1
    return apply_lut(image, LEVELS * gain * np.exp(rng.normal(0, 0.06, 3)))


def add_skin_texture(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Modulate brightness with noise of four scales: veins, creases and hair, which rendered hands have less of."""
    height, width = image.shape[:2]
    gain = np.ones((height, width), np.float32)
    for noise in texture_noise():
        y, x = rng.integers(len(noise) - height), rng.integers(len(noise) - width)
        gain += noise[y : y + height, x : x + width] * np.float32(0.12 * rng.random() * rng.random())
    return multiply(image, gain)


def random_background(size: int, rng: np.random.Generator, backgrounds: np.ndarray | None = None) -> np.ndarray:
    """Return a random crop of a background image, or procedural soft shapes: (size, size, 3) uint8 RGB."""
    if backgrounds is not None and rng.random() < 0.65:
        image = backgrounds[rng.integers(len(backgrounds))]
        side = int(len(image) * rng.uniform(0.4, 1))
        x, y = rng.integers(len(image) - side + 1, size=2)
        crop = image[y : y + side, x : x + side, :]
        return cv2.resize(crop[:, ::-1] if rng.random() < 0.5 else crop, (size, size))
    image = np.full((size, size, 3), rng.random() + rng.normal(0, 0.12, 3), np.float32)
    for cells, contrast in ((2, 0.3), (4, 0.25), (9, 0.15), (24, 0.08)):
        shapes = rng.normal(size=(cells, cells, 1)) + 0.5 * rng.normal(size=(cells, cells, 3))
        smooth = cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_NEAREST
        shapes = (rng.random() ** 2 * contrast * shapes).astype(np.float32)
        image += cv2.resize(shapes, (size, size), interpolation=smooth)
    return (image.clip(0, 1) * 255).astype(np.uint8)


def composite(image: np.ndarray, mask: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Blend an image onto a background of the same size, with a mask (H, W) uint8 as alpha."""
    alpha = cv2.merge([mask] * 3)
    return cv2.add(cv2.multiply(image, alpha, scale=1 / 255), cv2.multiply(background, 255 - alpha, scale=1 / 255))


def draw_forearm(cutout: np.ndarray, hand: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Extend the wrist of a cut-out (S, S, 4) uint8 RGBA by a bare forearm or a sleeve that leaves the image.

    One forearm in three continues the wrist; the others start anew from the heel of the hand, bent by up to 100°:
    someone who shows a finger upright to a camera often has the forearm across the frame.

    `hand` (S, S) uint8 is the mask without the wrist; a cut-out without a wrist is returned unchanged.
    """
    wrist = cv2.subtract(cutout[..., 3], hand)
    moments = cv2.moments(wrist, binaryImage=True)
    area = moments["m00"]
    if area < 0.02 * np.count_nonzero(hand):
        return cutout
    wrist_centre, hand_centre = (
        np.array([m["m10"], m["m01"]]) / m["m00"] for m in (moments, cv2.moments(hand, binaryImage=True))
    )
    along = (wrist_centre - hand_centre) / (np.linalg.norm(wrist_centre - hand_centre) + 1e-6)
    across = np.array([-along[1], along[0]])
    # Width of the wrist from its second moments: a uniform strip is √12 standard deviations wide.
    covariance = np.array([[moments["mu20"], moments["mu11"]], [moments["mu11"], moments["mu02"]]]) / area
    half_width = math.sqrt(12 * max(1.0, across @ covariance @ across)) / 2
    at_wrist, at_elbow = half_width * rng.uniform(0.85, 1.3), half_width * rng.uniform(1, 2)
    mask, start, angle = cutout[..., 3], wrist_centre, np.arctan2(along[1], along[0])
    if rng.random() < 0.35:
        angle += rng.normal(0, 0.3)
    else:
        y, x = np.indices(hand.shape)
        depth = (x - hand_centre[0]) * along[0] + (y - hand_centre[1]) * along[1]
        heel = np.percentile(depth[hand > 127], 98) * rng.uniform(0.6, 0.95)
        start = hand_centre + along * heel
        centre = start.round().astype(int).tolist()
        joint = cv2.circle(np.zeros_like(hand), centre, round(at_wrist), 255, -1, cv2.LINE_AA)
        mask = cv2.min(mask, cv2.max(np.where(depth < heel, hand, np.uint8(0)), joint))
        angle += rng.uniform(-1.7, 1.7)
    forearm = forearm_mask(hand.shape, start, angle, half_width, at_wrist, at_elbow, rng)
    colours = forearm_colours(cutout, hand, wrist, rng)
    # Cylindrical shading: darker towards both edges, and on one side.
    edge = 1 - (cv2.distanceTransform(forearm, cv2.DIST_L2, 3) / np.float32(half_width)).clip(0, 1)
    side = ((np.indices(hand.shape)[::-1].T - wrist_centre) @ across / half_width).T.clip(-1, 1)
    shade = (1 - rng.uniform(0, 0.5) * edge**2) * (1 + rng.normal(0, 0.25) * side)
    image = composite(
        np.ascontiguousarray(cutout[..., :3]), np.ascontiguousarray(mask), multiply(colours, shade.astype(np.float32))
    )
    return np.dstack([image, cv2.max(forearm, mask)])


def forearm_mask(
    shape: tuple[int, ...],
    start: np.ndarray,
    angle: float,
    half_width: float,
    at_wrist: float,
    at_elbow: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw a forearm from `start` to the elbow, and an upper arm at another angle until the image ends.

    Half widths at wrist and elbow are in pixels; `half_width` is the unit of the forearm's length.
    """
    mask = np.zeros(shape, np.uint8)
    for length, bend, first, last in (
        (half_width * rng.uniform(4, 12), 0.0, at_wrist, at_elbow),
        (2 * shape[0], rng.uniform(-1.1, 1.1), at_elbow, at_elbow),
    ):
        angle += bend
        along = np.array([np.cos(angle), np.sin(angle)])
        across, end = np.array([-along[1], along[0]]), start + along * length
        corners = np.array([start + across * first, end + across * last, end - across * last, start - across * first])
        cv2.fillConvexPoly(mask, (corners * 16).round().astype(np.int32), 255, cv2.LINE_AA, 4)
        cv2.circle(mask, (end * 16).round().astype(int).tolist(), round(last * 16), 255, -1, cv2.LINE_AA, 4)
        start = end
    return mask


def forearm_colours(cutout: np.ndarray, hand: np.ndarray, wrist: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return what a forearm is filled with, (S, S, 3) uint8 RGB: cloth with soft shapes, or blotchy skin."""
    size = len(cutout)
    if rng.random() < 0.35 and not is_grey(np.ascontiguousarray(cutout[..., :3])):
        return random_background(size, rng)
    blotches = cv2.resize(rng.normal(1, 0.07, (8, 8)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    skin = cv2.mean(cutout, wrist if rng.random() < 0.4 else hand)  # the wrist may be a sleeve
    return multiply(np.full((size, size, 3), skin[:3], np.uint8), blotches)


def colour_jitter(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change exposure, contrast, gamma and white balance; sometimes a light gradient, greyscale, a `random_filter`."""
    contrast, mean = rng.uniform(0.7, 1.3), np.mean(cv2.mean(image)[:3]) / 255
    levels = ((LEVELS - mean) * contrast + mean).clip(1e-3, 1) ** math.exp(rng.uniform(-0.35, 0.35))
    white_balance = np.exp(rng.normal(0, 0.08, 3))
    image = apply_lut(image, levels * math.exp(rng.uniform(-0.5, 0.4)) * white_balance)
    if rng.random() < 0.5:
        image = multiply(image, cv2.resize(rng.normal(1, 0.2, (2, 2)).astype(np.float32), image.shape[1::-1]))
    if rng.random() < 0.15:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return random_filter(image, rng)


def random_filter(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Filter two images in five: cast shadows, sharpen, mix channels, posterize or equalize."""
    choice = rng.random()
    if choice < 0.12:
        shadows = rng.uniform(0.3, 1.3, (rng.integers(2, 5),) * 2).astype(np.float32)
        return multiply(image, cv2.resize(shadows, image.shape[1::-1], interpolation=cv2.INTER_CUBIC))
    if choice < 0.2:
        return cv2.addWeighted(image, 1.8, cv2.GaussianBlur(image, (0, 0), 1.5), -0.8, 0)
    if choice < 0.28:
        return cv2.transform(image, np.eye(3) + rng.normal(0, 0.15, (3, 3)))
    if choice < 0.34:
        return image & np.uint8(256 - 2 ** rng.integers(3, 6))
    if choice < 0.42:
        luma, red, blue = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb))
        return cv2.cvtColor(cv2.merge([cv2.equalizeHist(luma), red, blue]), cv2.COLOR_YCrCb2RGB)
    return image


def simulate_camera(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add artifacts of cameras, each to some images: low resolution, motion blur, noise, JPEG compression."""
    height, width = image.shape[:2]
    if rng.random() < 0.3:
        scale = rng.uniform(0.25, 0.9)
        image = cv2.resize(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), (width, height))
    if rng.random() < 0.12:
        length, angle = int(rng.integers(3, 9)), rng.uniform(0, 180)
        kernel = np.zeros((length, length), np.float32)
        kernel[length // 2] = 1
        rotation = cv2.getRotationMatrix2D(((length - 1) / 2,) * 2, angle, 1)
        kernel = cv2.warpAffine(kernel, rotation, (length, length))
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    if rng.random() < 0.5:
        start = rng.integers(len(gaussian_noise()) - height * width)
        noise = gaussian_noise()[start : start + height * width].reshape(height, width)
        image = cv2.add(image, cv2.merge([noise * np.float32(rng.uniform(0, 15))] * 3), dtype=cv2.CV_8U)
    if rng.random() < 0.3:
        _, jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 95))])
        image = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB))
    return image


def black_border(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Black out up to 20% at one or two sides: the frame ends next to the hand, or cuts into it."""
    image = image.copy()
    for side in rng.choice(4, rng.choice((1, 2)), replace=False):
        view = (image, image[::-1], image.swapaxes(0, 1), image.swapaxes(0, 1)[::-1])[side]
        view[: int(len(view) * rng.uniform(0, 0.2))] = 0
    return image


def random_erasing(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fill a random rectangle with one colour (random erasing: Zhong et al., 2017, arXiv:1708.04896)."""
    image = image.copy()
    size = np.array(image.shape[:2])
    centre, half = rng.random(2) * size, rng.uniform(0.05, 0.15, 2) * size
    (top, left), (bottom, right) = (centre - half).clip(0).astype(int), (centre + half).astype(int)
    image[top:bottom, left:right] = rng.integers(256, size=3)
    return image


def apply_lut(image: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Map every level of every channel of a uint8 image through `levels` (256, 3), 0 … 1."""
    return cv2.LUT(image, (levels.clip(0, 1) * 255).astype(np.uint8)[None])


def multiply(image: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Multiply all channels of an image (H, W, 3) uint8 by a gain (H, W) float32."""
    return cv2.multiply(image, cv2.merge([gain] * 3), dtype=cv2.CV_8U)


@cache
def gaussian_noise() -> np.ndarray:
    """Return a million standard normal values to slice noise from: drawing them anew would take longest of all."""
    return np.random.default_rng(0).normal(size=1_000_000).astype(np.float32)


@cache
def texture_noise() -> list[np.ndarray]:
    """Return noise of mean 0 and deviation 1, fine to coarse, to slice from: four of (640, 640) float32."""
    rng = np.random.default_rng(0)
    fields = [cv2.GaussianBlur(rng.normal(size=(640, 640)), (0, 0), sigma) for sigma in (0.8, 1.5, 3, 6)]
    return [(field / field.std()).astype(np.float32) for field in fields]
