"""What the server tells its operator: one JSON object a line, on stderr. No picture, no file's name, no address.

Errors that nothing caught are told so too, with their traceback. What Streamlit itself warns of is plain text.

>>> start()
>>> LOG.info("picture read", extra={"milliseconds": 4.2, "hands": 1})
{"time": "…", "level": "INFO", "event": "picture read", "milliseconds": 4.2, "hands": 1}
"""

import logging
import sys

import streamlit as st
from pythonjsonlogger.json import JsonFormatter

LOG = logging.getLogger("handful")


def start() -> None:
    """Write what is logged from now on."""
    handler = logging.StreamHandler(sys.stderr)
    names = {"asctime": "time", "levelname": "level", "message": "event"}
    handler.setFormatter(JsonFormatter(list(names), rename_fields=names))
    st.set_option("logger.enableRich", False)  # it would print tracebacks in colour, past the log
    # The other two log what pages and requests let through; below that, uvicorn tells visitors' addresses.
    levels = {"handful": logging.INFO, "streamlit.error_util": logging.WARNING, "uvicorn.error": logging.WARNING}
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    logging.basicConfig(handlers=[handler])  # asyncio's errors, and what packages warn of
