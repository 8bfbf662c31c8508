"""The pipeline of dvc.yaml, in small: from bundled pictures to a model that reads, and to other machines."""

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

from benchmarks.app_server import running
from handful import FingerCounter

ROOT = Path(__file__).parents[2]
# As it was before any test changed it; PATH leads to the project's Python first.
ENV = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def run(folder: Path, *command: str) -> str:
    """What a command says, run in a folder as a user does."""
    done = subprocess.run(command, cwd=folder, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def dvc(folder: Path, *command: str) -> str:
    return run(folder, sys.executable, "-m", "dvc", *command)


def make(folder: Path) -> Path:
    """The project in a folder of its own, and in it a model, made from its pictures by the pipeline."""
    one = folder / "one"
    one.mkdir()
    # As it lies here, not as it was last committed.
    files = run(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for file in files:
        if (ROOT / file).is_file():
            (one / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, one / file)
    # Even less of everything: what is learned does not matter here.
    for name, less in ("detector", {"scenes": 64}), ("classifier", {"sources": {"rendered": 128}}):
        settings = one / f"training/configs/tiny/{name}.yaml"
        small = yaml.safe_load(settings.read_text())
        small["data"] |= less | {"batch_size": 32, "workers": 0}
        small["trainer"] |= {"max_epochs": 1, "log_every_n_steps": 1}
        settings.write_text(yaml.safe_dump(small))
    profiles = yaml.safe_load((one / "params.yaml").read_text())
    profiles["profiles"]["tiny"]["prune"] = "--seen 32"
    (one / "params.yaml").write_text(yaml.safe_dump(profiles))
    run(one, "git", "init", "-q", "-b", "main")
    dvc(one, "repro", "evaluate@tiny")
    return one


@pytest.mark.slow
@pytest.mark.ahead(work=make)
def test_what_one_made_another_need_not_make_again(ahead):
    one, other = ahead, ahead.parent / "other"
    counter = FingerCounter(one / "runs/tiny/handful.onnx")
    assert "rendered by Handful" in counter.metadata["data"]
    with running(one.parent / "log", HANDFUL_MODEL=str(one / "runs/tiny/handful.onnx")) as address:
        served = httpx.get(f"{address}/api/health").json()["model"]
        assert served["sha256"] == counter.sha256
        picture = (ROOT / "assets/samples/3L_0.jpg").read_bytes()
        told = httpx.post(f"{address}/api/predict", files={"file": ("3L_0.jpg", picture)}).json()
        assert told["width"] == 256
    measured = json.loads((one / "runs/tiny/metrics/summary.json").read_text())
    assert set(measured) == {"rendered"}
    assert "rendered.recall" in dvc(one, "metrics", "show", "--md")
    dvc(one, "plots", "show", "--out", "plots")
    page = (one / "plots/index.html").read_text()
    assert "train/loss" in page
    dvc(one, "push")

    run(one, "git", "add", "-A")
    run(one, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a model")
    run(one.parent, "git", "clone", "-q", str(one), str(other))
    dvc(other, "pull", "--with-deps", "evaluate@tiny")
    assert (other / "runs/tiny/handful/best.ckpt").is_file()
    (other / "training/data/__pycache__").mkdir()  # Python puts there what it makes of the code
    (other / "training/data/__pycache__/frames.cpython-311.pyc").write_bytes(b"")
    told = dvc(other, "repro", "evaluate@tiny")
    assert "Running stage" not in told
    # A setting that changes makes what depends on it again, and nothing else.
    settings = other / "training/configs/tiny/classifier.yaml"
    settings.write_text(settings.read_text().replace("rendered: 128", "rendered: 96"))
    told = dvc(other, "status", "detector@tiny", "classifier@tiny")
    assert "classifier@tiny" in told
    assert "detector@tiny" not in told
    measured["rendered"]["recall"] += 0.125
    (other / "runs/tiny/metrics/summary.json").write_text(json.dumps(measured))
    assert re.search(r"rendered\.recall .* 0\.125\b", dvc(other, "metrics", "diff"))


def imported(*files: str) -> set[str]:
    """The files of training/ that these files import, as they are read, and what those import in turn."""
    found, left = set(), list(files)
    while left:
        found.add(file := left.pop())
        for line in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
            if isinstance(line, ast.ImportFrom) and line.module.startswith("training"):
                names = [line.module, *(f"{line.module}.{name.name}" for name in line.names)]
                paths = [f"{name.replace('.', '/')}{end}" for name in names for end in (".py", "/__init__.py")]
                left += [path for path in paths if (ROOT / path).is_file() and path not in found]
    return found


def test_a_stage_is_run_again_when_any_of_its_code_changes():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, *begins in (
        ("detector", "training/lightning/cli.py", "training/networks/detector.py", "training/data/scenes.py"),
        ("classifier", "training/lightning/cli.py", "training/lightning/classifier.py", "training/data/__init__.py"),
        ("prune", "training/export/prune.py"),
        ("export", "training/export/cascade.py"),
    ):
        told = stages[name]["do"]["deps"]
        of_folders = {file for file in imported(*begins) if any(file.startswith(f"{folder}/") for folder in told)}
        # What fetches meshes and panoramas is no part of it.
        assert imported(*begins) - of_folders - set(told) <= {
            "training/npm.py",
            "training/__init__.py",
            "training/errors.py",
            "training/files.py",
        }, name


def test_what_was_rendered_stays_and_a_recording_of_ones_own_begins_no_training():
    outs = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["render"]["do"]["outs"]
    assert outs == [{"data/render/${key}": {"persist": True}}]
    assert "/data/own" in (ROOT / ".dvcignore").read_text().splitlines()
