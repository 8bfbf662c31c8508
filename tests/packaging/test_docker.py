"""The Docker image, replayed without Docker: contents, size, start, responses and stop."""

import ast
import re
import shutil
import sys
from pathlib import Path

import pytest

from benchmarks import ROOT
from benchmarks.dockerfile import is_ignored, parse_command, parse_dockerfile, replay
from web.browser_camera import RUNTIME


def build(folder: Path) -> dict:
    """Return the report of a replay, which makes its own folder."""
    return replay()


pytestmark = pytest.mark.background(work=build)

DOCKERIGNORE = (ROOT / ".dockerignore").read_text()
FOLDERS = {"handful", "pages", "web"}  # with the app's modules


@pytest.mark.parametrize(
    "path", ["app.py", "handful/counter.py", "pages/live.py", "web/log.py", "requirements.lock", "assets/a/b.jpg"]
)
def test_build_context_has_what_the_app_needs(path):
    assert not is_ignored(path, DOCKERIGNORE)


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".streamlit/secrets.toml",
        ".venv/bin/python",
        "README.md",
        "data/fingers/a.png",
        "handful/__pycache__/a.pyc",
        "requirements-dev.lock",
        "tests/packaging/test_docker.py",
        "training/networks/classifier.py",
    ],
)
def test_build_context_has_nothing_else(path):
    assert is_ignored(path, DOCKERIGNORE)


def test_parser_joins_continued_lines_and_drops_comments():
    lines = "# why\nFROM python:3.11\nHEALTHCHECK --timeout=5s \\\n    CMD true\n"
    assert parse_dockerfile(lines) == [("FROM", "python:3.11"), ("HEALTHCHECK", "--timeout=5s CMD true")]
    assert parse_command('["a", "b c"]') == ["a", "b c"]
    assert parse_command("a b") == ["sh", "-c", "a b"]


@pytest.fixture
def report(background_result):
    if sys.platform == "win32":
        pytest.skip("the Dockerfile's commands are for Linux")
    return background_result


def imported(source: str) -> set[str]:
    """Return the top-level names of all modules that `source` imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


@pytest.mark.slow
def test_image_has_the_packages_that_the_app_imports_and_no_torch(report):
    files = [ROOT / "app.py", *(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))]
    needed = set().union(*(imported(path.read_text(encoding="utf-8")) for path in files))
    installed = {name.split(".")[0] for name in report["packages"]}
    assert needed - sys.stdlib_module_names - installed <= FOLDERS
    assert not installed & {"torch", "torchvision", "lightning"}


@pytest.mark.slow
def test_image_adds_less_than_700_mb_to_its_base(report):
    assert report["size_mb"] < 700
    locks = {"requirements.lock", "requirements-store.lock"}
    assert set(report["files"]) == {".streamlit", "app.py", "assets", "model"} | locks | FOLDERS


@pytest.mark.slow
def test_image_has_the_runtime_for_browsers(report):
    if not shutil.which("npm"):
        pytest.skip("needs npm")
    assert report["browser_runtime"] == sorted([*RUNTIME["files"], "ort-wasm-simd-threaded.wasm.gz"])


@pytest.mark.slow
def test_container_serves_the_api_and_all_pages_on_a_given_port(report):
    assert report["health"]
    assert {"hands", "total"} <= report["prediction"].keys()
    pages = ("live", "pictures", "videos", "samples", "teach", "evaluation", "about")
    assert report["page_errors"] == {page: [] for page in pages}


@pytest.mark.slow
def test_container_stops_within_seconds(report):
    # The server shuts down, then ends by the signal.
    assert report["exit_status"] in (0, -15, 143)
    assert report["stop_s"] < 5
    assert not report["healthy_after_stop"]


@pytest.mark.slow
def test_default_port_is_the_one_that_spaces_expects(report):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"^app_port: (\d+)$", readme, re.M)[1] == str(report["default_port"])


def test_make_run_and_the_image_limit_memory_alike():
    in_image = re.findall(r"(MALLOC_\w+)=(\w+)", (ROOT / "Dockerfile").read_text())
    assert in_image
    assert in_image == re.findall(r"^run: export (\w+) = (\w+)$", (ROOT / "Makefile").read_text(), re.M)
