"""Rendered hands on disk: shards that a run fills one after the other, and takes up where it stopped.

A shard is a .npz of up to 250 hands: their pictures as WebP, lossless if not asked otherwise, in one run
of bytes, one array for each part of their truth, and what they were drawn from. Hand number i of a seed is always the
same, so every shard holds the same bytes however many workers drew it.
"""

import multiprocessing
import signal
import zipfile
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from training.files import atomic_write

SHARD = 250
TRUTH: dict[str, tuple[type, tuple[int, ...]]] = {  # dtype and shape of one hand's truth
    "raised": (np.bool_, (5,)),  # thumb, index, middle, ring, little
    "count": (np.uint8, ()),
    "right": (np.bool_, ()),  # the side; False is a left hand
    "back": (np.bool_, ()),  # the back is seen; False is the palm
    "yaw": (np.float32, ()),  # degrees
    "pitch": (np.float32, ()),
    "tilt": (np.float32, ()),
    "tone": (np.uint8, ()),  # Monk 1 … 10
    "box": (np.float32, (4,)),  # x0, y0, x1, y1 of the hand without forearm, pixels
    "sight": (np.float32, (5,)),  # how much of each finger can be seen, 0 … 1; NaN in older shards
}


@dataclass(frozen=True)
class RenderedHands:
    """All rendered hands of a folder, N of them, their pictures still compressed."""

    blob: np.ndarray  # (bytes,) uint8
    ends: np.ndarray  # (N,) int64: where each picture ends in the blob
    truth: dict[str, np.ndarray]  # see TRUTH, each (N, …)
    seeds: set[int]  # that they were drawn from, where the shards tell it
    tones: bool  # every ten are one hand in the ten tones

    def __len__(self) -> int:
        return len(self.ends)

    def picture(self, index: int) -> np.ndarray:
        """One hand (192, 192, 4) uint8 RGBA, straight alpha, black where nothing is; about 2 ms."""
        start = self.ends[index - 1] if index else 0
        bgra = cv2.imdecode(self.blob[start : self.ends[index]], cv2.IMREAD_UNCHANGED)
        assert bgra is not None
        bgra[bgra[..., 3] == 0] = 0  # WebP puts there what packs best
        return cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA)


def load(folder: str | Path) -> RenderedHands:
    """Reads the finished shards of a folder, in order.

    Raises:
        OSError: one is damaged.
    """
    blobs, ends, truths, total = [], [], [], 0
    seeds: set[int] = set()
    tones = False
    for path in sorted(Path(folder).glob("shard-*.npz")):
        shard = read(path)
        blobs.append(shard["webp"])
        ends.append(shard["ends"] + total)
        unknown = np.full((len(shard["ends"]), 5), np.nan, np.float32)
        truths.append({key: shard[key] for key in TRUTH if key != "sight"} | {"sight": shard.get("sight", unknown)})
        if "seed" in shard:
            seeds.add(int(shard["seed"]))
        tones |= bool(shard.get("tones"))
        total += len(blobs[-1])
    truth = {key: np.concatenate([t[key] for t in truths]) for key in TRUTH}
    return RenderedHands(np.concatenate(blobs), np.concatenate(ends), truth, seeds, tones)


def read(shard: Path) -> dict[str, np.ndarray]:
    """What is in a shard.

    Raises:
        OSError: it cannot be read, or is none.
    """
    try:
        with np.load(shard) as arrays:
            return dict(arrays)
    except (EOFError, ValueError, zipfile.BadZipFile) as error:
        raise OSError(f"{shard}: damaged ({error}). Delete it, and have it rendered again.") from None


def options(shard: Mapping[str, np.ndarray]) -> dict[str, int]:
    """What a shard was rendered with, as far as it was kept then."""
    kept = {key: int(shard[key]) for key in ("seed", "people", "tones", "quality") if key in shard}
    return {"tones": 0, **kept, "shard": len(shard["ends"])}


def _encode(rgba: np.ndarray, quality: int) -> np.ndarray:
    """(H, W, 4) uint8 RGBA to the bytes of a WebP: of quality 1 … 100, or 101, lossless."""
    done, data = cv2.imencode(".webp", cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA), [cv2.IMWRITE_WEBP_QUALITY, quality])
    assert done
    return data.ravel()


def _draw(
    variant: str, seed: int, index: int, quality: int, people: bool, tones: bool
) -> tuple[np.ndarray, dict[str, object]]:
    """One hand, in a worker: its compressed picture and its truth."""
    from training.render.draw import draw  # Mitsuba starts in the worker, not in the process that writes
    from training.render.scene import start

    start(variant)
    hand, picture = draw(seed, index, people, tones)
    view = hand.view
    return _encode(picture.rgba, quality), {
        "raised": hand.raised,
        "count": hand.count,
        "right": hand.right,
        "back": view.back,
        "yaw": view.yaw,
        "pitch": view.pitch,
        "tilt": view.tilt,
        "tone": hand.tone,
        "box": picture.box,
        "sight": picture.sight,
    }


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes: the one that writes ends the others
    cv2.setNumThreads(1)


def _write(path: Path, hands: list[tuple[np.ndarray, dict[str, object]]], **told: int) -> None:
    """Writes one shard. What is `told` of all its hands is kept in it."""
    arrays: dict[str, np.ndarray] = {
        key: np.array([t[key] for _, t in hands], kind).reshape(-1, *shape) for key, (kind, shape) in TRUTH.items()
    }
    arrays["webp"] = np.concatenate([webp for webp, _ in hands])
    arrays["ends"] = np.cumsum([len(webp) for webp, _ in hands])
    arrays |= {key: np.array(value) for key, value in told.items()}
    with atomic_write(path) as part, part.open("wb") as out:
        np.savez(out, allow_pickle=False, **arrays)


def write(
    folder: Path,
    count: int,
    seed: int,
    workers: int,
    variant: str,
    shard: int = SHARD,
    quality: int = 101,
    people: bool = False,
    tones: bool = False,
) -> None:
    """Renders hands 0 … count of a seed into a folder, skipping the shards that are there.

    With `people`, each is somebody else's, see `training.render.people`; with `tones`, every ten are one hand in the
    ten tones of the Monk scale.
    The last shard is filled too, past `count` if need be: a larger count later just adds shards.

    Raises:
        FileExistsError: hands are in the folder that were rendered with other options: some would be there twice, or
            be missing.
        OSError: a shard is damaged, or cannot be written.
        ImportError: there is no LLVM, and `variant` needs it.
        BrokenProcessPool: a worker died, as it does where LLVM is too old for Mitsuba.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"seed": seed, "people": people, "tones": tones, "quality": quality, "shard": shard}
    for path in sorted(folder.glob("shard-*.npz")):
        had = wanted | options(read(path))
        if had != wanted:
            told = " ".join(f"--{key} {value}" for key, value in had.items() if key not in ("people", "tones"))
            told += " --people" * had["people"] + " --tones" * had["tones"]
            raise FileExistsError(f"{path} was rendered with {told}. Name another folder: --out FOLDER")
    count = -(-count // shard) * shard
    spans = [(folder / f"shard-{a // shard:05d}.npz", range(a, a + shard)) for a in range(0, count, shard)]
    missing = [(path, span) for path, span in spans if not path.exists()]
    done = count - sum(len(span) for _, span in missing)
    if not missing:
        return
    # Mitsuba holds threads and compiled kernels, which a fork would break. An executor, unlike a pool, says so
    # when a worker dies.
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(workers, spawn, _start) as pool,
        tqdm(total=count, initial=done, unit="hand", smoothing=0.02) as bar,
    ):
        for path, span in missing:
            hands = []
            same = map(repeat, (quality, people, tones))
            for hand in pool.map(_draw, repeat(variant), repeat(seed), span, *same):
                hands.append(hand)
                bar.update()
            _write(path, hands, seed=seed, people=people, tones=tones, quality=quality)
