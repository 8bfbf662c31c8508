"""A limit for all uploads together: Streamlit keeps them in memory, and limits only each file."""

import asyncio
from collections import Counter

import streamlit as st
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.typing import UploadedFile

from handful.images import BadImage
from web.log import LOG
from web.streamlit_patches import uploaded_bytes

# The limits, in files of the largest size: of all visits, and of one.
MAX_FULL_SIZE_FILES, MAX_FULL_SIZE_FILES_PER_VISIT = 5, 2
CHUNK_TIMEOUT_S = 60  # without a byte for so long, the client has gone
MIN_BYTES_PER_S, GRACE_S = 20_000, 15  # a client that has sent less, after the first seconds, holds room for nothing
# Stored in place of a file past the limit: Streamlit's page would show a refused upload as "AxiosError".
REFUSED_FILE = b"no room"
SERVER_FULL = "The server has no memory for more files right now. Remove this one and add it again in a few minutes."


class UploadLimit:
    """ASGI middleware that bounds the bytes of all uploads, stored and in transit."""

    def __init__(self, app: ASGIApp):
        self.app = app
        self.bytes_in_transit = Counter[str]()  # of each visit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "PUT" or "/_stcore/upload_file/" not in scope["path"]:
            await self.app(scope, receive, send)
            return
        largest, headers = st.get_option("server.maxUploadSize") * 2**20, Headers(scope=scope)
        # In chunks, a file has any size, whatever its Content-Length says.
        size = largest if "transfer-encoding" in headers else int(headers.get("content-length", largest))
        visit = scope["path"].partition("/_stcore/upload_file/")[2].partition("/")[0]
        refused = (uploaded_bytes() or 0) + self.bytes_in_transit.total() + size > MAX_FULL_SIZE_FILES * largest or (
            uploaded_bytes(visit) or 0
        ) + self.bytes_in_transit[visit] + size > MAX_FULL_SIZE_FILES_PER_VISIT * largest
        start, received, begun = b"", 0, asyncio.get_running_loop().time()

        async def receive_in_time() -> Message:
            nonlocal start, received
            slowest = begun + GRACE_S + received / MIN_BYTES_PER_S
            try:
                async with asyncio.timeout_at(min(slowest, asyncio.get_running_loop().time() + CHUNK_TIMEOUT_S)):
                    message = await receive()
            except TimeoutError:
                return {"type": "http.disconnect"}
            received += len(message.get("body", b""))
            if refused and message["type"] == "http.request":
                start = (start + message["body"])[:4096]
                message["body"] = b"" if message["more_body"] else replace_file(start)
            return message

        size = 0 if refused else size
        self.bytes_in_transit[visit] += size
        try:
            await self.app(scope, receive_in_time, send)
        except ClientDisconnect:  # unhandled, it would be logged with its traceback
            await Response(status_code=408)(scope, receive, send)
        except OSError as error:  # a full disk, or none that can be written: larger files pass through one
            LOG.warning("an upload cannot be stored in TMPDIR", extra={"reason": error.strerror})
            await Response(status_code=507)(scope, receive, send)
        finally:
            self.bytes_in_transit[visit] -= size
            self.bytes_in_transit += Counter()  # forgets visits without any


def replace_file(form: bytes) -> bytes:
    """Return the multipart form that starts with `form`, with `REFUSED_FILE` in place of its file."""
    boundary, head = form.partition(b"\r\n")[0], form.partition(b"\r\n\r\n")[0]
    return b"%b\r\n\r\n%b\r\n%b--" % (head, REFUSED_FILE, boundary)


def file_contents(file: UploadedFile) -> bytes:
    """Return the bytes of an uploaded file.

    Raises:
        BadImage: the server had no memory for it.
    """
    if (data := file.getvalue()) == REFUSED_FILE:
        raise BadImage(SERVER_FULL, 503)
    return data
