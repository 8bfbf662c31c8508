"""The app as a server of its own, and a camera for the browser that looks at it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import cv2
import numpy as np

from benchmarks.dockerfile import ask, free_port
from handful.images import decode

ROOT = Path(__file__).parent.parent


@contextmanager
def running(log: Path, python: str = sys.executable, **env: str) -> Iterator[str]:
    """Run the app with these environment variables. Yields its address; stops it afterwards."""
    port = free_port()
    command = [python, "-m", "streamlit", "run", "app.py", "--server.headless", "true"]
    command += ["--server.port", str(port), "--server.address", "127.0.0.1"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | env, stdout=out, stderr=out)
    try:
        start = time.monotonic()
        while True:
            try:
                ask(port, "/api/health")
                break
            except OSError:
                if process.poll() is not None or time.monotonic() - start > 60:
                    raise RuntimeError(f"The app did not come up:\n{log.read_text()}") from None
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Wire:
    """The way from a browser to the server: `address` leads there, until it is cut, and again once it is mended."""

    def __init__(self, to: str):
        self.to = int(to.rpartition(":")[2])
        self.ends: list[socket.socket] = []
        self.whole = Event()
        self.whole.set()
        self.door = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.door.getsockname()[1]}"
        Thread(target=self._open, daemon=True).start()

    def cut(self) -> None:
        self.whole.clear()
        for end in self.ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self.ends.clear()

    def mend(self) -> None:
        self.whole.set()

    def _open(self) -> None:
        while True:
            here = self.door.accept()[0]
            if not self.whole.is_set():
                here.close()
                continue
            there = socket.create_connection(("127.0.0.1", self.to))
            self.ends += here, there
            for one, other in ((here, there), (there, here)):
                Thread(target=_carry, args=(one, other), daemon=True).start()


def _carry(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(1 << 16):
            other.sendall(data)
    for end in (one, other):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def camera_arguments(video: Path) -> list[str]:
    """Chromium's arguments for a camera that films `video`, allowed without a question."""
    return [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={video}",
    ]


def film(picture: Path, video: Path, rate: int = 20) -> np.ndarray:
    """Write a film (Y4M, 640×480, `rate` frames a second) in which a picture stands still. Returns the frame, RGB."""
    frame = cv2.resize(decode(picture), (480, 480), interpolation=cv2.INTER_CUBIC)
    frame = cv2.copyMakeBorder(frame, 0, 0, 80, 80, cv2.BORDER_REPLICATE)
    planes = cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420).tobytes()
    video.write_bytes(f"YUV4MPEG2 W640 H480 F{rate}:1 Ip A1:1 C420mpeg2\n".encode() + (b"FRAME\n" + planes) * 4)
    return frame
