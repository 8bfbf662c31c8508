"""Run the model for pages, webcam streams and the API; every prediction is counted in the metrics."""

from contextlib import AbstractContextManager
from typing import BinaryIO

import numpy as np

from handful import Prediction, shared_counter
from handful.decode_process import DecodeProcess
from handful.images import BadImage
from handful.personal import BadHead, PersonalHead
from web import metrics, stats_log
from web.decoders import shared_pool
from web.log import LOG
from web.streamlit_patches import session_id


def decoder_turn() -> AbstractContextManager[DecodeProcess]:
    """Wait until this visit may decode a picture, and have a process that does.

    >>> with decoder_turn() as decoder:
    ...     thumbnail = cv2.resize(decoder.decode(data), (64, 64))
    """
    return shared_pool().turn(session_id() or "")


def predict_file(source: bytes | BinaryIO, where: str, personal: PersonalHead | None = None) -> Prediction:
    """Decode an image file of this visit, in its turn, and run the model on it.

    Args:
        source: the file's bytes, or an open binary file.
        where: the page that asks; a label of the metrics and the log.
        personal: the visitor's personal head.

    Raises:
        BadImage: the file is refused, see `DecodeProcess.decode`.
        BadHead: the head was fitted to another model.
    """
    with decoder_turn() as decoder:
        return predict_decoded(decoder, source, where, personal)


def predict_decoded(
    decoder: DecodeProcess, source: bytes | BinaryIO, where: str, personal: PersonalHead | None = None
) -> Prediction:
    """Decode an image file by this process and run the model on it, see `predict_file`.

    Whatever else goes wrong is logged, and raised as a BadImage too: it must not end the pictures beside this one.
    """
    try:
        prediction = predict(decoder.decode(source), where, personal)
    except (BadImage, BadHead):
        raise
    except Exception as error:
        LOG.exception("prediction failed")
        raise BadImage("The server could not process this picture. Try again later, or another one.", 503) from error
    extra = {"where": where, "milliseconds": round(prediction.milliseconds, 1), "hands": len(prediction.hands)}
    LOG.info("predicted", extra=extra)
    return prediction


def predict(image: np.ndarray, where: str, personal: PersonalHead | None = None) -> Prediction:
    """Run the model on an image or a video frame, (H, W, 3) uint8 RGB, with the visitor's personal head if any.

    Raises:
        BadHead: it was fitted to another model.
    """
    prediction = shared_counter()(image, personal)
    stats_log.append(image, prediction, where)
    metrics.record_prediction(prediction, where)
    return prediction
