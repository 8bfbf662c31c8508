"""Fixtures of the app's tests."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient
from streamlit.runtime import Runtime

import app
from web import live, streamlit_patches


@pytest.fixture(scope="session")
def client() -> Iterator[TestClient]:
    """The whole app, started once."""
    with TestClient(app.app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """No active streams, no warnings given so far, and Streamlit's runtime as it was: `AppTest` removes it."""
    live.streams.clear()
    monkeypatch.setattr(streamlit_patches, "_warned", set())
    monkeypatch.setattr(Runtime, "_instance", Runtime._instance)
