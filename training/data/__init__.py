"""What the classifier learns from: crops of hands from one or many sources, dealt out in batches."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from lightning import LightningDataModule
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from handful.labels import NO_HAND
from training.augment.pipeline import VIEW, Augment
from training.augment.synthetic_faces import with_head
from training.data import panoramas
from training.data.backgrounds import places
from training.data.frames import MARGIN, FrameDataset, crops
from training.data.sources import finger_counting as counting
from training.data.sources import fingers as fingers_source
from training.data.sources import hands_dataset as webcam
from training.data.sources import sign_language_digits as digits
from training.data.sources.finger_counting import FingerCounting
from training.data.sources.fingers import Fingers
from training.data.sources.hands_dataset import HandsDataset
from training.data.sources.own_hand import OwnHand
from training.data.sources.rendered import Bundled, People, Rendered
from training.data.sources.sign_language_digits import SignLanguageDigits
from training.errors import BadData


class Source(NamedTuple):
    """Pictures to learn from: what reads them, where they lie below the data folder, what fetches them there."""

    read: Callable[[Path], FrameDataset]
    place: str
    fetch: Callable[[Path], None] | None = None


# By the names that configurations call them by.
SOURCES = {
    "fingers": Source(lambda folder: Fingers(folder, "train"), "fingers"),
    "digits": Source(SignLanguageDigits, "people/Sign-Language-Digits-Dataset", digits.fetch),
    "counting": Source(FingerCounting, "people/Human-Robot_Finger-Counting_Dataset", counting.fetch),
    "webcam": Source(HandsDataset, "people/HandsDataset", webcam.fetch),
    "rendered": Source(Rendered, "render/train"),
    "people": Source(People, "render/people"),  # rendered too; data/people is where photographs of people lie
    "own": Source(OwnHand, "own"),
    # 250 small rendered hands, wherever the data folder is.
    "bundled": Source(Bundled, str(Path(__file__).parents[1] / "tiny_data/render/train")),
}
SIZE = 192  # of a crop: what the classifier sees, and around it as much as turning and shifting can bring in


def open_source(name: str, folder: Path) -> FrameDataset:
    """A source by its name, from its place below the data folder.

    Raises:
        BadData: it is not there, with the way to get it; or no source is called so.
    """
    if name not in SOURCES:
        raise BadData(f"{name!r} is no source: choose from {', '.join(SOURCES)}.")
    source = SOURCES[name]
    return source.read(folder / source.place)


def prepare(folder: Path = Path("data"), fingers: Path | None = None) -> None:
    """Fetch the data sets that are not there yet, check them, say what is in them.

    Args:
        folder: where they go.
        fingers: a copy of Kaggle Fingers that you have; it is not downloaded then.

    Raises:
        BadData: a data set is not what was published, or cannot be fetched.
    """
    copy = fingers and fingers_source.find(fingers)  # before hours of downloads, not after them
    for name, source in SOURCES.items():
        if source.fetch:
            source.fetch(folder / source.place)
            frames = open_source(name, folder)
            print(f"{name}: {len(frames):,} pictures, {frames.about()['validation']:,} of them kept for validation")
    # Last, for not everybody has npm, and Kaggle does not let everybody in.
    panoramas.fetch(folder / "panoramas")
    print(f"Panoramas: {len(panoramas.MEMBERS)} places without people")
    fingers_source.prepare(folder / "fingers", copy)


class Crops(Dataset):
    """Hands cut out of several sources, one source after the other; a whole batch is read at once.

    Args:
        parts: of each source, pictures (M, 192, 192, 4) uint8 RGBA, targets (M,), boxes (M, 4) of the hands in the
            pictures, and which rows to use.
        augment: how each picture is varied each time it is asked for; None leaves it as it is.
        rooms: photographs to put hands into, see `Augment`.
    """

    def __init__(
        self,
        parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
        augment: Augment | None = None,
        rooms: np.ndarray | None = None,
    ):
        self.augment, self.rooms = augment, rooms
        self.pictures = [pictures for pictures, *_ in parts]
        self.targets = np.concatenate([targets[rows] for _, targets, _, rows in parts])
        self.boxes = np.concatenate([boxes[rows] for _, _, boxes, rows in parts])
        self.rows = [(part, row) for part, (*_, rows) in enumerate(parts) for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """((N, size, size, 3) uint8 RGB, (N,) int64) varied, ((N, 192, 192, 4) uint8 RGBA, (N,) int64) as they are."""
        pictures = [self.pictures[part][row] for part, row in (self.rows[i] for i in indices)]
        targets = self.targets[indices]
        if self.augment:
            # Seeded by torch: every worker and every epoch another way.
            rng = np.random.default_rng(int(torch.randint(2**62, (1,))))
            hands = zip(pictures, targets.tolist(), self.boxes[indices], strict=True)
            varied = [self.augment(*hand, rng, self.rooms) for hand in hands]
            pictures, targets = [picture for picture, _ in varied], np.array([target for _, target in varied])
        return torch.from_numpy(np.stack(pictures)), torch.from_numpy(targets)


class CropDataModule(LightningDataModule):
    """Crops of hands in batches, see `Crops`: varied for training, as they are for validation.

    People and recording sessions stay whole: those that a source keeps for validation are never trained on.

    Args:
        sources: names of sources and how many crops of each an epoch has.
        augment: how training pictures are varied.
        folder: where the sources lie.
        empty: how many crops without a hand an epoch has.
        batch_size: crops a batch, on each device.
        workers: processes that vary training pictures.
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
        self.pictures: dict[str, Any] = {}

    def prepare_data(self) -> None:
        # In one process only: cuts out what is not cut out yet.
        for name in self.sources:
            cut(open_source(name, self.folder), self.folder)

    def setup(self, stage: str) -> None:
        train, val, weights = [], [], []
        for name, share in self.sources.items():
            source = open_source(name, self.folder)
            self.credits.append(source.credit)
            self.pictures[name] = source.about()
            pictures, targets, boxes, kept = cut(source, self.folder)
            learn = np.flatnonzero(~kept)
            train.append((pictures, targets, boxes, learn))
            val.append((pictures, targets, boxes, np.flatnonzero(kept)))
            # Every count of a source as often as every other.
            counts = np.bincount(targets[learn] % 6, minlength=6)
            weights.append(share / (counts > 0).sum() / counts[targets[learn] % 6])
        self.credits += panoramas.credits(self.folder / "panoramas")
        rooms = square_rooms(self.folder, self.sources)
        if self.empty:
            if rooms is None:
                raise BadData(f"{self.folder}: no places without hands here. Fetch some: python -m training data")
            weights.append(np.full(len(rooms), self.empty / len(rooms)))
            rng = np.random.default_rng(0)
            # Of those that are trained on: nobody who is kept for validation lends a head their skin.
            parts = [train[k] for k in rng.integers(len(train), size=len(rooms))]
            skins = [pictures[rng.choice(rows)] for pictures, _, _, rows in parts]
            heads = [with_head(room, skin, rng) for room, skin in zip(rooms[::2], skins, strict=False)]
            rooms = np.stack([*heads, *rooms[1::2]])
            train.append(nothing_in(rooms))
            held = square_rooms(self.folder, self.sources, 200, validation=True)
            val += [] if held is None else [nothing_in(held)]
        self.train, self.val = Crops(train, self.augment, rooms), Crops(val)
        self.weights = np.concatenate(weights).tolist()

    def train_dataloader(self) -> DataLoader:
        epoch = sum(self.sources.values()) + self.empty
        if epoch < self.batch_size:
            raise BadData(f"{epoch} crops an epoch are no batch of {self.batch_size}: take more, or smaller batches.")
        return DataLoader(
            self.train,
            self.batch_size,
            sampler=WeightedRandomSampler(self.weights, epoch),
            drop_last=True,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=as_it_is,
        )

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, self.batch_size, sampler=distributed_sampler(self.val), collate_fn=as_it_is)


def distributed_sampler(pictures: Any) -> UnrepeatedDistributedSampler | None:
    """Deals pictures out to processes that validate together: Lightning would repeat some, for each to have as many."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return UnrepeatedDistributedSampler(pictures, shuffle=False) if together else None


def as_it_is(batch: Any) -> Any:
    """The data set hands over whole batches: there is nothing to collate."""
    return batch


def cut(source: FrameDataset, folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The crops of a source that all of training learns from, see `crops`."""
    return crops(source, SIZE, MARGIN * VIEW, folder / "cache")


def nothing_in(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Squares without hands, (N, s, s, 3) uint8 RGB, as a part of `Crops`."""
    pictures = np.concatenate([squares, np.full_like(squares[..., :1], 255)], 3)
    whole = np.array([0, 0, *squares.shape[2:0:-1]], np.float32)  # there is no hand to tell the place of
    return pictures, np.full(len(squares), NO_HAND), np.tile(whole, (len(squares), 1)), np.arange(len(squares))


def square_rooms(
    folder: Path, sources: Collection[str], count: int = 1200, validation: bool = False
) -> np.ndarray | None:
    """Squares of `places`, (count, 192, 192, 3) uint8 RGB, to put hands before; None without places."""
    found = places(folder, validation, sources)
    if not found:
        return None
    rng = np.random.default_rng(0)
    squares = []
    for i in range(count):
        image = found[i % len(found)]
        side = int(min(image.shape[:2]) * rng.uniform(0.3, 1))
        y, x = (rng.integers(length - side + 1) for length in image.shape[:2])
        squares.append(cv2.resize(image[y : y + side, x : x + side], (SIZE, SIZE), interpolation=cv2.INTER_AREA))
    return np.stack(squares)
