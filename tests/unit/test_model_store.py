"""HANDFUL_MODEL: downloads, checksums, and the bundled model as a fallback."""

import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from urllib.parse import parse_qs, unquote, urlsplit

import onnx
import onnxruntime
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

import app
from benchmarks import ROOT
from benchmarks.app_server import run_app
from benchmarks.dockerfile import free_port, request_json
from handful import MODEL, FingerCounter, model_store, shared_counter
from handful.model_store import BadModel, resolve
from tests.builders import write_model
from web.log import LOG


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def other() -> bytes:
    """Return the bundled model with another training commit."""
    model = onnx.load(MODEL)
    next(prop for prop in model.metadata_props if prop.key == "training commit").value = "another"
    return model.SerializeToString()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch, caplog) -> Iterator[Path]:
    """Give each test an empty cache, no loaded counter, and the log in `caplog`."""
    monkeypatch.setattr(LOG, "handlers", [caplog.handler])
    monkeypatch.setattr(LOG, "propagate", False)
    monkeypatch.setattr(model_store, "CACHE", tmp_path / "cache")
    shared_counter.cache_clear()
    yield tmp_path / "cache"
    shared_counter.cache_clear()


Response = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def http_server(response: Response) -> Iterator[tuple[str, list[str]]]:
    """Run a local server that answers each request with `response`. Yields its address and the list of GET paths."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            requests.append(self.path)
            response(self)

        def do_HEAD(self) -> None:
            response(self)

        def log_message(self, *message: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()


def send(data: bytes, status: int = 200, missing: int = 0, **headers: str) -> Response:
    """Return a response with `data`, whose last `missing` bytes are not sent."""

    def response(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(data[: len(data) - missing])
        handler.close_connection = True

    return response


def counter_of(name: str, monkeypatch) -> FingerCounter:
    """Return the counter of an app with HANDFUL_MODEL=name."""
    monkeypatch.setenv("HANDFUL_MODEL", name)
    shared_counter.cache_clear()
    return shared_counter()


# Files and downloads


def test_model_is_downloaded_and_cached_under_its_checksum(other, cache, monkeypatch):
    with http_server(send(other)) as (address, requests):
        counter = counter_of(f"{address}/new.onnx", monkeypatch)
        assert shared_counter() is counter
    assert requests == ["/new.onnx"]
    assert counter.metadata["training commit"] == "another"
    assert counter.path == cache / f"{digest(other)}.onnx"
    assert [path.name for path in cache.iterdir()] == [counter.path.name]


def test_address_with_a_checksum_is_downloaded_once(other, cache):
    with http_server(send(other)) as (address, requests):
        name = f"{address}/new.onnx#sha256={digest(other).upper()}"
        cached = resolve(name)
        assert resolve(name) == cached
        assert len(requests) == 1
        cached.write_bytes(other[:1000])  # a damaged cache is detected
        assert resolve(name).read_bytes() == other
    assert len(requests) == 2
    assert resolve(name) == cached  # without the server


def test_address_without_a_checksum_is_downloaded_each_time(other, cache):
    responses = [send(MODEL.read_bytes()), send(other)]
    with http_server(lambda handler: responses.pop()(handler)) as (address, _):
        assert resolve(f"{address}/latest.onnx").read_bytes() == other
        assert resolve(f"{address}/latest.onnx").read_bytes() == MODEL.read_bytes()


def test_app_reports_its_model_and_serves_it_to_browsers(other, monkeypatch):
    with http_server(send(other)) as (address, _):
        counter_of(f"{address}/new.onnx", monkeypatch)
    client = TestClient(Starlette(routes=app.routes))
    model = client.get("/api/health").json()["model"]
    assert (model["sha256"], model["training commit"]) == (digest(other), "another")
    assert client.get("/browser/handful.onnx").content == other


@pytest.mark.parametrize("template", ["{}", "file://{}"])
def test_model_can_be_a_local_file(template, other, tmp_path, monkeypatch):
    path = tmp_path / "own model.onnx"
    path.write_bytes(other)
    name = template.format(path.as_posix())
    assert counter_of(name, monkeypatch).metadata["training commit"] == "another"
    assert counter_of(f"{name}#sha256={digest(other)}", monkeypatch).metadata["training commit"] == "another"
    with pytest.raises(BadModel, match="its SHA-256 is"):
        resolve(f"{name}#sha256={'0' * 64}")


def test_model_in_a_google_cloud_bucket(other, monkeypatch):
    """With gcsfs itself and a fake server."""
    pytest.importorskip("gcsfs")

    def response(handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        if unquote(url.path).endswith("/b/models/o/hands/handful.onnx"):
            metadata = {"name": "hands/handful.onnx", "bucket": "models", "size": str(len(other)), "generation": "1"}
            download = parse_qs(url.query).get("alt") == ["media"]
            return send(other if download else json.dumps(metadata).encode(), Content_Type="application/json")(handler)
        return send(b'{"error": {"code": 404, "message": "Not Found"}}', 404)(handler)

    with http_server(response) as (address, _):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        assert resolve(f"gs://models/hands/handful.onnx#sha256={digest(other)}").read_bytes() == other
        with pytest.raises(BadModel, match=r"gs://models/none.onnx: FileNotFoundError"):
            resolve("gs://models/none.onnx")


def test_model_in_a_hugging_face_repository(other, monkeypatch):
    """With huggingface_hub itself and a fake server."""
    pytest.importorskip("huggingface_hub")
    entry = {"type": "file", "path": "handful.onnx", "size": len(other), "oid": "0" * 40}
    bodies = {
        "/api/models/me/hands": json.dumps({"id": "me/hands", "sha": "0" * 40}).encode(),
        "/api/models/me/hands/tree/main": json.dumps([entry]).encode(),
        "/me/hands/resolve/main/handful.onnx": other,
    }
    with http_server(lambda handler: send(bodies[urlsplit(handler.path).path])(handler)) as (address, _):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        )
        assert resolve(f"hf://me/hands/handful.onnx#sha256={digest(other)}").read_bytes() == other
        with pytest.raises(BadModel, match=r"hf://me/hands/none.onnx: FileNotFoundError"):
            resolve("hf://me/hands/none.onnx")


# Models that cannot be used


def single_warning(caplog: pytest.LogCaptureFixture) -> str:
    """Return the one warning in the log, which has no traceback."""
    [warning] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (warning.name, warning.exc_info) == ("handful", None)
    return warning.getMessage()


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (send(b"not found", 404), "new.onnx: FileNotFoundError"),
        (send(b"forbidden", 403), "403"),
        (send(MODEL.read_bytes(), missing=1000), "payload"),
        (send(MODEL.read_bytes()[:-1000]), "cannot load it"),
        (send(b"<html>Sign in</html>"), "not a Handful model"),
        (send(b""), "not a Handful model"),
    ],
    ids=["missing", "forbidden", "interrupted", "truncated", "HTML", "empty"],
)
def test_bundled_model_replaces_a_failed_download(response, reason, monkeypatch, caplog):
    with http_server(response) as (address, _):
        counter = counter_of(f"{address}/new.onnx", monkeypatch)
    assert counter.path == MODEL
    assert reason in single_warning(caplog)


def test_interrupted_download_leaves_no_files(cache):
    with http_server(send(MODEL.read_bytes(), missing=1000)) as (address, _), pytest.raises(BadModel):
        resolve(f"{address}/new.onnx")
    assert list(cache.iterdir()) == []


def test_file_with_another_checksum_is_not_cached(cache, monkeypatch, caplog):
    with http_server(send(MODEL.read_bytes())) as (address, _):
        assert counter_of(f"{address}/new.onnx#sha256={'0' * 64}", monkeypatch).path == MODEL
    assert "its SHA-256 is" in single_warning(caplog)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("sha256", ["", "12ab", "z" * 64, "0" * 65])
def test_malformed_checksum_is_an_error(sha256, monkeypatch, caplog):
    assert counter_of(f"{MODEL}#sha256={sha256}", monkeypatch).path == MODEL
    assert "64 hexadecimal digits" in single_warning(caplog)


def set_other_classes(model: onnx.ModelProto) -> None:
    next(prop for prop in model.metadata_props if prop.key == "classes").value = '["cat", "dog"]'


def delete_metadata(model: onnx.ModelProto) -> None:
    del model.metadata_props[:]


@pytest.mark.parametrize("change", [set_other_classes, delete_metadata])
def test_model_with_other_classes_is_not_used(change, tmp_path, monkeypatch, caplog):
    model = onnx.load(MODEL)
    change(model)
    onnx.save(model, tmp_path / "new.onnx")
    assert counter_of(str(tmp_path / "new.onnx"), monkeypatch).path == MODEL
    assert "not a Handful model" in single_warning(caplog)
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)  # it would load the model's tensors, of any size
    with pytest.raises(BadModel, match="not a Handful model"):
        FingerCounter(tmp_path / "new.onnx")


@pytest.mark.timeout(60)
@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
@pytest.mark.parametrize("template", ["{}", "file://{}"])
@pytest.mark.parametrize("kind", ["pipe", "device", "loop", "huge"])
def test_what_never_ends_is_not_read(kind, template, tmp_path, monkeypatch, caplog):
    file = tmp_path / "new.onnx"
    match kind:
        case "pipe":
            os.mkfifo(file)
        case "device":
            file.symlink_to("/dev/zero")
        case "loop":
            file.symlink_to(file)
        case "huge":
            os.truncate(os.open(file, os.O_CREAT | os.O_WRONLY), 10**13)  # without any of its bytes on disk
    assert counter_of(template.format(file), monkeypatch).path == MODEL
    assert re.search("not a file|no such file|not a Handful model", single_warning(caplog))


@pytest.mark.parametrize(
    "change",
    [
        {"image_type": onnx.TensorProto.FLOAT},
        {"probabilities": (1, 7)},
        {"boxes": (4,)},
        {"squares": ()},
        {"fingers": ()},
        {"features": ()},
        {"classifier.head.weight": ()},
        {"classifier.presence.bias": (2,)},
    ],
    ids=[
        *("float image", "seven classes", "boxes of rank 1", "no squares", "no fingers", "no features", "no head"),
        "a head of another shape",
    ],
)
def test_model_with_other_inputs_or_outputs_is_not_used(change, tmp_path, monkeypatch, caplog):
    write_model(tmp_path / "new.onnx")
    assert counter_of(str(tmp_path / "new.onnx"), monkeypatch).path == tmp_path / "new.onnx"
    write_model(tmp_path / "new.onnx", **change)
    assert counter_of(str(tmp_path / "new.onnx"), monkeypatch).path == MODEL
    assert "not a Handful model of this version" in single_warning(caplog)
    assert f"python -m training export --detector {tmp_path}" in caplog.text


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere/handful.onnx", "there is no such file"),
        ("assets", "this is not a file"),
        ("~nobody at all/handful.onnx", "there is no such file"),
        (name := "x" * 300, name),
        (f"http://127.0.0.1:{free_port()}/handful.onnx", "ClientConnectorError"),
        ("abfs://models/handful.onnx", "adlfs"),
        ("floppy://a/handful.onnx", "floppy"),
    ],
    ids=["no file", "folder", "no such user", "name too long", "no server", "no package", "unknown scheme"],
)
def test_bundled_model_replaces_a_missing_one(name, reason, monkeypatch, caplog):
    assert counter_of(name, monkeypatch).path == MODEL
    assert reason in single_warning(caplog)


@pytest.mark.parametrize("length", [True, False], ids=["that says so", "without its length"])
def test_a_download_that_is_too_large_is_ended(length, cache, monkeypatch, caplog):
    monkeypatch.setattr(model_store, "MAX_MODEL_BYTES", 2_000_000)  # the bundled one has 1.6
    sent = 0

    def endless(request: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        request.send_response(200)
        if length:
            request.send_header("Content-Length", "100000000")
        request.end_headers()
        while request.command == "GET" and sent < 100_000_000:
            request.wfile.write(bytes(100_000))
            sent += 100_000

    with http_server(endless) as (address, _):
        monkeypatch.setenv("HANDFUL_MODEL", f"{address}/model.onnx")
        assert shared_counter().path == MODEL
    assert "more than 2 MB" in single_warning(caplog)
    assert sent < 100_000_000
    assert not list(cache.iterdir())


def test_download_times_out(monkeypatch, caplog):
    done = Event()
    monkeypatch.setattr(model_store, "DOWNLOAD_TIMEOUT_S", 0.2)
    start = time.monotonic()
    with http_server(lambda handler: done.wait(20)) as (address, _):
        assert counter_of(f"{address}/new.onnx", monkeypatch).path == MODEL
        assert time.monotonic() - start < 10
        done.set()
    assert "no answer within 0.2 seconds" in single_warning(caplog)


def test_bundled_model_is_used_if_the_cache_cannot_be_written(other, monkeypatch, caplog, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(model_store, "CACHE", tmp_path / "file/cache")
    with http_server(send(other)) as (address, _):
        assert counter_of(f"{address}/new.onnx", monkeypatch).path == MODEL
    assert "Error: " in single_warning(caplog)


# Secrets


def test_credentials_and_signed_queries_are_not_logged(monkeypatch, caplog):
    redirect = send(b"", 302, Location="/moved.onnx?X-Signature=SECRET")

    def response(handler: BaseHTTPRequestHandler) -> None:
        (send(b"forbidden", 403) if "moved" in handler.path else redirect)(handler)

    with http_server(response) as (address, requests):
        address = address.replace("//", "//USER:PASSWORD@")
        assert counter_of(f"{address}/new.onnx?token=SECRET&key=SECRET", monkeypatch).path == MODEL
    assert any("SECRET" in path for path in requests)
    text = single_warning(caplog)
    assert "/new.onnx" in text
    assert not re.search("SECRET|PASSWORD|USER", text)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("https://u:p@a.org/m.onnx?sig=1", "https://a.org/m.onnx"),
        ("s3://KEY:sec/ret@bucket/m.onnx", "s3://bucket/m.onnx"),
        ("https://token@a.org/m.onnx", "https://a.org/m.onnx"),
        ("hf://name/models@v2/m.onnx", "hf://name/models@v2/m.onnx"),
        ("gs://bucket/m.onnx", "gs://bucket/m.onnx"),
        ("zip://m.onnx::https://u:p@a.org/m.zip?sig=1", "zip://a.org/m.zip"),
        ("403, url='https://a.org/m?sig=1'", "403, url='https://a.org/m"),
    ],
)
def test_redact_removes_credentials_and_queries(text, redacted):
    assert model_store.redact(text) == redacted


# Without fsspec


@pytest.mark.parametrize("name", ["", str(MODEL), f"{MODEL}#sha256={digest(MODEL.read_bytes())}"])
def test_local_path_needs_no_fsspec(name):
    code = "import sys; sys.modules['fsspec'] = None; from handful import shared_counter; print(shared_counter().path)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "HANDFUL_MODEL": name},
        capture_output=True,
        text=True,
    )
    assert (done.stdout.strip(), done.stderr) == (str(MODEL), "")


def test_error_without_fsspec_names_the_package(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert counter_of("https://127.0.0.1/handful.onnx", monkeypatch).path == MODEL
    assert "pip install fsspec[http]" in single_warning(caplog)


# A whole server


@pytest.mark.slow
def test_server_starts_with_a_downloaded_or_the_bundled_model(tmp_path, other):
    log = tmp_path / "log"
    with http_server(send(other)) as (address, _):
        with run_app(log, HANDFUL_MODEL=f"{address}/new.onnx", XDG_CACHE_HOME=str(tmp_path)) as server:
            assert request_json(int(server.rpartition(":")[2]), "/api/health")["model"]["sha256"] == digest(other)
        assert "WARNING" not in log.read_text()
    with run_app(log, HANDFUL_MODEL=f"{address}/other.onnx?sig=SECRET", XDG_CACHE_HOME=str(tmp_path)) as server:
        assert request_json(int(server.rpartition(":")[2]), "/api/health")["model"]["file"] == MODEL.name
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert [line["level"] for line in lines] == ["WARNING", "INFO"]
    assert "Traceback" not in log.read_text()
    assert "SECRET" not in log.read_text()
