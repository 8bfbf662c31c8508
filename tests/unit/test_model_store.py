"""The model that HANDFUL_MODEL names: fetched once, checked, and never in the way of the app."""

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

import numpy as np
import onnx
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

import app
from benchmarks.app_server import running
from benchmarks.dockerfile import ROOT, ask, free_port
from handful import CLASSES, MODEL, FingerCounter, shared_counter
from handful import model_store as store
from handful.model_store import BadModel, local
from web.log import LOG


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def other() -> bytes:
    """A model that reads as the shipped one does, but says that it is another."""
    model = onnx.load(MODEL)
    next(prop for prop in model.metadata_props if prop.key == "training commit").value = "another"
    return model.SerializeToString()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch, caplog) -> Iterator[Path]:
    """A cache of its own for each test, a counter that is not loaded yet, and the log, whoever set it up before."""
    monkeypatch.setattr(LOG, "handlers", [caplog.handler])
    monkeypatch.setattr(LOG, "propagate", False)
    monkeypatch.setattr(store, "CACHE", tmp_path / "cache")
    shared_counter.cache_clear()
    yield tmp_path / "cache"
    shared_counter.cache_clear()


Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def web(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """A server on this machine that answers each GET with `answer`. Yields its address, and the paths asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            answer(self)

        def do_HEAD(self) -> None:
            answer(self)

        def log_message(self, *message: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def send(data: bytes, status: int = 200, missing: int = 0, **headers: str) -> Answer:
    """An answer with `data`; the last `missing` bytes of it never come."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(data[: len(data) - missing])
        handler.close_connection = True

    return answer


def use(name: str, monkeypatch) -> FingerCounter:
    """The counter of an app that is started with HANDFUL_MODEL=name."""
    monkeypatch.setenv("HANDFUL_MODEL", name)
    shared_counter.cache_clear()
    return shared_counter()


# From a store to the app


def test_a_model_is_fetched_and_kept_under_its_checksum(other, cache, monkeypatch):
    with web(send(other)) as (address, asked):
        counter = use(f"{address}/new.onnx", monkeypatch)
        assert shared_counter() is counter
    assert asked == ["/new.onnx"]
    assert counter.metadata["training commit"] == "another"
    assert counter.path == cache / f"{digest(other)}.onnx"
    assert [path.name for path in cache.iterdir()] == [counter.path.name]


def test_one_that_tells_its_checksum_is_fetched_once(other, cache):
    with web(send(other)) as (address, asked):
        name = f"{address}/new.onnx#sha256={digest(other).upper()}"
        kept = local(name)
        assert local(name) == kept
        assert len(asked) == 1
        kept.write_bytes(other[:1000])  # what is kept is checked, too
        assert local(name).read_bytes() == other
    assert len(asked) == 2
    assert local(name) == kept  # and needs no store any more


def test_one_without_is_fetched_again(other, cache):
    answers = [send(MODEL.read_bytes()), send(other)]
    with web(lambda handler: answers.pop()(handler)) as (address, _):
        assert local(f"{address}/latest.onnx").read_bytes() == other
        assert local(f"{address}/latest.onnx").read_bytes() == MODEL.read_bytes()


def test_the_app_tells_its_model_and_hands_it_to_browsers(other, monkeypatch):
    with web(send(other)) as (address, _):
        use(f"{address}/new.onnx", monkeypatch)
    client = TestClient(Starlette(routes=app.routes))
    told = client.get("/api/health").json()["model"]
    assert (told["sha256"], told["training commit"]) == (digest(other), "another")
    assert client.get("/browser/handful.onnx").content == other


@pytest.mark.parametrize("place", ["{}", "file://{}"])
def test_a_file_is_named_by_its_path(place, other, tmp_path, monkeypatch):
    path = tmp_path / "own model.onnx"
    path.write_bytes(other)
    name = place.format(path.as_posix())
    assert use(name, monkeypatch).metadata["training commit"] == "another"
    assert use(f"{name}#sha256={digest(other)}", monkeypatch).metadata["training commit"] == "another"
    with pytest.raises(BadModel, match="its SHA-256 is"):
        local(f"{name}#sha256={'0' * 64}")


def test_a_google_bucket(other, monkeypatch):
    """gcsfs itself, with a stand-in for what it talks to."""
    pytest.importorskip("gcsfs")

    def answer(handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        if unquote(url.path).endswith("/b/models/o/hands/handful.onnx"):
            about = {"name": "hands/handful.onnx", "bucket": "models", "size": str(len(other)), "generation": "1"}
            whole = parse_qs(url.query).get("alt") == ["media"]
            return send(other if whole else json.dumps(about).encode(), Content_Type="application/json")(handler)
        return send(b'{"error": {"code": 404, "message": "Not Found"}}', 404)(handler)

    with web(answer) as (address, _):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        assert local(f"gs://models/hands/handful.onnx#sha256={digest(other)}").read_bytes() == other
        with pytest.raises(BadModel, match=r"gs://models/none.onnx: FileNotFoundError"):
            local("gs://models/none.onnx")


def test_a_repository_of_hugging_face(other, monkeypatch):
    """huggingface_hub itself, with a stand-in for what it talks to."""
    pytest.importorskip("huggingface_hub")
    entry = {"type": "file", "path": "handful.onnx", "size": len(other), "oid": "0" * 40}
    answers = {
        "/api/models/me/hands": json.dumps({"id": "me/hands", "sha": "0" * 40}).encode(),
        "/api/models/me/hands/tree/main": json.dumps([entry]).encode(),
        "/me/hands/resolve/main/handful.onnx": other,
    }
    with web(lambda handler: send(answers[urlsplit(handler.path).path])(handler)) as (address, _):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        )
        assert local(f"hf://me/hands/handful.onnx#sha256={digest(other)}").read_bytes() == other
        with pytest.raises(BadModel, match=r"hf://me/hands/none.onnx: FileNotFoundError"):
            local("hf://me/hands/none.onnx")


# What is no good


def warned(caplog: pytest.LogCaptureFixture) -> str:
    """The one warning in the log, which is no traceback."""
    [warning] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (warning.name, warning.exc_info) == ("handful", None)
    return warning.getMessage()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (send(b"no such thing", 404), "new.onnx: FileNotFoundError"),
        (send(b"who are you?", 403), "403"),
        (send(MODEL.read_bytes(), missing=1000), "payload"),
        (send(MODEL.read_bytes()[:-1000]), "cannot run it"),
        (send(b"<html>Sign in</html>"), "cannot run it"),
        (send(b""), "cannot run it"),
    ],
    ids=["gone", "forbidden", "broken off", "cut short", "a page", "nothing"],
)
def test_the_shipped_model_stands_in(answer, why, monkeypatch, caplog):
    with web(answer) as (address, _):
        counter = use(f"{address}/new.onnx", monkeypatch)
    assert counter.path == MODEL
    assert why in warned(caplog)


def test_what_breaks_off_leaves_nothing(cache):
    with web(send(MODEL.read_bytes(), missing=1000)) as (address, _), pytest.raises(BadModel):
        local(f"{address}/new.onnx")
    assert list(cache.iterdir()) == []


def test_another_file_than_the_one_meant_is_not_kept(cache, monkeypatch, caplog):
    with web(send(MODEL.read_bytes())) as (address, _):
        assert use(f"{address}/new.onnx#sha256={'0' * 64}", monkeypatch).path == MODEL
    assert "its SHA-256 is" in warned(caplog)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("told", ["", "12ab", "z" * 64, "0" * 65])
def test_half_a_checksum_is_not_taken_for_none(told, monkeypatch, caplog):
    assert use(f"{MODEL}#sha256={told}", monkeypatch).path == MODEL
    assert "64 hexadecimal digits" in warned(caplog)


def of_other_classes(model: onnx.ModelProto) -> None:
    next(prop for prop in model.metadata_props if prop.key == "classes").value = '["cat", "dog"]'


def without_classes(model: onnx.ModelProto) -> None:
    del model.metadata_props[:]


@pytest.mark.parametrize("change", [of_other_classes, without_classes])
def test_a_model_of_something_else(change, tmp_path, monkeypatch, caplog):
    model = onnx.load(MODEL)
    change(model)
    onnx.save(model, tmp_path / "new.onnx")
    assert use(str(tmp_path / "new.onnx"), monkeypatch).path == MODEL
    assert "no model of Handful's" in warned(caplog)


def write_model(path: Path, kind: int = onnx.TensorProto.UINT8, **shapes: tuple[int, ...]) -> None:
    """A model that says of any picture the same: of Handful's form, but for what is told."""
    told = {"boxes": (1, 4), "squares": (1, 4), "scores": (1,), "probabilities": (1, 12), "gradcam": (1, 12, 8, 8)}
    told = {name: shape for name, shape in (told | shapes).items() if shape}
    zeros = {name: onnx.numpy_helper.from_array(np.zeros(shape, np.float32)) for name, shape in told.items()}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Constant", [], [name], value=value) for name, value in zeros.items()],
        "other",
        [onnx.helper.make_tensor_value_info("image", kind, ["h", "w", 3])],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in told.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.helper.set_model_props(model, {"classes": json.dumps(CLASSES)})
    onnx.save(model, path)


@pytest.mark.parametrize(
    "other_form",
    [{"kind": onnx.TensorProto.FLOAT}, {"probabilities": (1, 7)}, {"boxes": (4,)}, {"squares": ()}],
    ids=["pictures of floats", "seven classes", "a single box", "no squares"],
)
def test_a_model_of_another_form(other_form, tmp_path, monkeypatch, caplog):
    write_model(tmp_path / "new.onnx")
    assert use(str(tmp_path / "new.onnx"), monkeypatch).path == tmp_path / "new.onnx"
    write_model(tmp_path / "new.onnx", **other_form)
    assert use(str(tmp_path / "new.onnx"), monkeypatch).path == MODEL
    assert "no model of Handful's" in warned(caplog)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nowhere/handful.onnx", "there is no such file"),
        ("assets", "there is no such file"),
        ("~nobody at all/handful.onnx", "there is no such file"),
        (name := "x" * 300, name),
        (f"http://127.0.0.1:{free_port()}/handful.onnx", "ClientConnectorError"),
        ("abfs://models/handful.onnx", "adlfs"),
        ("floppy://a/handful.onnx", "floppy"),
    ],
    ids=["no file", "a folder", "no such user", "too long", "nobody there", "a package is missing", "no such store"],
)
def test_what_cannot_be_had(name, why, monkeypatch, caplog):
    assert use(name, monkeypatch).path == MODEL
    assert why in warned(caplog)


def test_a_store_that_never_answers_is_not_waited_for(monkeypatch, caplog):
    done = Event()
    monkeypatch.setattr(store, "PATIENCE", 0.2)
    start = time.monotonic()
    with web(lambda handler: done.wait(20)) as (address, _):
        assert use(f"{address}/new.onnx", monkeypatch).path == MODEL
        assert time.monotonic() - start < 10
        done.set()
    assert "no answer within 0.2 seconds" in warned(caplog)


def test_a_cache_that_cannot_be_written(other, monkeypatch, caplog, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(store, "CACHE", tmp_path / "file/cache")
    with web(send(other)) as (address, _):
        assert use(f"{address}/new.onnx", monkeypatch).path == MODEL
    assert "Error: " in warned(caplog)


# Secrets


def test_passwords_and_signed_queries_are_not_logged(monkeypatch, caplog):
    moved = send(b"", 302, Location="/moved.onnx?X-Signature=SECRET")

    def answer(handler: BaseHTTPRequestHandler) -> None:
        (send(b"no", 403) if "moved" in handler.path else moved)(handler)

    with web(answer) as (address, asked):
        address = address.replace("//", "//USER:PASSWORD@")
        assert use(f"{address}/new.onnx?token=SECRET&key=SECRET", monkeypatch).path == MODEL
    assert any("SECRET" in path for path in asked)
    text = warned(caplog)
    assert "/new.onnx" in text
    assert not re.search("SECRET|PASSWORD|USER", text)


@pytest.mark.parametrize(
    ("address", "told"),
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
def test_what_is_told_of_an_address(address, told):
    assert store.plain(address) == told


# Without the packages for it


@pytest.mark.parametrize("name", ["", str(MODEL), f"{MODEL}#sha256={digest(MODEL.read_bytes())}"])
def test_a_path_needs_no_fsspec(name):
    code = "import sys; sys.modules['fsspec'] = None; from handful import shared_counter; print(shared_counter().path)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "HANDFUL_MODEL": name},
        capture_output=True,
        text=True,
    )
    assert (done.stdout.strip(), done.stderr) == (str(MODEL), "")


def test_an_address_without_fsspec_names_the_package(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert use("https://127.0.0.1/handful.onnx", monkeypatch).path == MODEL
    assert "pip install fsspec[http]" in warned(caplog)


# A whole server


@pytest.mark.slow
def test_a_server_starts_with_what_it_can_have(tmp_path, other):
    log = tmp_path / "log"
    with web(send(other)) as (address, _):
        with running(log, HANDFUL_MODEL=f"{address}/new.onnx", XDG_CACHE_HOME=str(tmp_path)) as server:
            assert ask(int(server.rpartition(":")[2]), "/api/health")["model"]["sha256"] == digest(other)
        assert "WARNING" not in log.read_text()
    with running(log, HANDFUL_MODEL=f"{address}/other.onnx?sig=SECRET", XDG_CACHE_HOME=str(tmp_path)) as server:
        assert ask(int(server.rpartition(":")[2]), "/api/health")["model"]["file"] == MODEL.name
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert [line["level"] for line in lines] == ["WARNING", "INFO"]
    assert "Traceback" not in log.read_text()
    assert "SECRET" not in log.read_text()
