"""What the server reads, in numbers, for an operator who asks for it: see `python -m training drift`.

HANDFUL_SUMMARY=summary.csv streamlit run app.py

A CSV of one row a reading: when, where (api, live, pictures, films or record) and the
columns of `handful.picture_stats`. No picture, no name, no address. What browsers read is not among it: the server never sees those pictures.
"""

import logging
import math
import os
import time
from datetime import UTC, datetime
from functools import cache
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from threading import Lock

import numpy as np

from handful import Prediction
from handful.picture_stats import COLUMNS, describe
from web.log import LOG

EVERY = 1.0  # seconds between rows: a camera's next frame tells nothing new
MOST = 10_000_000  # bytes of a file, some 100,000 rows; the file before it stays, as summary.csv.1


class Table(RotatingFileHandler):
    """A CSV with a header that starts anew when it is full. Where it cannot be written, the log tells so, once."""

    def __init__(self, file: str):
        super().__init__(file, maxBytes=MOST, backupCount=1, encoding="utf-8")
        self._turn = Lock()
        self._next = 0.0

    def due(self) -> bool:
        """Whether it is time for a row; for one of the threads that ask, if it is."""
        with self._turn:
            now = time.monotonic()
            due = now >= self._next
            if due:
                self._next = now + EVERY
            return due

    def _open(self) -> TextIOWrapper:
        file = super()._open()
        if not file.tell():
            file.write(",".join(("time", "where", *COLUMNS)) + "\n")
        return file

    def handleError(self, record: logging.LogRecord) -> None:
        self._next = math.inf
        LOG.warning("summary ends: it cannot be written", extra={"file": self.baseFilename}, exc_info=True)


@cache
def table() -> Table | None:
    """The table that HANDFUL_SUMMARY names: None without it, or where it cannot be written."""
    file = os.environ.get("HANDFUL_SUMMARY")
    try:
        return Table(file) if file else None
    except OSError as error:
        LOG.warning("no summary: it cannot be written", extra={"file": file, "reason": str(error)})
        return None


def keep(image: np.ndarray, prediction: Prediction, where: str) -> None:
    """Add a row of a picture, (H, W, 3) uint8 RGB, and its reading, if there is a table and it is time for one."""
    kept = table()
    if kept and kept.due():
        row = [datetime.now(UTC).isoformat(timespec="seconds"), where, *describe(image, prediction).values()]
        told = ",".join("" if one is None else str(one) for one in row)
        kept.handle(logging.makeLogRecord({"msg": told}))
