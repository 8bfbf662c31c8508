"""Store rendered hands in shards, written in order, so that an interrupted run can be resumed.

A shard is an .npz of (by default) 250 hands: the pictures as WebP in one byte array, one array per label field, and the
options they were rendered with. Hand i of a seed is always the same, so a shard's bytes do not depend on the number of
workers.
"""

import multiprocessing
import signal
import zipfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from training.files import atomic_write
from training.render.kind import FLAGS, GENERIC, Kind

SHARD_SIZE = 250
LOSSLESS = 101  # quality of WebP
LABEL_FIELDS: dict[str, tuple[type, tuple[int, ...]]] = {  # dtype and shape per hand; the keys are those in a shard
    "raised": (np.bool_, (5,)),  # thumb, index, middle, ring, little
    "count": (np.uint8, ()),
    "right": (np.bool_, ()),  # right hand
    "back": (np.bool_, ()),  # view of the back, else of the palm
    "yaw": (np.float32, ()),  # degrees
    "pitch": (np.float32, ()),
    "tilt": (np.float32, ()),
    "tone": (np.uint8, ()),  # Monk Skin Tone 1 … 10
    "box": (np.float32, (4,)),  # x0, y0, x1, y1 of the hand without forearm, pixels
    "sight": (np.float32, (5,)),  # visible fraction of each finger, 0 … 1; NaN where an older shard has none
}


@dataclass(frozen=True)
class RenderedHands:
    """The N rendered hands of a folder, pictures compressed."""

    blob: np.ndarray  # (bytes,) uint8, WebP pictures
    ends: np.ndarray  # (N,) int64, end of each picture in the blob
    labels: dict[str, np.ndarray]  # (N, …) each, see LABEL_FIELDS
    seeds: set[int]  # as far as the shards record them
    tones: bool  # every ten hands are one hand in the ten tones of the Monk scale
    varied: bool  # neighbouring fingers may touch

    def __len__(self) -> int:
        return len(self.ends)

    def picture(self, index: int) -> np.ndarray:
        """Decode one picture: (192, 192, 4) uint8 RGBA, straight alpha, black where transparent. Takes about 2 ms."""
        start = self.ends[index - 1] if index else 0
        bgra = cv2.imdecode(self.blob[start : self.ends[index]], cv2.IMREAD_UNCHANGED)
        assert bgra is not None
        bgra[bgra[..., 3] == 0] = 0  # WebP stores whatever compresses best there
        return cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA)


def load_hands(folder: str | Path) -> RenderedHands:
    """Load the finished shards of a folder, in order.

    Raises:
        OSError: a shard is damaged.
    """
    blobs, ends, labels, total = [], [], [], 0
    seeds: set[int] = set()
    tones = varied = False
    for path in sorted(Path(folder).glob("shard-*.npz")):
        shard = read_shard(path)
        blobs.append(shard["webp"])
        ends.append(shard["ends"] + total)
        unknown = np.full((len(shard["ends"]), 5), np.nan, np.float32)
        labels.append({"sight": unknown} | {key: shard[key] for key in LABEL_FIELDS if key in shard})
        if "seed" in shard:
            seeds.add(int(shard["seed"]))
        tones |= bool(shard.get("tones"))
        varied |= bool(shard.get("varied"))
        total += len(blobs[-1])
    joined = {key: np.concatenate([fields[key] for fields in labels]) for key in LABEL_FIELDS}
    return RenderedHands(np.concatenate(blobs), np.concatenate(ends), joined, seeds, tones, varied)


def read_shard(shard: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a shard.

    Raises:
        OSError: the file cannot be read, or is not a shard.
    """
    try:
        with np.load(shard) as arrays:
            return dict(arrays)
    except (EOFError, ValueError, zipfile.BadZipFile) as error:
        raise OSError(f"{shard}: damaged ({error}). Delete it and render it again.") from None


def shard_options(shard: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Return the options a shard was rendered with, as far as it records them."""
    recorded = {key: int(shard[key]) for key in ("seed", *FLAGS, "quality") if key in shard}
    # What an older shard does not record was no option then. The oldest record nothing, not even whether of people.
    defaults = {key: 0 for key in FLAGS if key != "people"}
    return {**defaults, **recorded, "shard": len(shard["ends"])}


def encode_webp(rgba: np.ndarray, quality: int) -> np.ndarray:
    """Encode (H, W, 4) uint8 RGBA as WebP bytes (N,) uint8; quality 1 … 100, or 101 for lossless."""
    encoded, data = cv2.imencode(".webp", cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA), [cv2.IMWRITE_WEBP_QUALITY, quality])
    assert encoded
    return data.ravel()


def _render_one(variant: str, seed: int, index: int, quality: int, kind: Kind) -> tuple[np.ndarray, dict[str, object]]:
    """Render one hand in a worker process and return its compressed picture and labels."""
    from training.render.generate import generate  # Mitsuba is needed in the workers only
    from training.render.scene import init_mitsuba

    init_mitsuba(variant)
    params, rendering = generate(seed, index, kind)
    view = params.view
    return encode_webp(rendering.rgba, quality), {
        "raised": params.raised,
        "count": params.count,
        "right": params.right,
        "back": view.back,
        "yaw": view.yaw,
        "pitch": view.pitch,
        "tilt": view.tilt,
        "tone": params.tone,
        "box": rendering.box,
        "sight": rendering.visible_fraction,
    }


def _init_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends the workers
    cv2.setNumThreads(1)


def write_shard(path: Path, hands: list[tuple[np.ndarray, dict[str, object]]], **options: int) -> None:
    """Write one shard from (WebP bytes, labels) of each hand and the options they were rendered with."""
    arrays: dict[str, np.ndarray] = {
        key: np.array([labels[key] for _, labels in hands], dtype).reshape(-1, *shape)
        for key, (dtype, shape) in LABEL_FIELDS.items()
    }
    arrays["webp"] = np.concatenate([webp for webp, _ in hands])
    arrays["ends"] = np.cumsum([len(webp) for webp, _ in hands])
    arrays |= {key: np.array(value) for key, value in options.items()}
    with atomic_write(path) as part, part.open("wb") as out:
        np.savez(out, allow_pickle=False, **arrays)


def render_shards(
    folder: Path,
    count: int,
    seed: int,
    workers: int,
    variant: str,
    shard: int = SHARD_SIZE,
    quality: int = LOSSLESS,
    kind: Kind = GENERIC,
) -> None:
    """Render the first hands of a seed into a folder, skipping shards that exist.

    Args:
        folder: where the shards go.
        count: number of hands, rounded up to whole shards, so a larger count later only adds shards.
        seed: of the hands.
        workers: number of processes.
        variant: Mitsuba's back end.
        shard: hands per shard.
        quality: of the WebP pictures, 1 … 100, or 101 for lossless.
        kind: of the hands.

    Raises:
        FileExistsError: the folder has shards rendered with other options, so hands would be duplicated or missing.
        OSError: a shard is damaged, or cannot be written.
        ImportError: `variant` needs LLVM, and none is found.
        BrokenProcessPool: a worker died, for example because LLVM is too old for Mitsuba.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = {"seed": seed, **asdict(kind), "quality": quality}
    wanted = {**options, "shard": shard}
    for path in sorted(folder.glob("shard-*.npz")):
        existing = wanted | shard_options(read_shard(path))
        if existing != wanted:
            used = " ".join(f"--{key} {value}" for key, value in existing.items() if key not in FLAGS)
            used += "".join(f" --{flag}" * existing[flag] for flag in FLAGS)
            raise FileExistsError(f"{path} was rendered with {used}. Choose another folder: --out FOLDER")
    count = -(-count // shard) * shard
    spans = [(folder / f"shard-{a // shard:05d}.npz", range(a, a + shard)) for a in range(0, count, shard)]
    missing = [(path, span) for path, span in spans if not path.exists()]
    done = count - sum(len(span) for _, span in missing)
    if not missing:
        return
    # Mitsuba's threads and compiled kernels do not survive a fork. An executor, unlike a Pool, raises if a worker dies.
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(workers, spawn, _init_worker) as pool,
        tqdm(total=count, initial=done, unit="hand", smoothing=0.02) as bar,
    ):
        for path, span in missing:
            hands = []
            for hand in pool.map(_render_one, repeat(variant), repeat(seed), span, repeat(quality), repeat(kind)):
                hands.append(hand)
                bar.update()
            write_shard(path, hands, **options)
