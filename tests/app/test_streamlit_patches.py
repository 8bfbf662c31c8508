"""Workarounds of Streamlit's internals: what they do, and that the app goes on where an internal has changed."""

import asyncio
import io
import json
import logging
import socket
import sys
from collections.abc import Callable
from copy import deepcopy

import pytest
import streamlit as st
from streamlit.runtime import uploaded_file_manager
from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec
from streamlit.testing.v1 import AppTest

from tests.app.test_api import predict
from tests.builders import png
from web import log, streamlit_patches


@pytest.fixture
def warnings(client, monkeypatch) -> Callable[[], dict[str, str]]:
    """A function that returns the patches warned of, with the errors that they met."""
    stderr = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        log.start()

    def read() -> dict[str, str]:
        lines = [json.loads(line) for line in stderr.getvalue().splitlines()]
        found = [line for line in lines if line["level"] == "WARNING"]
        assert len(found) == len({line["patch"] for line in found}), "each patch warns once"
        return {line["patch"]: line["error"] for line in found}

    return read


def upload(client) -> int:
    """Upload a file as a page does, and return the status."""
    client.get("/_stcore/health")
    headers = {"X-Xsrftoken": client.cookies["_streamlit_xsrf"]}
    files = {"file": ("hand.png", png())}
    return client.put("/_stcore/upload_file/visit/1", files=files, headers=headers).status_code


def test_a_copy_of_an_upload_shares_its_bytes():
    streamlit_patches.share_upload_bytes()
    page = AppTest.from_string("import streamlit as st\nst.file_uploader('A video', key='video')")
    page.run().file_uploader[0].upload("hand.mp4", bytes(1000), "video/mp4").run()
    video = page.session_state["video"]
    copy = deepcopy(video)
    assert copy is not video
    assert copy.getvalue() is video.getvalue()
    assert (copy, copy.name, copy.type, copy.size) == (video, "hand.mp4", "video/mp4", 1000)
    assert (len(copy.read()), len(video.read())) == (1000, 1000), "each has its own position"


def test_an_upload_with_other_attributes_is_copied_in_full(warnings):
    streamlit_patches.share_upload_bytes()
    file = UploadedFile(UploadedFileRec("1", "hand.mp4", "video/mp4", bytes(1000)), None)
    del file._file_urls
    for _ in range(2):
        copy = deepcopy(file)
        assert (copy.getvalue(), copy.name) == (bytes(1000), "hand.mp4")
    assert "_file_urls" in warnings()["share_upload_bytes"]


def test_a_connection_is_read_in_small_parts(client):
    """In chunks of one byte, more at once would take so long that all wait."""
    parts: list[int] = []

    class Server(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            parts.append(len(data))

    async def run() -> None:
        ours, theirs = socket.socketpair()
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(Server, theirs)
        sending = asyncio.to_thread(ours.sendall, bytes(1_000_000))
        await asyncio.wait_for(sending, 10)
        while sum(parts) < 1_000_000:
            await asyncio.sleep(0.01)
        transport.close()
        ours.close()

    asyncio.run(run())
    assert max(parts) == 2**15


def test_without_streamlits_upload_class_the_app_starts(client, warnings, monkeypatch):
    monkeypatch.delattr(uploaded_file_manager, "UploadedFile")
    streamlit_patches.share_upload_bytes()
    assert list(warnings()) == ["share_upload_bytes"]
    assert predict(client, png()).status_code == 200


def test_without_a_session_storage_of_that_kind_the_app_answers(client, warnings, monkeypatch):
    monkeypatch.delattr(st.runtime.get_instance()._session_mgr, "_session_storage")
    for _ in range(3):
        streamlit_patches.expire_sessions()
    assert "_session_storage" in warnings()["expire_sessions"]
    assert predict(client, png()).status_code == 200


def test_where_the_files_of_visits_are_elsewhere_uploads_are_accepted(client, warnings, monkeypatch):
    runtime = st.runtime.get_instance()
    monkeypatch.setattr(runtime, "is_active_session", lambda session: True)
    monkeypatch.setattr(st.runtime, "get_instance", object)
    assert [upload(client), upload(client)] == [204, 204]
    assert list(warnings()) == ["uploaded_bytes"]


def test_without_streamlits_error_module_other_logs_are_redirected(client, warnings, monkeypatch):
    def import_module(name: str):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(streamlit_patches, "import_module", import_module)
    logging.getLogger("uvicorn.error").filters = []
    streamlit_patches.redirect_logs(log.LOG.handlers[0])
    assert logging.getLogger("uvicorn.error").filters
    assert list(warnings()) == ["redirect_logs"]
    assert predict(client, png()).status_code == 200
