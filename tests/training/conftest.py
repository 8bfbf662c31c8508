"""A stand-in for GitHub, on this machine."""

import io
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest

from training.data import download

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def github_zip(files, commit=COMMIT, name="hands"):
    """Return a ZIP as GitHub makes them."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path, content in files.items():
            zipped.writestr(f"{name}-{commit}/{path}", content)
        zipped.comment = commit.encode()
    return packed.getvalue()


class Server(ThreadingHTTPServer):
    """Serve `content` at every address; `truncate_at` has the lengths of the next responses."""

    content, status = b"", 200

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.truncate_at = [], []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def do_GET(self):
        server = self.server
        server.requests.append(self.path)
        if server.status != 200:
            return self.send_error(server.status)
        self.send_response(200)
        self.send_header("Content-Length", str(len(server.content)))
        self.end_headers()
        return self.wfile.write(server.content[: server.truncate_at.pop(0)] if server.truncate_at else server.content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    with Server() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        monkeypatch.setattr(download, "GITHUB", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
        server.files = {
            "README.md": b"hands",
            "images/1.jpg": np.random.default_rng(1).bytes(3000),
            "images/2.jpg": np.random.default_rng(2).bytes(3000),
        }
        server.content = github_zip(server.files)
        yield server
        server.shutdown()
        thread.join()
