"""What holds for all tests, and for the processes that they start."""

import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

import pytest

# Two threads that wait for each other on a busy machine take ten times as long as one, for networks as small as these.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# What a shell starts in the background ignores Ctrl-C, and so would the processes that tests start and stop by it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _the_main_module_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit's AppTest leaves a page behind as `__main__`, which spawned processes would then run as their own."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


Work = Callable[[Path], object]


@pytest.fixture(scope="session", autouse=True)
def begun(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[Work, Future]:
    """The work of tests marked `ahead`, begun at once: it takes minutes of one core, and the tests use another.

    In one process of its own: no test patches anything there, what many works import is imported once, and coverage
    does not count its lines, which others run too.
    """
    marks = (item.get_closest_marker("ahead") for item in request.session.items)
    works = dict.fromkeys(mark.kwargs["work"] for mark in marks if mark)
    pool = ProcessPoolExecutor(1, get_context("spawn"))
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
            patch.delenv(name)
        futures = {work: pool.submit(work, tmp_path_factory.mktemp("ahead")) for work in works}
    pool.shutdown(wait=False)  # it ends by itself, once all is done
    return futures


@pytest.fixture
def ahead(request: pytest.FixtureRequest, begun: dict[Work, Future]) -> object:
    """What came of the work that was begun ahead of this test."""
    return begun[request.node.get_closest_marker("ahead").kwargs["work"]].result()


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Tests whose work is begun ahead come late, and last those that want it quiet: earlier, they would wait for it.

    Some still have to wait, for packages from a slow network too.
    """
    for item in items:
        if item.get_closest_marker("ahead"):
            item.add_marker(pytest.mark.timeout(900))
    items.sort(key=lambda item: ("quiet" in item.fixturenames, item.get_closest_marker("ahead") is not None))


@pytest.fixture(scope="session")
def quiet(begun: dict[str, Future]) -> None:
    """Nothing else goes on any more: a camera would stutter."""
    wait(begun.values())
