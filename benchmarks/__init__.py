"""How quick and how calm Handful is, and how it compares. One command each:

python -m benchmarks              all of the below but largest and soak (`make bench`)
python -m benchmarks speed        decoding, reading, drawing, starting Python with a model
python -m benchmarks steady       a webcam's count: how often it jumps, and how soon it follows
python -m benchmarks start        from a server's start to its first page (`--python` of the environment to measure)
python -m benchmarks live         Live in a browser, read by the server and by the browser
python -m benchmarks load         cameras that this machine reads at once, over WebRTC
python -m benchmarks api          the HTTP API with 1 to 64 clients
python -m benchmarks largest      what the largest pictures and films take of a server's memory and time
python -m benchmarks soak         a server's memory, threads and sockets while visitors come and go for half an hour
python -m benchmarks mediapipe    counts and time beside MediaPipe's, on the same frames, in one run

Machines are noisy, and some are shared: what is compared is timed in turns (A B A B) within one
run, and medians and ratios are told. Compare numbers of one run, not of two.
"""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]


def machine() -> str:
    """The machine and what runs on it, in one line."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or a processor without a name
        cpu = platform.processor() or platform.machine()
    names = ("numpy", "onnxruntime", "opencv-python-headless", "pillow")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    system = f"{platform.system()} {platform.machine()}"
    # Others at work on the machine slow all numbers down, and those of many threads most.
    load = f" (load {os.getloadavg()[0]:.1f})" if hasattr(os, "getloadavg") else ""
    return f"{cpu}, {os.cpu_count()} cores{load}, {system}, Python {platform.python_version()}, {versions}"


def summary(milliseconds: Sequence[float]) -> dict[str, float]:
    """5th percentile (what a machine with nothing else to do takes), median and 95th, rounded."""
    values = np.percentile(milliseconds, (5, 50, 95)).round(2).tolist()
    return dict(zip(("p5", "median", "p95"), values, strict=True))
