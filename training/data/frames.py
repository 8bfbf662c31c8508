"""What the sets of real people's hands share: frames, masks and boxes, crops, and how a set is fetched."""

import contextlib
import errno
import hashlib
import http.client
import inspect
import shutil
import stat
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from torchvision.datasets import VisionDataset
from tqdm import tqdm

from handful.images import BadImage, decode
from training.errors import BadData
from training.files import atomic_write

MARGIN = 1.3  # side of the square that the classifier learns from, in longer sides of the hand's box


GITHUB = "https://github.com"
# Transfers that break are begun again this many times, after 1, 2, 4 … seconds.
RETRIES = 4
BLOCK = 1 << 20
# Errors that are the disk's fault, not the network's: no use in trying again.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EISDIR)


@dataclass(frozen=True)
class Frame:
    """A picture and the hands in it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (K, 4) float32: x0, y0, x1, y1 tight around each hand, without forearm, in pixels.
        targets: (K,) int64: an index of `CLASSES` where the side is known, else SIDELESS + fingers.
        mask: (H, W) uint8, 255 on hand, forearm and sleeve, 0 on the background, soft at the edge;
            None where the background of the set is not plain.
    """

    image: np.ndarray
    boxes: np.ndarray
    targets: np.ndarray
    mask: np.ndarray | None = None


class FrameDataset(VisionDataset):
    """A set of frames: what the sources have in common.

    Attributes:
        credit: name, authors, place and licence, said in every model made from the set.
        files: the pictures.
        also: other files that frames are made of: a table of labels, say.
        groups: the person or the recording session of each picture. Pictures of one group are much
            alike: a group must not be split between training and validation.
        validation: (N,) bool: the picture belongs to the groups kept for validation.
    """

    credit: str

    def __init__(self, root: str | Path, files: Sequence[Path], also: Sequence[Path] = ()):
        super().__init__(root)
        if not files:
            raise BadData(f"{root}: no pictures of {type(self).__name__} here. Fetch the set, or name its folder.")
        self.files, self.also = files, also
        self.groups = [""] * len(files)
        self.validation = np.zeros(len(files), bool)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Frame:
        return self.frame(index)

    def frame(self, index: int) -> Frame:
        """The frame of one picture."""
        raise NotImplementedError

    def about(self) -> dict[str, Any]:
        """What a model says of the set that it learned from, beside the credit."""
        return {"training": int((~self.validation).sum()), "validation": int(self.validation.sum())}


def read_rgb(file: Path) -> np.ndarray:
    """A picture of a set, (H, W, 3) uint8 RGB.

    Raises:
        BadData: it cannot be read.
    """
    try:
        return decode(file)
    except BadImage as error:
        raise BadData(f"{file}: {error} Delete the data set and fetch it again.") from None


def largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a (H, W) uint8 mask, its small holes filled; 0 or 255."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count == 1:
        return np.zeros_like(mask)
    part = np.where(labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax(), 255, 0).astype(np.uint8)
    # A hole that is small is a highlight or a nail; a large one is the wall, seen between fingers.
    count, labels, stats, _ = cv2.connectedComponentsWithStats(255 - part, connectivity=4)
    for i in range(1, count):
        if stats[i, cv2.CC_STAT_AREA] < 0.01 * np.count_nonzero(part):
            part[labels == i] = 255
    return part


def soften(mask: np.ndarray, sigma: float) -> np.ndarray:
    """Give a hard (H, W) uint8 mask an edge `sigma` pixels soft that lies inside the old one.

    What is pasted elsewhere then takes no rim of its old background with it.
    """
    soft = cv2.GaussianBlur(mask, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return np.clip((soft.astype(np.float32) - 96) * (255 / 159), 0, 255).astype(np.uint8)


def hand_box(mask: np.ndarray, bare: np.ndarray | None = None, wrist: float = 1.4) -> np.ndarray:
    """The box of a hand without its forearm: x0, y0, x1, y1, (4,) float32, in pixels.

    The palm is where the largest circle fits in; the forearm is what reaches the picture's edge.
    What lies further from the palm's centre than `wrist` of its radii, towards the forearm, is cut
    off: that is where the wrist ends.

    Args:
        mask: (H, W) uint8, > 127 on hand and forearm, in one piece.
        bare: (H, W) uint8, > 127 where skin shows: keeps the palm out of wide sleeves.
        wrist: where to cut, in radii of the palm.
    """
    solid = np.where(mask > 127, 255, 0).astype(np.uint8)
    skin = solid if bare is None else np.where(bare > 127, solid, 0).astype(np.uint8)
    if not skin.any():
        skin = solid
    # Outside the picture there is no hand: without the rim, the edge would count as far inside.
    depth = cv2.distanceTransform(cv2.copyMakeBorder(skin, 1, 1, 1, 1, cv2.BORDER_CONSTANT), cv2.DIST_L2, 5)[1:-1, 1:-1]
    radius, centre = depth.max(), np.array(np.unravel_index(depth.argmax(), depth.shape)[::-1], float)

    rim = np.ones_like(solid)
    rim[1:-1, 1:-1] = 0
    y, x = np.nonzero(solid)
    at_rim = rim[y, x] > 0
    if at_rim.any():
        towards = np.array([x[at_rim].mean(), y[at_rim].mean()]) - centre
        towards /= max(np.linalg.norm(towards), 1e-6)
        hand = (x - centre[0]) * towards[0] + (y - centre[1]) * towards[1] <= wrist * radius
        x, y = x[hand], y[hand]
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], np.float32)


def one_hand(image: np.ndarray, mask: np.ndarray, target: int, bare: np.ndarray | None = None) -> Frame:
    """A frame of one hand, its box taken from its mask; without hands, if the mask is empty."""
    boxes = [hand_box(mask, bare)] if (mask > 127).any() else []
    targets = np.full(len(boxes), target, np.int64)
    return Frame(image, np.array(boxes, np.float32).reshape(-1, 4), targets, mask)


def roi_crop(
    image: np.ndarray, box: np.ndarray, size: int, margin: float = MARGIN, mask: np.ndarray | None = None
) -> np.ndarray:
    """The square around a box, its side `margin` times the longer side of the box: (size, size, 4) uint8 RGBA.

    Alpha is the mask, or 255. Outside the picture all is 0.

    Args:
        image: (H, W, 3) uint8 RGB.
        box: x0, y0, x1, y1 in pixels.
        size: side of the crop, in pixels.
        margin: how much wider than the box the square is.
        mask: (H, W) uint8.
    """
    x0, y0, x1, y1 = (float(v) for v in box)
    side = max(x1 - x0, y1 - y0) * margin
    scale = size / side
    rgba = np.dstack([image, np.full(image.shape[:2], 255, np.uint8) if mask is None else mask])
    left, top = (x0 + x1 - side) / 2, (y0 + y1 - side) / 2
    # What is drawn much smaller is averaged first: sampling alone would leave pixels out.
    if scale < 0.5:
        shrink = 2 * scale
        small = (max(1, round(image.shape[1] * shrink)), max(1, round(image.shape[0] * shrink)))
        sx, sy = small[0] / image.shape[1], small[1] / image.shape[0]
        rgba = cv2.resize(rgba, small, interpolation=cv2.INTER_AREA)
    else:
        sx = sy = 1.0
    # From the crop's pixels to the picture's, both counted at the pixels' centres.
    to_picture = np.array(
        [[sx / scale, 0, sx * (left + 0.5 / scale) - 0.5], [0, sy / scale, sy * (top + 0.5 / scale) - 0.5]]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(rgba, to_picture, (size, size), flags=flags)


class Mapped(np.memmap):
    """A file as an array, which goes to other processes by its name: numpy's own takes all of its content along."""

    def __reduce__(self) -> str | tuple:
        if isinstance(self.base, mmap):
            return Mapped, (self.filename, self.dtype, "r", 0, self.shape)
        return np.asarray(self).__reduce__()  # a part of it, as an array of its own


def crops(
    dataset: FrameDataset, size: int, margin: float, cache: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Every hand of a set, cut out once and kept in `cache` for later runs and other workers.

    What was cut out of an older state of the set, or by older code, is deleted.

    Returns:
        pictures (M, size, size, 4) uint8 RGBA, memory-mapped and read-only; targets (M,) int64;
        boxes (M, 4) float32 of the hands in the crops; validation (M,) bool.
    """
    made_of = [*dataset.files, *dataset.also]
    # With their folders: a picture's often is its label.
    states = [(file.parts[-2:], info.st_size, info.st_mtime_ns) for file in made_of for info in [file.stat()]]
    # The code that draws masks and boxes is part of the key: crops of an older one are not read.
    code = [Path(inspect.getfile(part)).read_bytes() for part in (FrameDataset, type(dataset))]
    key = hashlib.sha256(repr((states, code, size, margin)).encode()).hexdigest()[:12]
    name = f"{type(dataset).__name__.lower()}-{size}"
    pictures = Path(cache) / f"{name}-{key}.rgba"
    labels = pictures.with_suffix(".npy")
    if not labels.exists():
        pictures.parent.mkdir(parents=True, exist_ok=True)
        found: list[tuple[float, ...]] = []
        with atomic_write(pictures) as part, part.open("wb") as out:
            for i in tqdm(range(len(dataset)), f"Cutting out {type(dataset).__name__}", unit=" pictures"):
                frame = dataset.frame(i)
                for box, target in zip(frame.boxes, frame.targets, strict=True):
                    crop = roi_crop(frame.image, box, size, margin, frame.mask)
                    out.write(crop.tobytes())
                    half = (box[2:] - box[:2]) * size / (2 * margin * max(box[2:] - box[:2]))
                    found.append((i, target, *(size / 2 - half), *(size / 2 + half)))
        with atomic_write(labels) as part, part.open("wb") as out:
            np.save(out, np.array(found, np.float32).reshape(-1, 6))
        for old in pictures.parent.glob(f"*{name}-*"):  # halves too, of a process that was killed
            if pictures.stem not in old.name:
                with contextlib.suppress(PermissionError):  # Windows deletes no file that a training still reads
                    old.unlink(missing_ok=True)
    rows = np.load(labels)
    index = rows[:, 0].astype(int)
    array = Mapped(pictures, np.uint8, "r", shape=(len(index), size, size, 4))
    return array, rows[:, 1].astype(int), rows[:, 2:], dataset.validation[index]


def fetch_archive(repository: str, commit: str, folder: Path, keep: Callable[[str], bool] = lambda path: True) -> None:
    """Download one commit of a public GitHub repository into `folder`.

    `folder` is there afterwards, whole, or it is not there: everything is checked and unpacked
    beside it first. If it is there already, nothing is done. A transfer that breaks is begun anew:
    GitHub packs archives as it sends them, and never sends a part of one.

    Args:
        repository: owner/name.
        commit: 40 hex digits.
        folder: where the files go.
        keep: whether to unpack a file, from its path in the repository.

    Raises:
        BadData: no network, no such commit, no room on the disk, or a broken archive.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        return
    name = repository.partition("/")[2]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as beside:
            archive = Path(beside) / f"{name}.zip"
            _download(f"{GITHUB}/{repository}/archive/{commit}.zip", archive)
            _unpack(archive, commit, Path(beside) / "files", keep)
            if folder.is_dir():
                folder.rmdir()
            (Path(beside) / "files").rename(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BadData(f"{folder.parent}: the disk is full. Make room and run this again.") from None
        raise BadData(f"{folder}: cannot be written ({error}). Choose another folder.") from error


def _download(url: str, file: Path) -> None:
    """Download `url` into `file`, in some tries."""
    for attempt in range(RETRIES + 1):
        try:
            return _download_once(url, file)
        except urllib.error.HTTPError as error:
            if error.code not in (408, 429) and error.code < 500:
                raise BadData(
                    f"{url}: the server answered {error.code} {error.reason}. If the address opens in a browser, "
                    "save the file, unpack it, and name its folder instead."
                ) from None
            problem: Exception = error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in DISK:
                raise
            problem = error
        if attempt < RETRIES:
            time.sleep(2**attempt)
    raise BadData(f"{url}: could not be downloaded ({problem}). Check the network and run this again.")


def _download_once(url: str, file: Path) -> None:
    """One try.

    Raises:
        OSError, http.client.HTTPException: of the network, or of the disk.
    """
    # Not compressed on the way: bytes must count as they lie in the file.
    request = urllib.request.Request(url, headers={"User-Agent": "handful", "Accept-Encoding": "identity"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        length = answer.headers["Content-Length"]
        total = int(length) if length else None
        with file.open("wb") as out, tqdm(desc=file.stem, total=total, unit="B", unit_scale=True) as bar:
            while block := answer.read(BLOCK):
                out.write(block)
                bar.update(len(block))
    if total is not None and (missing := total - file.stat().st_size) > 0:
        raise http.client.IncompleteRead(b"", missing)


def _unpack(archive: Path, commit: str, folder: Path, keep: Callable[[str], bool]) -> None:
    """Check an archive as GitHub makes them, and unpack what is kept.

    Raises:
        BadData: it is not whole, of another commit, holds nothing to keep, or a path that leads out of `folder`.
    """
    try:
        with zipfile.ZipFile(archive) as zipped:
            # git writes the commit into the archive's comment.
            if zipped.comment.decode("ascii", "replace") != commit:
                raise BadData(f"{archive.name}: this is not commit {commit}.")
            members = [member for member in zipped.infolist() if not member.is_dir()]
            # Every member is read, kept or not: each carries a checksum, and a bad one tells of a bad transfer.
            kept = 0
            for member in tqdm(members, f"Unpacking {archive.stem}", unit=" files"):
                target = _target(member, folder, keep)
                with zipped.open(member) as source:
                    if target is None:
                        while source.read(BLOCK):
                            pass
                        continue
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("wb") as out:
                        shutil.copyfileobj(source, out, BLOCK)
                kept += 1
        if not kept:
            raise BadData(f"{archive.name}: none of the files that are used is in it.")
    except (BadData, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadData(f"{error} The download is broken: run this again to download anew.") from None


def _target(member: zipfile.ZipInfo, folder: Path, keep: Callable[[str], bool]) -> Path | None:
    """Where a member of an archive goes; None if it is not kept.

    Raises:
        BadData: it would lie outside `folder`.
    """
    # Everything lies in one folder, named after repository and commit.
    path = PurePosixPath(*PurePosixPath(member.filename).parts[1:])
    if not keep(str(path)) or stat.S_ISLNK(member.external_attr >> 16):
        return None
    parts = path.parts
    if not parts or member.filename.startswith("/") or any(part == ".." or set(part) & set("\\:") for part in parts):
        raise BadData(f"{member.filename!r} would be written outside the folder.")
    return folder.joinpath(*parts)
