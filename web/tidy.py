"""Free what visitors left behind. On a server without new visitors, nothing else would."""

import asyncio
import ctypes
import gc
import sys

from web import live
from web.log import LOG
from web.streamlit_patches import expire_sessions

INTERVAL_S = 60


async def tidy() -> None:
    """Run every step each `INTERVAL_S`, for ever. A step that fails is logged, and the others go on."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        for step in (live.forget_ended, expire_sessions, collect_garbage, trim_heap):
            try:
                step()
            except Exception:
                LOG.exception("tidy step failed", extra={"step": step.__name__})


def collect_garbage() -> None:
    """Collect what ended sessions left in reference cycles."""
    # A full collection would interrupt a running stream.
    if not live.active_streams():
        gc.collect()


def trim_heap() -> None:
    """Return free memory inside glibc's heaps to the system: large images leave hundreds of megabytes there."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
