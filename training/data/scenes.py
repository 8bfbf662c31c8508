"""Frames to learn finding from: real ones, and rooms in which cut-out hands are put.

A scene is made anew each time it is asked for. It starts from a labelled frame, from a place without
hands or from a wall, turned, scaled and mirrored a little; then up to two cut-out hands are put into
it at any size and tilt, with an arm that goes on out of the frame, in the light and before the camera
of `training.augment.pipeline`. Everything happens on uint8 with OpenCV.
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

from training import data
from training.augment.pipeline import arm, camera, is_grey, light, place, relight, room, tone
from training.augment.synthetic_faces import head
from training.data.backgrounds import places
from training.data.sources.rendered import Rendered
from training.errors import BadData
from training.networks.detector import SIZE

# Longest side of a labelled frame in memory: scenes are smaller.
KEPT = 320
DECOYS = 0.3  # share of the frames still without a hand that are given a head or an arm
MOST_RENDERED = 240  # rendered hands to validate with: as many as there are real frames

Boxes = np.ndarray


@dataclass(frozen=True)
class Cutouts:
    """Hands to put into scenes: pictures (N, s, s, 4) uint8 RGBA, boxes (N, 4) of the hands; which of them to use."""

    pictures: np.ndarray
    boxes: np.ndarray
    index: np.ndarray


class Scenes(Dataset):
    """`length` scenes: ((3, 160, 160) uint8 RGB, boxes (K, 4) float32 in its pixels).

    Args:
        frames: labelled frames of each source, (H, W, 3) uint8 RGB and boxes (K, 4); the last is taken most.
        rooms: places without hands, each (H, W, 3) uint8 RGB.
        cutouts: hands to put in, a group a source; the last is taken most: rendered hands, for their many gestures.
        real: share of scenes that start from a labelled frame.
    """

    def __init__(
        self,
        frames: list[list[tuple[np.ndarray, Boxes]]],
        rooms: list[np.ndarray],
        cutouts: list[Cutouts],
        length: int,
        real: float = 0.5,
    ):
        self.frames, self.rooms, self.cutouts, self.length, self.real = frames, rooms, cutouts, length, real

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng(int(torch.randint(2**62, (1,))))
        if self.frames and (not self.rooms or rng.random() < self.real):
            source = self.frames[-1 if rng.random() < 0.5 else rng.integers(len(self.frames))]
            image, boxes = source[rng.integers(len(source))]
            pasted = rng.choice(3, p=(0.65, 0.27, 0.08))
        else:
            image, boxes = self.any_place(rng), np.empty((0, 4), np.float32)
            pasted = rng.choice(3, p=(0.15, 0.55, 0.3))
        scene, boxes = move(image, boxes, rng)
        if not len(boxes) and rng.random() < DECOYS:
            scene = decoy(scene, self.any_cutouts(rng), rng)
        for _ in range(pasted):
            scene, boxes = paste(scene, boxes, self.any_cutouts(rng), rng)
        scene = cv2.copyTo(camera(light(scene, rng), rng), filled(scene))  # still black where no frame is
        return torch.from_numpy(np.ascontiguousarray(scene.transpose(2, 0, 1))), torch.from_numpy(boxes)

    def any_place(self, rng: np.random.Generator) -> np.ndarray:
        """A photograph, or one time in four a wall with soft shapes, in the shape of some camera's frame."""
        if self.rooms and rng.random() < 0.75:
            return self.rooms[rng.integers(len(self.rooms))]
        wall = room(SIZE, rng)[: int(SIZE * rng.choice((1, 3 / 4, 9 / 16)))]
        return wall if rng.random() < 0.8 else wall.swapaxes(0, 1)

    def any_cutouts(self, rng: np.random.Generator) -> Cutouts:
        return self.cutouts[-1 if rng.random() < 0.4 else rng.integers(len(self.cutouts))]


class SceneDataModule(LightningDataModule):
    """Scenes in batches of ((N, 3, 160, 160) uint8 RGB, a list of boxes (K, 4)).

    Args:
        sources: names of sources; each gives its frames, where it has some, and its cut-outs, the last one's the most.
        folder: where the sources lie.
        scenes: scenes an epoch.
        batch_size: scenes a batch, on each device.
        workers: processes that make scenes.
    """

    def __init__(
        self,
        sources: tuple[str, ...],
        folder: str = "data",
        scenes: int = 20_000,
        batch_size: int = 64,
        workers: int = 1,
    ):
        super().__init__()
        self.sources, self.folder, self.scenes = sources, Path(folder), scenes
        self.batch_size, self.workers = batch_size, workers
        self.credits: list[str] = []
        self.pictures: dict[str, Any] = {}

    def setup(self, stage: str) -> None:
        real: list[list[tuple[np.ndarray, Boxes]]] = []
        cutouts, held = [], []
        for name in self.sources:
            source = data.open_source(name, self.folder)
            self.credits.append(source.credit)
            self.pictures[name] = source.about()
            if not isinstance(source, Rendered):  # those are no frames
                every = 9 if name == "fingers" else 1  # Fingers' frames are all much alike
                frames = {}
                for i in range(0, len(source), every):
                    frame = source.frame(i)
                    frames[i] = shrink(frame.image, frame.boxes)
                real.append([frame for i, frame in frames.items() if not source.validation[i]])
                held += [frame for i, frame in frames.items() if source.validation[i]]
            if name not in ("webcam", "own"):  # those without masks: nothing to cut out
                pictures, _, boxes, validation = data.cut(source, self.folder)
                cutouts.append(Cutouts(pictures, boxes, np.flatnonzero(~validation)))
        if not cutouts:
            raise BadData(f"{', '.join(self.sources)}: no hands to cut out. Name one with masks too: rendered, say.")
        rooms = [shrink(image, np.empty((0, 4), np.float32))[0] for image in places(self.folder, sources=self.sources)]
        self.credits += data.panoramas.credits(self.folder / "panoramas")
        self.train = Scenes(real, rooms, cutouts, self.scenes)
        held_places = places(self.folder, True, self.sources)
        held += [(image, np.empty((0, 4), np.float32)) for image in held_places]
        if "rendered" in self.sources:
            whole = Rendered(self.folder / "render/train", held_places)
            frames_of = map(whole.frame, np.flatnonzero(whole.validation)[:MOST_RENDERED])
            held += [shrink(frame.image, frame.boxes) for frame in frames_of]
        self.held = [(fit(image), boxes) for image, boxes in held]

    def train_dataloader(self) -> DataLoader:
        return DataLoader(
            self.train, self.batch_size, num_workers=self.workers, persistent_workers=self.workers > 0, collate_fn=stack
        )

    def val_dataloader(self) -> DataLoader:
        held = [
            (torch.from_numpy(small.transpose(2, 0, 1).copy()), torch.from_numpy(boxes * share).float())
            for (small, share), boxes in self.held
        ]
        sampler = data.distributed_sampler(held)
        return DataLoader(held, self.batch_size, sampler=sampler, collate_fn=stack)  # type: ignore[arg-type]


def stack(scenes: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[Tensor]]:
    """Scenes as a batch; frames have different numbers of boxes."""
    return torch.stack([scene for scene, _ in scenes]), [boxes for _, boxes in scenes]


def shrink(image: np.ndarray, boxes: Boxes) -> tuple[np.ndarray, Boxes]:
    """A frame no larger than is needed, and its boxes."""
    share = min(1.0, KEPT / max(image.shape[:2]))
    if share == 1:
        return image, boxes
    return cv2.resize(image, None, fx=share, fy=share, interpolation=cv2.INTER_AREA), boxes * np.float32(share)


def fit(image: np.ndarray) -> tuple[np.ndarray, float]:
    """A frame in the upper left of a (160, 160, 3) square, as the detector is given it, and its scale."""
    height, width = image.shape[:2]
    share = SIZE / max(height, width)
    matrix = np.array([[share, 0, share / 2 - 0.5], [0, share, share / 2 - 0.5]])
    if share < 0.5:
        image = cv2.blur(image, (round(0.5 / share), round(0.5 / share)))
    small = cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    small[round(height * share) :], small[:, round(width * share) :] = 0, 0
    return small, share


def move(image: np.ndarray, boxes: Boxes, rng: np.random.Generator) -> tuple[np.ndarray, Boxes]:
    """A frame fitted into the square, after a small turn, zoom, shift, maybe mirrored: a camera held another way."""
    height, width = image.shape[:2]
    # The shape of the frame in the square: like the picture's, or cut to that of another camera.
    share = SIZE / max(height, width)
    zoom = np.exp(rng.uniform(np.log(0.75), np.log(1.6))) if rng.random() < 0.8 else 1
    turn = rng.normal(0, 7)
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn, 1)
    if rng.random() < 0.5:
        matrix = matrix @ np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1.0]])
    free = np.array([width, height]) * (zoom - 1) / 2
    shift = rng.uniform(-1, 1, 2) * np.abs(free)
    matrix = (matrix - [[0, 0, width / 2], [0, 0, height / 2]]) * zoom + [[0, 0, width / 2], [0, 0, height / 2]]
    matrix[:, 2] += shift
    matrix *= share
    if share * zoom < 0.5:
        k = round(0.5 / (share * zoom))
        image = cv2.blur(image, (k, k))
    scene = cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    bottom, right = round(height * share), round(width * share)
    scene[bottom:], scene[:, right:] = 0, 0
    kept = []
    for x0, y0, x1, y1 in boxes:
        # Turned by a few degrees, the oval in the box stays a better guess than the box's own corners.
        middle = matrix @ [(x0 + x1) / 2, (y0 + y1) / 2, 1]
        c, s = np.abs(matrix[0, 0]), np.abs(matrix[0, 1])
        half = np.hypot([c * (x1 - x0), s * (x1 - x0)], [s * (y1 - y0), c * (y1 - y0)]) / 2
        box = np.concatenate([middle - half, middle + half])
        seen = np.clip(box, 0, [right, bottom, right, bottom])
        if area(seen) > 0.6 * area(box) and min(seen[2] - seen[0], seen[3] - seen[1]) > 6:
            kept.append(seen)
    return scene, np.array(kept, np.float32).reshape(-1, 4)


def paste(scene: np.ndarray, boxes: Boxes, cutouts: Cutouts, rng: np.random.Generator) -> tuple[np.ndarray, Boxes]:
    """A cut-out hand at a random place, size and tilt, and the boxes of the hands that can still be seen."""
    i = rng.choice(cutouts.index)
    cutout, (x0, y0, x1, y1) = cutouts.pictures[i], cutouts.boxes[i]
    size = SIZE * np.exp(rng.uniform(np.log(0.13), np.log(1.0)))
    zoom = size / max(x1 - x0, y1 - y0)
    matrix = cv2.getRotationMatrix2D(((x0 + x1) / 2, (y0 + y1) / 2), rng.uniform(-45, 45), zoom)
    if rng.random() < 0.5:
        matrix = matrix @ np.array([[-1, 0, x0 + x1], [0, 1, 0], [0, 0, 1]])
    matrix[:, 2] += rng.uniform(size * 0.4, SIZE - size * 0.4, 2) - [(x0 + x1) / 2, (y0 + y1) / 2]
    only = np.zeros(cutout.shape[:2], np.uint8)
    inside = np.s_[max(0, int(y0)) : int(np.ceil(y1)), max(0, int(x0)) : int(np.ceil(x1))]
    only[inside] = cutout[inside][..., 3]
    alone = cv2.warpAffine(only, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
    hand = (alone > 100) & (filled(scene) > 0)
    if hand.sum() < 0.55 * (only > 100).sum() * zoom**2 or hand.sum() < 60:
        return scene, boxes  # too much of it lies outside
    if zoom < 0.5:
        k = round(0.5 / zoom)
        cutout = cv2.resize(cutout, None, fx=1 / k, fy=1 / k, interpolation=cv2.INTER_AREA)
        matrix = matrix @ [[k, 0, (k - 1) / 2], [0, k, (k - 1) / 2], [0, 0, 1]]
    moved = cv2.warpAffine(cutout, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
    moved = arm(moved, alone, rng) if rng.random() < 0.7 else moved
    scene = lay(moved[..., :3], moved[..., 3], scene, rng)
    covered = moved[..., 3] > 100
    seen = [b for b in boxes if covered[int(b[1]) : int(b[3]), int(b[0]) : int(b[2])].mean() < 0.35]
    x, y, w, h = cv2.boundingRect(hand.astype(np.uint8))
    return scene, np.array([*seen, (x, y, x + w, y + h)], np.float32)


def decoy(scene: np.ndarray, cutouts: Cutouts, rng: np.random.Generator) -> np.ndarray:
    """Bare skin that is no hand, taken from the middle of a palm: a drawn head, or an oval as an arm may be."""
    i = rng.choice(cutouts.index)
    corners = cutouts.boxes[i].reshape(2, 2)
    (left, top), (right, bottom) = (corners * 0.6 + corners.mean(0) * 0.4).astype(int)
    skin = cv2.resize(cutouts.pictures[i, top : bottom + 1, left : right + 1, :3], (SIZE, SIZE))
    if rng.random() < 0.7:
        tall = SIZE * np.exp(rng.uniform(np.log(0.08), np.log(0.3)))
        return lay(*head(skin, rng.uniform((0.1, 0.15), (0.9, 0.75)) * SIZE, tall, rng), scene, rng)
    long = SIZE * np.exp(rng.uniform(np.log(0.15), np.log(0.7)))
    middle, axes = rng.uniform(0, SIZE, 2), (long / 2, long * rng.uniform(0.25, 0.9) / 2)
    mask = np.zeros(scene.shape[:2], np.uint8)
    cv2.ellipse(mask, (tuple(middle), (2 * axes[0], 2 * axes[1]), rng.uniform(0, 180)), 255, -1)
    return lay(skin, cv2.GaussianBlur(mask, (0, 0), 1), scene, rng)


def lay(skin: np.ndarray, mask: np.ndarray, scene: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Skin (SIZE, SIZE, 3) in a light of its own over a scene, where `mask` is; never on the black that fills it up."""
    skin = np.ascontiguousarray(skin)
    if is_grey(skin):
        skin = tone(skin, rng)
    return place(relight(skin, mask, rng), cv2.min(mask, filled(scene)), scene)


def filled(scene: np.ndarray) -> np.ndarray:
    """Where a frame is in the square: (SIZE, SIZE) uint8, 255 where it is not black."""
    return cv2.bitwise_not(cv2.inRange(scene, (0, 0, 0), (0, 0, 0)))


def area(box: np.ndarray) -> float:
    """Pixels in a box x0, y0, x1, y1; 0 where it is turned inside out."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
