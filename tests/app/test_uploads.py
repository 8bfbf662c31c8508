"""The limit for all uploads together, and the forms in which they come."""

import asyncio
import codecs
import errno
import json
import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import streamlit as st
from streamlit import config
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager

import app
from tests.app.pages import open_page, refused
from tests.app.test_api import FORM
from tests.builders import SAMPLES
from web import log, metrics, uploads
from web.uploads import REFUSED_FILE, SERVER_FULL


def visit(name: int) -> str:
    return f"visit{name % 4}"


async def upload(names: range, stall_s: float = 0, chunked: bool = False) -> list[int]:
    """Upload a file of 0.9 MB under each name, all at once, as pages of four visits do, and return the statuses.

    Each has started before any goes on; then it stalls.
    """
    started, all_started = Counter[int](), asyncio.Event()

    async def send(client: httpx.AsyncClient, name: int) -> int:
        form = httpx.Request("PUT", "http://handful", files={"f": ("hand.mp4", bytes(900_000))})

        async def body() -> AsyncIterator[bytes]:
            started[name] = 1
            yield form.read()[:1000]
            if len(started) == len(names):
                all_started.set()
            await all_started.wait()
            await asyncio.sleep(stall_s)
            yield form.read()[1000:]

        headers = {**form.headers, "X-Xsrftoken": client.cookies["_streamlit_xsrf"]}
        if chunked:
            headers |= {"Content-Length": "1", "Transfer-Encoding": "chunked"}
        response = await client.put(f"/_stcore/upload_file/{visit(name)}/{name}", content=body(), headers=headers)
        return response.status_code

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app.app), base_url="http://handful") as client:
        await client.get("/_stcore/health")
        return await asyncio.gather(*(send(client, name) for name in names))


@pytest.fixture
def files(client, monkeypatch) -> Iterator[MemoryUploadedFileManager]:
    """Streamlit's uploaded files, with a limit of 1 MB each, and an active session named visit."""
    runtime, megabytes = st.runtime.get_instance(), config.get_option("server.maxUploadSize")
    monkeypatch.setattr(runtime, "is_active_session", lambda session: True)
    config.set_option("server.maxUploadSize", 1)
    yield runtime.uploaded_file_mgr
    config.set_option("server.maxUploadSize", megabytes)
    for name in range(4):
        runtime.uploaded_file_mgr.remove_session_files(visit(name))
    runtime.uploaded_file_mgr.remove_session_files("visit")


@pytest.mark.parametrize("charset", ["punycode", "undefined", "unicode_escape", "no-codec-has-this-name"])
@pytest.mark.parametrize("route", ["api", "upload"])
def test_the_charset_of_a_form_is_ignored(client, files, route, charset):
    """Python's punycode takes minutes for a megabyte, and unknown names stay in the codec cache."""
    looked_up: list[str] = []
    headers = {"content-type": f"multipart/form-data; boundary=x; charset={charset}"}
    search = looked_up.append
    codecs.register(search)  # called with the name of each codec that Python does not know yet
    try:
        if route == "api":
            name = client.post("/api/predict", content=FORM, headers=headers).json()["file"]
        else:
            client.get("/_stcore/health")
            headers["X-Xsrftoken"] = client.cookies["_streamlit_xsrf"]
            client.put("/_stcore/upload_file/visit/file", content=FORM, headers=headers).raise_for_status()
            [record] = files.get_files("visit", ["file"])
            name = record.name
    finally:
        codecs.unregister(search)
    assert name == "händ.png"
    assert "no-codec-has-this-name" not in " ".join(looked_up).replace("_", "-")


def stored(files: MemoryUploadedFileManager, names: range) -> list[tuple[str, bytes]]:
    return [(file.name, file.data) for name in names for file in files.get_files(visit(name), [str(name)])]


ACCEPTED, REFUSED = ("hand.mp4", bytes(900_000)), ("hand.mp4", REFUSED_FILE)


@pytest.mark.parametrize("chunked", [False, True], ids=["", "of a false Content-Length"])
def test_uploads_beyond_the_limit_are_stored_as_refused(files, chunked):
    assert asyncio.run(upload(range(7), chunked=chunked)) == [204] * 7
    assert Counter(stored(files, range(7))) == {ACCEPTED: 5, REFUSED: 2}
    asyncio.run(upload(range(7, 8)))
    assert stored(files, range(7, 8)) == [REFUSED]
    accepted = stored(files, range(7)).index(ACCEPTED)
    files.remove_file(visit(accepted), str(accepted))
    asyncio.run(upload(range(8, 9)))
    assert stored(files, range(8, 9)) == [ACCEPTED]


def test_a_visit_has_a_limit_of_its_own(files):
    names = range(0, 16, 4)  # of the same visit
    asyncio.run(upload(names))
    assert Counter(stored(files, names)) == {ACCEPTED: 2, REFUSED: 2}
    asyncio.run(upload(range(16, 17)))
    assert stored(files, range(16, 17)) == [REFUSED]
    asyncio.run(upload(range(1, 4)))
    assert Counter(stored(files, range(1, 4))) == {ACCEPTED: 3}


@pytest.mark.parametrize("limit", [{"CHUNK_TIMEOUT_S": 0.1}, {"GRACE_S": 0.1}], ids=["stalled", "slow"])
def test_stalled_and_slow_uploads_time_out_free_their_bytes_and_log_nothing(files, monkeypatch, capsys, limit):
    log.start()
    with monkeypatch.context() as patch:
        for name, value in limit.items():
            patch.setattr(uploads, name, value)
        assert asyncio.run(upload(range(5), stall_s=0.3)) == [408] * 5
    assert asyncio.run(upload(range(5))) == [204] * 5
    assert Counter(stored(files, range(5))) == {ACCEPTED: 5}
    assert not capsys.readouterr().err


def test_an_upload_above_the_slowest_rate_goes_on(files, monkeypatch):
    monkeypatch.setattr(uploads, "GRACE_S", 0.1)
    monkeypatch.setattr(uploads, "MIN_BYTES_PER_S", 100)  # 1 kB, ten seconds' worth, has come before the stall
    assert asyncio.run(upload(range(1), stall_s=0.3)) == [204]


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS, errno.ENOENT])
def test_without_disk_space_a_large_upload_is_refused_with_a_line_in_the_log(
    client, files, monkeypatch, capsys, reason
):
    def full(**options: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    log.start()
    config.set_option("server.maxUploadSize", 4)
    small = {"file": ("hand.jpg", (SAMPLES / "3L_0.jpg").read_bytes() + bytes(900_000))}
    assert client.post("/api/predict", files=small).status_code == 200
    large = {"file": ("hand.mp4", bytes(2_000_000))}
    answer = client.post("/api/predict", files=large)
    assert (answer.status_code, "disk space" in answer.json()["error"]) == (503, True)
    client.get("/_stcore/health")
    headers = {"X-Xsrftoken": client.cookies["_streamlit_xsrf"]}
    assert client.put("/_stcore/upload_file/visit/0", files=small, headers=headers).status_code == 204
    assert client.put("/_stcore/upload_file/visit/1", files=large, headers=headers).status_code == 507
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    warned = [(line["event"], line["reason"]) for line in lines if line["level"] == "WARNING"]
    assert warned == 2 * [("an upload cannot be stored in TMPDIR", os.strerror(reason))]
    assert all("exc_info" not in line for line in lines)


@pytest.mark.parametrize("name", ["videos", "pictures"])
def test_a_refused_upload_shows_a_message_and_is_counted(name):
    def count() -> float:
        return metrics.REGISTRY.get_sample_value("handful_refused_total", {"where": name, "kind": "busy"}) or 0

    before = count()
    page = open_page(name)
    page.file_uploader[0].upload("hand.mp4", REFUSED_FILE, "video/mp4").run()
    assert not page.exception
    assert SERVER_FULL in [error.value for error in page.error] + [reason for _, reason in refused(page)]
    assert count() == before + 1


@pytest.mark.parametrize(("name", "megabytes"), [("videos", 200), ("pictures", 20)])
def test_a_page_shows_how_large_a_file_may_be(name, megabytes):
    assert open_page(name).file_uploader[0].proto.max_upload_size_mb == megabytes
