"""Statistics of what the server predicts, as a CSV, for operators who ask for it: see `python -m training drift`.

HANDFUL_SUMMARY=summary.csv streamlit run app.py

One row per prediction: time, where (api, live, pictures, videos or teach) and the columns of
`handful.picture_stats`. No images, no names, no addresses. Predictions made in browsers are not in it: the server never
gets those images.
"""

import logging
import math
import os
import sys
import time
from datetime import UTC, datetime
from functools import cache
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from threading import Lock

import numpy as np

from handful import Prediction
from handful.picture_stats import COLUMNS, compute_stats
from web.log import LOG

ROW_INTERVAL_S = 1.0  # successive frames of a webcam differ little
MAX_FILE_BYTES = 10_000_000  # about 100,000 rows; the file before it is summary.csv.1


class StatsFile(RotatingFileHandler):
    """A CSV with a header, rotated when it is full. Where it cannot be written, that is logged, once."""

    def __init__(self, file: str):
        super().__init__(file, maxBytes=MAX_FILE_BYTES, backupCount=1, encoding="utf-8")
        self._due_lock = Lock()
        self._next_row = 0.0

    def due(self) -> bool:
        """Return whether it is time for a row: to one of the threads that ask at once."""
        with self._due_lock:
            now = time.monotonic()
            due = now >= self._next_row
            if due:
                self._next_row = now + ROW_INTERVAL_S
            return due

    def _open(self) -> TextIOWrapper:
        file = super()._open()
        if not file.tell():
            file.write(",".join(("time", "where", *COLUMNS)) + "\n")
        return file

    def handleError(self, record: logging.LogRecord) -> None:
        self._next_row = math.inf
        extra = {"file": self.baseFilename, "reason": str(sys.exc_info()[1])}
        LOG.warning("HANDFUL_SUMMARY cannot be written any more", extra=extra)


@cache
def stats_file() -> StatsFile | None:
    """Return the file that HANDFUL_SUMMARY names, or None without it and where it cannot be written."""
    file = os.environ.get("HANDFUL_SUMMARY")
    try:
        if file and Path(file).is_fifo():  # which would wait for its reader
            raise OSError("it is a pipe")
        return StatsFile(file) if file else None
    except OSError as error:
        LOG.warning("HANDFUL_SUMMARY cannot be written", extra={"file": file, "reason": str(error)})
        return None


def append(image: np.ndarray, prediction: Prediction, where: str) -> None:
    """Append a row about an image, (H, W, 3) uint8 RGB, and its prediction, if there is a file and a row is due."""
    stats = stats_file()
    if stats and stats.due():
        row = [datetime.now(UTC).isoformat(timespec="seconds"), where, *compute_stats(image, prediction).values()]
        line = ",".join("" if value is None else str(value) for value in row)
        stats.handle(logging.makeLogRecord({"msg": line}))
