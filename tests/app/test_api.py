"""The HTTP API, through the whole app."""

import asyncio
import codecs
import gzip
import io
import json
import logging
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from threading import Event, Semaphore
from time import sleep
from urllib.parse import urljoin

import httpx
import pytest
import streamlit as st
from anyio import CapacityLimiter
from PIL import Image
from starlette.testclient import TestClient
from streamlit import config
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.testing.v1 import AppTest

import app
import handful.cli as cli
import web.uploads
from handful import CLASSES, shared_counter
from handful.images import decode
from web import browser_camera as browser
from web import inference as metrics
from web.log import start
from web.uploads import FULL

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app.app, raise_server_exceptions=False) as client:
        yield client


def png(size: tuple[int, int] = (60, 40)) -> bytes:
    data = io.BytesIO()
    Image.linear_gradient("L").resize(size).save(data, "PNG")
    return data.getvalue()


FORM = b'--x\r\nContent-Disposition: form-data; name="file"; filename="h\xc3\xa4nd.png"\r\n\r\n%b\r\n--x--\r\n' % png()


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
        {"files": {"file": ("hand.png", png())}, "data": {f"field{i}": "" for i in range(9)}},
        {"files": {"file": ("hand.png", png())}, "data": {"field": "a" * 5000}},
    ],
    ids=[
        *("nothing", "no form", "another field", "two files", "a name", "no end", "no boundary", "an empty form"),
        *("many fields", "a long field"),
    ],
)
def test_without_a_file_there_is_no_reading(client, request_):
    answer = client.post("/api/predict", **request_)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_a_boundary_in_quotes_is_kept(client):
    body = FORM.replace(b"--x", b"--a; charset=punycode")
    headers = {"content-type": 'multipart/form-data; charset=x; boundary="a; charset=punycode"'}
    assert client.post("/api/predict", content=body, headers=headers).status_code == 200


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
        return app.shared_counter()(decode(file))

    monkeypatch.setattr(app, "read", read)
    return started, go_on


def test_past_its_places_it_asks_to_come_again(client, slow, monkeypatch):
    monkeypatch.setattr(app, "places", CapacityLimiter(3))
    monkeypatch.setattr(app, "readers", CapacityLimiter(1))
    _, go_on = slow
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(predict, client, png()) for _ in range(3)]
        while app.readers.statistics().tasks_waiting < 2:
            sleep(0.01)
        refused = predict(client, png())
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "1"
        assert "Too many" in refused.json()["error"]
        go_on.set()
        assert [answer.result().status_code for answer in answers] == [200] * 3


@pytest.mark.parametrize(("patience", "status"), [(60, 200), (0.2, 408)], ids=["slow", "too slow"])
def test_pictures_on_their_way_take_places_too_for_so_long(monkeypatch, patience, status):
    monkeypatch.setattr(app, "places", CapacityLimiter(3))
    monkeypatch.setattr(app, "PATIENCE", patience)
    form = httpx.Request("POST", "http://handful", files={"file": ("hand.png", png())})

    async def send(many: int) -> list[httpx.Response]:
        come = asyncio.Event()

        async def upload() -> AsyncIterator[bytes]:
            yield form.read()[:100]
            await come.wait()
            yield form.read()[100:]

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app.api), base_url="http://handful") as client:
            posts = [client.post("/predict", content=upload(), headers=form.headers) for _ in range(many)]
            answers = [asyncio.create_task(post) for post in posts]
            while sum(one.done() for one in answers) < (many if patience < 1 else many - 3):
                await asyncio.sleep(0.01)
            come.set()
            return await asyncio.gather(*answers)

    answers = asyncio.run(send(20))
    assert Counter(answer.status_code for answer in answers) == {status: 3, 503: 17}
    for refused in (answer for answer in answers if answer.status_code != 200):
        assert ("Too many" if refused.status_code == 503 else "too long") in refused.json()["error"]
    assert app.places.available_tokens == 3


async def upload(names: range, patience: float = 60) -> list[int]:
    """Send a file of 0.9 MB under each name, all at once, as a page does; none goes on before all have begun."""
    begun, all_begun = Counter[int](), asyncio.Event()

    async def send(client: httpx.AsyncClient, name: int) -> int:
        form = httpx.Request("PUT", "http://handful", files={"f": ("hand.mp4", bytes(900_000))})

        async def parts() -> AsyncIterator[bytes]:
            begun[name] = 1
            yield form.read()[:1000]
            if len(begun) == len(names):
                all_begun.set()
            await all_begun.wait()
            await asyncio.sleep(2 * patience if patience < 1 else 0)
            yield form.read()[1000:]

        headers = {**form.headers, "X-Xsrftoken": client.cookies["_streamlit_xsrf"]}
        answer = await client.put(f"/_stcore/upload_file/visit/{name}", content=parts(), headers=headers)
        return answer.status_code

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app.app), base_url="http://handful") as client:
        await client.get("/_stcore/health")
        return await asyncio.gather(*(send(client, name) for name in names))


@pytest.fixture
def uploads(client, monkeypatch) -> Iterator[MemoryUploadedFileManager]:
    """What is uploaded, 1 MB at most in a file, by a visit that goes on."""
    runtime, megabytes = st.runtime.get_instance(), config.get_option("server.maxUploadSize")
    monkeypatch.setattr(runtime, "is_active_session", lambda visit: True)
    config.set_option("server.maxUploadSize", 1)
    yield runtime.uploaded_file_mgr
    config.set_option("server.maxUploadSize", megabytes)
    runtime.uploaded_file_mgr.remove_session_files("visit")


@pytest.mark.parametrize("charset", ["punycode", "undefined", "unicode_escape", "no-codec-has-this-name"])
@pytest.mark.parametrize("way", ["api", "upload"])
def test_the_charset_that_a_form_names_is_never_used(client, uploads, way, charset):
    """Python's punycode takes minutes for a megabyte, and unknown names would stay in the cache of its codecs."""
    asked: list[str] = []
    headers = {"content-type": f"multipart/form-data; boundary=x; charset={charset}"}
    search = asked.append
    codecs.register(search)  # called with the name of each codec that Python does not know yet
    try:
        if way == "api":
            name = client.post("/api/predict", content=FORM, headers=headers).json()["file"]
        else:
            client.get("/_stcore/health")
            headers["X-Xsrftoken"] = client.cookies["_streamlit_xsrf"]
            client.put("/_stcore/upload_file/visit/file", content=FORM, headers=headers).raise_for_status()
            [record] = uploads.get_files("visit", ["file"])
            name = record.name
    finally:
        codecs.unregister(search)
    assert name == "händ.png"
    assert "no-codec-has-this-name" not in " ".join(asked).replace("_", "-")


def test_uploads_are_taken_while_there_is_room_for_all_of_them(uploads):
    def kept(names: range) -> list[tuple[str, bytes]]:
        return [(file.name, file.data) for file in uploads.get_files("visit", list(map(str, names)))]

    there, without_room = ("hand.mp4", bytes(900_000)), ("hand.mp4", FULL)
    assert asyncio.run(upload(range(7))) == [204] * 7
    assert Counter(kept(range(7))) == {there: 5, without_room: 2}
    asyncio.run(upload(range(7, 8)))
    assert kept(range(7, 8)) == [without_room]
    uploads.remove_file("visit", str(kept(range(7)).index(there)))
    asyncio.run(upload(range(8, 9)))
    assert kept(range(8, 9)) == [there]


def test_uploads_that_stop_coming_make_room_and_are_no_news(uploads, monkeypatch, capsys):
    start()
    monkeypatch.setattr(web.uploads, "PATIENCE", 0.1)
    assert asyncio.run(upload(range(5), 0.1)) == [408] * 5
    assert asyncio.run(upload(range(5))) == [204] * 5
    assert all(file.data != FULL for file in uploads.get_files("visit", list("01234")))
    assert not capsys.readouterr().err


def test_the_copy_of_an_upload_that_a_page_gets_shares_its_bytes():
    page = AppTest.from_string("import streamlit as st\nst.file_uploader('A film', key='film')")
    page.run().file_uploader[0].upload("hand.mp4", bytes(1000), "video/mp4").run()
    film = page.session_state["film"]
    copy = deepcopy(film)
    assert copy is not film
    assert copy.getvalue() is film.getvalue()
    assert (copy, copy.name, copy.type, copy.size) == (film, "hand.mp4", "video/mp4", 1000)
    assert (len(copy.read()), len(film.read())) == (1000, 1000), "each is read from its start"


@pytest.mark.parametrize("name", ["videos", "pictures"])
def test_a_file_without_room_is_told_so_and_counted(name):
    def count() -> float:
        return metrics.REGISTRY.get_sample_value("handful_refused_total", {"where": name, "kind": "busy"}) or 0

    before = count()
    page = AppTest.from_file(ROOT / f"pages/{name}.py", default_timeout=60).run()
    page.file_uploader[0].upload("hand.mp4", FULL, "video/mp4").run()
    assert not page.exception
    assert page.error[0].value == web.uploads.NO_ROOM
    assert count() == before + 1


def test_metrics_count_what_was_read_and_refused(client):
    def number(line: str) -> float:
        told = client.get("/metrics").text
        return float(next((one.split()[-1] for one in told.splitlines() if one.startswith(line)), 0))

    counts = [
        'handful_reading_seconds_count{where="api"}',
        'handful_refused_total{kind="unknown format",where="api"}',
        'handful_refused_total{kind="unreadable",where="api"}',
        'handful_refused_total{kind="too large",where="api"}',
        'handful_refused_total{kind="request",where="api"}',
    ]
    before = [number(count) for count in counts]
    for data in (png(), b"no picture", png()[:60], bytes(app.MAX_BODY + 1)):
        predict(client, data)
    client.post("/api/predict")
    assert [number(count) for count in counts] == [count + 1 for count in before]


def test_the_log_is_json_and_tells_nothing_of_the_picture(client, capsys):
    start()  # now: to the stderr that is looked at here
    predict(client, png())
    predict(client, b"no picture")
    read, refused = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert read.keys() == {"time", "level", "event", "where", "milliseconds", "hands"}
    assert (read["event"], read["level"], read["where"]) == ("picture read", "INFO", "api")
    assert refused.keys() == {"time", "level", "event", "where", "kind"}
    assert (refused["event"], refused["where"], refused["kind"]) == ("refused", "api", "unknown format")


@pytest.mark.parametrize(
    ("where", "widget", "file", "kind"),
    [
        ("pictures", "file_uploader", ("hand.jpg", png(), "image/jpeg"), None),
        ("pictures", "file_uploader", ("hand.jpg", b"no picture", "image/jpeg"), "unknown format"),
        ("live", "camera_input", ("hand.jpg", png(), "image/jpeg"), None),
        ("live", "camera_input", ("hand.jpg", png()[:60], "image/jpeg"), "unreadable"),
        ("videos", "file_uploader", ("hand.mp4", b"no film", "video/mp4"), "unreadable"),
    ],
    ids=["picture", "no picture", "camera", "damaged", "no film"],
)
def test_what_pages_read_and_refuse_is_counted_and_logged_too(capsys, monkeypatch, where, widget, file, kind):
    def count() -> float:
        if kind:
            return metrics.REGISTRY.get_sample_value("handful_refused_total", {"where": where, "kind": kind}) or 0
        return metrics.REGISTRY.get_sample_value("handful_reading_seconds_count", {"where": where}) or 0

    monkeypatch.setattr(browser, "camera", lambda *args, **kwargs: {"running": False, "problem": "runtime"})
    page = AppTest.from_file(ROOT / f"pages/{where}.py", default_timeout=60)
    page.session_state["read"] = "browser"
    page.run()
    before = count()
    start()
    getattr(page, widget)[0].upload(*file).run()
    assert not page.exception
    assert count() == before + 1
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    told = (where, "refused" if kind else "picture read", kind)
    assert told in [(line.get("where"), line["event"], line.get("kind")) for line in lines]


@pytest.mark.parametrize("edited", [False, True], ids=["", "after config.toml was edited"])
def test_what_nothing_caught_is_logged_as_json_alone_and_no_visitor_s_address(capsys, edited):
    start()
    if edited:  # Streamlit looks at it again and again, and sets up its own log anew
        config.get_config_options(force_reparse=True)
    AppTest.from_string("1 / 0").run()
    server = logging.getLogger("uvicorn.error")
    server.info('127.0.0.1:43398 - "WebSocket /_stcore/stream" [accepted]')
    logging.getLogger("uvicorn.access").info('127.0.0.1:43398 - "GET /api/health HTTP/1.1" 200')
    server.error("Exception in ASGI application", exc_info=MemoryError())
    told = capsys.readouterr().err
    assert "127.0.0.1" not in told
    assert not re.search("^(Traceback|Exception)", told, re.M)
    page, request = (json.loads(line) for line in told.splitlines() if line.startswith("{"))
    assert "ZeroDivisionError" in page["exc_info"]
    assert "MemoryError" in request["exc_info"]


def test_answers_are_taken_for_nothing_else(client, monkeypatch):
    monkeypatch.setattr(app, "read", None)  # an unexpected error
    there = ("/api/health", "/api/docs", "/browser/worker.js", "/browser/handful.onnx", "/metrics")
    answers = [client.get(path) for path in (*there, "/api/nothing", "/browser/nothing")]
    answers += [predict(client, bytes(app.MAX_BODY + 1)), predict(client, png())]
    assert [answer.status_code for answer in answers] == [*[200] * 5, 404, 404, 413, 503]
    for headers in (answer.headers for answer in answers):
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"] == "frame-ancestors 'self'"


def test_the_model_is_sent_as_it_is(client):
    """It would be compressed anew for each visitor, by a seventh."""
    answer = client.get("/browser/handful.onnx", headers={"Accept-Encoding": "gzip"})
    assert answer.content == shared_counter().path.read_bytes()
    assert int(answer.headers["Content-Length"]) == len(answer.content)


def test_after_an_update_no_browser_takes_what_it_kept_from_before(client):
    script = client.get("/browser/camera.js")
    assert script.headers["Cache-Control"] == "no-cache"
    unchanged = client.get("/browser/camera.js", headers={"If-None-Match": script.headers["ETag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    # The model is asked for by its checksum: another one has another address.
    assert browser.component_data()["model"] == f"handful.onnx?{shared_counter().sha256}"
    assert "immutable" in client.get("/browser/handful.onnx").headers["Cache-Control"]


def test_what_lies_there_compressed_is_sent_so_to_whom_takes_it(client, tmp_path, monkeypatch):
    raw = bytes(range(256)) * 4
    (tmp_path / "a.wasm").write_bytes(raw)
    (tmp_path / "a.wasm.gz").write_bytes(packed := gzip.compress(raw, 1))
    monkeypatch.setattr(app.browser.routes[-1].app, "all_directories", [tmp_path])
    for takes, size, told in (("gzip, br", len(packed), "gzip"), ("identity", len(raw), None)):
        answer = client.get("/browser/a.wasm", headers={"Accept-Encoding": takes})
        assert answer.content == raw
        assert int(answer.headers["Content-Length"]) == size
        assert answer.headers.get("Content-Encoding") == told
        assert answer.headers["Content-Type"] == "application/wasm"
        assert answer.headers["Vary"] == "Accept-Encoding"
        again = {"Accept-Encoding": takes, "If-None-Match": answer.headers["ETag"]}
        assert client.get("/browser/a.wasm", headers=again).status_code == 304


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


def test_no_more_pictures_are_decoded_at_once_than_there_are_cores(monkeypatch):
    monkeypatch.setattr(metrics, "turns", Semaphore(0))
    decoded = Event()
    monkeypatch.setattr(metrics, "decode", lambda source: decoded.set() or decode(source))
    with ThreadPoolExecutor(1) as pool:
        prediction = pool.submit(metrics.read_picture, png(), "pictures")
        assert not decoded.wait(0.1)
        metrics.turns.release()
        assert prediction.result(30).width == 60
    assert metrics.turns.acquire(blocking=False)


def test_docs_need_nothing_from_elsewhere(client):
    page = client.get("/api/docs")
    assert page.status_code == 200
    assert "http" not in page.text.replace("http-equiv", "")


@pytest.mark.parametrize("prefix", ["", "/count"])
def test_the_schema_leads_to_the_api_wherever_a_proxy_puts_it(client, prefix):
    schema = client.get("/api/openapi.json").json()
    api = urljoin(f"{prefix}/api/openapi.json", schema["servers"][0]["url"])
    assert {api + path for path in schema["paths"]} == {f"{prefix}/api/health", f"{prefix}/api/predict"}


def test_schema_tells_what_is_answered(client):
    schemas = client.get("/api/openapi.json").json()["components"]["schemas"]
    prediction = predict(client, (ROOT / "assets/samples/5L_0.jpg").read_bytes()).json()
    assert list(prediction) == list(schemas["Reading"]["properties"])
    assert list(prediction["hands"][0]) == list(schemas["Hand"]["properties"])


def test_the_readme_shows_what_is_answered(client):
    told = json.loads(re.search("```json\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)[1])
    answer = predict(client, (ROOT / "assets/samples/3L_0.jpg").read_bytes(), told["file"]).json()
    [shown], [hand] = told.pop("hands"), answer.pop("hands")
    assert told | {"ms": answer["ms"]} == answer
    assert (shown["fingers"], shown["side"]) == (hand["fingers"], hand["side"])
    assert shown["box"] == pytest.approx(hand["box"], abs=1)
    for name, share in hand["probabilities"].items():
        assert shown["probabilities"].get(name, share) == pytest.approx(share, abs=0.002)


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


def test_what_visitors_left_is_let_go_of_once_nobody_streams():
    code = """
import asyncio, gc, math, time, weakref
import streamlit as st
from starlette.testclient import TestClient
from streamlit import config
from streamlit.runtime.uploaded_file_manager import UploadedFileRec
import app
from web import inference as metrics

app.TIDY = 0.1
config.set_option("server.disconnectedSessionTTL", 0)
gc.disable()  # as on a server where nothing happens
metrics.last_frames["a camera"] = math.inf
loop = asyncio.new_event_loop()
loop.itself = loop  # as a visit's, which is part of a circle
left = weakref.ref(loop)
del loop
with TestClient(app.app) as client:
    runtime = st.runtime.get_instance()
    with client.websocket_connect("/_stcore/stream"):
        visit = runtime._session_mgr.list_active_sessions()[0].session.id
        runtime.uploaded_file_mgr.add_file(visit, UploadedFileRec("1", "hand.mp4", "video/mp4", bytes(9)))
    time.sleep(0.5)
    assert left()
    metrics.last_frames.clear()
    start = time.monotonic()
    while left() or runtime.uploaded_file_mgr.get_stats():
        assert time.monotonic() - start < 30
        time.sleep(0.05)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.skipif(app.glibc() is None, reason="only glibc keeps what is freed")
def test_memory_between_what_is_in_use_is_given_back():
    code = """
import os, time
from starlette.testclient import TestClient
import app
from benchmarks.largest import resident

app.TIDY = 0.1
app.import_ahead = lambda: None  # which would take memory meanwhile
with TestClient(app.app):
    parts = [bytes(65_536) for _ in range(2000)]
    start, before = time.monotonic(), resident(os.getpid())
    kept = parts[::50]
    del parts
    while resident(os.getpid()) > before - 80:
        assert time.monotonic() - start < 30
        time.sleep(0.05)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
