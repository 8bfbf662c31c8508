"""Decoding, prediction, drawing, and starting Python: all cases in turns, so that noise affects them alike."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from random import Random

import cv2
import numpy as np

from benchmarks import ROOT, machine, summary
from benchmarks.frames import WEBCAM_SIZE, load_frames
from handful import MODEL, FingerCounter
from handful.images import decode
from handful.overlay import draw
from training.markdown import markdown_table

THREADS = (1, 2, 4)
PHOTO_SIZE = (4000, 3000)  # of a phone, 12 megapixels


def place_side_by_side(pictures: list[np.ndarray], size: tuple[int, int] = WEBCAM_SIZE) -> np.ndarray:
    """Return pictures side by side in a frame of (width, height), which their edges are repeated to fill."""
    width, height = size
    side = min(width // len(pictures), height * 3 // 4)
    row = np.hstack([cv2.resize(picture, (side, side)) for picture in pictures])
    top, left = (height - side) // 2, (width - row.shape[1]) // 2
    return cv2.copyMakeBorder(row, top, height - side - top, left, width - row.shape[1] - left, cv2.BORDER_REPLICATE)


def encode_jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def elapsed(call: Callable[[], object]) -> tuple[float, float]:
    """Return the milliseconds of a call: elapsed, and of CPU, with its child processes."""
    start, cpu = time.perf_counter(), cpu_time()
    call()
    return 1000 * (time.perf_counter() - start), 1000 * (cpu_time() - cpu)


def cpu_time() -> float:
    """Return the CPU seconds of this process and its children."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def run_python(*arguments: str) -> str:
    """Return what a new Python prints, in the project's folder."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def in_turns(cases: dict[str, Callable], rounds: int) -> dict[str, list]:
    """Return the results of `rounds` calls of each case, in turns: A B C B A C, after one warm-up call each.

    Each round has another random order: in a fixed one, it might always be the same case that a busy machine
    interrupts.
    """
    results: dict[str, list] = {name: [] for name in cases}
    names = list(cases)
    random = Random(0)
    for number in range(rounds + 1):
        random.shuffle(names)
        for name in names:
            value = cases[name]()
            if number:
                results[name].append(value)
    return results


def timed_over(items: list, call: Callable) -> Callable[[], tuple[float, float]]:
    """Return a case that times `call` on the next of the items each time, so that caches do not help."""
    iterator = cycle(items)

    def case() -> tuple[float, float]:
        item = next(iterator)
        return elapsed(lambda: call(item))

    return case


def measure_calls(pictures: list[np.ndarray], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return the times of decoding, prediction and drawing."""
    counter = FingerCounter()
    one = [place_side_by_side([picture]) for picture in pictures]
    two = [place_side_by_side([a, b]) for a, b in zip(pictures, pictures[::-1], strict=True)]
    photos = [encode_jpeg(place_side_by_side([picture], PHOTO_SIZE)) for picture in pictures[:2]]
    predictions = [(frame, counter(frame)) for frame in one]
    times = in_turns(
        {
            "decode JPEG 640×480": timed_over([encode_jpeg(frame) for frame in one], decode),
            "predict 640×480, one hand": timed_over(one, counter),
            "predict 640×480, two hands": timed_over(two, counter),
            "draw, 640×480": timed_over(predictions, lambda pair: draw(*pair)),
            "draw with Grad-CAM, 640×480": timed_over(predictions, lambda pair: draw(*pair, gradcam=True)),
        },
        rounds,
    )
    return times | in_turns({"decode JPEG 12 MP": timed_over(photos, decode)}, max(1, rounds // 5))


def measure_starts(picture: Path, starts: int) -> dict[str, list[tuple[float, float]]]:
    """Return the times of new Python processes. Their files are in the system's cache, as after any earlier start."""
    timed_import = (
        "import time; start, cpu = time.perf_counter(), time.process_time(); import handful; "
        "print(1000 * (time.perf_counter() - start), 1000 * (time.process_time() - cpu))"
    )
    return in_turns(
        {
            "start Python, nothing else": lambda: elapsed(lambda: run_python("-c", "")),
            "import handful": lambda: tuple(map(float, run_python("-c", timed_import).split())),
            "python -m handful PICTURE": lambda: elapsed(lambda: run_python("-m", "handful", str(picture))),
        },
        starts,
    )


def measure_rates(pictures: list[np.ndarray], rounds: int, predictions: int) -> dict[str, list[float]]:
    """Return predictions a second of 1 to 4 threads that share one counter, as in a server."""
    counter = FingerCounter()
    frames = [place_side_by_side([picture]) for picture in pictures]
    batch = [frames[i % len(frames)] for i in range(predictions)]

    def rate(pool: ThreadPoolExecutor) -> Callable[[], float]:
        return lambda: 1000 * len(batch) / elapsed(lambda: list(pool.map(counter, batch)))[0]

    pools = {str(n): ThreadPoolExecutor(n) for n in THREADS}
    rates = in_turns({n: rate(pool) for n, pool in pools.items()}, rounds)
    for pool in pools.values():
        pool.shutdown()
    return rates


def run(rounds: int = 50, starts: int = 7, predictions: int = 40) -> dict:
    """Measure everything.

    Args:
        rounds: calls of each case; a fifth for large photos, a tenth for the rates.
        starts: starts of a new Python.
        predictions: predictions in each measurement of a rate.
    """
    files = [one.path for one in load_frames("samples", ROOT, 12)]
    if not files:
        sys.exit("There are no pictures in assets/samples. They come with the project.")
    pictures = [decode(file) for file in files]
    times = measure_calls(pictures, rounds) | measure_starts(files[0], starts)
    rates = measure_rates(pictures, max(1, rounds // 10), predictions)
    return {
        "machine": machine(),
        "milliseconds": {name: summary([passed for passed, _ in values]) for name, values in times.items()},
        "cpu_milliseconds": {name: summary([cpu for _, cpu in values]) for name, values in times.items()},
        "predictions_a_second": {n: round(float(np.median(values)), 1) for n, values in rates.items()},
        "model_bytes": Path(MODEL).stat().st_size,
    }


def report(results: dict) -> str:
    """Return the results as a table."""
    rows = []
    for name, passed in results["milliseconds"].items():
        cpu = results["cpu_milliseconds"][name]
        rows.append([name, f"{passed['median']:.2f}", f"{passed['p95']:.2f}", f"{cpu['median']:.2f}"])
    rates = ", ".join(f"{n}: {value:.0f}" for n, value in results["predictions_a_second"].items())
    return "\n\n".join(
        [
            results["machine"],
            markdown_table(["One thread, ms", "median", "p95", "CPU, median"], rows),
            f"Predictions a second by threads that share one counter: {rates}. "
            f"Model file: {results['model_bytes'] / 1e6:.2f} MB.",
        ]
    )
