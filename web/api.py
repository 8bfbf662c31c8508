"""The HTTP API: health, predict, its OpenAPI schema and its docs page; and what Live and Teach send."""

import asyncio
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Route
from starlette.types import Message

from handful import CLASSES, Prediction, shared_counter
from handful.images import MAX_BYTES, BadImage
from handful.personal import MAX_FILE_BYTES, BadHead, PersonalHead
from web import metrics, teach
from web.clients import client_address
from web.decoders import shared_pool
from web.inference import predict_decoded
from web.live import live
from web.log import LOG

ASSETS = Path(__file__).parents[1] / "assets"
MAX_BODY_BYTES = MAX_BYTES + 100_000  # a form is a little larger than its file
UPLOAD_TIMEOUT_S = 60  # a slow client must not hold its slot for longer
# Uploads and predictions at once, of all clients and of one; the next one gets a 503. A second's work, and some hundred
# megabytes.
MAX_REQUESTS, MAX_REQUESTS_PER_CLIENT = 40, 32
requests_by_client = Counter[str]()


def health(request: Request) -> JSONResponse:
    """Answer that the app is up, with the metadata of its model."""
    counter = shared_counter()
    metadata = {key: value for key, value in counter.metadata.items() if not key.endswith("config")}
    model = {"file": counter.path.name, "sha256": counter.sha256, **metadata, "classes": CLASSES}
    return JSONResponse({"status": "ok", "model": model})


async def predict(request: Request) -> JSONResponse:
    """Run the model on the image in the form field `file`, with the personal head in `personal` if there is one."""
    if int(request.headers.get("content-length", 0)) > MAX_BODY_BYTES:
        raise too_large()
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

    # A few other fields are accepted, and ignored.
    limited, client = Request(request.scope, receive), client_address(request)
    with request_slot(client):
        async with limited.form(max_files=1, max_fields=8, max_part_size=MAX_FILE_BYTES) as form:
            file = form.get("file")
            if file is None or isinstance(file, str):
                raise HTTPException(400, "Send an image as multipart/form-data, in a field named file.")
            text = form.get("personal")
            personal = PersonalHead.from_json(text.encode()) if isinstance(text, str) else None
            prediction = await predict_in_turn(file.file, client, request, personal)
    return JSONResponse({"file": file.filename, **prediction.to_dict()})


async def predict_in_turn(file: BinaryIO, client: str, request: Request, personal: PersonalHead | None) -> Prediction:
    """Wait for a decoder, then run the model on an image file.

    Raises:
        BadImage: the file is refused.
        BadHead: the personal head was fitted to another model.
        ClientDisconnect: the client has gone meanwhile. Nothing goes on for it.
    """
    pool = shared_pool()
    decoder = pool.request(client)

    async def give_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        if not decoder.cancel():
            decoder.result().kill()

    watching = asyncio.create_task(give_up())
    try:
        process = await asyncio.wrap_future(decoder)
        try:
            return await to_thread.run_sync(predict_decoded, process, file, "api", personal)
        finally:
            pool.release(client, process)
    except (asyncio.CancelledError, BadImage, BadHead) as error:
        if watching.done():
            raise ClientDisconnect from None
        if isinstance(error, asyncio.CancelledError):
            raise HTTPException(503, "The server is stopping. Send the image again in a moment.") from None
        raise
    finally:
        watching.cancel()


@contextmanager
def request_slot(client: str) -> Generator[None]:
    """Count a request while it is processed.

    Raises:
        HTTPException: there are too many at once.
    """
    if requests_by_client.total() >= MAX_REQUESTS or requests_by_client[client] >= MAX_REQUESTS_PER_CLIENT:
        raise HTTPException(503, "Too many requests at once. Try again in a moment.", {"Retry-After": "1"})
    requests_by_client[client] += 1
    try:
        yield
    finally:
        requests_by_client[client] -= 1
        if not requests_by_client[client]:
            del requests_by_client[client]


def too_large() -> HTTPException:
    limit = MAX_BYTES // 1_000_000
    return HTTPException(413, f"The file is larger than {limit} MB. Make the image smaller, or save it as JPEG.")


def schema(request: Request) -> FileResponse:
    return FileResponse(ASSETS / "openapi.json")


def docs(request: Request) -> FileResponse:
    return FileResponse(ASSETS / "api.html")


def where(request: Request) -> str:
    """Return who asks, for metrics and log: the page "live" or "teach", or "api"."""
    name = request.url.path.rpartition("/")[2]
    return {"live": "live", "teach": "teach", "fit": "teach"}.get(name, "api")


def client_error(request: Request, error: Exception) -> JSONResponse:
    """Answer an error that the client can do something about."""
    match error:
        case BadImage():
            response = JSONResponse({"error": str(error)}, error.status)
        case BadHead():
            response = JSONResponse({"error": str(error)}, 400)
        case HTTPException():
            response = JSONResponse({"error": error.detail}, error.status_code, error.headers)
        case TimeoutError():
            response = JSONResponse({"error": "The upload took too long. Send a smaller image, or a JPEG."}, 408)
        case _:
            response = JSONResponse({"error": "The upload was interrupted. Send it again."}, 400)
    metrics.record_refusal(where(request), response.status_code)
    return response


def disk_error(request: Request, error: Exception) -> JSONResponse:
    """Answer that an upload, of more than a megabyte, cannot be stored until it is read."""
    LOG.warning("an upload cannot be stored in TMPDIR", extra={"reason": getattr(error, "strerror", "")})
    metrics.record_refusal(where(request), 503)
    return JSONResponse(
        {"error": "The server has no disk space for this image. Try again later, or a smaller one."}, 503
    )


def server_error(request: Request, error: Exception) -> JSONResponse:
    """Answer any other error. Starlette raises it again, and the server logs it."""
    metrics.REFUSED.labels(where(request), "failure").inc()
    return JSONResponse({"error": "The server could not process the image. Try again later."}, 503)


# Seven routes need no framework: FastAPI would add packages, and its docs page loads scripts from a CDN.
api = Starlette(
    routes=[
        Route("/health", health),
        Route("/predict", predict, methods=["POST"]),
        Route("/live", live, methods=["POST"]),
        Route("/teach", teach.teach, methods=["POST"]),
        Route("/fit", teach.fit, methods=["POST"]),
        Route("/openapi.json", schema),
        Route("/docs", docs),
    ],
    exception_handlers=dict.fromkeys((HTTPException, BadImage, BadHead, TimeoutError, ClientDisconnect), client_error)
    | {OSError: disk_error, Exception: server_error},
)
# It would redirect /api/health/ to an address of the Host header's, and to HTTP behind a proxy with HTTPS.
api.router.redirect_slashes = False
