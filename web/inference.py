"""Run the model for pages, webcam streams and the API; every prediction is counted in the metrics."""

from threading import Semaphore
from typing import BinaryIO

import numpy as np
from anyio import CapacityLimiter

from handful import Prediction, shared_counter
from handful.images import decode
from web import metrics, stats_log
from web.cpu import available_cores
from web.log import LOG

worker_threads = CapacityLimiter(available_cores())  # of requests, which wait for one without taking a thread
decode_slots = Semaphore(available_cores())  # more at once would only hold more decoded images in memory


def predict_file(source: bytes | BinaryIO, where: str) -> Prediction:
    """Decode an image file and run the model on it.

    Args:
        source: the file's bytes, or an open binary file.
        where: the page, or "api", that asks; a label of the metrics and the log.

    Raises:
        BadImage: the file is refused, see `handful.images.decode`.
    """
    with decode_slots:
        prediction = predict(decode(source), where)
    extra = {"where": where, "milliseconds": round(prediction.milliseconds, 1), "hands": len(prediction.hands)}
    LOG.info("predicted", extra=extra)
    return prediction


def predict(image: np.ndarray, where: str) -> Prediction:
    """Run the model on an image or a video frame, (H, W, 3) uint8 RGB."""
    prediction = shared_counter()(image)
    stats_log.append(image, prediction, where)
    metrics.record_prediction(prediction, where)
    return prediction
