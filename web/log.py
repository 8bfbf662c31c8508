"""What the server tells its operator: one JSON object a line, on stderr. No picture, no file's name, no address.

Errors that nothing caught are told so too, with their traceback. What Streamlit itself warns of is plain text.

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
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    names = {"asctime": "time", "levelname": "level", "message": "event"}
    handler.setFormatter(JsonFormatter(list(names), rename_fields=names))
    LOG.handlers, LOG.propagate = [handler], False
    LOG.setLevel(logging.INFO)

    def take(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:  # below that, uvicorn tells visitors' addresses
            handler.handle(record)
        return False

    # These log what pages and requests let through. Whenever its config.toml changes, Streamlit gives them handlers and
    # levels anew: what it leaves alone are filters.
    for name in ("streamlit.error_util", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).filters = [take]
    logging.basicConfig(handlers=[handler])  # asyncio's errors, and what packages warn of
