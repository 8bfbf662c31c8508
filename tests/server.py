"""The app as a server of its own, and a camera for the browser that looks at it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from model.images import decode
from tests.replay_dockerfile import ask, free_port

ROOT = Path(__file__).parent.parent


@contextmanager
def running(log: Path, **env: str) -> Iterator[str]:
    """Run the app with these environment variables. Yields its address; stops it afterwards."""
    port = free_port()
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless", "true"]
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
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def camera_arguments(video: Path) -> list[str]:
    """Chromium's arguments for a camera that films `video`, allowed without a question."""
    return [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={video}",
    ]


def film(picture: Path, video: Path) -> np.ndarray:
    """Write a film (Y4M, 640×480) in which a picture stands still. Returns the frame, (480, 640, 3) RGB."""
    frame = cv2.resize(decode(picture), (480, 480), interpolation=cv2.INTER_CUBIC)
    frame = cv2.copyMakeBorder(frame, 0, 0, 80, 80, cv2.BORDER_REPLICATE)
    planes = cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420).tobytes()
    video.write_bytes(b"YUV4MPEG2 W640 H480 F20:1 Ip A1:1 C420mpeg2\n" + (b"FRAME\n" + planes) * 4)
    return frame
