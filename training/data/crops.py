"""Crops of hands: what the classifier is trained on. Cut once and cached, augmented in batches."""

import contextlib
import hashlib
from collections.abc import Collection
from mmap import mmap
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from lightning import LightningDataModule
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler
from tqdm import tqdm

from handful.labels import COUNTS, NO_HAND, count_of
from training.augment.pipeline import CROP_CONTEXT, Augment
from training.augment.synthetic_faces import add_head
from training.data import panoramas
from training.data.backgrounds import load_backgrounds
from training.data.frames import FrameDataset
from training.data.registry import FINGERS_UNKNOWN, get_source, open_source
from training.errors import BadData
from training.files import atomic_write

MARGIN = 1.3  # side of the classifier's input, in longer sides of the hand's box
CROP_SIZE = 192  # pixels; more than the classifier's input, so that rotation and shift bring in real surroundings
CROP_CACHE_VERSION = 2  # raise when masks, boxes or crops come out differently: cached crops are cut anew
BACKGROUND_SQUARES = {"train": 1200, "validation": 200}


class Crops(NamedTuple):
    """Cropped hands.

    Attributes:
        images: (M, size, size, 4) uint8 RGBA; alpha is the mask, or 255.
        targets: (M,) int64, see `handful.labels.encode`.
        boxes: (M, 4) float32, of the hands in the crops.
        validation: (M,) bool.
        fingers: (M,) int64, which fingers are raised, see `Frame.fingers`.
    """

    images: np.ndarray
    targets: np.ndarray
    boxes: np.ndarray
    validation: np.ndarray
    fingers: np.ndarray


def roi_crop(
    image: np.ndarray, box: np.ndarray, size: int, margin: float = MARGIN, mask: np.ndarray | None = None
) -> np.ndarray:
    """Crop the square around a box, its side `margin` times the longer side of the box: (size, size, 4) uint8 RGBA.

    Alpha is the mask, or 255. Pixels outside the image are 0.

    Args:
        image: (H, W, 3) uint8 RGB.
        box: x0, y0, x1, y1 in pixels.
        size: side of the crop, in pixels.
        margin: side of the square, in longer sides of the box.
        mask: (H, W) uint8.
    """
    x0, y0, x1, y1 = (float(v) for v in box)
    side = max(x1 - x0, y1 - y0) * margin
    scale = size / side
    rgba = np.dstack([image, np.full(image.shape[:2], 255, np.uint8) if mask is None else mask])
    left, top = (x0 + x1 - side) / 2, (y0 + y1 - side) / 2
    # Average first where the crop is much smaller: bilinear sampling alone would alias.
    if scale < 0.5:
        shrink = 2 * scale
        small = (max(1, round(image.shape[1] * shrink)), max(1, round(image.shape[0] * shrink)))
        sx, sy = small[0] / image.shape[1], small[1] / image.shape[0]
        rgba = cv2.resize(rgba, small, interpolation=cv2.INTER_AREA)
    else:
        sx = sy = 1.0
    # From pixels of the crop to pixels of the image, both counted at pixel centres.
    to_image = np.array(
        [[sx / scale, 0, sx * (left + 0.5 / scale) - 0.5], [0, sy / scale, sy * (top + 0.5 / scale) - 0.5]]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(rgba, to_image, (size, size), flags=flags)


class MappedArray(np.memmap):
    """A memory-mapped array that is pickled by its file name: NumPy's own is pickled with all of its content."""

    def __reduce__(self) -> str | tuple:
        if isinstance(self.base, mmap):
            return MappedArray, (self.filename, self.dtype, "r", 0, self.shape)
        return np.asarray(self).__reduce__()  # a slice, as an ordinary array


def cached_crops(name: str, dataset: FrameDataset, size: int, margin: float, cache: Path) -> Crops:
    """Return the crops of every hand of a source, memory-mapped from the cache, which is filled first if need be.

    Older crops of the same source are deleted.
    """
    # With their folders: the folder of an image often is its label.
    files = [
        (file.parts[-2:], info.st_size, info.st_mtime_ns)
        for file in (*dataset.files, *dataset.extra_files)
        for info in [file.stat()]
    ]
    state = (CROP_CACHE_VERSION, files, dict(dataset.labels), size, margin)
    key = hashlib.sha256(repr(state).encode()).hexdigest()[:12]
    stem = f"{name}-{size}"
    images = Path(cache) / f"{stem}-{key}.rgba"
    table = images.with_suffix(".npy")
    if not table.exists():
        images.parent.mkdir(parents=True, exist_ok=True)
        cut_crops(name, dataset, size, margin, images, table)
        for old in images.parent.glob(f"*{stem}-*"):  # partial files of killed processes too
            if images.stem not in old.name:
                with contextlib.suppress(PermissionError):  # Windows: a training still reads it
                    old.unlink(missing_ok=True)
    rows = np.load(table)
    index = rows[:, 0].astype(int)
    array = MappedArray(images, np.uint8, "r", shape=(len(index), size, size, 4))
    return Crops(array, rows[:, 1].astype(int), rows[:, 2:6], dataset.validation[index], rows[:, 6].astype(int))


def cut_crops(name: str, dataset: FrameDataset, size: int, margin: float, images: Path, table: Path) -> None:
    """Crop every hand of a source: pixels to `images`; index, target, box and fingers, (M, 7) float32, to `table`."""
    rows: list[tuple[float, ...]] = []
    with atomic_write(images) as part, part.open("wb") as out:
        for i in tqdm(range(len(dataset)), f"Cropping {name}", unit=" images"):
            frame = dataset.frame(i)
            fingers = np.full(len(frame.boxes), FINGERS_UNKNOWN) if frame.fingers is None else frame.fingers
            for box, target, raised in zip(frame.boxes, frame.targets, fingers, strict=True):
                out.write(roi_crop(frame.image, box, size, margin, frame.mask).tobytes())
                half = (box[2:] - box[:2]) * size / (2 * margin * max(box[2:] - box[:2]))
                rows.append((i, target, *(size / 2 - half), *(size / 2 + half), raised))
    with atomic_write(table) as part, part.open("wb") as out:
        np.save(out, np.array(rows, np.float32).reshape(-1, 7))


def load_crops(name: str, dataset: FrameDataset, folder: Path) -> Crops:
    """Return the crops of a source as both trainings use them, cached below the data folder."""
    return cached_crops(name, dataset, CROP_SIZE, MARGIN * CROP_CONTEXT, folder / "cache")


class CropDataset(Dataset):
    """Crops of several sources, read a whole batch at once.

    Args:
        parts: crops of each source, and the indices of those to use.
        augment: augmentation, drawn anew on each access; None returns crops unchanged.
        backgrounds: (M, h, w, 3) uint8 RGB to composite hands onto, see `Augment`.
    """

    def __init__(
        self,
        parts: list[tuple[Crops, np.ndarray]],
        augment: Augment | None = None,
        backgrounds: np.ndarray | None = None,
    ):
        self.augment, self.backgrounds = augment, backgrounds
        self.images = [crops.images for crops, _ in parts]
        self.targets = np.concatenate([crops.targets[rows] for crops, rows in parts])
        self.boxes = np.concatenate([crops.boxes[rows] for crops, rows in parts])
        self.fingers = np.concatenate([crops.fingers[rows] for crops, rows in parts])
        self.rows = [(part, row) for part, (_, rows) in enumerate(parts) for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return a batch: images, targets (N,) and fingers (N,) int64.

        Images are augmented, (N, size, size, 3) uint8 RGB, or (N, 192, 192, 4) RGBA.
        """
        images = [self.images[part][row] for part, row in (self.rows[i] for i in indices)]
        targets = self.targets[indices]
        if self.augment:
            # Seeded by torch: different in every worker and epoch.
            rng = np.random.default_rng(int(torch.randint(2**62, (1,))))
            hands = zip(images, targets.tolist(), self.boxes[indices], strict=True)
            augmented = [self.augment(*hand, rng, self.backgrounds) for hand in hands]
            images, targets = [image for image, _ in augmented], np.array([target for _, target in augmented])
        return torch.from_numpy(np.stack(images)), torch.from_numpy(targets), torch.from_numpy(self.fingers[indices])


class CropDataModule(LightningDataModule):
    """Batches of crops, see `CropDataset`: augmented for training, unchanged for validation.

    Args:
        sources: names of sources, and crops of each in an epoch.
        augment: augmentation of training crops.
        folder: the data folder.
        empty: crops without a hand in an epoch.
        batch_size: crops in a batch, on each device.
        workers: processes that augment.
    """

    def __init__(
        self,
        sources: dict[str, int],
        augment: Augment,
        folder: str = "data",
        empty: int = 0,
        batch_size: int = 128,
        workers: int = 1,
    ):
        super().__init__()
        self.sources, self.augment, self.folder, self.empty = sources, augment, Path(folder), empty
        self.batch_size, self.workers = batch_size, workers
        self.credits: list[str] = []
        self.source_metadata: dict[str, Any] = {}

    def prepare_data(self) -> None:
        # Lightning calls this in one process only, which fills the cache for the others.
        for name in self.sources:
            load_crops(name, open_source(name, self.folder), self.folder)

    def setup(self, stage: str) -> None:
        train, val, weights = [], [], []
        for name, share in self.sources.items():
            frames = open_source(name, self.folder)
            self.credits.append(get_source(name).credit)
            self.source_metadata[name] = frames.metadata()
            crops = load_crops(name, frames, self.folder)
            rows = np.flatnonzero(~crops.validation)
            train.append((crops, rows))
            val.append((crops, np.flatnonzero(crops.validation)))
            # Balanced: every finger count of a source as often as the others, and as hands in other poses.
            targets = crops.targets[rows]
            counts = np.where(targets < NO_HAND, count_of(targets), len(COUNTS))
            sizes = np.bincount(counts, minlength=len(COUNTS) + 1)
            weights.append(share / (sizes > 0).sum() / sizes[counts])
        self.credits += panoramas.credits(self.folder / "panoramas")
        backgrounds = square_backgrounds(self.folder, self.sources, BACKGROUND_SQUARES["train"])
        if self.empty:
            if backgrounds is None:
                raise BadData(f"{self.folder}: no backgrounds without hands here. Fetch some: python -m training data")
            weights.append(np.full(len(backgrounds), self.empty / len(backgrounds)))
            backgrounds = add_heads(backgrounds, train)
            train.append(crops_without_hands(backgrounds))
            held_out = square_backgrounds(self.folder, self.sources, BACKGROUND_SQUARES["validation"], validation=True)
            val += [] if held_out is None else [crops_without_hands(held_out)]
        self.train, self.val = CropDataset(train, self.augment, backgrounds), CropDataset(val)
        self.weights = np.concatenate(weights).tolist()

    def train_dataloader(self) -> DataLoader:
        epoch = sum(self.sources.values()) + self.empty
        if epoch < self.batch_size:
            raise BadData(
                f"{epoch} crops in an epoch do not fill a batch of {self.batch_size}: "
                "use more crops, or a smaller batch_size."
            )
        return DataLoader(
            self.train,
            self.batch_size,
            sampler=WeightedRandomSampler(self.weights, epoch),
            drop_last=True,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=identity,
        )

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, self.batch_size, sampler=distributed_sampler(self.val), collate_fn=identity)


def distributed_sampler(dataset: Any) -> UnrepeatedDistributedSampler | None:
    """Return a sampler for validation in several processes: Lightning's default repeats images to even shares out."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return UnrepeatedDistributedSampler(dataset, shuffle=False) if distributed else None


def identity(batch: Any) -> Any:
    """Return a batch unchanged: `CropDataset` collates it already."""
    return batch


def square_backgrounds(
    folder: Path, sources: Collection[str], count: int, validation: bool = False
) -> np.ndarray | None:
    """Return random squares of the backgrounds, (count, 192, 192, 3) uint8 RGB; None without backgrounds."""
    images = load_backgrounds(folder, validation, sources)
    if not images:
        return None
    rng = np.random.default_rng(0)
    squares = []
    for i in range(count):
        image = images[i % len(images)]
        side = int(min(image.shape[:2]) * rng.uniform(0.3, 1))
        y, x = (rng.integers(length - side + 1) for length in image.shape[:2])
        square = image[y : y + side, x : x + side]
        squares.append(cv2.resize(square, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA))
    return np.stack(squares)


def add_heads(backgrounds: np.ndarray, train: list[tuple[Crops, np.ndarray]]) -> np.ndarray:
    """Draw a head into every other background, (N, s, s, 3) uint8 RGB, with the skin of a random training crop.

    Of training crops: nobody held out for validation lends their skin.
    """
    rng = np.random.default_rng(0)
    parts = [train[k] for k in rng.integers(len(train), size=len(backgrounds))]
    skins = [crops.images[rng.choice(rows)] for crops, rows in parts]
    heads = [add_head(square, skin, rng) for square, skin in zip(backgrounds[::2], skins, strict=False)]
    return np.stack([*heads, *backgrounds[1::2]])


def crops_without_hands(squares: np.ndarray) -> tuple[Crops, np.ndarray]:
    """Return backgrounds (N, s, s, 3) uint8 RGB as a part of a `CropDataset`."""
    images = np.concatenate([squares, np.full_like(squares[..., :1], 255)], 3)
    boxes = np.tile(np.array([0, 0, *squares.shape[2:0:-1]], np.float32), (len(squares), 1))
    targets, fingers = np.full(len(squares), NO_HAND), np.full(len(squares), FINGERS_UNKNOWN)
    crops = Crops(images, targets, boxes, np.zeros(len(squares), bool), fingers)
    return crops, np.arange(len(squares))
