"""Kaggle "Fingers": 18,000 + 3,600 pictures of one hand, 128×128 grey, on dark noise. CC0.

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

from handful import CLASSES
from training.data.frames import Frame, FrameDataset
from training.errors import BadData
from training.files import atomic_write

SIZE = 128
PICTURES = {"train": 18_000, "test": 3_600}
NAME = re.compile(r".+_([0-5][LR])\.png")
# Perceptual hashes of 64 bits that differ in this many bits or fewer: frames of one clip.
NEAR = 4
# Share of the train split kept for validation.
VALIDATION = 0.1


class Fingers(FrameDataset):
    """One split of Fingers: one hand a picture, with its mask.

    The mask tells hand from background (Otsu's threshold, softened): it lets training put the
    hand in another room. Near duplicates are one group.

    >>> pictures = Fingers("data/fingers", "test")
    >>> frame = pictures[0]
    >>> frame.image.shape, CLASSES[frame.targets[0]]
    ((128, 128, 3), '0L')

    Raises:
        BadData: the folder misses a split, or a picture has a wrong name, size or content.
    """

    credit = "Fingers by Pavel Koryakin, kaggle.com/datasets/koryakinp/fingers (CC0)"

    def __init__(self, root: str | Path, split: str):
        super().__init__(root, list_pictures(Path(root) / split))
        self.targets = np.array([CLASSES.index(label_of(file)) for file in self.files])
        self.hashes = _hash_once(self.files, Path(root))
        near = self.near_duplicates()
        self.groups = [str(group) for group in near]
        self.validation = split_groups(near, VALIDATION)

    def frame(self, index: int) -> Frame:
        grey = read_grey(self.files[index])
        mask = _mask(grey)
        box = np.array(cv2.boundingRect((mask > 127).astype(np.uint8)), np.float32)
        box[2:] += box[:2]
        return Frame(np.repeat(grey[:, :, None], 3, 2), box[None], self.targets[index : index + 1], mask)

    def near_duplicates(self) -> np.ndarray:
        """(N,) int: the same number for near duplicates, which must not be split up."""
        rows, columns = _near_pairs(self.hashes, self.hashes, NEAR)
        links = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(self), len(self)))
        return connected_components(links, directed=False)[1]


def split_groups(groups: np.ndarray, share: float) -> np.ndarray:
    """Choose whole groups until `share` of all members is reached: (N,) bool, the same every time.

    Groups larger than a tenth of what is wanted are not chosen: one of them would be most of it.
    """
    sizes = np.bincount(groups)
    order = np.random.default_rng(0).permutation(len(sizes))
    order = order[sizes[order] <= max(1, share * len(groups) / 10)]
    chosen = order[np.cumsum(sizes[order]) <= share * len(groups)]
    return np.isin(groups, chosen)


def label_of(file: Path) -> str:
    """The class that a file's name tells, one of `CLASSES`."""
    match = NAME.fullmatch(file.name)
    if match is None:
        raise BadData(
            f"{file}: the name of a Fingers picture ends in its label, such as …_3L.png (0-5 fingers, L or R). "
            "Rename the file or move it out of the folder."
        )
    return match[1]


def list_pictures(folder: Path) -> list[Path]:
    """The pictures of a split, sorted by name."""
    files = sorted(file for file in folder.glob("*") if not file.name.startswith(".")) if folder.is_dir() else []
    if not files:
        raise BadData(f"{folder}: no pictures here. Fetch the data set with: python -m training data")
    return files


def _hash_once(files: Sequence[Path], root: Path) -> np.ndarray:
    """Perceptual hashes (N,) uint64; kept, for they take a while."""
    states = ((file.name, stat.st_size, stat.st_mtime_ns) for file in files for stat in [file.stat()])
    key = hashlib.sha256(repr(list(states)).encode()).hexdigest()[:12]
    hashes = root / "cache" / f"{files[0].parent.name}-{key}.hashes.npy"
    if not hashes.exists():
        hashes.parent.mkdir(exist_ok=True)
        pictures = map(read_grey, tqdm(files, f"Reading {files[0].parent.name}", unit=" pictures"))
        found = [int(str(imagehash.phash(Image.fromarray(grey))), 16) for grey in pictures]
        with atomic_write(hashes) as part, part.open("wb") as out:
            np.save(out, np.array(found, np.uint64))
    return np.load(hashes)


def read_grey(file: Path) -> np.ndarray:
    """A Fingers picture, (128, 128) uint8."""
    try:
        with Image.open(file) as image:
            grey = np.asarray(image.convert("L"))
    except (OSError, SyntaxError) as error:  # Pillow has both for a damaged PNG
        raise BadData(f"{file}: cannot be read ({error}). Delete it and fetch the data set again.") from None
    if grey.shape != (SIZE, SIZE):
        raise BadData(f"{file}: {grey.shape[1]}×{grey.shape[0]} pixels, not 128×128. Fetch the data set again.")
    return grey


def _mask(grey: np.ndarray) -> np.ndarray:
    """0 on the dark background … 255 on the hand; (128, 128) uint8."""
    _, mask = cv2.threshold(cv2.GaussianBlur(grey, (0, 0), 0.7), 0, 255, cv2.THRESH_OTSU)
    return cv2.GaussianBlur(mask, (0, 0), 0.7)


def _near_pairs(a: np.ndarray, b: np.ndarray, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of the hashes `a` and `b` differ in at most `distance` bits: two arrays of indices."""
    pairs = [np.nonzero(np.bitwise_count(b ^ one) <= distance)[0] for one in a]
    return np.repeat(np.arange(len(a)), [len(p) for p in pairs]), np.concatenate(pairs)


def find(source: Path) -> Path:
    """Where in a copy of Fingers the splits are: the archive has them twice.

    Raises:
        BadData: nowhere.
    """
    for root in (source, source / "fingers"):
        if all((root / split).is_dir() for split in PICTURES):
            return root
    raise BadData(f"{source}: this should hold the folders train and test of the Fingers data set.")


def fetch(folder: Path, source: Path | None = None) -> None:
    """Bring Fingers into `folder`/{train,test}: from a folder that is there already, or from Kaggle.

    Pictures are linked where the file system can, else copied; `source` is left as it is.

    Raises:
        BadData: `source` has no train and test, or Kaggle could not be reached.
    """
    if source is None:
        import kagglehub

        try:
            source = Path(kagglehub.dataset_download("koryakinp/fingers"))
        except Exception as error:
            raise BadData(
                f"Kaggle could not be reached ({error}). Download koryakinp/fingers by hand, unpack it, and run: "
                "python -m training data --fingers FOLDER"
            ) from error
    root = find(source)
    for split in PICTURES:
        (folder / split).mkdir(parents=True, exist_ok=True)
        for file in tqdm(list_pictures(root / split), f"Fetching {split}", unit=" pictures"):
            target = folder / split / file.name
            if not target.exists():
                try:
                    os.link(file, target)
                except OSError:
                    with atomic_write(target) as part:
                        shutil.copyfile(file, part)


def summary(folder: Path) -> dict:
    """Counts and duplicates of both splits, after checking that nothing is missing.

    Raises:
        BadData: a split or a class does not hold as many pictures as the published set.
    """
    splits = {split: Fingers(folder, split) for split in PICTURES}
    for split, data in splits.items():
        each = Counter(CLASSES[i] for i in data.targets)
        expected = PICTURES[split] // len(CLASSES)
        wrong = {c: each[c] for c in CLASSES if each[c] != expected}
        if wrong:
            raise BadData(
                f"{folder / split}: {expected:,} pictures a class are published, here are {wrong}. "
                f"Delete {folder} and run: python -m training data"
            )
    train, test = splits["train"], splits["test"]
    digests = {
        split: [hashlib.sha256(read_grey(file).tobytes()).digest() for file in data.files]
        for split, data in splits.items()
    }
    known = set(digests["train"])
    near = len(set(_near_pairs(test.hashes, train.hashes, NEAR)[0].tolist()))
    return {
        "train": len(train),
        "test": len(test),
        "a class": f"{len(train) // 12:,} / {len(test) // 12:,}",
        "exact duplicates within train": len(train) - len(known),
        "exact duplicates within test": len(test) - len(set(digests["test"])),
        "test pictures also in train": sum(digest in known for digest in digests["test"]),
        f"test pictures with a near duplicate in train (≤ {NEAR} of 64 bits)": f"{near:,} ({near / len(test):.0%})",
    }


def prepare(folder: Path, source: Path | None = None) -> None:
    """Fetch what of Fingers is not in `folder` yet, check it, say what is in it."""
    if source or any(len(list((folder / split).glob("*.png"))) < count for split, count in PICTURES.items()):
        fetch(folder, source)
    for name, value in summary(folder).items():
        print(f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value}")
