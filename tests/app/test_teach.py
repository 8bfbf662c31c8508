"""Teach without a browser: the page, pictures sent to the server, and what is learned from their features."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import cv2
import httpx
import numpy as np
import pytest

from handful import CLASSES, COUNTS, FINGERS, PersonalHead, shared_counter
from handful.images import decode
from handful.labels import NO_HAND
from handful.personal import Lessons
from tests.app.pages import load_page, open_page
from tests.builders import SAMPLES
from web import live, metrics, teach

JPEG = (SAMPLES / "3L_0.jpg").read_bytes()
ROUNDS = (1, 2, 3)


def test_the_page_is_a_component_that_has_all_it_needs():
    [component] = open_page("teach").get("bidi_component")
    data = json.loads(component.proto.json)
    assert data["module"] == "teach.js"
    assert data["heads"]["model"] == shared_counter().sha256
    assert data["labels"]["counts"] == list(COUNTS)
    assert data["settings"]["read"] is None


def test_where_the_model_runs_is_in_the_address():
    page = load_page("teach")
    page.query_params["read"] = "server"
    [component] = page.run().get("bidi_component")
    assert json.loads(component.proto.json)["settings"]["read"] == "server"


# Pictures


def post_picture(client: httpx.Client, body: bytes = JPEG, stream: str = "one", **headers: str) -> httpx.Response:
    """Send a picture as the page does."""
    headers = {"Content-Type": "image/jpeg", **headers}
    return client.post(f"/api/teach?stream={stream}", content=body, headers=headers)


def test_a_picture_is_predicted_with_the_candidates_that_python_learns_from(client):
    answer = post_picture(client).json()
    image = decode(JPEG)
    [expected] = shared_counter()(image).hands
    [hand] = answer["hands"]
    assert hand["probabilities"] == pytest.approx(expected.probabilities, abs=0.02)
    assert answer["brightness"] == pytest.approx(image[..., 1].mean(), abs=1)
    ours, theirs = Lessons(shared_counter()), Lessons(shared_counter())
    ours.add(live.decode_jpeg(JPEG), 3, 1)
    body = {"pictures": [{"target": 3, "round": 1, "candidates": answer["candidates"]}]}
    theirs.places = teach.parse_lessons(json.dumps(body).encode(), shared_counter()).places
    for one, other in zip(ours.places, theirs.places, strict=True):
        assert one[2:] == other[2:]
        np.testing.assert_allclose(one.features, other.features, atol=1e-3)
        assert one.score == pytest.approx(other.score, abs=1e-4)


def test_a_picture_without_a_hand_has_no_candidates(client):
    wall = cv2.imencode(".jpg", np.full((240, 320, 3), 150, np.uint8))[1].tobytes()
    answer = post_picture(client, wall).json()
    assert answer["hands"] == []
    assert answer["candidates"] == [{"scores": [], "features": []}] * 2


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"", "image/jpeg", 415),
        (b"no picture", "image/jpeg", 415),
        (JPEG, "text/plain", 415),
        (bytes(live.MAX_BYTES + 1), "image/jpeg", 413),
    ],
    ids=["empty", "text", "another type", "too many bytes"],
)
def test_bad_pictures_are_refused_with_a_message_and_counted(client, body, content_type, status):
    refused = metrics.REFUSED.labels("teach", metrics.REFUSAL_KINDS[status])._value
    before = refused.get()
    response = post_picture(client, body, **{"Content-Type": content_type})
    assert response.status_code == status
    assert response.json()["error"]
    assert refused.get() == before + 1


def test_pictures_have_the_limits_of_frames(client, monkeypatch):
    monkeypatch.setattr(live, "MAX_STREAMS", 1)
    live.streams["a camera"] = live.Stream("a client", last_frame=math.inf)
    response = post_picture(client)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")


# Learning


@pytest.fixture(scope="module")
def pictures() -> list[dict]:
    """What the page sends of three rounds, in which each count stands for the next one, and of a room."""

    def features(image: np.ndarray, target: int, round_: int) -> dict:
        answer = teach.predict(cv2.imencode(".jpg", image[..., ::-1])[1].tobytes())
        return {"target": target, "round": round_, "candidates": answer["candidates"]}

    hands = [
        features(decode(SAMPLES / f"{count}R_{round_}.jpg"), len(COUNTS) + (count + 1) % len(COUNTS), round_)
        for round_ in ROUNDS
        for count in COUNTS
        for _ in range(2)
    ]
    return [*(features(np.full((240, 320, 3), 150, np.uint8), NO_HAND, round_) for round_ in ROUNDS), *hands]


def post_pictures(client: httpx.Client, pictures: object) -> httpx.Response:
    return client.post("/api/fit", json={"pictures": pictures})


def post_body(client: httpx.Client, body: bytes) -> httpx.Response:
    return client.post("/api/fit", content=body, headers={"Content-Type": "application/json"})


def test_a_head_is_learned_that_predicts_otherwise(client, pictures):
    response = post_pictures(client, pictures)
    assert response.status_code == 200
    answer = response.json()
    head = PersonalHead.from_json(answer["head"].encode())
    assert head.figures.helped
    assert (head.figures.hands, head.figures.empty) == (36, 3)
    assert len(answer["before"]) == len(answer["after"]) == len(pictures)
    # The room comes first, which was right before.
    assert answer["before"][:3] == answer["after"][:3] == [True] * 3
    assert sum(answer["before"][3:]) == head.figures.correct_before
    assert sum(answer["after"][3:]) == head.figures.correct_after
    image = decode(SAMPLES / "3R_2.jpg")
    assert (shared_counter()(image).total, shared_counter()(image, head).total) == (3, 4)


def test_two_visitors_at_once_learn_from_their_own_pictures(client, pictures, monkeypatch):
    monkeypatch.setattr(teach, "client_address", lambda request: request.headers["client"])
    classes = len(CLASSES)
    usual = [p | {"target": p["target"] if p["target"] >= classes else 6 + (p["target"] - 1) % 6} for p in pictures]

    def learn(visitor: int) -> dict:
        body = json.dumps({"pictures": (pictures, usual)[visitor % 2]})
        headers = {"Content-Type": "application/json", "client": str(visitor)}
        return client.post("/api/fit", content=body, headers=headers).json()

    expected = [json.loads(learn(visitor)["head"]) for visitor in (0, 1)]
    assert expected[0]["weights"] != expected[1]["weights"]
    with ThreadPoolExecutor(4) as pool:
        for visitor, answer in enumerate(pool.map(learn, range(4))):
            assert json.loads(answer["head"]) == expected[visitor % 2]


def test_one_visitor_learns_once_at_a_time(client, pictures, monkeypatch):
    monkeypatch.setattr(teach, "learners", {"testclient"})
    response = post_pictures(client, pictures)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
    monkeypatch.setattr(teach, "learners", {f"{number}" for number in range(teach.MAX_LEARNERS)})
    assert post_pictures(client, pictures).status_code == 503
    monkeypatch.setattr(teach, "learners", set())
    assert post_pictures(client, pictures).status_code == 200
    assert not teach.learners


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda pictures: [], "hardly any picture"),
        (lambda pictures: pictures[:3] * 100, "More light"),
        (lambda pictures: [p for p in pictures if p["target"] == 9] * 2, "two different counts"),
        (lambda pictures: [p | {"round": 1} for p in pictures], "second"),
    ],
    ids=["nothing", "300 pictures without a hand", "one class", "one round"],
)
def test_too_little_to_learn_from_is_answered_in_words(client, pictures, change, words):
    response = post_pictures(client, change(pictures))
    assert response.status_code == 422
    assert words in response.json()["error"]


def test_contradictory_labels_do_not_help(client, pictures):
    shifted = [p | {"target": 6 + (p["target"] + 2 * p["round"] - 3) % 6} for p in pictures if p["target"] < NO_HAND]
    figures = json.loads(post_pictures(client, shifted).json()["head"])["figures"]
    assert not figures["helped"]


def test_500_pictures_are_learned_from_and_more_are_refused(client, pictures):
    many = (pictures * 14)[: teach.MAX_PICTURES]
    assert post_pictures(client, many).status_code == 200
    response = post_pictures(client, [*many, pictures[0]])
    assert response.status_code == 413
    assert "500" in response.json()["error"]


def with_candidates(pictures: list[dict], **fields: object) -> bytes:
    """Return a body whose last picture has other candidates."""
    last = pictures[-1]
    one = last["candidates"][0] | fields
    return json.dumps({"pictures": [*pictures[:-1], last | {"candidates": [one, last["candidates"][1]]}]}).encode()


@pytest.mark.parametrize(
    "body",
    [
        lambda pictures: b"",
        lambda pictures: b"\xff\xd8\xff",
        lambda pictures: b"[" * 100_000,
        lambda pictures: b"[]",
        lambda pictures: b'{"pictures": 3}',
        lambda pictures: b'{"pictures": {"a": 1}}',
        lambda pictures: b'{"pictures": [[]]}',
        lambda pictures: json.dumps({"pictures": [pictures[-1] | {"target": NO_HAND + 1}]}).encode(),
        lambda pictures: json.dumps({"pictures": [pictures[-1] | {"target": -1}]}).encode(),
        lambda pictures: json.dumps({"pictures": [pictures[-1] | {"target": 1.5}]}).encode(),
        lambda pictures: json.dumps({"pictures": [pictures[-1] | {"round": 10**9}]}).encode(),
        lambda pictures: json.dumps({"pictures": [pictures[-1] | {"candidates": []}]}).encode(),
        lambda pictures: json.dumps({"pictures": [pictures[-1] | {"candidates": "ab"}]}).encode(),
        lambda pictures: with_candidates(pictures, features=[[float("nan")] * 112]),
        lambda pictures: with_candidates(pictures, features=[[float("inf")] * 112]),
        lambda pictures: with_candidates(pictures, features=[[500.0] * 112]),
        lambda pictures: with_candidates(pictures, features=[[10**400] * 112]),
        lambda pictures: with_candidates(pictures, features=[["1"] * 112]),
        lambda pictures: with_candidates(pictures, features=[[0.0] * 111]),
        lambda pictures: with_candidates(pictures, features=[]),
        lambda pictures: with_candidates(pictures, scores=[2.0]),
        lambda pictures: with_candidates(pictures, scores=[None]),
        lambda pictures: with_candidates(pictures, scores=[0.5] * 5, features=[[0.0] * 112] * 5),
    ],
    ids=range(23),
)
def test_hostile_bodies_are_refused_in_words(client, pictures, body):
    response = post_body(client, body(pictures))
    assert response.status_code == 400
    assert "not the features of pictures" in response.json()["error"]


def test_a_body_that_is_too_large_or_of_another_type_is_refused(client):
    assert post_body(client, bytes(teach.MAX_BODY_BYTES + 1)).status_code == 413
    response = client.post("/api/fit", content=b"{}", headers={"Content-Type": "text/plain"})
    assert response.status_code == 415, "other sites' forms may send this type"


def test_the_server_keeps_nothing_of_a_visitor(client, pictures):
    post_pictures(client, pictures)
    [hand] = post_picture(client).json()["hands"]
    assert np.argmax(hand["probabilities"]) == CLASSES.index("3L")
    assert len(hand["finger_probabilities"]) == len(FINGERS)
    assert shared_counter().personal is None
