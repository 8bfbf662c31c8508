"""ASGI middleware and static files."""

import os
import re
from pathlib import Path

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.staticfiles import PathLike, StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class SecurityHeaders:
    """Set security headers on every response, and make browsers revalidate what they cached.

    Without a Cache-Control, browsers guess from a file's age for how long it stays fresh.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers["Content-Security-Policy"] = "frame-ancestors 'self'"
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        await self.app(scope, receive, send_with_headers)


class Utf8Forms:
    """Make every multipart form be parsed as UTF-8, whatever charset its Content-Type names.

    The parsers of Starlette and Streamlit decode form fields with that charset, on the event loop: Python's punycode
    takes minutes for a megabyte, and each unknown name stays in the codec cache for good.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = [
                (name, without_charset(value) if name == b"content-type" else value) for name, value in scope["headers"]
            ]
            scope = {**scope, "headers": headers}
        await self.app(scope, receive, send)


def without_charset(content_type: bytes) -> bytes:
    """Return the Content-Type of a multipart form with its boundary only; any other unchanged."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or b"boundary" not in options:
        return content_type
    boundary = options[b"boundary"].replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'%b; boundary="%b"' % (kind, boundary)


class PlainAcceptEncoding:
    """Reduce Accept-Encoding to gzip or nothing: Streamlit looks for that word only, and finds it in gzip;q=0."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
            if accepts_gzip(Headers(scope=scope).get("accept-encoding", "")):
                headers.append((b"accept-encoding", b"gzip"))
            scope = {**scope, "headers": headers}
        await self.app(scope, receive, send)


class EmbeddedCookies:
    """Make uploads work where another site embeds the app in an iframe, as huggingface.co does with a Space.

    Streamlit refuses uploads without its XSRF cookie. In a cross-site iframe, browsers keep only cookies with
    SameSite=None, which need HTTPS; Partitioned gives each embedding site a cookie jar of its own.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    (name, value.replace(b"SameSite=Lax", b"SameSite=None; Secure; Partitioned"))
                    if value.startswith(b"_streamlit_xsrf=")
                    else (name, value)
                    for name, value in message["headers"]
                ]
            await send(message)

        await self.app(scope, receive, send_cookie if is_https(scope) else send)


def is_https(scope: Scope) -> bool:
    """Return whether the browser used HTTPS: each proxy appends what it saw, and the first one is next to it."""
    if scope["type"] != "http":
        return False
    forwarded = Headers(scope=scope).get("x-forwarded-proto", "").partition(",")[0].strip()
    return "https" in (scope["scheme"], forwarded)


class PrecompressedStatic(StaticFiles):
    """Static files, served from the `.gz` beside them where there is one: Streamlit would compress each response."""

    def file_response(
        self, full_path: PathLike, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        compressed = Path(f"{full_path}.gz")
        if not compressed.is_file() or "gzip" not in Headers(scope=scope).get("accept-encoding", ""):
            return super().file_response(full_path, stat_result, scope, status_code)
        response = super().file_response(compressed, compressed.stat(), scope, status_code)
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Vary"] = "Accept-Encoding"
        return response


def accepts_gzip(accept_encoding: str) -> bool:
    """Return whether this Accept-Encoding names gzip, and not with a quality of 0."""
    codings = (coding.strip().partition(";") for coding in accept_encoding.lower().split(","))
    return any(
        name.strip() == "gzip" and not re.fullmatch(r"q=0(\.0*)?", quality.strip()) for name, _, quality in codings
    )
