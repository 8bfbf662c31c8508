"""Fixtures and settings for all tests and the processes that they start."""

import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

import pytest

# For networks this small on a busy machine, two threads that wait for each other take ten times as long as one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Background processes of a shell ignore SIGINT, and so would the processes that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _restore_main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore `__main__`, which Streamlit's AppTest replaces by a page that spawned processes would run."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


Work = Callable[[Path], object]


@pytest.fixture(scope="session", autouse=True)
def background_jobs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[Work, Future]:
    """Start the work of tests marked `background` at once: it takes minutes of one core, while tests use another.

    All of it runs in one process, which imports packages once, is not affected by patches of tests and is not part of
    the coverage, as other tests run the same lines.
    """
    marks = (item.get_closest_marker("background") for item in request.session.items)
    works = dict.fromkeys(mark.kwargs["work"] for mark in marks if mark)
    pool = ProcessPoolExecutor(1, get_context("spawn"))
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
            patch.delenv(name)
        futures = {work: pool.submit(work, tmp_path_factory.mktemp("background")) for work in works}
    pool.shutdown(wait=False)  # the process ends after the last job
    return futures


@pytest.fixture
def background_result(request: pytest.FixtureRequest, background_jobs: dict[Work, Future]) -> object:
    """Wait for the work that the test's `background` mark names, and return its result."""
    return background_jobs[request.node.get_closest_marker("background").kwargs["work"]].result()


@pytest.fixture(scope="session")
def idle_machine(background_jobs: dict[Work, Future]) -> None:
    """Wait for all background work: on a busy machine, cameras stutter."""
    wait(background_jobs.values())


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Run tests with background work late, and tests that need an idle machine last, so that they wait less.

    They get a longer timeout, as some work downloads packages.
    """
    for item in items:
        if item.get_closest_marker("background"):
            item.add_marker(pytest.mark.timeout(900))
    items.sort(key=lambda item: ("idle_machine" in item.fixturenames, bool(item.get_closest_marker("background"))))
