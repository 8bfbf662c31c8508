"""The pipeline of dvc.yaml in small: from bundled pictures to a model that predicts, and to other machines."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from benchmarks.app_server import run_app
from handful import FingerCounter

ROOT = Path(__file__).parents[2]
# Before any test changes it; the project's Python is first on PATH.
ENV = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def run(folder: Path, *command: str) -> str:
    """Run a command in a folder, as a user does, and return its output."""
    done = subprocess.run(command, cwd=folder, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def dvc(folder: Path, *command: str) -> str:
    return run(folder, sys.executable, "-m", "dvc", *command)


def run_pipeline(folder: Path) -> Path:
    """Copy the project to a folder, run the pipeline in it, and return it."""
    one = folder / "one"
    one.mkdir()
    # The working tree, not the last commit.
    files = run(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for file in files:
        if (ROOT / file).is_file():
            (one / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, one / file)
    # Even less of everything: accuracy does not matter here.
    for name, less in ("detector", {"scenes": 64}), ("classifier", {"sources": {"rendered": 128}}):
        settings = one / f"training/configs/tiny/{name}.yaml"
        small = yaml.safe_load(settings.read_text())
        small["data"] |= less | {"batch_size": 32, "workers": 0}
        small["trainer"] |= {"max_epochs": 1, "log_every_n_steps": 1}
        settings.write_text(yaml.safe_dump(small))
    profiles = yaml.safe_load((one / "params.yaml").read_text())
    profiles["profiles"]["tiny"]["prune"] = "--frames 32"
    (one / "params.yaml").write_text(yaml.safe_dump(profiles))
    run(one, "git", "init", "-q", "-b", "main")
    dvc(one, "repro", "evaluate@tiny")
    return one


@pytest.mark.slow
@pytest.mark.background(work=run_pipeline)
def test_a_clone_pulls_the_results_and_runs_only_stages_that_changed(background_result):
    one, other = background_result, background_result.parent / "other"
    counter = FingerCounter(one / "runs/tiny/handful.onnx")
    assert "rendered by Handful" in counter.metadata["data"]
    with run_app(one.parent / "log", HANDFUL_MODEL=str(one / "runs/tiny/handful.onnx")) as address:
        served = httpx.get(f"{address}/api/health").json()["model"]
        assert served["sha256"] == counter.sha256
        picture = (ROOT / "assets/samples/3L_0.jpg").read_bytes()
        prediction = httpx.post(f"{address}/api/predict", files={"file": ("3L_0.jpg", picture)}).json()
        assert prediction["width"] == 256
    summary = json.loads((one / "runs/tiny/metrics/summary.json").read_text())
    assert set(summary) == {"rendered"}
    assert "rendered.recall" in dvc(one, "metrics", "show", "--md")
    dvc(one, "plots", "show", "--out", "plots")
    page = (one / "plots/index.html").read_text()
    assert "train/loss" in page
    dvc(one, "push")

    run(one, "git", "add", "-A")
    run(one, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a model")
    run(one.parent, "git", "clone", "-q", str(one), str(other))
    dvc(other, "pull", "--with-deps", "evaluate@tiny")
    assert (other / "runs/tiny/classifier/best.ckpt").is_file()
    (other / "training/data/__pycache__").mkdir()  # as Python does
    (other / "training/data/__pycache__/frames.cpython-311.pyc").write_bytes(b"")
    output = dvc(other, "repro", "evaluate@tiny")
    assert "Running stage" not in output
    # A changed setting invalidates the stages that depend on it, and no others.
    settings = other / "training/configs/tiny/classifier.yaml"
    settings.write_text(settings.read_text().replace("rendered: 128", "rendered: 96"))
    output = dvc(other, "status", "detector@tiny", "classifier@tiny")
    assert "classifier@tiny" in output
    assert "detector@tiny" not in output
    summary["rendered"]["recall"] += 0.125
    (other / "runs/tiny/metrics/summary.json").write_text(json.dumps(summary))
    assert re.search(r"rendered\.recall .* 0\.125\b", dvc(other, "metrics", "diff"))


def imported(*files: str) -> set[str]:
    """Return the files of training/ that these files import at their top level, directly or not."""
    found, queue = set(), list(files)
    while queue:
        found.add(file := queue.pop())
        for line in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
            if isinstance(line, ast.ImportFrom) and line.module.startswith("training"):
                names = [line.module, *(f"{line.module}.{name.name}" for name in line.names)]
                paths = [f"{name.replace('.', '/')}{end}" for name in names for end in (".py", "/__init__.py")]
                queue += [path for path in paths if (ROOT / path).is_file() and path not in found]
    return found


def test_a_stage_depends_on_all_of_its_code():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, *entry_points in (
        ("detector", "training/lightning/cli.py", "training/networks/detector.py", "training/data/scenes.py"),
        ("classifier", "training/lightning/cli.py", "training/lightning/classifier.py", "training/data/__init__.py"),
        ("prune", "training/export/prune.py"),
        ("export", "training/export/cascade.py"),
    ):
        deps = stages[name]["do"]["deps"]
        in_folders = {file for file in imported(*entry_points) if any(file.startswith(f"{folder}/") for folder in deps)}
        # Downloads of meshes and panoramas do not affect the results.
        assert imported(*entry_points) - in_folders - set(deps) <= {
            "training/npm.py",
            "training/__init__.py",
            "training/errors.py",
            "training/files.py",
        }, name


def test_rendered_hands_are_kept_and_a_recording_invalidates_no_stage():
    outs = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["render"]["do"]["outs"]
    assert outs == [{"data/render/${key}": {"persist": True}}]
    assert "/data/own" in (ROOT / ".dvcignore").read_text().splitlines()
