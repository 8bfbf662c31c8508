"""Processes that decode the pictures of all visitors, in turns.

>>> with shared_pool().turn("a visit") as decoder:
...     image = decoder.decode(data)
"""

from collections import Counter
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache
from threading import Lock

from handful.decode_process import DecodeProcess
from web.cpu import available_cores


class DecodePool:
    """Decoders, each for one picture at a time, from its decoding to its prediction: so few are in memory at once.

    The next turn is that of the client who has the fewest, and one client never has all decoders: pictures that take
    long do not keep others waiting.
    """

    def __init__(self, size: int):
        """Start so many processes, at least two."""
        self.decoders = [DecodeProcess() for _ in range(size)]
        self.idle = self.decoders.copy()
        self.most_per_client = size - 1
        self.running = Counter[str]()
        self.waiting: list[tuple[str, Future[DecodeProcess]]] = []
        self.lock = Lock()

    def request(self, client: str) -> Future[DecodeProcess]:
        """Return the future of a decoder, which is cancelled by who gives up, and otherwise given back by `release`."""
        future: Future[DecodeProcess] = Future()
        with self.lock:
            self.waiting.append((client, future))
        self._grant()
        return future

    def release(self, client: str, decoder: DecodeProcess) -> None:
        """Take back a decoder."""
        with self.lock:
            self.running[client] -= 1
            self.running += Counter()  # forgets clients without any
            self.idle.append(decoder)
        self._grant()

    @contextmanager
    def turn(self, client: str) -> Generator[DecodeProcess]:
        """Wait for a decoder, and have it."""
        decoder = self.request(client).result()
        try:
            yield decoder
        finally:
            self.release(client, decoder)

    def close(self) -> None:
        """End the processes: pictures that they decode are refused. One that is needed again starts again."""
        for decoder in self.decoders:
            if decoder in self.idle:
                decoder.close()
            else:
                decoder.kill()

    def _grant(self) -> None:
        """Give idle decoders to those whose turn it is."""
        with self.lock:
            self.waiting = [(client, future) for client, future in self.waiting if not future.cancelled()]
            while self.idle and self.waiting:
                first = min(self.waiting, key=lambda waiting: self.running[waiting[0]])  # of equals, who came first
                client, future = first
                if self.running[client] >= self.most_per_client:
                    break
                self.waiting.remove(first)
                if future.set_running_or_notify_cancel():
                    self.running[client] += 1
                    future.set_result(self.idle.pop())


@cache
def shared_pool() -> DecodePool:
    """Return the decoders of this process: one more than cores, so that one client alone can use all cores."""
    return DecodePool(available_cores() + 1)
