"""What holds for all tests, and for the processes that they start."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
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
def begun(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Work, Future]]:
    """The work of tests marked `ahead`, begun at once: it takes minutes of one core, and the tests use another."""
    marks = (item.get_closest_marker("ahead") for item in request.session.items)
    works = dict.fromkeys(mark.kwargs["work"] for mark in marks if mark)
    with ThreadPoolExecutor(1) as pool:
        yield {work: pool.submit(work, tmp_path_factory.mktemp("ahead")) for work in works}


@pytest.fixture
def ahead(request: pytest.FixtureRequest, begun: dict[Work, Future]) -> object:
    """What came of the work that was begun ahead of this test."""
    return begun[request.node.get_closest_marker("ahead").kwargs["work"]].result()


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Tests whose work is begun ahead come late, and last those that want it quiet: earlier, they would wait for it."""
    items.sort(key=lambda item: ("quiet" in item.fixturenames, item.get_closest_marker("ahead") is not None))


@pytest.fixture(scope="session")
def quiet(begun: dict[str, Future]) -> None:
    """Nothing else goes on any more: a camera would stutter."""
    wait(begun.values())
