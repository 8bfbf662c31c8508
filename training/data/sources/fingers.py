"""Kaggle "Fingers": 18,000 + 3,600 images of one hand, 128×128 grey, on dark noise. CC0.

    <folder>/train/<uuid>_<0-5><L|R>.png     1,500 a class
    <folder>/test/<uuid>_<0-5><L|R>.png        300 a class

Source: kaggle.com/datasets/koryakinp/fingers, by Pavel Koryakin.
"""

import hashlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from handful.labels import CLASSES
from training.data.frames import Frame, FrameDataset
from training.errors import BadData
from training.files import atomic_write

SIDE = 128  # of an image, pixels
SPLIT_SIZES = {"train": 18_000, "test": 3_600}
FILE_NAME = re.compile(r".+_([0-5][LR])\.png")
# Perceptual hashes of 64 bits that differ in this many bits or fewer are near duplicates: frames of one clip.
MAX_DISTANCE = 4
VALIDATION_SHARE = 0.1  # of the train split


class Fingers(FrameDataset):
    """One split of Fingers: one hand an image, with its mask by Otsu's threshold. Near duplicates are one group.

    >>> frame = Fingers("data/fingers", "test")[0]
    >>> frame.image.shape, CLASSES[frame.targets[0]]
    ((128, 128, 3), '0L')

    Raises:
        BadData: the split is missing, or an image has an unexpected name, size or content.
    """

    def __init__(self, root: str | Path, split: str):
        super().__init__(root, list_images(Path(root) / split))
        self.targets = np.array([CLASSES.index(label_of(file)) for file in self.files])
        self.hashes = cached_hashes(self.files, Path(root))
        near = near_duplicates(self.hashes)
        self.groups = [str(group) for group in near]
        self.validation = split_groups(near, VALIDATION_SHARE)

    def frame(self, index: int) -> Frame:
        grey = read_grey(self.files[index])
        mask = segment(grey)
        box = np.array(cv2.boundingRect((mask > 127).astype(np.uint8)), np.float32)
        box[2:] += box[:2]
        return Frame(np.repeat(grey[:, :, None], 3, 2), box[None], self.targets[index : index + 1], mask)


def segment(grey: np.ndarray) -> np.ndarray:
    """Segment a hand on dark ground, (128, 128) uint8: a mask with a soft edge."""
    _, mask = cv2.threshold(cv2.GaussianBlur(grey, (0, 0), 0.7), 0, 255, cv2.THRESH_OTSU)
    return cv2.GaussianBlur(mask, (0, 0), 0.7)


def near_duplicates(hashes: np.ndarray) -> np.ndarray:
    """Return the group of each image, (N,) int: connected components of near duplicates."""
    rows, columns = near_pairs(hashes, hashes)
    links = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(hashes), len(hashes)))
    return connected_components(links, directed=False)[1]


def near_pairs(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of near duplicates between hashes `a` and `b`, (N,) uint64 each: two arrays of indices."""
    pairs = [np.nonzero(np.bitwise_count(b ^ one) <= MAX_DISTANCE)[0] for one in a]
    return np.repeat(np.arange(len(a)), [len(p) for p in pairs]), np.concatenate(pairs)


def split_groups(groups: np.ndarray, share: float) -> np.ndarray:
    """Choose whole groups at random, up to `share` of all images: (N,) bool, deterministic.

    Groups larger than a tenth of that are not chosen: one of them would dominate.
    """
    sizes = np.bincount(groups)
    order = np.random.default_rng(0).permutation(len(sizes))
    order = order[sizes[order] <= max(1, share * len(groups) / 10)]
    chosen = order[np.cumsum(sizes[order]) <= share * len(groups)]
    return np.isin(groups, chosen)


def label_of(file: Path) -> str:
    """Return the class in a file's name, one of `CLASSES`."""
    match = FILE_NAME.fullmatch(file.name)
    if match is None:
        raise BadData(
            f"{file}: the name of a Fingers image ends in its label, such as …_3L.png (0-5 fingers, L or R). "
            "Rename the file or move it out of the folder."
        )
    return match[1]


def list_images(folder: Path) -> list[Path]:
    """Return the images of a split, sorted by name."""
    files = sorted(file for file in folder.glob("*") if not file.name.startswith(".")) if folder.is_dir() else []
    if not files:
        raise BadData(f"{folder}: no images here. Fetch the data set with: python -m training data")
    return files


def cached_hashes(files: Sequence[Path], root: Path) -> np.ndarray:
    """Return perceptual hashes (N,) uint64, cached below `root`."""
    states = ((file.name, stat.st_size, stat.st_mtime_ns) for file in files for stat in [file.stat()])
    key = hashlib.sha256(repr(list(states)).encode()).hexdigest()[:12]
    hashes = root / "cache" / f"{files[0].parent.name}-{key}.hashes.npy"
    if not hashes.exists():
        hashes.parent.mkdir(exist_ok=True)
        images = map(read_grey, tqdm(files, f"Hashing {files[0].parent.name}", unit=" images"))
        found = [int(str(imagehash.phash(Image.fromarray(grey))), 16) for grey in images]
        with atomic_write(hashes) as part, part.open("wb") as out:
            np.save(out, np.array(found, np.uint64))
    return np.load(hashes)


def read_grey(file: Path) -> np.ndarray:
    """Read a Fingers image, (128, 128) uint8."""
    try:
        with Image.open(file) as image:
            grey = np.asarray(image.convert("L"))
    except (OSError, SyntaxError) as error:  # Pillow raises either for a damaged PNG
        raise BadData(f"{file}: cannot be read ({error}). Delete it and fetch the data set again.") from None
    if grey.shape != (SIDE, SIDE):
        raise BadData(f"{file}: {grey.shape[1]}×{grey.shape[0]} pixels, not {SIDE}×{SIDE}. Fetch the data set again.")
    return grey


def find_splits(copy: Path) -> Path:
    """Return the folder of train and test in a copy of Fingers: the archive has them twice.

    Raises:
        BadData: there is none.
    """
    for root in (copy, copy / "fingers"):
        if all((root / split).is_dir() for split in SPLIT_SIZES):
            return root
    raise BadData(f"{copy}: this should hold the folders train and test of the Fingers data set.")


def fetch(folder: Path, copy: Path | None = None) -> None:
    """Put Fingers into `folder`/{train,test}, from a local copy or from Kaggle.

    Images are hard links where the file system allows them, else copies; `copy` is left unchanged.

    Raises:
        BadData: `copy` has no train and test, or Kaggle cannot be reached.
    """
    if copy is None:
        import kagglehub

        try:
            copy = Path(kagglehub.dataset_download("koryakinp/fingers"))
        except Exception as error:
            raise BadData(
                f"Kaggle could not be reached ({error}). Download koryakinp/fingers by hand, unpack it, and run: "
                "python -m training data --fingers FOLDER"
            ) from error
    root = find_splits(copy)
    for split in SPLIT_SIZES:
        (folder / split).mkdir(parents=True, exist_ok=True)
        for file in tqdm(list_images(root / split), f"Copying {split}", unit=" images"):
            target = folder / split / file.name
            if not target.exists():
                try:
                    os.link(file, target)
                except OSError:
                    with atomic_write(target) as part:
                        shutil.copyfile(file, part)


def summarize(folder: Path) -> dict[str, int | str]:
    """Check that both splits are complete, and count images and duplicates.

    Raises:
        BadData: a class does not have as many images as published.
    """
    splits = {split: Fingers(folder, split) for split in SPLIT_SIZES}
    for split, images in splits.items():
        counts = Counter(CLASSES[target] for target in images.targets)
        expected = SPLIT_SIZES[split] // len(CLASSES)
        if unexpected := {label: counts[label] for label in CLASSES if counts[label] != expected}:
            raise BadData(
                f"{folder / split}: {expected:,} images a class are published, here are {unexpected}. "
                f"Delete {folder} and run: python -m training data"
            )
    train, test = splits["train"], splits["test"]
    digests = {
        split: [hashlib.sha256(read_grey(file).tobytes()).digest() for file in images.files]
        for split, images in splits.items()
    }
    in_train = set(digests["train"])
    near = len(set(near_pairs(test.hashes, train.hashes)[0].tolist()))
    return {
        "train": len(train),
        "test": len(test),
        "per class": f"{len(train) // len(CLASSES):,} / {len(test) // len(CLASSES):,}",
        "exact duplicates within train": len(train) - len(in_train),
        "exact duplicates within test": len(test) - len(set(digests["test"])),
        "test images also in train": sum(digest in in_train for digest in digests["test"]),
        f"test images near duplicates of train (≤ {MAX_DISTANCE} of 64 bits)": f"{near:,} ({near / len(test):.0%})",
    }


def prepare(folder: Path, copy: Path | None = None) -> None:
    """Fetch what is missing of Fingers in `folder`, check it, and print a summary."""
    if copy or any(len(list((folder / split).glob("*.png"))) < size for split, size in SPLIT_SIZES.items()):
        fetch(folder, copy)
    for name, value in summarize(folder).items():
        print(f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value}")
