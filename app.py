"""Handful's server: the pages and, in the same process, an HTTP API.

streamlit run app.py
"""

import asyncio
import ctypes
import gc
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from socket import AF_INET, AF_INET6, IPPROTO_TCP, SOCK_STREAM, TCP_NODELAY, socket
from threading import Thread
from typing import Any, BinaryIO

import streamlit as st
from anyio import CapacityLimiter, to_thread
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from python_multipart.multipart import parse_options_header
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route, request_response
from starlette.staticfiles import PathLike, StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handful import CLASSES, Prediction, shared_counter
from handful.images import MAX_BYTES, BadImage
from web import inference as metrics
from web import stats_log as summary
from web.cpu import available_cores
from web.log import LOG, start
from web.uploads import Room

ROOT = Path(__file__).parent
# A form is a little larger than the file in it.
MAX_BODY = MAX_BYTES + 100_000
# More threads than cores would only hold more decoded pictures in memory.
readers = CapacityLimiter(available_cores())
places = CapacityLimiter(32)  # pictures at once, from when they are sent on: a second's work, some hundred megabytes
PATIENCE = 60  # seconds for a picture to come: a place that is kept longer is kept from others
TIDY = 60  # seconds from one tidying to the next


def health(request: Request) -> JSONResponse:
    """Tell that the app is up, and with which model."""
    counter = shared_counter()
    about = {key: told for key, told in counter.metadata.items() if not key.endswith("config")}
    model = {"file": counter.path.name, "sha256": counter.sha256, **about, "classes": CLASSES}
    return JSONResponse({"status": "ok", "model": model})


async def predict(request: Request) -> JSONResponse:
    """Read the picture in the form field `file`."""
    if int(request.headers.get("content-length", 0)) > MAX_BODY:
        raise too_large()
    if not places.available_tokens:
        raise HTTPException(503, "Too many pictures at once. Send it again in a moment.", {"Retry-After": "1"})
    size, until = 0, asyncio.get_running_loop().time() + PATIENCE

    async def receive() -> Message:
        # Not every client tells the length first, and none has to tell the truth.
        nonlocal size
        async with asyncio.timeout_at(until):
            message = await request.receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY:
            raise too_large()
        return message

    # A client may send a few fields beside the file; none of them is used.
    async with places, Request(request.scope, receive).form(max_files=1, max_fields=8, max_part_size=4096) as form:
        file = form.get("file")
        if file is None or isinstance(file, str):
            raise HTTPException(400, "Send a picture as multipart/form-data, in the field named file.")
        async with readers:
            prediction = await to_thread.run_sync(read, file.file)
    return JSONResponse({"file": file.filename, **prediction.to_dict()})


def read(file: BinaryIO) -> Prediction:
    return metrics.read_picture(file, "api")


def too_large() -> HTTPException:
    return HTTPException(
        413, f"This is more than {MAX_BYTES // 1_000_000} MB. Make the picture smaller, or save it as JPEG."
    )


def schema(request: Request) -> FileResponse:
    return FileResponse(ROOT / "assets/openapi.json")


def docs(request: Request) -> FileResponse:
    return FileResponse(ROOT / "assets/api.html")


class Packed(StaticFiles):
    """Sends a file as it was compressed once, where it lies beside it: Streamlit would compress it for each visitor."""

    def file_response(
        self, full_path: PathLike, stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        packed = Path(f"{full_path}.gz")
        if not packed.is_file() or "gzip" not in Headers(scope=scope).get("accept-encoding", ""):
            return super().file_response(full_path, stat_result, scope, status_code)
        answer = super().file_response(packed, packed.stat(), scope, status_code)
        answer.headers["Content-Encoding"] = "gzip"
        answer.headers["Vary"] = "Accept-Encoding"
        return answer


def model_file(request: Request) -> FileResponse:
    # Who asks for it names its checksum: see web/browser_camera.py. Streamlit would compress it for each, by a seventh.
    headers = {"Cache-Control": "max-age=31536000, immutable", "Content-Encoding": "identity"}
    return FileResponse(shared_counter().path, headers=headers)


MOVED = {"films": "videos", "record": "teach"}  # pages that had another address


def moved(request: Request) -> RedirectResponse:
    # Relative: the app may lie under a path of its host.
    return RedirectResponse(MOVED[request.url.path.rpartition("/")[2]], 308)


def numbers(request: Request) -> Response:
    return Response(generate_latest(metrics.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})


class SafeHeaders:
    """Tells browsers to take answers as the type that they say, and to show them in no other site's frame.

    And to ask whether they changed before they take those that they kept: they would guess, from the age of a file.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers["Content-Security-Policy"] = "frame-ancestors 'self'"
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        await self.app(scope, receive, send_safely)


class Utf8Forms:
    """Makes every form be parsed as UTF-8, whatever charset its Content-Type names.

    The parsers of Starlette and Streamlit decode form fields with that charset, on the event loop: Python's punycode
    takes minutes for a megabyte, and each unknown name stays in the cache of its codecs for good.
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
    """Return the Content-Type of a multipart form with no parameter but its boundary; others as they are."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or b"boundary" not in options:
        return content_type
    boundary = options[b"boundary"].replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'%b; boundary="%b"' % (kind, boundary)


class CookieInFrames:
    """Lets visitors upload where another site shows the app in a frame, as huggingface.co does with a Space.

    Streamlit refuses uploads without its cookie against forged requests, and in such a frame browsers keep only cookies
    that say they are meant for it; partitioned, so that each site which shows the app has another. They want https too.
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

        secure = scope["type"] == "http" and "https" in (scope["scheme"], Headers(scope=scope).get("x-forwarded-proto"))
        await self.app(scope, receive, send_cookie if secure else send)


def refused(request: Request, error: Exception) -> JSONResponse:
    """Any error that the client can do something about."""
    match error:
        case BadImage():
            answer = JSONResponse({"error": str(error)}, error.status)
        case HTTPException():
            answer = JSONResponse({"error": error.detail}, error.status_code, error.headers)
        case TimeoutError():
            answer = JSONResponse({"error": "The upload takes too long. Send a smaller picture, or a JPEG."}, 408)
        case _:
            answer = JSONResponse({"error": "The upload broke off. Send it again."}, 400)
    metrics.refused("api", answer.status_code)
    return answer


def failed(request: Request, error: Exception) -> JSONResponse:
    """Anything else: Starlette lets it through to the server, which logs what it was."""
    metrics.REFUSED.labels("api", "failure").inc()
    return JSONResponse({"error": "The picture could not be read just now. Try again later."}, 503)


def glibc() -> ctypes.CDLL | None:
    """The C library, where it is GNU's."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") else None


def share_heaps() -> None:
    """Let all threads share two heaps of glibc's, and give back what is freed at their ends: mallopt(3).

    By default glibc keeps up to eight heaps a core, and a visitor's threads come and go: what each left half empty
    stays. Other C libraries have no such heaps.
    """
    if libc := glibc():
        libc.mallopt(-8, 2)  # M_ARENA_MAX
        libc.mallopt(-1, 128 * 1024)  # M_TRIM_THRESHOLD: left alone, it grows with the largest block ever freed


def answer_at_once() -> None:
    """Let no answer on a kept connection wait until the client has told that its head has come: 40 ms (TCP_NODELAY).

    asyncio sees to that for sockets that name TCP as their protocol; the one that Streamlit opened does not. Those that
    it accepts take after it.
    """
    for one in gc.get_objects():
        if type(one) is socket and one.type == SOCK_STREAM and one.family in (AF_INET, AF_INET6) and one.fileno() >= 0:
            one.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)


def import_ahead() -> None:
    """Import what Live waits for longest, while the first visitor's browser still fetches the page."""
    for name in ("aiortc", "pandas"):
        import_module(name)


async def tidy() -> None:
    """Let go of visits that are over, and their files; while no camera streams, of event loops, which hold sockets.

    And of free memory between what is in use: large pictures leave hundreds of megabytes of it in glibc's heaps. On a
    server that nobody visits, nothing else would ask for it.
    """
    runtime: Any = st.runtime.get_instance()
    while True:
        await asyncio.sleep(TIDY)
        runtime._session_mgr._session_storage._cache.expire()  # else once the next visitor leaves
        if not metrics.streams():
            gc.collect()
        if libc := glibc():
            libc.malloc_trim(0)


@asynccontextmanager
async def lifespan(app: st.App) -> AsyncGenerator[None]:
    """Load the model before the first visitor comes."""
    start()
    share_heaps()
    answer_at_once()
    Thread(target=import_ahead, daemon=True).start()
    counter, kept = shared_counter(), summary.table() is not None
    about = {"model": counter.metadata.get("training commit"), "sha256": counter.sha256, "summary": kept}
    LOG.info("started", extra=about)
    tidying = asyncio.create_task(tidy())
    yield
    tidying.cancel()


# Four routes need no framework: FastAPI would add packages, and its docs page loads scripts from a CDN.
api = Starlette(
    routes=[
        Route("/health", health),
        Route("/predict", predict, methods=["POST"]),
        Route("/openapi.json", schema),
        Route("/docs", docs),
    ],
    exception_handlers=dict.fromkeys((HTTPException, BadImage, TimeoutError, ClientDisconnect), refused)
    | {Exception: failed},
)
# What browsers need to read by themselves, see web/browser_camera.py.
browser = Starlette(routes=[Route("/handful.onnx", model_file), Mount("/", Packed(directory=ROOT / "assets/browser"))])
# Around each whole, not as its middleware: that one does not see the answer to an unexpected error.
routes = [
    Mount("/api", SafeHeaders(api)),
    Mount("/browser", SafeHeaders(browser)),
    Route("/metrics", SafeHeaders(request_response(numbers))),
    *(Route(f"/{old}", moved) for old in MOVED),
]
around = [Middleware(Utf8Forms), Middleware(CookieInFrames), Middleware(Room)]
app = st.App(ROOT / "pages/navigation.py", routes=routes, lifespan=lifespan, middleware=around)
