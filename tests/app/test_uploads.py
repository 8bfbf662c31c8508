"""The limit for all uploads together, and the forms in which they come."""

import asyncio
import codecs
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import streamlit as st
from streamlit import config
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager

import app
from tests.app.pages import open_page
from tests.app.test_api import FORM
from web import log, metrics, uploads
from web.uploads import REFUSED_FILE, SERVER_FULL


async def upload(names: range, stall_s: float = 0) -> list[int]:
    """Upload a file of 0.9 MB under each name, all at once, as pages do, and return the statuses.

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
        response = await client.put(f"/_stcore/upload_file/visit/{name}", content=body(), headers=headers)
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


def test_uploads_beyond_the_limit_are_stored_as_refused(files):
    def stored(names: range) -> list[tuple[str, bytes]]:
        return [(file.name, file.data) for file in files.get_files("visit", list(map(str, names)))]

    accepted, refused = ("hand.mp4", bytes(900_000)), ("hand.mp4", REFUSED_FILE)
    assert asyncio.run(upload(range(7))) == [204] * 7
    assert Counter(stored(range(7))) == {accepted: 5, refused: 2}
    asyncio.run(upload(range(7, 8)))
    assert stored(range(7, 8)) == [refused]
    files.remove_file("visit", str(stored(range(7)).index(accepted)))
    asyncio.run(upload(range(8, 9)))
    assert stored(range(8, 9)) == [accepted]


def test_stalled_uploads_time_out_free_their_bytes_and_log_nothing(files, monkeypatch, capsys):
    log.start()
    monkeypatch.setattr(uploads, "CHUNK_TIMEOUT_S", 0.1)
    assert asyncio.run(upload(range(5), stall_s=0.2)) == [408] * 5
    assert asyncio.run(upload(range(5))) == [204] * 5
    assert all(file.data != REFUSED_FILE for file in files.get_files("visit", list("01234")))
    assert not capsys.readouterr().err


@pytest.mark.parametrize("name", ["videos", "pictures"])
def test_a_refused_upload_shows_a_message_and_is_counted(name):
    def count() -> float:
        return metrics.REGISTRY.get_sample_value("handful_refused_total", {"where": name, "kind": "busy"}) or 0

    before = count()
    page = open_page(name)
    page.file_uploader[0].upload("hand.mp4", REFUSED_FILE, "video/mp4").run()
    assert not page.exception
    assert page.error[0].value == SERVER_FULL
    assert count() == before + 1


@pytest.mark.parametrize(("name", "megabytes"), [("videos", 200), ("pictures", 20)])
def test_a_page_shows_how_large_a_file_may_be(name, megabytes):
    assert open_page(name).file_uploader[0].proto.max_upload_size_mb == megabytes
