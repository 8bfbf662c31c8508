"""The server around the pages: static files, headers, redirects, the log, and what runs in the background."""

import asyncio
import gzip
import json
import logging
import os
import platform
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from threading import Thread
from urllib.parse import urljoin

import psutil
import pytest
import uvicorn
from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocketDisconnect
from streamlit import config
from streamlit.testing.v1 import AppTest

import app
from benchmarks import ROOT
from benchmarks.app_server import run_app
from benchmarks.dockerfile import free_port, request_json
from handful import FingerCounter, shared_counter
from handful.images import decode
from tests.app.pages import load_page, sent_to_the_browser
from tests.app.test_api import predict
from tests.builders import SAMPLES, counting_on, png
from web import api, live, log, metrics, streamlit_patches, teach, tidy
from web import browser_camera as browser


def run_python(code: str) -> None:
    """Run code in a new process: some tests need the app to start there."""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads by /proc")
def test_learning_has_no_threads_of_its_own():
    """On a busy machine they wait for each other: a fit would take ten times the CPU time."""
    run_python("""
import os
import app
import numpy as np
np.ones((1000, 1000)) @ np.ones((1000, 1000))
assert len(os.listdir("/proc/self/task")) == 1
""")


# Addresses and headers


@pytest.mark.parametrize("prefix", ["", "/count"])
@pytest.mark.parametrize(("old", "new"), [("films", "videos"), ("record", "teach")])
def test_old_page_addresses_redirect_also_under_a_path_prefix(client, old, new, prefix):
    response = client.get(f"/{old}", follow_redirects=False)
    assert response.status_code == 308
    # A proxy strips its prefix from requests, and leaves the Location alone.
    assert urljoin(f"http://host{prefix}/{old}", response.headers["Location"]) == f"http://host{prefix}/{new}"
    assert client.get(f"/{old}").status_code == 200


def test_the_first_page_starts_to_load_the_model(client):
    page = client.get("/").text
    head, rest = page.split('<script type="application/json" id="handful-model">')
    assert head.rstrip().endswith("<head>"), "before all of Streamlit's own code"
    assert json.loads(rest.partition("</script>")[0]) == json.loads(json.dumps(browser.model_data()))
    assert 'src="browser/preload.js"' in rest
    assert '<div id="root">' in rest


def test_responses_have_security_headers_also_on_errors(client, monkeypatch):
    monkeypatch.setattr(api, "predict_decoded", None)  # an unexpected error
    paths = ("/api/health", "/api/docs", "/browser/worker.js", "/browser/handful.onnx", "/metrics")
    responses = [client.get(path) for path in (*paths, "/api/nothing", "/browser/nothing")]
    responses += [predict(client, bytes(api.MAX_BODY_BYTES + 1)), predict(client, png())]
    assert [response.status_code for response in responses] == [*[200] * 5, 404, 404, 413, 503]
    for headers in (response.headers for response in responses):
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"] == "frame-ancestors 'self'"


def test_the_model_is_served_uncompressed(client):
    """Streamlit would compress it for each visitor, to save a seventh."""
    response = client.get("/browser/handful.onnx", headers={"Accept-Encoding": "gzip"})
    assert response.content == shared_counter().path.read_bytes()
    assert int(response.headers["Content-Length"]) == len(response.content)


def test_browsers_get_the_model_with_the_personal_head_of_the_server(client, tmp_path, monkeypatch):
    (tmp_path / "my-hand.json").write_text(counting_on().to_json())
    monkeypatch.setenv("HANDFUL_PERSONAL", str(tmp_path / "my-hand.json"))
    shared_counter.cache_clear()
    try:
        address = browser.live_data({})["model"]
        assert not address.endswith(shared_counter().sha256), "or browsers would use the one that they have"
        response = client.get(f"/browser/{address}")
        assert "immutable" in response.headers["Cache-Control"]
        (tmp_path / "taught.onnx").write_bytes(response.content)
        assert FingerCounter(tmp_path / "taught.onnx")(decode(SAMPLES / "3L_0.jpg")).total == 4
        assert browser.heads_data()["model"] == shared_counter().sha256, "heads of visitors are of the file without it"
    finally:
        shared_counter.cache_clear()


def test_scripts_are_revalidated_and_the_model_is_cached_by_its_checksum(client):
    script = client.get("/browser/live.js")
    assert script.headers["Cache-Control"] == "no-cache"
    unchanged = client.get("/browser/live.js", headers={"If-None-Match": script.headers["ETag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert browser.live_data({})["model"] == f"handful.onnx?{shared_counter().sha256}"


def test_a_precompressed_file_is_served_to_clients_that_accept_gzip(client, tmp_path, monkeypatch):
    raw = bytes(range(256)) * 4
    (tmp_path / "a.wasm").write_bytes(raw)
    (tmp_path / "a.wasm.gz").write_bytes(compressed := gzip.compress(raw, 1))
    monkeypatch.setattr(app.browser_files.routes[-1].app, "all_directories", [tmp_path])
    cases = [(accepted, len(compressed), "gzip") for accepted in ("gzip, br", "br;q=1, GZIP;q=0.5")]
    cases += [(accepted, len(raw), None) for accepted in ("identity", "gzip;q=0", "br, gzip; q=0.000", "xgzip")]
    for accepted, size, encoding in cases:
        response = client.get("/browser/a.wasm", headers={"Accept-Encoding": accepted})
        assert response.content == raw
        assert int(response.headers["Content-Length"]) == size
        assert response.headers.get("Content-Encoding") == encoding
        assert response.headers["Content-Type"] == "application/wasm"
        assert response.headers["Vary"] == "Accept-Encoding"
        cached = {"Accept-Encoding": accepted, "If-None-Match": response.headers["ETag"]}
        assert client.get("/browser/a.wasm", headers=cached).status_code == 304


def test_the_model_is_cached_for_good_only_under_its_checksum(client):
    headers = client.get(f"/browser/handful.onnx?{shared_counter().sha256}").headers
    assert "immutable" in headers["Cache-Control"]
    for query in ("", "?", "?0"):
        assert client.get(f"/browser/handful.onnx{query}").headers["Cache-Control"] == "no-cache"


def test_a_slash_at_the_end_of_an_address_of_the_api_does_not_redirect(client):
    assert client.get("/api/health/", follow_redirects=False).status_code == 404


@pytest.mark.parametrize(("forwarded", "embeddable"), [("https", True), ("https,http", True), ("http,https", False)])
def test_the_cookie_follows_the_protocol_that_the_browser_used(client, forwarded, embeddable):
    client.cookies.clear()
    response = client.get("/_stcore/health", headers={"X-Forwarded-Proto": forwarded})
    assert ("SameSite=None; Secure; Partitioned" in response.headers["Set-Cookie"]) == embeddable


def test_only_files_of_the_browser_folder_are_served(client):
    for path in (
        "/browser/../app.py",
        "/browser/..%2f..%2fapp.py",
        "/browser/%2e%2e/%2e%2e/app.py",
        "/browser/nothing",
    ):
        response = client.get(path)
        assert "streamlit run" not in response.text
    assert client.get("/browser/nothing").status_code == 404


# The log


def test_log_lines_are_json_without_any_names(client, capsys):
    log.start()  # to the stderr that capsys has replaced
    predict(client, png())
    predict(client, b"no picture")
    predicted, refused = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert predicted.keys() == {"time", "level", "event", "where", "milliseconds", "hands"}
    assert (predicted["event"], predicted["level"], predicted["where"]) == ("predicted", "INFO", "api")
    assert refused.keys() == {"time", "level", "event", "where", "kind"}
    assert (refused["event"], refused["where"], refused["kind"]) == ("refused", "api", "unknown format")


@pytest.mark.parametrize(
    ("where", "widget", "file", "kind"),
    [
        ("pictures", "file_uploader", ("hand.jpg", png(), "image/jpeg"), None),
        ("pictures", "file_uploader", ("hand.jpg", b"no picture", "image/jpeg"), "unknown format"),
        ("videos", "file_uploader", ("hand.mp4", b"no video", "video/mp4"), "unreadable"),
    ],
    ids=["picture", "no picture", "no video"],
)
def test_predictions_and_refusals_of_pages_are_counted_and_logged(capsys, where, widget, file, kind):
    def count() -> float:
        if kind:
            return metrics.REGISTRY.get_sample_value("handful_refused_total", {"where": where, "kind": kind}) or 0
        return metrics.REGISTRY.get_sample_value("handful_reading_seconds_count", {"where": where}) or 0

    page = load_page(where).run()
    before = count()
    log.start()
    getattr(page, widget)[0].upload(*file).run()
    assert not page.exception
    assert count() == before + 1
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    expected = (where, "refused" if kind else "predicted", kind)
    assert expected in [(line.get("where"), line["event"], line.get("kind")) for line in lines]


@pytest.mark.parametrize("edited", [False, True], ids=["", "after config.toml was edited"])
def test_unhandled_errors_are_logged_as_json_and_addresses_are_not(capsys, edited):
    log.start()
    if edited:  # Streamlit then sets up its own logging anew
        config.get_config_options(force_reparse=True)
    AppTest.from_string("1 / 0").run()
    server = logging.getLogger("uvicorn.error")
    server.info('127.0.0.1:43398 - "WebSocket /_stcore/stream" [accepted]')
    logging.getLogger("uvicorn.access").info('127.0.0.1:43398 - "GET /api/health HTTP/1.1" 200')
    server.error("Exception in ASGI application", exc_info=MemoryError())
    written = capsys.readouterr().err
    assert "127.0.0.1" not in written
    assert not re.search("^(Traceback|Exception)", written, re.M)
    lines = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
    page, request = (line for line in lines if "exc_info" in line)
    assert "ZeroDivisionError" in page["exc_info"]
    assert "MemoryError" in request["exc_info"]


def test_browsers_are_told_nothing_of_an_unhandled_error():
    page = AppTest.from_string("open('/nowhere/hand.png')").run()
    assert page.exception
    assert not re.search("nowhere|FileNotFoundError|line 1", sent_to_the_browser(page))


@pytest.mark.parametrize("error", [ConnectionResetError, ClientDisconnect, asyncio.CancelledError])
def test_a_client_that_leaves_is_one_line_without_a_traceback(capsys, error):
    log.start()
    logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=error())
    [line] = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["event"], line["level"], line["error"]) == ("client left", "INFO", error.__name__)
    assert "exc_info" not in line


# Requests without their end


def half(path: str, content_type: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nContent-Length: 9999\r\n\r\n"
    return head.encode() + b"--x\r\n"


HALVES = {
    "API": half("/api/predict", "multipart/form-data; boundary=x"),
    "Live": half("/api/live?stream=half", "image/jpeg"),
    "Teach": half("/api/fit", "application/json"),
}


@pytest.fixture
def port(client) -> Iterator[int]:
    """A port on which uvicorn serves the whole app."""
    config = uvicorn.Config(app.app, port=0, lifespan="off", log_config=None, access_log=False, timeout_keep_alive=1)
    server = uvicorn.Server(config)
    thread = Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("name", ["API", "Live", "Teach"])
def test_half_of_a_body_is_answered_and_its_connection_closed(port, monkeypatch, name):
    for module in (api, live, teach):
        monkeypatch.setattr(module, "UPLOAD_TIMEOUT_S", 0.2)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection, connection.makefile("rb") as answer:
        connection.sendall(HALVES[name])
        assert answer.read().startswith(b"HTTP/1.1 408")  # and then the end


@pytest.mark.parametrize("breaks", [False, True], ids=["leaves", "breaks"])
@pytest.mark.parametrize("name", HALVES)
def test_a_connection_that_ends_in_a_body_is_one_line_and_frees_its_place(port, capsys, name, breaks):
    log.start()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(HALVES[name])
        wait_until(requests_under_way)
        if breaks:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: not requests_under_way())
    time.sleep(0.1)  # for more lines than that one
    events = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert [event for event in events if event != "stream started"] == ["refused"]


WEBSOCKET = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
CHUNKED = "Host: a\r\nTransfer-Encoding: chunked\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "first", "where"),
    [
        ("", b"", "server"),
        (f"POST /api/predict HTTP/1.1\r\n{CHUNKED}", b"", "api"),
        (f"PUT /_stcore/upload_file/visit/1 HTTP/1.1\r\n{CHUNKED}", b"HTTP/1.1 403", "server"),
    ],
    ids=["no head", "no body", "after the answer"],
)
def test_what_is_no_http_is_answered_once_and_one_line(port, capsys, caplog, head, first, where):
    streamlit_patches.refuse_once()
    log.start()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head.encode())
        time.sleep(0.2)  # for the request to start
        answer = connection.recv(1000) if first else b""
        assert answer.startswith(first)
        connection.sendall(b"no HTTP\r\n\r\n")
        while part := connection.recv(1000):
            answer += part
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(first or b"HTTP/1.1 400")
    time.sleep(0.1)  # for more lines than that one
    [line] = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["event"], line["where"]) == ("refused", where)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize(
    "frame", [b"\x81\x82\0\0\0\0\xff\xfe", b"\x81\x80\0\0\0\0", b"\x81\x81\0\0\0\0x", b"\x82\x81\0\0\0\0\xff"]
)
def test_a_message_that_is_none_of_a_page_is_one_line(port, capsys, caplog, frame):
    """Text that is no UTF-8, empty text, text, and bytes."""
    log.start()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"GET /_stcore/stream HTTP/1.1\r\nHost: a\r\n{WEBSOCKET}\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 101")
        connection.sendall(frame)
        time.sleep(0.3)  # for the answer, and for more lines than one
    refusals = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert [line["kind"] for line in refusals] == ["no page message"]
    assert not [record for record in caplog.records if record.exc_info]


def test_pages_of_other_sites_are_refused_without_asking_anybody(client, monkeypatch):
    asked = []
    monkeypatch.setattr("requests.get", lambda url, **options: asked.append(url))
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect("/_stcore/stream", headers={"Origin": "http://a"}),
    ):
        pass
    assert not asked


def requests_under_way() -> bool:
    return bool(api.requests_by_client or teach.learners or any(stream.waiting for stream in live.streams.values()))


def wait_until(condition: Callable[[], bool]) -> None:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < 10
        time.sleep(0.01)


# The end


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT] * 2], ids=["SIGTERM", "Ctrl-C twice"])
def test_the_server_stops_within_seconds_answers_all_pictures_and_leaves_no_process(tmp_path, signals):
    port = free_port()
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless", "true"]
    command += ["--server.port", str(port), "--server.address", "127.0.0.1"]
    with (tmp_path / "log").open("wb") as out, subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out) as process:
        while True:
            try:
                request_json(port, "/api/health")
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.1)
        decoders = psutil.Process(process.pid).children()
        assert len(decoders) > 1
        for decoder in decoders:
            decoder.suspend()  # as with a picture that takes too long
        with (
            socket.create_connection(("127.0.0.1", port)) as slow,
            socket.create_connection(("127.0.0.1", port)) as other,
        ):
            slow.sendall(HALVES["API"])
            form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%b\r\n--x--' % png()
            other.sendall(HALVES["API"].replace(b"9999\r\n\r\n--x\r\n", b"%d\r\n\r\n%b" % (len(form), form)))
            request_json(port, "/api/health")  # by then, both requests have begun
            start = time.monotonic()
            for number in signals:
                process.send_signal(number)
                time.sleep(0.3)
            assert process.wait(30) == 0
            assert time.monotonic() - start < app.SHUTDOWN_S + 10  # of 60 that an upload may take
            answer = other.recv(10_000).decode()
        assert answer.startswith("HTTP/1.1 503")
        assert "The server is stopping" in answer
    assert "Traceback" not in (tmp_path / "log").read_text()
    time.sleep(0.2)
    assert not [decoder for decoder in decoders if decoder.is_running()]


# Half-sent heads


@pytest.mark.slow
def test_connections_without_the_whole_head_of_a_request_are_closed(tmp_path, monkeypatch):
    request = b"GET /api/health HTTP/1.1\r\nHost: a\r\n"
    websocket = b"GET /_stcore/stream HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    key = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    with run_app(tmp_path / "log") as address, ExitStack() as stack:
        port = int(address.rpartition(":")[2])

        def connect(data: bytes) -> socket.socket:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(data)
            return connection

        silent = [connect(data) for data in (b"", request, websocket + key, request + b"\r\n")]
        silent[-1].recv(9)  # the answer; it stays open for another request
        silent[-1].sendall(request)
        page = connect(websocket + key + b"\r\n")
        deadline = time.monotonic() + 2 * app.HEAD_TIMEOUT_S + 5
        for connection in silent:
            connection.settimeout(max(1, deadline - time.monotonic()))
            with suppress(ConnectionResetError):
                while connection.recv(1000):
                    pass
        page.setblocking(False)
        assert page.recv(100).startswith(b"HTTP/1.1 101")
        with suppress(BlockingIOError):  # open, but there is nothing more to read
            while page.recv(1000):
                pass
            pytest.fail("the connection of a page was closed")


# What it is started with


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="links, pipes and devices")
@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "device", "unreadable", "huge"])
def test_whatever_its_variables_name_the_server_starts_and_says_so_in_a_line(kind, tmp_path):
    target = tmp_path / "target"
    match kind:
        case "folder":
            target.mkdir()
        case "pipe":
            os.mkfifo(target)
        case "loop":
            target.symlink_to(target)
        case "device":
            target.symlink_to("/dev/full")
        case "unreadable":
            target.touch(0)
            if os.access(target, os.R_OK):
                pytest.skip("root can read it")
        case "huge":
            target.touch()
            os.truncate(target, 10**13)  # without any of its bytes on disk
    names = {"HANDFUL_MODEL", "HANDFUL_PERSONAL", "HANDFUL_SUMMARY", "HANDFUL_DATA"}
    start = time.monotonic()
    with run_app(tmp_path / "log", **dict.fromkeys(names, str(target))):
        assert time.monotonic() - start < 30  # of which packages take some
    text = (tmp_path / "log").read_text()
    warnings = [line["event"] for line in map(json.loads, re.findall(r"\{.*\}", text)) if line["level"] == "WARNING"]
    if kind in ("folder", "device", "huge"):  # the first holds data, the others take a summary
        names -= {"HANDFUL_DATA" if kind == "folder" else "HANDFUL_SUMMARY"}
    assert sorted(warning.split()[0] for warning in warnings) == sorted(names)
    assert "Traceback" not in text


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="HOME")
def test_the_server_starts_where_home_is_no_folder(tmp_path):
    (tmp_path / "home").touch()
    with run_app(tmp_path / "log", HOME=str(tmp_path / "home")):
        pass
    assert "Traceback" not in (tmp_path / "log").read_text()


# In the background


def test_what_other_pages_import_is_imported_before_their_first_visitor():
    run_python("""
import sys, time
from starlette.testclient import TestClient
import app

assert "pandas" not in sys.modules
with TestClient(app.app):
    start = time.monotonic()
    while "pandas" not in sys.modules:
        assert time.monotonic() - start < 30
        time.sleep(0.05)
""")


def test_sessions_files_and_reference_cycles_are_freed_once_no_stream_is_active():
    run_python("""
import gc, math, time, weakref
import streamlit as st
from starlette.testclient import TestClient
from streamlit import config
from streamlit.runtime.uploaded_file_manager import UploadedFileRec
import app
from web import live, tidy

tidy.INTERVAL_S = 0.1
config.set_option("server.disconnectedSessionTTL", 0)
gc.disable()  # as on an idle server, which allocates nothing
live.streams["a camera"] = live.Stream("a client", last_frame=math.inf)
cycle = live.Stream("a client")
cycle.itself = cycle
left = weakref.ref(cycle)
del cycle
with TestClient(app.app) as client:
    runtime = st.runtime.get_instance()
    with client.websocket_connect("/_stcore/stream"):
        session = runtime._session_mgr.list_active_sessions()[0].session.id
        runtime.uploaded_file_mgr.add_file(session, UploadedFileRec("1", "hand.mp4", "video/mp4", bytes(9)))
    time.sleep(0.5)
    assert left()
    live.streams.clear()
    start = time.monotonic()
    while left() or runtime.uploaded_file_mgr.get_stats():
        assert time.monotonic() - start < 30
        time.sleep(0.05)
""")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_free_memory_in_the_heap_is_returned_to_the_system():
    run_python("""
import os, re, time
from pathlib import Path
from starlette.testclient import TestClient
import app
from web import tidy

def resident_mb():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

tidy.INTERVAL_S = 0.1
import pandas  # which the app would import meanwhile
with TestClient(app.app):
    parts = [bytes(65_536) for _ in range(2000)]
    start, before = time.monotonic(), resident_mb()
    kept = parts[::50]
    del parts
    while resident_mb() > before - 80:
        assert time.monotonic() - start < 30
        time.sleep(0.05)
""")


def test_a_failing_tidy_step_is_logged_and_does_not_stop_the_others(monkeypatch, capsys):
    log.start()
    calls = []

    def expire_sessions() -> None:
        calls.append("expire_sessions")
        raise RuntimeError("broken")

    monkeypatch.setattr(tidy, "INTERVAL_S", 0.01)
    monkeypatch.setattr(tidy, "expire_sessions", expire_sessions)
    monkeypatch.setattr(tidy, "collect_garbage", lambda: calls.append("collect_garbage"))
    monkeypatch.setattr(tidy, "trim_heap", lambda: calls.append("trim_heap"))

    async def run() -> None:
        task = asyncio.create_task(tidy.tidy())
        while len(calls) < 6:
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(asyncio.wait_for(run(), 10))
    assert calls[:6] == 2 * ["expire_sessions", "collect_garbage", "trim_heap"]
    first = json.loads(capsys.readouterr().err.splitlines()[0])
    assert (first["event"], first["step"], first["level"]) == ("tidy step failed", "expire_sessions", "ERROR")
    assert "broken" in first["exc_info"]
