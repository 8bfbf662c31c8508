"""A limit for what browsers send to pages, over Streamlit's WebSocket."""

import time
from collections import deque
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.proto.BackMsg_pb2 import BackMsg

from web.log import LOG

MAX_BYTES = 2_000_000  # of a message; the state of a page with a thousand uploads has a fifth
MAX_UNREAD_BYTES = 10_000_000  # more than the largest message to a page
MAX_WIDGETS, MAX_FILE_NAMES = 1000, 5000  # in a message; a name for each picture that is dropped at once
MAX_MESSAGES, INTERVAL_S = 60, 3  # so many in so many seconds; a page sends a few a second
# What pages need. The others are for developers: they run git, or clear the caches of all visitors.
KINDS = {"rerun_script", "stop_script", "app_heartbeat", "file_urls_request", "backend_operation_request"}
REFUSED = 1008  # WebSocket status: against the rules of this server


class PageMessages:
    """ASGI middleware that closes a WebSocket on which something else comes than pages send.

    Streamlit reads each message on the event loop, where a large one stalls all visitors, and logs those that it cannot
    read with a traceback.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return
        times = deque[float](maxlen=MAX_MESSAGES)

        async def receive_checked() -> Message:
            while (message := await receive())["type"] == "websocket.receive":
                now = time.monotonic()
                too_many = len(times) == MAX_MESSAGES and now - times[0] < INTERVAL_S
                times.append(now)
                parsed = None if too_many else parse(message.get("bytes"))
                if not parsed:
                    await refuse()
                    return {"type": "websocket.disconnect", "code": REFUSED}
                if parsed.WhichOneof("type") in KINDS:
                    return message
            return message

        async def refuse() -> None:
            LOG.info("refused", extra={"where": "server", "kind": "no page message"})
            await send({"type": "websocket.close", "code": REFUSED})

        if is_origin(Headers(scope=scope).get("origin", "")):
            await self.app(scope, receive_checked, send)
        else:
            await refuse()


def parse(data: bytes | None) -> BackMsg | None:
    """Return the message of a page, or None if it is something else, or has too much in it."""
    message = BackMsg()
    try:
        if data is None or len(data) > MAX_BYTES:  # None: it is text
            return None
        message.ParseFromString(data)
    except DecodeError:
        return None
    widgets, names = message.rerun_script.widget_states.widgets, message.file_urls_request.file_names
    return message if len(widgets) <= MAX_WIDGETS and len(names) <= MAX_FILE_NAMES else None


def is_origin(address: str) -> bool:
    """Return whether Streamlit can parse this Origin."""
    try:
        urlsplit(address)
    except ValueError:
        return False
    return True
