"""How long things take: every case in turns, some rounds of all, so that noise falls on all alike."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import cv2
import numpy as np

from benchmarks import ROOT, machine, summary
from benchmarks.frames import CAMERA, frames
from handful import MODEL, FingerCounter
from handful.images import decode
from handful.overlay import draw
from training.markdown import markdown_table

THREADS = (1, 2, 4)
PHOTO = (4000, 3000)  # a phone's: 12 MP


def paste(pictures: list[np.ndarray], size: tuple[int, int] = CAMERA) -> np.ndarray:
    """Pictures side by side in a frame of (width, height), the frame's rest drawn out from their edges."""
    width, height = size
    side = min(width // len(pictures), height * 3 // 4)
    row = np.hstack([cv2.resize(picture, (side, side)) for picture in pictures])
    top, left = (height - side) // 2, (width - row.shape[1]) // 2
    return cv2.copyMakeBorder(row, top, height - side - top, left, width - row.shape[1] - left, cv2.BORDER_REPLICATE)


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def elapsed(call: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds that pass in a call, and those of CPU that it takes, its child processes' too."""
    start, cpu = time.perf_counter(), cpu_time()
    call()
    return 1000 * (time.perf_counter() - start), 1000 * (cpu_time() - cpu)


def cpu_time() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def python(*arguments: str) -> str:
    """What a new Python prints, in the project's folder."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def in_turns(cases: dict[str, Callable], rounds: int) -> dict[str, list]:
    """Call every case `rounds` times in turns, A B C B A C, after one call each that is not counted.

    Every round has an order of its own: in a fixed one the same case would always be the one that
    a busy machine interrupts.
    """
    taken: dict[str, list] = {name: [] for name in cases}
    names = list(cases)
    random = Random(0)
    for number in range(rounds + 1):
        random.shuffle(names)
        for name in names:
            value = cases[name]()
            if number:
                taken[name].append(value)
    return taken


def run(rounds: int = 50, starts: int = 7, predictions: int = 40) -> dict:
    """Measure everything.

    Args:
        rounds: times that each case is taken in turn. Large photos: a fifth of it.
        starts: times that a new Python is started.
        readings: readings in each take of the readings a second.
    """
    files = [frame.path for frame in frames("samples", ROOT, 12)]
    if not files:
        sys.exit("There are no pictures in assets/samples. They come with the project.")
    pictures = [decode(file) for file in files]
    one = [paste([picture]) for picture in pictures]
    two = [paste([a, b]) for a, b in zip(pictures, pictures[::-1], strict=True)]
    jpegs, photos = [jpeg(frame) for frame in one], [jpeg(paste([picture], PHOTO)) for picture in pictures[:2]]
    counter = FingerCounter()
    read = [counter(frame) for frame in one]

    def each(items: list, call: Callable) -> Callable[[], tuple[float, float]]:
        """A case: the next of the items at every turn, so that none is told by heart."""
        turn = iter(range(sys.maxsize))

        def case() -> tuple[float, float]:
            item = items[next(turn) % len(items)]
            return elapsed(lambda: call(item))

        return case

    drawn = list(zip(one, read, strict=True))
    times = in_turns(
        {
            "decode JPEG 640×480": each(jpegs, decode),
            "read 640×480, one hand": each(one, counter),
            "read 640×480, two hands": each(two, counter),
            "draw, 640×480": each(drawn, lambda pair: draw(*pair)),
            "draw with Grad-CAM, 640×480": each(drawn, lambda pair: draw(*pair, gradcam=True)),
        },
        rounds,
    )
    times |= in_turns({"decode JPEG 12 MP": each(photos, decode)}, max(1, rounds // 5))
    # New processes; the files are in the system's cache, as after any earlier start.
    timed = (
        "import time; start, cpu = time.perf_counter(), time.process_time(); import handful; "
        "print(1000 * (time.perf_counter() - start), 1000 * (time.process_time() - cpu))"
    )
    times |= in_turns(
        {
            "start Python, nothing else": lambda: elapsed(lambda: python("-c", "")),
            "import handful": lambda: tuple(map(float, python("-c", timed).split())),
            "python -m handful PICTURE": lambda: elapsed(lambda: python("-m", "handful", str(files[0]))),
        },
        starts,
    )

    # What a server sees: callers at once, each with its next picture, on one counter.
    work = [one[i % len(one)] for i in range(predictions)]

    def second(callers: ThreadPoolExecutor) -> Callable[[], float]:
        return lambda: 1000 * len(work) / elapsed(lambda: list(callers.map(counter, work)))[0]

    pools = {str(n): ThreadPoolExecutor(n) for n in THREADS}
    rates = in_turns({n: second(pool) for n, pool in pools.items()}, max(1, rounds // 10))
    for pool in pools.values():
        pool.shutdown()
    return {
        "machine": machine(),
        "milliseconds": {name: summary([passed for passed, _ in taken]) for name, taken in times.items()},
        "cpu_milliseconds": {name: summary([cpu for _, cpu in taken]) for name, taken in times.items()},
        "readings_a_second": {n: round(float(np.median(values)), 1) for n, values in rates.items()},
        "model_bytes": Path(MODEL).stat().st_size,
    }


def report(results: dict) -> str:
    """The results as one table."""
    rows = []
    for name, passed in results["milliseconds"].items():
        cpu = results["cpu_milliseconds"][name]
        rows.append([name, f"{passed['median']:.2f}", f"{passed['p95']:.2f}", f"{cpu['median']:.2f}"])
    rate = ", ".join(f"{n}: {value:.0f}" for n, value in results["readings_a_second"].items())
    return "\n\n".join(
        [
            results["machine"],
            markdown_table(["One thread, ms", "median", "p95", "median of CPU"], rows),
            f"Readings a second by threads that share one counter: {rate}. "
            f"Model file: {results['model_bytes'] / 1e6:.2f} MB.",
        ]
    )
