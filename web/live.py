"""Live on the server: each request brings one frame of a visitor's camera, and the personal head to predict it with.

Neither is stored or logged: with each request, all is new.
"""

import asyncio
import io
import time
from collections import Counter
from dataclasses import dataclass, field

import cv2
import numpy as np
from anyio import CapacityLimiter, to_thread
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from handful import Hand, Prediction, shared_counter
from handful.costly_pictures import is_costly_jpeg
from handful.images import SLOW, BadImage
from handful.personal import FITTED, HEADS, BadHead, PersonalHead, parse_weights
from web import inference, metrics
from web.clients import client_address
from web.cpu import available_cores
from web.log import LOG

MAX_BYTES = 1_000_000
MAX_PIXELS = 2_000_000
worker_threads = CapacityLimiter(available_cores())  # frames wait for one without taking a thread
MAX_STREAMS = 2 * available_cores()  # cameras at once, each with one frame under way; see `python -m benchmarks load`
RETRY_AFTER_S = 2
UPLOAD_TIMEOUT_S = 10  # a slow client must not hold its place for longer
UNREADABLE = "This is not a JPEG that can be read."


@dataclass
class Stream:
    """A camera whose frames come; times are on the clock of `time.monotonic`."""

    client: str
    started: float = field(default_factory=time.monotonic)
    last_frame: float = 0.0
    frames: int = 0
    waiting: bool = False


streams: dict[str, Stream] = {}  # by the name that the browser gives its camera


def active_streams() -> int:
    """Return how many cameras use the server now."""
    now = time.monotonic()
    return sum(now - stream.last_frame < metrics.ACTIVE_S for stream in list(streams.values()))


metrics.STREAMS.set_function(active_streams)


async def live(request: Request) -> JSONResponse:
    """Predict the frame in the body, a JPEG.

    Where the query names the model that a personal head was fitted to, its numbers come first, see `split_head`.

    Only pages of this server can ask: other sites' scripts may not send these content types without a permission
    (CORS) that is never given.
    """
    model = request.query_params.get("personal")
    content_type = "application/octet-stream" if model else "image/jpeg"
    if request.headers.get("content-type") != content_type:
        raise HTTPException(415, f"Send a frame as {content_type}.")
    stream = enter(request.query_params.get("stream", "")[:32], client_address(request))
    try:
        async with asyncio.timeout(UPLOAD_TIMEOUT_S):
            body = await read_body(request)
        with_heatmaps = request.query_params.get("heatmap") == "1"
        answer = await to_thread.run_sync(predict, body, with_heatmaps, model, limiter=worker_threads)
    finally:
        stream.waiting = False
    return JSONResponse(answer)


def enter(name: str, client: str) -> Stream:
    """Return the stream of that name for one more frame.

    Raises:
        HTTPException: 503, as there are `MAX_STREAMS` others, or its last frame is still under way.
    """
    forget_ended()
    stream = streams.get(name)
    if not stream and len(streams) >= MAX_STREAMS:
        make_room(client)
    if stream.waiting if stream else len(streams) >= MAX_STREAMS:
        raise HTTPException(503, "The server is at capacity.", {"Retry-After": str(RETRY_AFTER_S)})
    if not stream:
        stream = streams[name] = Stream(client)
        LOG.info("stream started", extra={"streams": len(streams)})
    stream.last_frame, stream.waiting = time.monotonic(), True
    stream.frames += 1
    return stream


def make_room(client: str) -> None:
    """End the newest stream of the client who has the most, if it has others, and more than this client will have."""
    counts = Counter(stream.client for stream in streams.values())
    greediest, most = counts.most_common(1)[0]
    if most - 1 > counts[client]:
        end([name for name, stream in streams.items() if stream.client == greediest][-1])


def forget_ended() -> None:
    """Forget streams whose frames have ceased."""
    now = time.monotonic()
    for name, stream in list(streams.items()):
        if now - stream.last_frame >= metrics.ACTIVE_S and not stream.waiting:
            end(name)


def end(name: str) -> None:
    """Forget a stream."""
    stream = streams.pop(name)
    seconds = round(stream.last_frame - stream.started, 1)
    LOG.info("stream ended", extra={"seconds": seconds, "frames": stream.frames, "streams": len(streams)})


async def read_body(request: Request, max_bytes: int = MAX_BYTES) -> bytes:
    """Read the body, which may have no Content-Length, or a wrong one.

    Raises:
        HTTPException: 413, it has more than `max_bytes`.
    """
    body = bytearray()  # grows in place: many small chunks are not copied again and again
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise HTTPException(413, f"Send at most {max_bytes // 1_000_000} MB.")
    return bytes(body)


def predict(body: bytes, with_heatmaps: bool, model: str | None) -> dict:
    """Decode a JPEG and run the model on it, with the personal head before it if there is a `model`.

    Returns:
        The prediction as assets/browser/predictor.js describes it, ready for JSON.

    Raises:
        BadImage: it is no JPEG, is damaged, or has more than `MAX_PIXELS`.
        BadHead: the head cannot be used.
    """
    personal, jpeg = split_head(body, model) if model else (None, body)
    image = decode_jpeg(jpeg)
    return to_answer(image, inference.predict(image, "live", personal), with_heatmaps)


def to_answer(image: np.ndarray, prediction: Prediction, with_heatmaps: bool = False) -> dict:
    """Return a prediction as assets/browser/predictor.js describes it, ready for JSON."""
    return {
        "hands": [to_dict(hand, with_heatmaps) for hand in prediction.hands],
        "width": prediction.width,
        "height": prediction.height,
        "milliseconds": round(prediction.milliseconds, 2),
        "brightness": round(float(image[::4, ::4, 1].mean()), 1),
    }


def split_head(body: bytes, model: str) -> tuple[PersonalHead, bytes]:
    """Return the personal head at the start of a body, and the rest.

    The head is its arrays in the order of `FITTED`, float32, little-endian.

    Args:
        body: of a request.
        model: SHA-256 of the model file that the head was fitted to.

    Raises:
        BadHead: that is another model, or the numbers cannot be used.
    """
    counter, weights, start = shared_counter(), {}, 0
    counter.check(PersonalHead({}, model))  # another model's heads have other sizes
    for name in FITTED:
        shipped = counter.heads[name]
        end = start + shipped.nbytes
        try:
            values = np.frombuffer(body[start:end], "<f4").reshape(shipped.shape)
            weights[name] = parse_weights(values, HEADS[name])
        except ValueError as error:
            raise BadHead("This personal head is damaged: its numbers cannot be used.") from error
        start = end
    return PersonalHead(weights, model), body[start:]


def decode_jpeg(body: bytes) -> np.ndarray:
    """Return a JPEG's pixels, (H, W, 3) uint8 RGB. OpenCV takes half of Pillow's time, but would decode any size."""
    if is_costly_jpeg(body):
        raise BadImage(SLOW)
    try:
        width, height = Image.open(io.BytesIO(body), formats=("JPEG",)).size
    except Exception as error:  # of many types
        raise BadImage(UNREADABLE, 415) from error
    if width * height > MAX_PIXELS:
        raise BadImage(f"A frame has at most {MAX_PIXELS // 1_000_000} megapixels.", 413)
    image = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise BadImage(UNREADABLE)
    return image


def to_dict(hand: Hand, with_heatmap: bool) -> dict:
    numbers = {
        "box": [round(float(x), 1) for x in hand.box],
        "crop": [round(float(x), 1) for x in hand.crop],
        "probabilities": [round(float(p), 5) for p in hand.probabilities],
        "finger_probabilities": [round(float(p), 5) for p in hand.finger_probabilities],
    }
    if not with_heatmap:
        return numbers
    heatmap = hand.gradcam()
    height, width = heatmap.shape
    values = [round(float(value), 3) for value in heatmap.ravel()]
    return numbers | {"heatmap": {"width": width, "height": height, "values": values}}
