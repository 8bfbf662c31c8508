"""What the server tells its operator: one JSON object a line, on stderr. No picture, no file's name, no address.

>>> start()
>>> LOG.info("picture read", extra={"milliseconds": 4.2, "hands": 1})
{"time": "…", "level": "INFO", "event": "picture read", "milliseconds": 4.2, "hands": 1}
"""

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

LOG = logging.getLogger("handful")


def start() -> None:
    """Write what is logged from now on."""
    handler = logging.StreamHandler(sys.stderr)
    names = {"asctime": "time", "levelname": "level", "message": "event"}
    handler.setFormatter(JsonFormatter(list(names), rename_fields=names))
    LOG.handlers, LOG.propagate = [handler], False
    LOG.setLevel(logging.INFO)
