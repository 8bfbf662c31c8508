"""The HTTP API: health, predict, its OpenAPI schema and its docs page; and the frames of Live."""

import asyncio
from pathlib import Path

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Route
from starlette.types import Message

from handful import CLASSES, shared_counter
from handful.images import MAX_BYTES, BadImage
from web import metrics
from web.inference import predict_file, worker_threads
from web.live import live

ASSETS = Path(__file__).parents[1] / "assets"
MAX_BODY_BYTES = MAX_BYTES + 100_000  # a form is a little larger than its file
UPLOAD_TIMEOUT_S = 60  # a slow client must not hold its slot for longer
# Uploads and predictions at once; the next one gets a 503. A second's work, and some hundred megabytes.
request_slots = CapacityLimiter(32)


def health(request: Request) -> JSONResponse:
    """Answer that the app is up, with the metadata of its model."""
    counter = shared_counter()
    metadata = {key: value for key, value in counter.metadata.items() if not key.endswith("config")}
    model = {"file": counter.path.name, "sha256": counter.sha256, **metadata, "classes": CLASSES}
    return JSONResponse({"status": "ok", "model": model})


async def predict(request: Request) -> JSONResponse:
    """Run the model on the image in the form field `file`."""
    if int(request.headers.get("content-length", 0)) > MAX_BODY_BYTES:
        raise too_large()
    if not request_slots.available_tokens:
        raise HTTPException(503, "Too many requests at once. Try again in a moment.", {"Retry-After": "1"})
    received, deadline = 0, asyncio.get_running_loop().time() + UPLOAD_TIMEOUT_S

    async def receive() -> Message:
        # The Content-Length may be missing, or wrong.
        nonlocal received
        async with asyncio.timeout_at(deadline):
            message = await request.receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            raise too_large()
        return message

    # A few fields beside the file are accepted, and ignored.
    limited = Request(request.scope, receive)
    async with request_slots, limited.form(max_files=1, max_fields=8, max_part_size=4096) as form:
        file = form.get("file")
        if file is None or isinstance(file, str):
            raise HTTPException(400, "Send an image as multipart/form-data, in a field named file.")
        prediction = await to_thread.run_sync(predict_file, file.file, "api", limiter=worker_threads)
    return JSONResponse({"file": file.filename, **prediction.to_dict()})


def too_large() -> HTTPException:
    limit = MAX_BYTES // 1_000_000
    return HTTPException(413, f"The file is larger than {limit} MB. Make the image smaller, or save it as JPEG.")


def schema(request: Request) -> FileResponse:
    return FileResponse(ASSETS / "openapi.json")


def docs(request: Request) -> FileResponse:
    return FileResponse(ASSETS / "api.html")


def where(request: Request) -> str:
    """Return who asks, for metrics and log: the page "live", or "api"."""
    return "live" if request.url.path.endswith("/live") else "api"


def client_error(request: Request, error: Exception) -> JSONResponse:
    """Answer an error that the client can do something about."""
    match error:
        case BadImage():
            response = JSONResponse({"error": str(error)}, error.status)
        case HTTPException():
            response = JSONResponse({"error": error.detail}, error.status_code, error.headers)
        case TimeoutError():
            response = JSONResponse({"error": "The upload took too long. Send a smaller image, or a JPEG."}, 408)
        case _:
            response = JSONResponse({"error": "The upload was interrupted. Send it again."}, 400)
    metrics.record_refusal(where(request), response.status_code)
    return response


def server_error(request: Request, error: Exception) -> JSONResponse:
    """Answer any other error. Starlette raises it again, and the server logs it."""
    metrics.REFUSED.labels(where(request), "failure").inc()
    return JSONResponse({"error": "The server could not process the image. Try again later."}, 503)


# Five routes need no framework: FastAPI would add packages, and its docs page loads scripts from a CDN.
api = Starlette(
    routes=[
        Route("/health", health),
        Route("/predict", predict, methods=["POST"]),
        Route("/live", live, methods=["POST"]),
        Route("/openapi.json", schema),
        Route("/docs", docs),
    ],
    exception_handlers=dict.fromkeys((HTTPException, BadImage, TimeoutError, ClientDisconnect), client_error)
    | {Exception: server_error},
)
