"""What operators see of a running server, at /metrics: numbers for Prometheus, never pictures."""

import time
from threading import Semaphore
from typing import BinaryIO

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from handful import Prediction, shared_counter
from handful.images import decode
from web import stats_log as summary
from web.cpu import available_cores
from web.log import LOG

PAUSE = 2  # seconds without a frame, after which a camera takes no place: its visitor may have left
REGISTRY = CollectorRegistry()  # of our own: a page that is edited while it runs may register its numbers again
READING = Histogram(
    "handful_reading_seconds",
    "How long pictures and frames took to read, and how many there were.",
    ["where"],  # api, live, pictures, videos, teach; browser: read on visitors' devices
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
    registry=REGISTRY,
)
HANDS = Counter("handful_hands", "Hands that were read, by raised fingers.", ["fingers"], registry=REGISTRY)
STREAMS = Gauge("handful_streams", "Cameras that the server reads now.", registry=REGISTRY)
DROPPED = Counter("handful_frames_dropped", "Frames of cameras that were too many to read.", registry=REGISTRY)
REFUSED = Counter("handful_refused", "What could not be read, and why.", ["where", "kind"], registry=REGISTRY)
KINDS = {413: "too large", 415: "unknown format", 422: "unreadable", 503: "busy"}  # by status; else: request


turns = Semaphore(available_cores())  # pictures at once: more would only hold more of them decoded in memory
last_frames: dict[object, float] = {}  # when each camera that the server reads had its last one


def streams() -> int:
    """How many cameras the server reads now."""
    now = time.monotonic()
    return sum(now - when < PAUSE for when in list(last_frames.values()))


STREAMS.set_function(streams)


def refused(where: str, status: int = 422) -> None:
    """Count and log that something was not read. `status` tells why, as that of a `BadImage` does."""
    kind = KINDS.get(status, "request")
    REFUSED.labels(where, kind).inc()
    LOG.info("refused", extra={"where": where, "kind": kind})


def read_picture(source: bytes | BinaryIO, where: str) -> Prediction:
    """Read a picture as it came, count and log that it was.

    Raises:
        BadImage: as `decode` does.
    """
    with turns:
        prediction = read(decode(source), where)
    told = {"where": where, "milliseconds": round(prediction.milliseconds, 1), "hands": len(prediction.hands)}
    LOG.info("picture read", extra=told)
    return prediction


def read(image: np.ndarray, where: str) -> Prediction:
    """Read a picture or a frame, (H, W, 3) uint8 RGB, and count that it was."""
    prediction = shared_counter()(image)
    summary.keep(image, prediction, where)
    return counted(prediction, where)


def counted(prediction: Prediction, where: str) -> Prediction:
    """Count a reading."""
    READING.labels(where).observe(prediction.milliseconds / 1000)
    for hand in prediction.hands:
        HANDS.labels(hand.fingers).inc()
    return prediction
