"""The Dockerfile, replayed without Docker: it builds small, comes up healthy, answers and stops."""

import ast
import re
import shutil
import sys
from pathlib import Path

import pytest

from benchmarks.dockerfile import ROOT, command, ignored, instructions, replay
from web.browser_camera import RUNTIME


def build(folder: Path) -> dict:
    """The replay, which has a folder of its own."""
    return replay()


pytestmark = pytest.mark.ahead(work=build)

DOCKERIGNORE = (ROOT / ".dockerignore").read_text()


@pytest.mark.parametrize(
    "path", ["app.py", "handful/counter.py", "pages/live.py", "requirements.txt", "assets/a/b.jpg"]
)
def test_build_takes_what_the_app_runs_on(path):
    assert not ignored(path, DOCKERIGNORE)


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".streamlit/secrets.toml",
        ".venv/bin/python",
        "README.md",
        "data/fingers/a.png",
        "model/__pycache__/a.pyc",
        "requirements-train.txt",
        "tests/test_docker.py",
        "training/networks/classifier.py",
    ],
)
def test_build_leaves_out_the_rest(path):
    assert ignored(path, DOCKERIGNORE)


def test_instructions_join_continued_lines_and_drop_comments():
    lines = "# why\nFROM python:3.11\nHEALTHCHECK --timeout=5s \\\n    CMD true\n"
    assert instructions(lines) == [("FROM", "python:3.11"), ("HEALTHCHECK", "--timeout=5s CMD true")]
    assert command('["a", "b c"]') == ["a", "b c"]
    assert command("a b") == ["sh", "-c", "a b"]


@pytest.fixture
def report(ahead):
    if sys.platform == "win32":
        pytest.skip("the Dockerfile's commands are for Linux")
    return ahead


def imported(source: str) -> set[str]:
    """Top names of all that `source` imports, also where it does so late."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


@pytest.mark.slow
def test_image_holds_what_the_app_imports_and_no_torch(report):
    files = [ROOT / "app.py", *(ROOT / "model").rglob("*.py"), *(ROOT / "pages").rglob("*.py")]
    needed = set().union(*(imported(path.read_text(encoding="utf-8")) for path in files))
    installed = {name.split(".")[0] for name in report["packages"]}
    assert needed - sys.stdlib_module_names - installed <= {"model", "pages"}
    assert not installed & {"torch", "torchvision", "lightning"}


@pytest.mark.slow
def test_image_adds_less_than_700_megabytes_to_its_base(report):
    assert report["mb"] < 700
    assert report["files"] == [".streamlit", "app.py", "assets", "model", "pages", "requirements.txt"]


@pytest.mark.slow
def test_image_holds_what_browsers_read_with(report):
    if not shutil.which("npm"):
        pytest.skip("needs npm")
    assert report["runtime"] == sorted([*RUNTIME["files"], "ort-wasm-simd-threaded.wasm.gz"])


@pytest.mark.slow
def test_container_answers_on_the_port_it_is_given(report):
    assert report["health"]
    assert {"hands", "total"} <= report["reading"].keys()
    pages = ("live", "pictures", "videos", "samples", "teach", "evaluation")
    assert report["pages"] == {page: [] for page in pages}


@pytest.mark.slow
def test_container_stops_when_told_to(report):
    # The server shuts down, then takes the signal as its end.
    assert report["exit"] in (0, -15, 143)
    assert report["stopped_s"] < 5
    assert report["unhealthy_when_stopped"]


@pytest.mark.slow
def test_spaces_looks_at_the_port_that_is_served_by_default(report):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"^app_port: (\d+)$", readme, re.M)[1] == str(report["default_port"])
