"""Decode untrusted pictures in a process that can be stopped.

>>> with DecodeProcess() as decoder:
...     decoder.decode("assets/samples/3L_0.jpg").shape
(256, 256, 3)
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from threading import Event, Timer
from typing import BinaryIO

import numpy as np

from handful.images import DAMAGED, SLOW, BadImage, read

WORKER = Path(__file__).with_name("decode_worker.py")
CPU_S = 4.0  # for one picture; 50 megapixels take 1 to 3 seconds
OUT_OF_CPU_TIME = -getattr(signal, "SIGPROF", 0)  # exit status
WALL_S = 20.0  # for one picture, on a machine that is busy with others, or where CPU time has no limit
# Threads of the libraries would each reserve memory, of which `decode_worker` has a limit.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}


class DecodeProcess:
    """A process that decodes one picture at a time. One that takes too long is ended, and replaced by another."""

    def __init__(self, cpu_s: float = CPU_S, wall_s: float = WALL_S):
        """Start the process.

        Args:
            cpu_s: CPU time for one picture, in seconds; not on Windows.
            wall_s: time for one picture, in seconds.
        """
        self.cpu_s, self.wall_s = cpu_s, wall_s
        self._start()

    def __enter__(self) -> "DecodeProcess":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def decode(self, source: bytes | str | Path | BinaryIO) -> np.ndarray:
        """Decode a picture, as `handful.images.decode` does.

        Returns:
            (H, W, 3) uint8 RGB, contiguous and writable.

        Raises:
            BadImage: as `handful.images.decode`; or it takes too much time or memory.
            RuntimeError: the process cannot start.
        """
        data = read(source)
        if self.killed or self.process.poll() is not None:  # by `kill` after the last picture, or by the system
            self._restart()
        expired = Event()

        def expire() -> None:
            expired.set()
            self.kill()

        timer = Timer(self.wall_s, expire)
        timer.daemon = True  # Ctrl-C may come before `try`: then nobody cancels it, and the end would wait for it
        timer.start()
        try:
            return self._exchange(data)
        except BadImage:
            raise
        except (OSError, EOFError, ValueError, MemoryError):  # the process has ended, and with it the connections
            with suppress(subprocess.TimeoutExpired):  # it has not, but there is no memory for the pixels
                self.process.wait(1)
            out_of_time = expired.is_set() or self.process.returncode == OUT_OF_CPU_TIME
            self._restart()
            if out_of_time:
                raise BadImage(SLOW) from None
            raise BadImage(DAMAGED) from None
        finally:
            timer.cancel()

    def kill(self) -> None:
        """End the process, from any thread: a picture that it decodes is refused."""
        self.killed = True
        self.process.kill()

    def close(self) -> None:
        """End the process for good."""
        self.kill()
        # Without a limit it may wait for ever: Popen keeps its lock if Ctrl-C comes at the wrong moment.
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        for connection in (self.process.stdin, self.process.stdout):
            with suppress(OSError):  # what was not sent yet cannot be sent any more
                if connection:
                    connection.close()

    def _exchange(self, data: bytes) -> np.ndarray:
        """Send a file and return its pixels.

        Raises:
            BadImage: it is refused.
            OSError, EOFError, ValueError: the process has ended.
            MemoryError: there is no memory for the pixels.
        """
        requests, answers = self.process.stdin, self.process.stdout
        assert requests
        assert isinstance(answers, BufferedReader)
        if not self.ready:
            if answers.readline() != b"ready\n":
                if self.killed:
                    raise EOFError
                raise RuntimeError(f"The process that decodes pictures does not start: status {self.process.wait()}.")
            self.ready = True
        requests.write(len(data).to_bytes(8, "big"))
        requests.write(data)
        requests.flush()
        answer = json.loads(answers.readline())
        if "error" in answer:
            raise BadImage(answer["error"], answer["status"])
        pixels = np.empty((*answer["size"], 3), np.uint8)
        if answers.readinto(pixels.data.cast("B")) < pixels.size:
            raise EOFError
        return pixels

    def _start(self) -> None:
        self.ready = self.killed = False
        # -P: the modules beside this file are no top-level modules.
        self.process = subprocess.Popen(
            [sys.executable, "-P", WORKER, str(self.cpu_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders write there what they find odd
            env=os.environ | ENVIRONMENT,
        )

    def _restart(self) -> None:
        self.close()
        self._start()
