"""Decode the pictures or the sound of an untrusted video in a process that can be stopped.

>>> with open("assets/counting.mp4", "rb") as file:
...     header, *frames = decode(file, "video", max_pixels=10_000_000, max_side=1280)
>>> header[0]["width"], len(frames)
(480, 120)
"""

import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from threading import Timer
from typing import Any, BinaryIO, Literal

import numpy as np

from handful.decode_process import CPU_S, ENVIRONMENT, WALL_S

WORKER = Path(__file__).with_name("video_worker.py")


class DecodeError(Exception):
    """What comes next of a video cannot be decoded, or not within the limits of time and memory."""


def decode(
    source: BinaryIO, kind: Literal["video", "audio"], *, max_pixels: int, max_side: int
) -> Generator[tuple[dict[str, Any], np.ndarray]]:
    """Decode a video, while the caller works on what came before. Several may read the same file.

    Args:
        source: a seekable file, open for reading; it is read by the thread that takes the frames.
        kind: what to decode.
        max_pixels: of a frame; a video with larger ones is damaged.
        max_side: of the frames that are returned, in pixels.

    Yields:
        Of "video", what the file says of it, with no data. Then of each frame, its "time" in seconds, and its data:
        uint8 (H, W, 3) RGB, or float32 (channels, samples). See `video_worker` for the rest.

    Raises:
        DecodeError: the file is damaged, or takes too much time or memory, from here on.
    """
    options = {"kind": kind, "size": source.seek(0, os.SEEK_END), "cpu_s": CPU_S}
    options |= {"max_pixels": max_pixels, "max_side": max_side}
    with subprocess.Popen(
        [sys.executable, "-P", WORKER, json.dumps(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # FFmpeg writes there what it finds odd
        env=os.environ | ENVIRONMENT,
    ) as process:
        assert process.stdin
        try:
            while item := _receive(process, source):
                yield item
        finally:
            process.kill()
            with suppress(OSError):  # of bytes that it does not take any more
                process.stdin.close()


def _receive(process: subprocess.Popen[bytes], source: BinaryIO) -> tuple[dict[str, Any], np.ndarray] | None:
    """Return what a process decodes next, None at the end; meanwhile, give it the bytes that it asks for."""
    assert process.stdin
    assert isinstance(process.stdout, BufferedReader)
    timer = Timer(WALL_S, process.kill)
    timer.daemon = True
    timer.start()
    try:
        while "read" in (header := json.loads(process.stdout.readline())):
            source.seek(header["at"])
            data = source.read(header["read"])
            process.stdin.write(len(data).to_bytes(8, "big") + data)
            process.stdin.flush()
        if "error" in header:
            raise DecodeError(header["error"])
        if "end" in header:
            return None
        data = np.empty(header["shape"], header["dtype"])
        if process.stdout.readinto(data.data) < data.nbytes:
            raise EOFError
        return header, data
    except (OSError, EOFError, ValueError, MemoryError) as error:  # the process has been ended
        raise DecodeError("It takes too much time or memory.") from error
    finally:
        timer.cancel()
