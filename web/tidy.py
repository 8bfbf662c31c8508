"""Free what visitors left behind. On a server without new visitors, nothing else would."""

import asyncio
import ctypes
import gc
import sys

from web import live
from web.log import LOG
from web.streamlit_patches import expire_sessions

INTERVAL_S = 60
M_ARENA_MAX, MOST_HEAPS = -8, 2  # a parameter of mallopt(3), and its value


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


def share_heaps() -> None:
    """Make threads share two heaps of glibc's.

    By default there are eight a core, and each keeps what its fragments hold.
    """
    if libc := glibc():
        libc.mallopt(M_ARENA_MAX, MOST_HEAPS)


def trim_heap() -> None:
    """Return free memory inside glibc's heaps to the system: large images leave hundreds of megabytes there."""
    if libc := glibc():
        libc.malloc_trim(0)


def glibc() -> ctypes.CDLL | None:
    """Return the C library, if it is glibc."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "malloc_trim") else None
