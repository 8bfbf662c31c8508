"""What holds for all tests, and for the processes that they start."""

import os
import sys

import pytest

# Two threads that wait for each other on a busy machine take ten times as long as one, for networks as small as these.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _the_main_module_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit's AppTest leaves a page behind as `__main__`, which spawned processes would then run as their own."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
