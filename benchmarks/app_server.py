"""Run the app in a process, and write a video for the browser's fake camera."""

import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import cv2
import numpy as np
import psutil

from benchmarks.dockerfile import free_port, request_json
from handful.images import decode

ROOT = Path(__file__).parent.parent
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 10
MB = 2**20


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


def server_process(address: str) -> psutil.Process:
    """Return the process that serves an address.

    Raises:
        RuntimeError: none does.
    """
    port = address.rpartition(":")[2]
    for process in psutil.process_iter(["cmdline"]):
        arguments = process.info["cmdline"] or []  # None: another user's
        if "--server.port" in arguments and port in arguments:
            return process
    raise RuntimeError(f"No process serves {address}.")


def own_mb(process: psutil.Process) -> int:
    """Return what is resident of a process beside the libraries that it shares (of which only Linux tells the size)."""
    memory = process.memory_info()
    return (memory.rss - getattr(memory, "shared", 0)) // MB


def server_mb(process: psutil.Process) -> int:
    """Return what is resident of a server, and what its decoders have beside the libraries that they share with it."""
    total = process.memory_info().rss // MB
    for decoder in process.children():
        with suppress(psutil.NoSuchProcess):  # ended meanwhile
            total += own_mb(decoder)
    return total


@contextmanager
def watch_memory(process: psutil.Process) -> Generator[list[int]]:
    """Collect the `server_mb` of a server, 50 times a second."""
    samples, done = [server_mb(process)], Event()

    def watch() -> None:
        while not done.wait(0.02):
            samples.append(server_mb(process))

    thread = Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU time of a server and its decoders so far."""
    total = 0.0
    for one in (process, *process.children()):
        with suppress(psutil.NoSuchProcess):  # ended meanwhile
            times = one.cpu_times()
            total += times.user + times.system
    return total


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
