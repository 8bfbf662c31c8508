"""How fast Handful is, how steady its count on a webcam, and how it compares with MediaPipe.

Machines are noisy, and some are shared: what is compared is timed in turns (A B A B) within one run, and medians and
ratios are reported. Compare numbers of one run, not of two.
"""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]


class Unavailable(RuntimeError):
    """A benchmark cannot run on this machine. The text says why."""


def machine() -> str:
    """Return the machine and the versions that matter, in one line."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or a processor without a name
        cpu = platform.processor() or platform.machine()
    names = ("numpy", "onnxruntime", "opencv-python-headless", "pillow")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    system = f"{platform.system()} {platform.machine()}"
    # Other work on the machine slows everything down, and many threads most.
    load = f" (load {os.getloadavg()[0]:.1f})" if hasattr(os, "getloadavg") else ""
    return f"{cpu}, {os.cpu_count()} cores{load}, {system}, Python {platform.python_version()}, {versions}"


def summary(milliseconds: Sequence[float]) -> dict[str, float]:
    """Return the 5th percentile (the time on an idle machine), the median and the 95th, rounded."""
    values = np.percentile(milliseconds, (5, 50, 95)).round(2).tolist()
    return dict(zip(("p5", "median", "p95"), values, strict=True))
