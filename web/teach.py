"""Teach on the server: the features of a picture, and a personal head that is fitted to features.

Each request brings all that it needs, and is answered with all that comes of it. Nothing of it is stored or logged.
"""

import asyncio
import json

import numpy as np
from anyio import CapacityLimiter, to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from handful import FingerCounter, shared_counter
from handful.labels import MAX_HANDS, NO_HAND
from handful.personal import Candidates, CannotLearn, Lessons, candidates, fit_and_compare, parse_weights
from web import inference, live
from web.clients import client_address

MAX_BODY_BYTES = 6_000_000
MAX_PICTURES = 500  # one second of one core
MAX_ROUND = 100
MAX_FEATURE = 100.0  # those of hands are below 20
UPLOAD_TIMEOUT_S = 60
RETRY_AFTER_S = 2
MAX_LEARNERS = 8  # at once; one is served after the other
learner_turn = CapacityLimiter(1)
learners: set[str] = set()  # addresses


async def teach(request: Request) -> JSONResponse:
    """Predict the picture in the body, a JPEG, and return what can be learned from it: see `predict`.

    As of a frame of Live, and with the same limits: see `web.live.live`.
    """
    if request.headers.get("content-type") != "image/jpeg":
        raise HTTPException(415, "Send a picture as image/jpeg.")
    stream = live.enter(request.query_params.get("stream", "")[:32], client_address(request))
    try:
        async with asyncio.timeout(live.UPLOAD_TIMEOUT_S):
            body = await live.read_body(request)
        answer = await to_thread.run_sync(predict, body, limiter=live.worker_threads)
    finally:
        stream.waiting = False
    return JSONResponse(answer)


def predict(body: bytes) -> dict:
    """Decode a JPEG, run the model on it, and find all places that may be a hand.

    Returns:
        The prediction as assets/browser/predictor.js describes it, with "candidates" of the picture and of its mirror
        image: [{"scores": (K,), "features": (K, 112)}, …].

    Raises:
        BadImage: it is no JPEG, is damaged or too large.
    """
    image = live.decode_jpeg(body)
    prediction = inference.predict(image, "teach")
    found = [candidates(shared_counter(), one) for one in (image, image[:, ::-1])]
    both = [
        {"scores": np.round(scores, 5).tolist(), "features": np.round(features, 4).tolist()}
        for scores, features in found
    ]
    return live.to_answer(image, prediction) | {"candidates": both}


async def fit(request: Request) -> JSONResponse:
    """Fit a personal head to the pictures in the body, each given by what `predict` returned of it, as JSON.

    In:  {"pictures": [{"target": see `handful.labels`, "round": 1, "candidates": [{"scores", "features"}, …]}]}
    Out: {"head": the text of its file, "before": [whether each picture was predicted as labelled], "after": [the same,
         by a head that was fitted on other rounds]}

    A body that is refused, or too little to learn from, is answered with words.
    """
    if request.headers.get("content-type") != "application/json":
        raise HTTPException(415, "Send the features of pictures as application/json.")
    client = client_address(request)
    if client in learners or len(learners) >= MAX_LEARNERS:
        raise HTTPException(503, "The server is busy. Try again in a moment.", {"Retry-After": str(RETRY_AFTER_S)})
    learners.add(client)
    try:
        async with asyncio.timeout(UPLOAD_TIMEOUT_S):
            body = await live.read_body(request, MAX_BODY_BYTES)
        return JSONResponse(await to_thread.run_sync(learn, body, limiter=learner_turn))
    finally:
        learners.discard(client)


def learn(body: bytes) -> dict:
    """Fit a head to the pictures in a body, see `fit`.

    Raises:
        HTTPException: 400, it is something else; 422, the pictures do not suffice to learn from.
    """
    lessons = parse_lessons(body, shared_counter())
    try:
        comparison = fit_and_compare(lessons)
    except CannotLearn as error:
        raise HTTPException(422, str(error)) from None
    numbers = range(lessons.pictures)
    correct = {"before": comparison.before, "after": comparison.after}
    return {"head": comparison.head.to_json()} | {k: [n in one for n in numbers] for k, one in correct.items()}


def parse_lessons(body: bytes, counter: FingerCounter) -> Lessons:
    """Return the pictures in a body, see `fit`.

    Raises:
        HTTPException: they are too many, or not what `predict` returns of a picture.
    """
    lessons = Lessons(counter)
    width = counter.heads["classifier.head.weight"].shape[1]
    try:
        pictures = json.loads(body)["pictures"]
        if len(pictures) > MAX_PICTURES:
            raise HTTPException(413, f"These are too many pictures. Learn from {MAX_PICTURES} at most.")
        for picture in pictures:
            target, round_, both = picture["target"], picture["round"], picture["candidates"]
            if type(target) is not int or type(round_) is not int or len(both) != 2:
                raise ValueError("picture")
            if not (0 <= target <= NO_HAND and 0 <= round_ <= MAX_ROUND):
                raise ValueError("target or round")
            lessons.add_candidates([parse_candidates(one, width) for one in both], target, round_)
    except (KeyError, TypeError, ValueError, RecursionError, OverflowError) as error:
        raise HTTPException(400, "These are not the features of pictures, as the Teach page sends them.") from error
    return lessons


def parse_candidates(fields: dict, width: int) -> Candidates:
    """Return candidates from JSON.

    Raises:
        ValueError: they have another shape, are too many, or not numbers within their limits.
    """
    count = len(fields["scores"])
    if count > MAX_HANDS:
        raise ValueError("count")
    if not count:
        return Candidates(np.zeros(0), np.zeros((0, width), np.float32))
    scores, features = parse_weights(fields["scores"], (count,)), parse_weights(fields["features"], (count, width))
    if not ((scores >= 0) & (scores <= 1)).all() or not (abs(features) < MAX_FEATURE).all():
        raise ValueError("numbers")
    return Candidates(scores, features)
