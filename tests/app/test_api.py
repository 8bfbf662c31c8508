"""The HTTP API, through the whole app."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from time import sleep
from urllib.parse import urljoin

import httpx
import pytest
from starlette.requests import Request

import handful.cli as cli
from benchmarks import hostile
from handful import CLASSES, FINGERS, shared_counter
from handful.images import decode
from tests.builders import SAMPLES, counting_on, png, sample_png
from web import api, inference, log, metrics
from web.clients import client_address
from web.decoders import DecodePool

ROOT = Path(__file__).parents[2]
FORM = b'--x\r\nContent-Disposition: form-data; name="file"; filename="h\xc3\xa4nd.png"\r\n\r\n%b\r\n--x--\r\n' % png()


def predict(client: httpx.Client, data: bytes, name: str = "hand.png") -> httpx.Response:
    return client.post("/api/predict", files={"file": (name, data)})


def test_health_reports_the_model(client):
    response = client.get("/api/health")
    assert response.status_code == 200
    health = response.json()
    assert health["status"] == "ok"
    assert health["model"]["file"] == "handful.onnx"
    assert health["model"]["classes"] == list(CLASSES)


def test_predict_returns_what_the_command_line_prints(client, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hand.png").write_bytes(png())
    cli.main(["hand.png"])
    printed = json.loads(capsys.readouterr().out)
    response = predict(client, png())
    assert response.status_code == 200
    returned = response.json()
    assert list(returned) == list(printed)
    assert returned.pop("ms") > 0
    assert printed.pop("ms") > 0
    assert returned == printed


def test_the_answer_has_the_fields_of_the_schema(client):
    schema = client.get("/api/openapi.json").json()["components"]["schemas"]["Hand"]["properties"]
    [hand] = predict(client, sample_png("5L")).json()["hands"]
    assert list(hand) == list(schema)
    assert hand["raised"] == schema["raised"]["items"]["enum"] == list(FINGERS)


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"", 422, "empty"),
        (b"no picture", 415, "PNG"),
        (png()[:60], 422, "damaged"),
        (bytes(api.MAX_BYTES + 1), 413, "20 MB"),
        (bytes(api.MAX_BODY_BYTES + 1), 413, "20 MB"),
        (png((9000, 6000)), 413, "megapixels"),
    ],
    ids=["empty", "text", "truncated", "too many bytes", "too large by its Content-Length", "too many pixels"],
)
def test_bad_images_are_refused_with_a_message(client, data, status, message):
    response = predict(client, data)
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    assert message in response.json()["error"]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"content": png(), "headers": {"content-type": "image/png"}},
        {"files": {"picture": ("hand.png", png())}},
        {"files": [("file", ("a.png", png())), ("file", ("b.png", png()))]},
        {"data": {"file": "hand.png"}},
        {"content": b"--x\r\nno form", "headers": {"content-type": "multipart/form-data; boundary=x"}},
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        {"content": b"", "headers": {"content-type": "multipart/form-data; boundary=x"}},
        {"files": {"file": ("hand.png", png())}, "data": {f"field{i}": "" for i in range(9)}},
        {"files": {"file": ("hand.png", png())}, "data": {"field": "a" * 200_000}},
    ],
    ids=[
        *("empty body", "not a form", "another field", "two files", "a string", "no end", "no boundary", "empty form"),
        *("many fields", "long field"),
    ],
)
def test_a_request_without_one_file_in_a_form_is_a_client_error_and_one_line(client, capsys, arguments):
    log.start()
    response = client.post("/api/predict", **arguments)
    assert response.status_code == 400
    assert response.json()["error"]
    [line] = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["event"], line["kind"]) == ("refused", "request")
    assert not api.requests_by_client


def test_a_picture_is_predicted_with_the_personal_head_beside_it(client):
    file, head = {"file": ("hand.png", sample_png("3L"))}, counting_on()
    response = client.post("/api/predict", files=file, data={"personal": head.to_json()})
    assert [response.json()["total"], predict(client, sample_png("3L")).json()["total"]] == [4, 3]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a personal head"),
        (counting_on().to_json()[:-9], "not a personal head"),
        (re.sub(r'(presence.bias":).*?]', r"\1[NaN]", counting_on().to_json()), "cannot be used"),
        (replace(counting_on(), model="0" * 64).to_json(), "another model"),
    ],
    ids=["empty", "cut off", "NaN", "another model"],
)
def test_a_personal_head_that_cannot_be_used_is_refused_in_words(client, text, words):
    response = client.post("/api/predict", files={"file": ("hand.png", png())}, data={"personal": text})
    assert response.status_code == 400
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [(b"filename*=utf-8''h%C3%A4nd.png", "händ.png"), (b"filename*=UTF-8''x.png; filename=a.png", "a.png")],
)
def test_a_file_may_have_an_extended_name_only(client, names, expected):
    """As urllib3 before version 2 sends names that are not ASCII."""
    body = FORM.replace('filename="händ.png"'.encode(), names)
    response = client.post("/api/predict", content=body, headers={"content-type": "multipart/form-data; boundary=x"})
    assert response.json()["file"] == expected


def test_a_quoted_boundary_is_parsed(client):
    body = FORM.replace(b"--x", b"--a; charset=punycode")
    headers = {"content-type": 'multipart/form-data; charset=x; boundary="a; charset=punycode"'}
    assert client.post("/api/predict", content=body, headers=headers).status_code == 200


def test_a_large_chunked_upload_is_refused_before_its_end():
    """Without a Content-Length, and without an end."""
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        while sent < 4 * api.MAX_BODY_BYTES:
            sent += 1_000_000
            yield bytes(1_000_000)

    messages: list[dict] = []
    body = endless()

    async def receive() -> dict:
        return {"type": "http.request", "body": next(body), "more_body": True}

    async def send(message: dict) -> None:
        messages.append(message)

    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers, "query_string": b""}
    asyncio.run(api.api(scope, receive, send))
    assert messages[0]["status"] == 413
    assert sent < api.MAX_BODY_BYTES + 2_000_000


def test_unknown_paths_and_methods_are_json_errors(client):
    assert client.get("/api/nothing").status_code == 404
    assert client.get("/api/predict").status_code == 405
    assert client.get("/api/nothing").json()["error"]


def test_an_unexpected_error_is_a_json_error(client, monkeypatch):
    def fail(decoder, file, where):
        raise MemoryError

    monkeypatch.setattr(api, "predict_decoded", fail)
    response = predict(client, png())
    assert response.status_code == 503
    assert "Try again" in response.json()["error"]


def test_an_error_of_the_model_is_one_of_its_image_and_is_logged(client, monkeypatch, caplog):
    def fail(*arguments):
        raise RuntimeError("of onnxruntime")

    monkeypatch.setattr(inference, "shared_counter", lambda: fail)
    monkeypatch.setattr(log.LOG, "handlers", [caplog.handler])
    response = predict(client, png())
    assert (response.status_code, "could not process this picture" in response.json()["error"]) == (503, True)
    assert "of onnxruntime" in caplog.text
    monkeypatch.undo()
    assert predict(client, png()).status_code == 200


def test_parallel_requests_get_the_same_predictions_as_sequential_ones(client):
    images = [png((width, 40)) for width in range(40, 72)]
    sequential = [predict(client, image).json() for image in images]
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(lambda image: predict(client, image).json(), images))
    assert [result | {"ms": 0} for result in parallel] == [result | {"ms": 0} for result in sequential]


@pytest.fixture
def slow_prediction(monkeypatch) -> tuple[Event, Event]:
    """Two events of a prediction that takes long: it has started; it may go on."""
    started, go_on = Event(), Event()

    def predict_decoded(decoder, file, *arguments):
        started.set()
        assert go_on.wait(30)
        return shared_counter()(decode(file))

    monkeypatch.setattr(api, "predict_decoded", predict_decoded)
    return started, go_on


def test_health_answers_during_a_prediction(client, slow_prediction):
    started, go_on = slow_prediction
    with ThreadPoolExecutor(1) as pool:
        response = pool.submit(predict, client, png())
        assert started.wait(30)
        assert client.get("/api/health").status_code == 200
        go_on.set()
        assert response.result().status_code == 200


def test_requests_beyond_the_slots_are_refused_with_retry_after(client, slow_prediction, monkeypatch):
    monkeypatch.setattr(api, "MAX_REQUESTS", 4)
    monkeypatch.setattr(api, "MAX_REQUESTS_PER_CLIENT", 3)
    monkeypatch.setattr(api, "client_address", lambda request: request.headers.get("client", "one"))
    _, go_on = slow_prediction
    with ThreadPoolExecutor(4) as pool:
        responses = [pool.submit(predict, client, png()) for _ in range(3)]
        while api.requests_by_client.total() < 3:
            sleep(0.01)
        refused = predict(client, png())
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "1"
        assert "Too many" in refused.json()["error"]
        # Another client still has room, a third one has not.
        file = {"file": ("hand.png", png())}
        responses.append(pool.submit(client.post, "/api/predict", files=file, headers={"client": "two"}))
        while api.requests_by_client.total() < 4:
            sleep(0.01)
        assert client.post("/api/predict", files=file, headers={"client": "three"}).status_code == 503
        go_on.set()
        assert [response.result().status_code for response in responses] == [200] * 4
    assert not api.requests_by_client


def test_an_image_is_answered_before_many_slow_ones_of_another_client(client, monkeypatch):
    pool = DecodePool(2)
    monkeypatch.setattr(api, "shared_pool", lambda: pool)
    monkeypatch.setattr(api, "client_address", lambda request: request.headers.get("client", "one"))
    slow = hostile.SLOW["JPEG"]()
    for decoder in pool.decoders:
        decoder.decode(png())
    with ThreadPoolExecutor(4) as threads:
        others = [threads.submit(predict, client, slow) for _ in range(4)]
        while api.requests_by_client["one"] < 4:
            sleep(0.01)
        files, headers = {"file": ("hand.png", png())}, {"client": "two"}
        assert client.post("/api/predict", files=files, headers=headers).status_code == 200
        assert sum(other.done() for other in others) < 2
    pool.close()


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("8.8.8.8", "", "8.8.8.8"),
        ("8.8.8.8", "198.51.100.1", "8.8.8.8"),  # not through a proxy: the header is made up
        ("::ffff:8.8.8.8", "198.51.100.1", "::ffff:8.8.8.8"),
        ("::ffff:172.17.0.1", "198.51.100.1", "198.51.100.1"),
        ("172.17.0.1", "198.51.100.1, 198.51.100.2", "198.51.100.2"),
        ("172.17.0.1", "", "172.17.0.1"),
    ],
)
def test_the_address_of_a_client_is_the_one_that_a_proxy_saw(peer, forwarded, address):
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    assert client_address(Request({"type": "http", "headers": headers, "client": (peer, 1)})) == address


@pytest.mark.parametrize("state", ["waiting", "decoding"])
def test_a_client_that_leaves_frees_its_place(monkeypatch, state):
    pool = DecodePool(2)
    monkeypatch.setattr(api, "shared_pool", lambda: pool)
    form = httpx.Request("POST", "http://handful", files={"file": ("a.png", hostile.SLOW["PNG"]())})
    others = [pool.request(f"other {i}") for i in range(2 if state == "waiting" else 0)]
    for decoder in pool.idle:
        decoder.decode(png())

    async def leave() -> None:
        messages = iter([{"type": "http.request", "body": form.read(), "more_body": False}])

        async def receive() -> dict:
            if message := next(messages, None):
                return message
            while not (pool.waiting or pool.running["one"]):
                await asyncio.sleep(0.001)
            return {"type": "http.disconnect"}

        async def send(message: dict) -> None:
            pass

        headers = [(b"content-type", form.headers["content-type"].encode())]
        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers, "query_string": b""}
        await api.api(scope | {"client": ("one", 1)}, receive, send)

    processes = {decoder.process.pid for decoder in pool.decoders}
    asyncio.run(leave())
    stopped = processes - {decoder.process.pid for decoder in pool.decoders}
    assert len(stopped) == (1 if state == "decoding" else 0)
    assert not pool.waiting or pool.waiting[0][1].cancelled()
    assert not api.requests_by_client
    assert pool.running.keys() == {f"other {i}" for i in range(len(others))}
    pool.close()


@pytest.mark.parametrize(("timeout", "status"), [(60, 200), (0.2, 408)], ids=["slow", "too slow"])
def test_an_upload_holds_a_slot_until_it_times_out(monkeypatch, timeout, status):
    monkeypatch.setattr(api, "MAX_REQUESTS", 3)
    monkeypatch.setattr(api, "UPLOAD_TIMEOUT_S", timeout)
    form = httpx.Request("POST", "http://handful", files={"file": ("hand.png", png())})

    async def send(count: int) -> list[httpx.Response]:
        go_on = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield form.read()[:100]
            await go_on.wait()
            yield form.read()[100:]

        async with httpx.AsyncClient(transport=httpx.ASGITransport(api.api), base_url="http://handful") as client:
            posts = [client.post("/predict", content=body(), headers=form.headers) for _ in range(count)]
            responses = [asyncio.create_task(post) for post in posts]
            while sum(response.done() for response in responses) < (count if timeout < 1 else count - 3):
                await asyncio.sleep(0.01)
            go_on.set()
            return await asyncio.gather(*responses)

    responses = asyncio.run(send(20))
    assert Counter(response.status_code for response in responses) == {status: 3, 503: 17}
    for response in (response for response in responses if response.status_code != 200):
        assert ("Too many" if response.status_code == 503 else "too long") in response.json()["error"]
    assert not api.requests_by_client


def test_metrics_count_predictions_and_refusals(client):
    def value(name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return float(next((line.split()[-1] for line in lines if line.startswith(name)), 0))

    names = [
        'handful_reading_seconds_count{where="api"}',
        'handful_refused_total{kind="unknown format",where="api"}',
        'handful_refused_total{kind="unreadable",where="api"}',
        'handful_refused_total{kind="too large",where="api"}',
        'handful_refused_total{kind="request",where="api"}',
    ]
    before = [value(name) for name in names]
    for data in (png(), b"no picture", png()[:60], bytes(api.MAX_BODY_BYTES + 1)):
        predict(client, data)
    client.post("/api/predict")
    assert [value(name) for name in names] == [count + 1 for count in before]


def test_an_unexpected_error_is_counted(client, monkeypatch):
    failures = metrics.REFUSED.labels("api", "failure")._value
    before = failures.get()
    monkeypatch.setattr(api, "predict_decoded", None)
    predict(client, png())
    assert failures.get() == before + 1


def test_docs_load_nothing_from_other_hosts(client):
    page = client.get("/api/docs")
    assert page.status_code == 200
    assert "http" not in page.text.replace("http-equiv", "")


@pytest.mark.parametrize("prefix", ["", "/count"])
def test_addresses_in_the_schema_hold_under_a_path_prefix(client, prefix):
    schema = client.get("/api/openapi.json").json()
    server = urljoin(f"{prefix}/api/openapi.json", schema["servers"][0]["url"])
    assert {server + path for path in schema["paths"]} == {f"{prefix}/api/health", f"{prefix}/api/predict"}


def test_a_prediction_has_the_properties_of_the_schema(client):
    schema = client.get("/api/openapi.json").json()
    content = schema["paths"]["/predict"]["post"]["responses"]["200"]["content"]
    schemas = schema["components"]["schemas"]
    name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
    prediction = predict(client, (SAMPLES / "5L_0.jpg").read_bytes()).json()
    assert list(prediction) == list(schemas[name]["properties"])
    assert list(prediction["hands"][0]) == list(schemas["Hand"]["properties"])


def test_the_example_in_the_readme_is_what_the_api_returns(client):
    example = json.loads(re.search("```json\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)[1])
    response = predict(client, (SAMPLES / "3L_0.jpg").read_bytes(), example["file"]).json()
    [expected], [hand] = example.pop("hands"), response.pop("hands")
    assert example | {"ms": response["ms"]} == response
    assert (expected["fingers"], expected["side"]) == (hand["fingers"], hand["side"])
    assert expected["box"] == pytest.approx(hand["box"], abs=1)
    for name, probability in hand["probabilities"].items():
        assert expected["probabilities"].get(name, probability) == pytest.approx(probability, abs=0.002)
