"""Decode pictures for `handful.decode_process`, which starts this file: python decode_worker.py CPU_S

Each request on stdin is the length of a file, as 8 bytes, and the file. The answer on stdout is a line of JSON: the
height and width of the picture, whose pixels follow, or why it is refused.
"""

import os
import signal
import sys
from types import ModuleType

signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that reads the answers
# Of the package, only the module that decodes: its __init__ loads onnxruntime.
sys.modules["handful"] = ModuleType("handful")
sys.modules["handful"].__path__ = [os.path.dirname(__file__)]

import ctypes  # noqa: E402
import json  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

from handful.images import BadImage, open_image, refusals, to_rgb  # noqa: E402

# Address space that decoding takes at most: the libraries' threads and tables, the file, and copies of the pixels, of
# which WebP and AVIF take 19 bytes each.
MEMORY_BYTES, MEMORY_BYTES_PER_PIXEL = 250_000_000, 24


def main(cpu_s: float) -> None:
    """Answer requests until stdin ends."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    spare_server()
    answers.write(b"ready\n")
    answers.flush()
    while header := requests.read(8):
        data = requests.read(int.from_bytes(header, "big"))
        limit_cpu_time(cpu_s)
        try:
            with refusals(data):
                image = open_image(data)
                limit_memory(image.width * image.height)
                pixels = np.asarray(to_rgb(image))
            answers.write(b"%b\n" % json.dumps({"size": pixels.shape[:2]}).encode())
            answers.write(pixels.data)
        except BadImage as error:
            answers.write(b"%b\n" % json.dumps({"error": str(error), "status": error.status}).encode())
        limit_memory(None)
        answers.flush()
        data = image = pixels = None  # which may be large, until the next one comes
        free_memory()


def spare_server() -> None:
    """Where memory runs out, have the kernel end this process, not the one that started it."""
    if sys.platform == "linux":
        Path("/proc/self/oom_score_adj").write_text("1000")


def free_memory() -> None:
    """Return free memory inside glibc's heap to the system."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def limit_cpu_time(seconds: float) -> None:
    """End this process, by SIGPROF, once it has used so many more seconds of CPU time."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def limit_memory(pixels: int | None) -> None:
    """Make allocations fail beyond what a picture of so many pixels takes; None is no limit."""
    if sys.platform != "linux":  # elsewhere, there is no such limit, or it has no effect
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = hard
    if pixels is not None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        soft = used + MEMORY_BYTES + MEMORY_BYTES_PER_PIXEL * pixels
        soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


if __name__ == "__main__":
    main(float(sys.argv[1]))
