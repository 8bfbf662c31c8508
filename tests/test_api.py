"""The HTTP API, through the whole app."""

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from time import sleep

import httpx
import pytest
from anyio import CapacityLimiter
from PIL import Image
from starlette.testclient import TestClient

import app
import model.__main__ as cli
from model import CLASSES
from pages.log import start


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app.app, raise_server_exceptions=False) as client:
        yield client


def png(size: tuple[int, int] = (60, 40)) -> bytes:
    data = io.BytesIO()
    Image.linear_gradient("L").resize(size).save(data, "PNG")
    return data.getvalue()


def predict(client: httpx.Client, data: bytes, name: str = "hand.png") -> httpx.Response:
    return client.post("/api/predict", files={"file": (name, data)})


def test_health_tells_the_model(client):
    answer = client.get("/api/health")
    assert answer.status_code == 200
    health = answer.json()
    assert health["status"] == "ok"
    assert health["model"]["file"] == "handful.onnx"
    assert health["model"]["classes"] == list(CLASSES)


def test_predict_answers_what_the_command_line_prints(client, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hand.png").write_bytes(png())
    cli.main(["hand.png"])
    printed = json.loads(capsys.readouterr().out)
    answer = predict(client, png())
    assert answer.status_code == 200
    answered = answer.json()
    assert list(answered) == list(printed)
    assert answered.pop("ms") > 0
    assert printed.pop("ms") > 0
    assert answered == printed


@pytest.mark.parametrize(
    ("data", "status", "told"),
    [
        (b"", 422, "empty"),
        (b"no picture", 415, "PNG"),
        (png()[:60], 422, "damaged"),
        (bytes(app.MAX_BYTES + 1), 413, "20 MB"),
        (bytes(app.MAX_BODY + 1), 413, "20 MB"),
        (png((9000, 6000)), 413, "megapixels"),
    ],
    ids=["empty", "text", "damaged", "bytes", "bytes, told at once", "pixels"],
)
def test_bad_pictures_are_refused_in_words(client, data, status, told):
    answer = predict(client, data)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert told in answer.json()["error"]


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"content": png(), "headers": {"content-type": "image/png"}},
        {"files": {"picture": ("hand.png", png())}},
        {"files": [("file", ("a.png", png())), ("file", ("b.png", png()))]},
        {"data": {"file": "hand.png"}},
        {"content": b"--x\r\nno form", "headers": {"content-type": "multipart/form-data; boundary=x"}},
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        {"content": b"", "headers": {"content-type": "multipart/form-data; boundary=x"}},
    ],
    ids=["nothing", "no form", "another field", "two files", "a name", "no end", "no boundary", "an empty form"],
)
def test_without_a_file_there_is_no_reading(client, request_):
    answer = client.post("/api/predict", **request_)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_a_large_upload_is_refused_before_all_of_it_is_there(client):
    """Chunked: its length is not told, and it would never end."""
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        while sent < 4 * app.MAX_BODY:
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
    asyncio.run(app.api(scope, receive, send))
    assert messages[0]["status"] == 413
    assert sent < app.MAX_BODY + 2_000_000


def test_unknown_paths_and_methods_are_told_as_json(client):
    assert client.get("/api/nothing").status_code == 404
    assert client.get("/api/predict").status_code == 405
    assert client.get("/api/nothing").json()["error"]


def test_the_unexpected_is_json_too(client, monkeypatch):
    def fail(file):
        raise MemoryError

    monkeypatch.setattr(app, "read", fail)
    answer = predict(client, png())
    assert answer.status_code == 503
    assert "Try again" in answer.json()["error"]


def test_many_at_once_are_all_answered(client):
    pictures = [png((width, 40)) for width in range(40, 72)]
    alone = [predict(client, picture).json() for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda picture: predict(client, picture).json(), pictures))
    assert [answer | {"ms": 0} for answer in together] == [answer | {"ms": 0} for answer in alone]


@pytest.fixture
def slow(monkeypatch):
    """Events of a reading that takes its time: it has started; it may go on."""
    started, go_on = Event(), Event()

    def read(file):
        started.set()
        assert go_on.wait(30)
        return app.shared_counter()(app.decode(file))

    monkeypatch.setattr(app, "read", read)
    return started, go_on


def test_past_its_queue_it_asks_to_come_again(client, slow, monkeypatch):
    monkeypatch.setattr(app, "QUEUE", 2)
    monkeypatch.setattr(app, "readers", CapacityLimiter(1))
    started, go_on = slow
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(predict, client, png()) for _ in range(3)]
        assert started.wait(30)
        while app.readers.statistics().tasks_waiting < 2:
            sleep(0.01)
        refused = predict(client, png())
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "1"
        assert "Too many" in refused.json()["error"]
        go_on.set()
        assert [answer.result().status_code for answer in answers] == [200] * 3


def test_metrics_count_what_was_read_and_refused(client):
    def number(line: str) -> float:
        told = client.get("/metrics").text
        return float(next((one.split()[-1] for one in told.splitlines() if one.startswith(line)), 0))

    read, refused = 'handful_reading_seconds_count{where="api"}', 'handful_refused_total{kind="BadImage"}'
    before = number(read), number(refused)
    predict(client, png())
    predict(client, b"no picture")
    assert (number(read), number(refused)) == (before[0] + 1, before[1] + 1)


def test_the_log_is_json_and_tells_nothing_of_the_picture(client, capsys):
    start()  # now: to the stderr that is looked at here
    predict(client, png())
    predict(client, b"no picture")
    read, refused = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert read.keys() == {"time", "level", "event", "milliseconds", "hands"}
    assert (read["event"], read["level"]) == ("picture read", "INFO")
    assert (refused["event"], refused["kind"]) == ("refused", "BadImage")


def test_answers_are_taken_for_nothing_else(client):
    for path in ("/api/health", "/api/docs", "/browser/reader.js", "/browser/handful.onnx"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"] == "frame-ancestors 'self'"


def test_nothing_but_the_browser_s_files_is_served(client):
    for path in (
        "/browser/../app.py",
        "/browser/..%2f..%2fapp.py",
        "/browser/%2e%2e/%2e%2e/app.py",
        "/browser/nothing",
    ):
        answer = client.get(path)
        assert "streamlit run" not in answer.text
    assert client.get("/browser/nothing").status_code == 404


def test_others_do_not_wait_for_a_picture(client, slow):
    started, others_served = slow
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(predict, client, png())
        assert started.wait(30)
        assert client.get("/api/health").status_code == 200
        others_served.set()
        assert answer.result().status_code == 200


def test_docs_need_nothing_from_elsewhere(client):
    page = client.get("/api/docs")
    assert page.status_code == 200
    assert "http" not in page.text.replace("http-equiv", "")
    assert set(client.get("/api/openapi.json").json()["paths"]) == {"/api/health", "/api/predict"}


def test_schema_tells_what_is_answered(client):
    schemas = client.get("/api/openapi.json").json()["components"]["schemas"]
    reading = predict(client, (Path(__file__).parent.parent / "assets/samples/5L_0.jpg").read_bytes()).json()
    assert list(reading) == list(schemas["Reading"]["properties"])
    assert list(reading["hands"][0]) == list(schemas["Hand"]["properties"])


HEAPS = """
import ctypes, re, sys
from threading import Barrier, Thread
from starlette.testclient import TestClient
import app

with TestClient(app.app):
    met = Barrier(13)
    def work():
        held = bytearray(10_000)
        met.wait()
    for _ in range(12):
        Thread(target=work).start()
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
    libc.malloc_info(0, file)
    libc.fclose(file)
    met.wait()
print(len(re.findall("<heap nr", open(sys.argv[1]).read())))
"""


@pytest.mark.skipif(not hasattr(os, "confstr") or "CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="glibc's heaps")
def test_threads_come_and_go_without_a_heap_each(tmp_path):
    heaps = subprocess.run([sys.executable, "-c", HEAPS, tmp_path / "heaps.xml"], capture_output=True, check=True)
    # Two, and those that threads took before the app was there.
    assert int(heaps.stdout) <= 6


def test_what_live_needs_is_there_before_a_visitor_asks():
    code = """
import sys, time
from starlette.testclient import TestClient
import app

assert "aiortc" not in sys.modules
with TestClient(app.app):
    start = time.monotonic()
    while not {"aiortc", "pandas"} <= sys.modules.keys():
        assert time.monotonic() - start < 30
        time.sleep(0.05)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("cameras", "kept"), [(0, False), (1, True)])
def test_what_visitors_left_is_let_go_of_once_nobody_streams(cameras, kept):
    code = f"""
import asyncio, gc, time, weakref
from starlette.testclient import TestClient
import app
from pages import metrics

app.TIDY = 0.1
gc.disable()  # as on a server where nothing happens
metrics.STREAMS.inc({cameras})
loop = asyncio.new_event_loop()
loop.itself = loop  # as a visit's, which is part of a circle
left = weakref.ref(loop)
del loop
with TestClient(app.app):
    time.sleep(2)
    assert (left() is not None) == {kept}
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
