"""The build: pins, make targets and CI hold together."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
REQUIREMENTS = ["requirements.txt", "requirements-train.txt", "requirements-dev.txt"]


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_requirement_is_pinned(name):
    lines = (ROOT / name).read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith(("#", "-r "))]
    assert pins
    assert all(re.fullmatch(r"[\w.-]+(\[\w+\])?==[\w.]+", pin) for pin in pins)


def test_readme_tells_each_make_target_and_its_python_line():
    recipes = re.findall(r"^([\w-]+): \.venv/\S+\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text(), re.M)
    assert {"run", "test", "data", "train", "evaluate", "export"} <= {name for name, _ in recipes}
    for name, lines in recipes:
        assert f"`make {name}" in README
        for line in lines.strip().splitlines():
            assert line.strip().replace("$(PY)", "python").replace("$(N)", "24000") in README


@pytest.mark.skipif(sys.platform == "win32" or not shutil.which("make"), reason="needs make")
def test_second_make_installs_nothing(tmp_path):
    """With a Python that only writes down what it is asked."""
    for name in ["Makefile", *REQUIREMENTS]:
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\necho "$*" >> asked\n'
        'if [ "$2" = venv ]; then mkdir -p .venv/bin; cp "$0" .venv/bin/python; touch .venv/pyvenv.cfg; fi\n'
    )
    python.chmod(0o755)

    def make(target: str) -> list[str]:
        (tmp_path / "asked").unlink(missing_ok=True)
        # Under `make test`, the outer make's own settings are not this one's.
        env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
        subprocess.run(["make", target, f"PYTHON={python}"], cwd=tmp_path, env=env, check=True, capture_output=True)
        return (tmp_path / "asked").read_text().splitlines()

    assert any("-r requirements.txt" in line for line in make("run"))
    assert make("run") == ["-m streamlit run app.py"]
    assert any("-r requirements-dev.txt" in line for line in make("test"))
    assert make("test") == ["-m pytest --cov"]
    # What the tests need holds what the app needs.
    os.utime(tmp_path / "requirements.txt")
    make("test")
    assert make("run") == ["-m streamlit run app.py"]


def test_ci_runs_on_three_systems_and_three_pythons():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    matrix = jobs["test"]["strategy"]["matrix"]
    assert len(matrix["os"]) == 3
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
    for job in jobs.values():
        assert job["runs-on"]
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])
