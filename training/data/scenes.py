"""Scenes to train the detector on: labelled frames, and backgrounds into which cut-out hands are pasted.

A scene is made anew on each access. It starts from a labelled frame, a background image or a procedural background,
under a random affine transform; then up to two cut-out hands are pasted at any size and rotation, each with a forearm
that leaves the frame; then come the photometric augmentations of `training.augment.pipeline`. All on uint8 with OpenCV.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from handful.labels import NO_HAND
from training.augment.pipeline import (
    colour_jitter,
    composite,
    draw_forearm,
    hand_only_mask,
    is_grey,
    random_background,
    recolour_grey,
    relight,
    simulate_camera,
)
from training.augment.synthetic_faces import draw_head
from training.data import panoramas
from training.data.backgrounds import load_backgrounds
from training.data.crops import distributed_sampler, load_crops
from training.data.frames import Frame
from training.data.registry import get_source, open_source
from training.errors import BadData
from training.networks.detector import INPUT_SIZE

MAX_SIDE = 320  # of a labelled frame in memory: scenes are smaller
LABELLED_SHARE = 0.6  # of scenes: those that start from a labelled frame
DECOY_PROBABILITY = 0.3  # of a head or a forearm without a hand, in scenes without a labelled hand
MAX_RENDERED = 240  # rendered hands to validate with: as many as there are real frames

NO_BOXES = np.empty((0, 4), np.float32)


@dataclass(frozen=True)
class Cutouts:
    """Cut-out hands of one source: images (N, s, s, 4) uint8 RGBA, boxes (N, 4) of the hands, which to use."""

    images: np.ndarray
    boxes: np.ndarray
    index: np.ndarray


class SceneDataset(Dataset):
    """`length` random scenes: ((3, 160, 160) uint8 RGB, boxes (K, 4) float32 in its pixels).

    Args:
        frames: labelled frames of each source, (H, W, 3) uint8 RGB and boxes (K, 4), and how often it is drawn.
        backgrounds: images without hands, each (H, W, 3) uint8 RGB.
        cutouts: of each source, and how often it is drawn.
        length: scenes in an epoch.
    """

    def __init__(
        self,
        frames: list[tuple[list[tuple[np.ndarray, np.ndarray]], float]],
        backgrounds: list[np.ndarray],
        cutouts: list[tuple[Cutouts, float]],
        length: int,
    ):
        self.frames, self.backgrounds, self.cutouts, self.length = frames, backgrounds, cutouts, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng(int(torch.randint(2**62, (1,))))
        if self.frames and (not self.backgrounds or rng.random() < LABELLED_SHARE):
            source = choose(self.frames, rng)
            image, boxes = source[rng.integers(len(source))]
            # More before people without hands: hands before faces and bodies.
            pasted = rng.choice(3, p=(0.65, 0.27, 0.08) if len(boxes) else (0.45, 0.42, 0.13))
        else:
            image, boxes = self.choose_background(rng), NO_BOXES
            pasted = rng.choice(3, p=(0.15, 0.55, 0.3))
        scene, boxes = random_affine(image, boxes, rng)
        if not len(boxes) and rng.random() < DECOY_PROBABILITY:
            scene = add_decoy(scene, self.choose_cutouts(rng), rng)
        for _ in range(pasted):
            scene, boxes = paste_hand(scene, boxes, self.choose_cutouts(rng), rng)
        # The padding stays black.
        scene = cv2.copyTo(simulate_camera(colour_jitter(scene, rng), rng), frame_mask(scene))
        return torch.from_numpy(np.ascontiguousarray(scene.transpose(2, 0, 1))), torch.from_numpy(boxes)

    def choose_background(self, rng: np.random.Generator) -> np.ndarray:
        """Choose a background image, or one time in four a procedural one, with the aspect ratio of some camera."""
        if self.backgrounds and rng.random() < 0.75:
            return self.backgrounds[rng.integers(len(self.backgrounds))]
        background = random_background(INPUT_SIZE, rng)[: int(INPUT_SIZE * rng.choice((1, 3 / 4, 9 / 16)))]
        return background if rng.random() < 0.8 else background.swapaxes(0, 1)

    def choose_cutouts(self, rng: np.random.Generator) -> Cutouts:
        """Choose the source of a cut-out."""
        return choose(self.cutouts, rng)


def choose(parts: list[tuple[Any, float]], rng: np.random.Generator) -> Any:
    """Choose one of some parts, each as often as the number beside it says."""
    weights = np.array([weight for _, weight in parts], float)
    return parts[rng.choice(len(parts), p=weights / weights.sum())][0]


class SceneDataModule(LightningDataModule):
    """Batches of scenes: ((N, 3, 160, 160) uint8 RGB, a list of N boxes (K, 4)).

    Args:
        sources: names of sources, and how often each is drawn relative to the others: whole frames and cut-outs are
            taken from each, as far as it has them.
        folder: the data folder.
        scenes: scenes in an epoch.
        batch_size: scenes in a batch, on each device.
        workers: processes that make scenes.
    """

    def __init__(
        self,
        sources: dict[str, float],
        folder: str = "data",
        scenes: int = 20_000,
        batch_size: int = 64,
        workers: int = 1,
    ):
        super().__init__()
        self.sources, self.folder, self.scenes = sources, Path(folder), scenes
        self.batch_size, self.workers = batch_size, workers
        self.credits: list[str] = []
        self.source_metadata: dict[str, Any] = {}

    def setup(self, stage: str) -> None:
        train: list[tuple[list[tuple[np.ndarray, np.ndarray]], float]] = []
        cutouts, held_out = [], []
        for name, weight in self.sources.items():
            source, dataset = get_source(name), open_source(name, self.folder)
            self.credits.append(source.credit)
            self.source_metadata[name] = dataset.metadata()
            if source.whole_frames:
                index = range(0, len(dataset), source.frame_stride)
                frames = [(i, downscale(frame.image, hand_boxes(frame))) for i in index for frame in [dataset.frame(i)]]
                train.append(([frame for i, frame in frames if not dataset.validation[i]], weight))
                held_out += [frame for i, frame in frames if dataset.validation[i]]
            if source.has_masks:
                crops = load_crops(name, dataset, self.folder)
                cutouts.append((Cutouts(crops.images, crops.boxes, np.flatnonzero(~crops.validation)), weight))
        if not cutouts:
            raise BadData(f"{', '.join(self.sources)}: no hands to cut out. Add a source with masks, such as rendered.")
        backgrounds = load_backgrounds(self.folder, sources=self.sources)
        self.credits += panoramas.credits(self.folder / "panoramas")
        self.train = SceneDataset(train, [downscale(b, NO_BOXES)[0] for b in backgrounds], cutouts, self.scenes)
        held_out_backgrounds = load_backgrounds(self.folder, True, self.sources)
        held_out += [(image, NO_BOXES) for image in held_out_backgrounds]
        for name in self.sources:
            if get_source(name).held_out and not get_source(name).whole_frames:
                composited = open_source(name, self.folder, backgrounds=held_out_backgrounds)
                frames_of = map(composited.frame, np.flatnonzero(composited.validation)[:MAX_RENDERED])
                held_out += [downscale(frame.image, frame.boxes) for frame in frames_of]
        self.held_out = [(letterbox(image), boxes) for image, boxes in held_out]

    def train_dataloader(self) -> DataLoader:
        return DataLoader(
            self.train,
            self.batch_size,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=collate_scenes,
        )

    def val_dataloader(self) -> DataLoader:
        scenes: Any = [
            (torch.from_numpy(image.transpose(2, 0, 1).copy()), torch.from_numpy(boxes * scale).float())
            for (image, scale), boxes in self.held_out
        ]
        return DataLoader(scenes, self.batch_size, sampler=distributed_sampler(scenes), collate_fn=collate_scenes)


def collate_scenes(scenes: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[Tensor]]:
    """Collate scenes, which have different numbers of boxes."""
    return torch.stack([scene for scene, _ in scenes]), [boxes for _, boxes in scenes]


def hand_boxes(frame: Frame) -> np.ndarray:
    """Return the boxes (K, 4) of the hands of a frame, whatever they count; others are of what was taken for one."""
    return frame.boxes[frame.targets != NO_HAND]


def downscale(image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale a frame and its boxes down to `MAX_SIDE`."""
    scale = min(1.0, MAX_SIDE / max(image.shape[:2]))
    if scale == 1:
        return image, boxes
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), boxes * np.float32(scale)


def letterbox(image: np.ndarray) -> tuple[np.ndarray, float]:
    """Scale a frame into the upper left of a (160, 160, 3) square, the detector's input; return it and the scale."""
    height, width = image.shape[:2]
    scale = INPUT_SIZE / max(height, width)
    matrix = np.array([[scale, 0, scale / 2 - 0.5], [0, scale, scale / 2 - 0.5]])
    if scale < 0.5:
        image = cv2.blur(image, (round(0.5 / scale), round(0.5 / scale)))
    square = cv2.warpAffine(
        image, matrix, (INPUT_SIZE, INPUT_SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    square[round(height * scale) :], square[:, round(width * scale) :] = 0, 0
    return square, scale


def random_affine(image: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Letterbox a frame after a small random rotation, zoom, shift and flip; return it and the boxes in view."""
    height, width = image.shape[:2]
    scale = INPUT_SIZE / max(height, width)
    zoom = np.exp(rng.uniform(np.log(0.75), np.log(1.6))) if rng.random() < 0.8 else 1
    # Few upside down: no data set has many hands that point down.
    angle = rng.normal(180 if rng.random() < 0.06 else 0, 7)
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
    if rng.random() < 0.5:
        matrix = matrix @ np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1.0]])
    slack = np.array([width, height]) * (zoom - 1) / 2
    shift = rng.uniform(-1, 1, 2) * np.abs(slack)
    matrix = (matrix - [[0, 0, width / 2], [0, 0, height / 2]]) * zoom + [[0, 0, width / 2], [0, 0, height / 2]]
    matrix[:, 2] += shift
    matrix *= scale
    if scale * zoom < 0.5:
        k = round(0.5 / (scale * zoom))
        image = cv2.blur(image, (k, k))
    scene = cv2.warpAffine(
        image, matrix, (INPUT_SIZE, INPUT_SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    bottom, right = round(height * scale), round(width * scale)
    scene[bottom:], scene[:, right:] = 0, 0
    in_view = []
    for x0, y0, x1, y1 in boxes:
        # Bounds of the rotated inscribed ellipse: closer to the hand than bounds of the rotated corners.
        centre = matrix @ [(x0 + x1) / 2, (y0 + y1) / 2, 1]
        c, s = np.abs(matrix[0, 0]), np.abs(matrix[0, 1])
        half = np.hypot([c * (x1 - x0), s * (x1 - x0)], [s * (y1 - y0), c * (y1 - y0)]) / 2
        box = np.concatenate([centre - half, centre + half])
        clipped = np.clip(box, 0, [right, bottom, right, bottom])
        if box_area(clipped) > 0.6 * box_area(box) and min(clipped[2] - clipped[0], clipped[3] - clipped[1]) > 6:
            in_view.append(clipped)
    return scene, np.array(in_view, np.float32).reshape(-1, 4)


def paste_hand(
    scene: np.ndarray, boxes: np.ndarray, cutouts: Cutouts, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paste a cut-out hand at a random place, size and rotation; return the scene and the boxes still in view."""
    i = rng.choice(cutouts.index)
    cutout, (x0, y0, x1, y1) = cutouts.images[i], cutouts.boxes[i]
    size = INPUT_SIZE * np.exp(rng.uniform(np.log(0.13), np.log(1.0)))
    zoom = size / max(x1 - x0, y1 - y0)
    tilt = 180 if rng.random() < 0.15 else 45
    matrix = cv2.getRotationMatrix2D(((x0 + x1) / 2, (y0 + y1) / 2), rng.uniform(-tilt, tilt), zoom)
    if rng.random() < 0.5:
        matrix = matrix @ np.array([[-1, 0, x0 + x1], [0, 1, 0], [0, 0, 1]])
    matrix[:, 2] += rng.uniform(size * 0.4, INPUT_SIZE - size * 0.4, 2) - [(x0 + x1) / 2, (y0 + y1) / 2]
    hand_mask = hand_only_mask(cutout, cutouts.boxes[i])
    warped_hand_mask = cv2.warpAffine(hand_mask, matrix, (INPUT_SIZE, INPUT_SIZE), flags=cv2.INTER_LINEAR)
    hand = (warped_hand_mask > 100) & (frame_mask(scene) > 0)
    if hand.sum() < 0.55 * (hand_mask > 100).sum() * zoom**2 or hand.sum() < 60:
        return scene, boxes  # too much of it is out of view
    if zoom < 0.5:
        k = round(0.5 / zoom)
        cutout = cv2.resize(cutout, None, fx=1 / k, fy=1 / k, interpolation=cv2.INTER_AREA)
        matrix = matrix @ [[k, 0, (k - 1) / 2], [0, k, (k - 1) / 2], [0, 0, 1]]
    warped = cv2.warpAffine(cutout, matrix, (INPUT_SIZE, INPUT_SIZE), flags=cv2.INTER_LINEAR)
    warped = draw_forearm(warped, warped_hand_mask, rng) if rng.random() < 0.7 else warped
    scene = paste_skin(warped[..., :3], warped[..., 3], scene, rng)
    covered = warped[..., 3] > 100
    in_view = [b for b in boxes if covered[int(b[1]) : int(b[3]), int(b[0]) : int(b[2])].mean() < 0.35]
    x, y, w, h = cv2.boundingRect(hand.astype(np.uint8))
    return scene, np.array([*in_view, (x, y, x + w, y + h)], np.float32)


def add_decoy(scene: np.ndarray, cutouts: Cutouts, rng: np.random.Generator) -> np.ndarray:
    """Paste bare skin that is no hand: a drawn head, or an ellipse like a forearm, with the skin of a palm's centre."""
    i = rng.choice(cutouts.index)
    corners = cutouts.boxes[i].reshape(2, 2)
    (left, top), (right, bottom) = (corners * 0.6 + corners.mean(0) * 0.4).astype(int)
    skin = cv2.resize(cutouts.images[i, top : bottom + 1, left : right + 1, :3], (INPUT_SIZE, INPUT_SIZE))
    if rng.random() < 0.7:
        half_height = INPUT_SIZE * np.exp(rng.uniform(np.log(0.08), np.log(0.3)))
        centre = rng.uniform((0.1, 0.15), (0.9, 0.75)) * INPUT_SIZE
        return paste_skin(*draw_head(skin, centre, half_height, rng), scene, rng)
    length = INPUT_SIZE * np.exp(rng.uniform(np.log(0.15), np.log(0.7)))
    centre, axes = rng.uniform(0, INPUT_SIZE, 2), (length, length * rng.uniform(0.25, 0.9))
    mask = np.zeros(scene.shape[:2], np.uint8)
    cv2.ellipse(mask, (tuple(centre), axes, rng.uniform(0, 180)), 255, -1)
    return paste_skin(skin, cv2.GaussianBlur(mask, (0, 0), 1), scene, rng)


def paste_skin(skin: np.ndarray, mask: np.ndarray, scene: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Composite skin (160, 160, 3), relit, onto a scene where `mask` is set; never onto the black padding."""
    skin = np.ascontiguousarray(skin)
    if is_grey(skin):
        skin = recolour_grey(skin, rng)
    return composite(relight(skin, mask, rng), cv2.min(mask, frame_mask(scene)), scene)


def frame_mask(scene: np.ndarray) -> np.ndarray:
    """Return where the frame is in a letterboxed square: (160, 160) uint8, 255 where it is not black."""
    return cv2.bitwise_not(cv2.inRange(scene, (0, 0, 0), (0, 0, 0)))


def box_area(box: np.ndarray) -> float:
    """Return the area of a box x0, y0, x1, y1 in pixels; 0 if inverted."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
