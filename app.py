"""The server: Streamlit's pages and, in the same process, an HTTP API.

streamlit run app.py
"""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Thread

# Before numpy is loaded: on a busy machine, its threads wait for each other, and learning takes ten times the CPU time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import streamlit as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route, request_response

from handful import shared_counter
from web import log, stats_log, streamlit_patches
from web.api import api
from web.browser_camera import browser_model, preload_tags
from web.decoders import shared_pool
from web.messages import MAX_BYTES, MAX_UNREAD_BYTES, PageMessages
from web.metrics import metrics_endpoint
from web.middleware import EmbeddedCookies, PlainAcceptEncoding, PrecompressedStatic, SecurityHeaders, Utf8Forms
from web.tidy import tidy
from web.uploads import UploadLimit
from web.widgets import DATA, is_readable_folder

ROOT = Path(__file__).parent
HEAD_TIMEOUT_S = 10  # of a request: who sends half of its head must not stay connected
SHUTDOWN_S = 3  # for requests that are processed when the server is told to stop
LAST_ANSWERS_S = 0.2  # to answer the others with 503
MOVED_PAGES = {"films": "videos", "record": "teach"}  # old address: new address


def model_file(request: Request) -> Response:
    """Serve the model to browsers that run it, see web/browser_camera.py.

    Where its address holds its checksum, it may be cached for good. "identity" keeps Streamlit from compressing it for
    each visitor, to save a seventh.
    """
    model, sha256 = browser_model(shared_counter())
    headers = {"Content-Encoding": "identity", "Content-Type": "application/octet-stream"}
    if request.url.query == sha256:
        headers["Cache-Control"] = "max-age=31536000, immutable"
    return Response(model, headers=headers)


def first_page(request: Request) -> HTMLResponse:
    """Serve Streamlit's page with what preloads the model: Live is the first page, and needs it soonest.

    Otherwise the browser would fetch and compile it only after all of Streamlit's own code: a second later.
    """
    page = streamlit_page().replace("<head>", f"<head>{preload_tags()}", 1)
    return HTMLResponse(page, headers={"Cache-Control": "no-cache"})


@cache
def streamlit_page() -> str:
    """Return the HTML in which browsers load Streamlit's own code."""
    return (Path(st.__file__).parent / "static/index.html").read_text(encoding="utf-8")


def moved_page(request: Request) -> RedirectResponse:
    # Relative: a proxy may serve the app under a path.
    return RedirectResponse(MOVED_PAGES[request.url.path.rpartition("/")[2]], 308)


def counting_video(request: Request) -> FileResponse:
    """Serve the rendered hand that Live shows before the start."""
    return FileResponse(ROOT / "assets/counting.mp4")


@asynccontextmanager
async def lifespan(app: st.App) -> AsyncGenerator[None]:
    """Load the model before the first visitor comes, and tidy up until the server stops."""
    log.start()
    streamlit_patches.share_upload_bytes()
    streamlit_patches.accept_extended_file_names()
    streamlit_patches.ask_nobody_for_address()
    streamlit_patches.disable_nagle()
    streamlit_patches.read_less_at_once()
    streamlit_patches.limit_head(HEAD_TIMEOUT_S)
    streamlit_patches.refuse_once()
    streamlit_patches.limit_messages(MAX_BYTES, MAX_UNREAD_BYTES)
    streamlit_patches.clear_forged_values()
    streamlit_patches.limit_shutdown(SHUTDOWN_S)
    streamlit_patches.obey_signals()
    # What the other pages wait for longest, while the first visitor is still on Live.
    Thread(target=import_module, args=("pandas",), daemon=True).start()
    if os.environ.get("HANDFUL_DATA") and not is_readable_folder(DATA):
        log.LOG.warning("HANDFUL_DATA is no folder that can be read: Samples shows the bundled pictures")
    decoders = shared_pool()
    counter = shared_counter()
    extra = {"model": counter.metadata.get("training commit"), "sha256": counter.sha256}
    log.LOG.info("started", extra=extra | {"summary": stats_log.stats_file() is not None})
    tidying = asyncio.create_task(tidy())
    yield
    tidying.cancel()
    await asyncio.sleep(LAST_ANSWERS_S)
    decoders.close()


browser_files = Starlette(
    routes=[
        Route("/handful.onnx", model_file),
        Route("/counting.mp4", counting_video),
        Mount("/", PrecompressedStatic(directory=ROOT / "assets/browser")),
    ]
)
# SecurityHeaders wraps each app: as their middleware, it would miss the responses to unexpected errors.
routes = [
    Route("/", first_page),
    Mount("/api", SecurityHeaders(api)),
    Mount("/browser", SecurityHeaders(browser_files)),
    Route("/metrics", SecurityHeaders(request_response(metrics_endpoint))),
    *(Route(f"/{old}", moved_page) for old in MOVED_PAGES),
]
middleware = [
    Middleware(Utf8Forms),
    Middleware(PlainAcceptEncoding),
    Middleware(EmbeddedCookies),
    Middleware(UploadLimit),
    Middleware(PageMessages),
]
app = st.App(ROOT / "pages/navigation.py", routes=routes, lifespan=lifespan, middleware=middleware)
