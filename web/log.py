"""The server's log: one JSON object per line, on stderr. It holds no images, no file names and no addresses.

Unhandled errors are logged with their traceback.

>>> start()
>>> LOG.info("predicted", extra={"milliseconds": 4.2, "hands": 1})
{"time": "…", "level": "INFO", "event": "predicted", "milliseconds": 4.2, "hands": 1}
"""

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from web import streamlit_patches

LOG = logging.getLogger("handful")


def start() -> None:
    """Start to write the log."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    names = {"asctime": "time", "levelname": "level", "message": "event"}
    handler.setFormatter(JsonFormatter(list(names), rename_fields=names))
    LOG.handlers, LOG.propagate = [handler], False
    LOG.setLevel(logging.INFO)
    streamlit_patches.redirect_logs(handler)
    logging.basicConfig(handlers=[handler])  # asyncio's errors, and warnings of packages
