"""Run the app in a process, and write a video for the browser's fake camera."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import cv2
import numpy as np

from benchmarks.dockerfile import free_port, request_json
from handful.images import decode

ROOT = Path(__file__).parent.parent
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 10


@contextmanager
def run_app(log: Path, python: str = sys.executable, **env: str) -> Generator[str]:
    """Run the app with these environment variables, its output in `log`. Yields its address.

    Raises:
        RuntimeError: it did not start; the text is its output.
    """
    port = free_port()
    command = [python, "-m", "streamlit", "run", "app.py", "--server.headless", "true"]
    command += ["--server.port", str(port), "--server.address", "127.0.0.1"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | env, stdout=out, stderr=out)
    try:
        start = time.monotonic()
        while True:
            try:
                request_json(port, "/api/health")
                break
            except OSError:
                if process.poll() is not None or time.monotonic() - start > START_TIMEOUT_S:
                    raise RuntimeError(f"The app did not start:\n{log.read_text()}") from None
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def server_pid(address: str) -> int:
    """Return the process that serves an address (on Linux).

    Raises:
        RuntimeError: none does.
    """
    port = address.rpartition(":")[2]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--server.port" in arguments and port.encode() in arguments:
            return int(folder.name)
    raise RuntimeError(f"No process serves {address}.")


def decoder_pids(pid: int) -> list[int]:
    """Return the processes that a server has started (on Linux), by whichever of its threads."""
    pids = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # ended meanwhile
            pids += map(int, (thread / "children").read_text().split())
    return pids


def memory_mb(pid: int, field: str = "VmRSS") -> int:
    """Return a figure of /proc/PID/status: "VmRSS" is what is resident now, "VmHWM" its maximum, of one process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+)", status)[1]) // 1024  # type: ignore[index]


def server_mb(pid: int) -> int:
    """Return what is resident of a server, and what its decoders have beside the libraries that they share with it."""
    total = memory_mb(pid)
    for decoder in decoder_pids(pid):
        with suppress(OSError, TypeError):  # ended meanwhile
            total += memory_mb(decoder, "RssAnon")
    return total


@contextmanager
def watch_memory(pid: int) -> Generator[list[int]]:
    """Collect the `server_mb` of a server, 50 times a second."""
    samples, done = [server_mb(pid)], Event()

    def watch() -> None:
        while not done.wait(0.02):
            samples.append(server_mb(pid))

    thread = Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far (on Linux)."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def camera_arguments(video: Path) -> list[str]:
    """Return Chromium's arguments for a fake camera that shows `video`, allowed without a prompt."""
    return [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={video}",
    ]


def write_still_video(picture: Path, video: Path, fps: int = 20) -> np.ndarray:
    """Write a video (Y4M, 640×480) of a picture that stands still. Returns its frame, (480, 640, 3) uint8 RGB."""
    frame = cv2.resize(decode(picture), (480, 480), interpolation=cv2.INTER_CUBIC)
    frame = cv2.copyMakeBorder(frame, 0, 0, 80, 80, cv2.BORDER_REPLICATE)
    planes = cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420).tobytes()
    video.write_bytes(f"YUV4MPEG2 W640 H480 F{fps}:1 Ip A1:1 C420mpeg2\n".encode() + (b"FRAME\n" + planes) * 4)
    return frame
