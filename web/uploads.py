"""Room for what visitors upload: Streamlit keeps it in memory, and bounds each file, but not all of them together."""

import asyncio

import streamlit as st
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.runtime.stats import CacheStat
from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec

from handful.images import BadImage

FILES = 5  # of the largest size, for which there is room
PATIENCE = 60  # seconds without a byte, after which whoever sends a file has gone
# What is kept in place of a file without room: Streamlit's page would call a refusal an "AxiosError".
FULL = b"no room"
NO_ROOM = "The server has no room for more files just now. Remove this one, and add it again in a few minutes."


class Room:
    """Takes visitors' files while there is room for those that are kept and those on their way."""

    def __init__(self, app: ASGIApp):
        self.app = app
        self.coming = 0  # bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "PUT" or "/_stcore/upload_file/" not in scope["path"]:
            await self.app(scope, receive, send)
            return
        largest = st.get_option("server.maxUploadSize") * 2**20
        size = int(Headers(scope=scope).get("content-length", largest))
        told = st.runtime.get_instance().uploaded_file_mgr.get_stats().values()
        kept = sum(stat.byte_length for stats in told for stat in stats if isinstance(stat, CacheStat))
        full, start = kept + self.coming + size > FILES * largest, b""

        async def receive_in_time() -> Message:
            nonlocal start
            try:
                async with asyncio.timeout(PATIENCE):
                    message = await receive()
            except TimeoutError:
                return {"type": "http.disconnect"}
            if full and message["type"] == "http.request":
                start = (start + message["body"])[:4096]
                message["body"] = b"" if message["more_body"] else without_file(start)
            return message

        size = 0 if full else size
        self.coming += size
        try:
            await self.app(scope, receive_in_time, send)
        except ClientDisconnect:  # it would be an error in the log, with its traceback
            await Response(status_code=408)(scope, receive, send)
        finally:
            self.coming -= size


def shared(file: UploadedFile, memo: dict) -> UploadedFile:
    """A copy with the same bytes, not with a copy of them: a film would lie in memory twice while its page runs."""
    record = UploadedFileRec(file.file_id, file.name, file.type, file.getvalue())
    return UploadedFile(record, file._file_urls)


UploadedFile.__deepcopy__ = shared  # type: ignore[attr-defined]  # Streamlit copies all that were uploaded for each run


def contents(file: UploadedFile) -> bytes:
    """What was uploaded.

    Raises:
        BadImage: there was no room for it.
    """
    if (data := file.getvalue()) == FULL:
        raise BadImage(NO_ROOM, 503)
    return data


def without_file(form: bytes) -> bytes:
    """The form that starts so, with `FULL` in place of its file."""
    edge, head = form.partition(b"\r\n")[0], form.partition(b"\r\n\r\n")[0]
    return b"%b\r\n\r\n%b\r\n%b--" % (head, FULL, edge)
