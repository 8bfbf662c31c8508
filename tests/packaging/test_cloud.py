"""Cloud Build and Vertex AI: what they are told is what they understand, and what there is."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from benchmarks.dockerfile import ROOT, Image, ignored
from training.lightning.module import git_commit

TRAINING = ROOT / "training/Dockerfile"


def closed(required: list[str], **properties: dict) -> dict:
    """The schema of an object with these properties and no others."""
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def several(items: dict) -> dict:
    return {"type": "array", "items": items, "minItems": 1}


TEXT = {"type": "string", "minLength": 1}
ONE_OR_MORE = {"type": "integer", "minimum": 1}
# What training/configs/vertex.yaml uses of CustomJobSpec:
# cloud.google.com/vertex-ai/docs/reference/rest/v1/CustomJobSpec
# tells it; gcloud refuses names that are not there.
JOB = closed(
    ["workerPoolSpecs"],
    workerPoolSpecs=several(
        closed(
            ["machineSpec", "containerSpec", "replicaCount"],
            machineSpec=closed(
                ["machineType"],
                machineType=TEXT,
                acceleratorType={"enum": ["NVIDIA_TESLA_T4", "NVIDIA_L4", "NVIDIA_TESLA_A100", "NVIDIA_H100_80GB"]},
                acceleratorCount=ONE_OR_MORE,
            ),
            replicaCount=ONE_OR_MORE,
            diskSpec=closed([], bootDiskType={"enum": ["pd-ssd", "pd-standard"]}, bootDiskSizeGb=ONE_OR_MORE),
            containerSpec=closed(
                ["imageUri"],
                imageUri=TEXT,
                command=several(TEXT),
                args=several(TEXT),
                env=several(closed(["name", "value"], name=TEXT, value=TEXT)),
            ),
        )
    ),
    scheduling=closed([], timeout={"type": "string", "pattern": r"^\d+s$"}),
)


@pytest.fixture(scope="module")
def build() -> dict:
    return yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())


VERTEX = yaml.safe_load((ROOT / "training/configs/vertex.yaml").read_text())


# Cloud Build


def test_cloud_build_understands_its_file():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.cloudbuild", "cloudbuild.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_it_tests_before_it_pushes_and_pushes_before_it_deploys(build):
    steps = {step["id"]: step for step in build["steps"]}
    assert list(steps) == ["test", "build", "push", "deploy"]
    assert set(steps["push"]["waitFor"]) == {"test", "build"}
    assert "waitFor" not in steps["deploy"]  # it waits for all before it
    assert all("timeout" in part for part in (build, *steps.values()))
    *_, command = steps["test"]["args"]
    assert "npm" in command, "which the image lacks, and the rendering tests need"
    assert (ROOT / command.split()[-1]).is_file()


def test_all_that_it_fills_in_has_a_default(build):
    text = (ROOT / "cloudbuild.yaml").read_text()
    used = set(re.findall(r"\$\{?(\w+)", text))
    assert used - set(build["substitutions"]) == {"PROJECT_ID", "BUILD_ID"}  # Cloud Build's own
    assert set(build["substitutions"]) <= used


def test_it_installs_the_package_for_buckets_that_is_tested(build):
    assert build["substitutions"]["_PACKAGES"] in (ROOT / "requirements-dev.txt").read_text().splitlines()


def test_the_cloud_s_own_builds_get_what_git_keeps_and_git():
    assert [line for line in (ROOT / ".gcloudignore").read_text().splitlines() if not line.startswith("# ")] == [
        "#!include:.gitignore"
    ]


# Vertex AI


def test_vertex_understands_its_file():
    jsonschema.validate(VERTEX, JOB)


def built(folder: Path) -> Image:
    """What the training image holds, and its settings; with the packages that are here."""
    image = Image(folder, TRAINING, install=False)
    image.build()
    return image


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Image:
    if sys.platform == "win32":
        pytest.skip("the image is for Linux")
    return built(tmp_path_factory.mktemp("image"))


def test_training_image_holds_code_and_nothing_else(image):
    assert sorted(path.name for path in image.workdir.iterdir()) == [
        *("handful", "model", "requirements-train.txt", "requirements.txt", "training")
    ]
    dockerignore = TRAINING.with_name("Dockerfile.dockerignore").read_text()
    for path in ("data/fingers/a.png", "runs/classifier/best.ckpt", ".git/config", "training/__pycache__/a.pyc"):
        assert ignored(path, dockerignore)


def test_training_image_knows_its_commit(image, tmp_path, monkeypatch):
    assert image.env["HANDFUL_COMMIT"] == "unknown"
    monkeypatch.chdir(tmp_path)
    assert git_commit() == "unknown"
    monkeypatch.setenv("HANDFUL_COMMIT", "a" * 40)
    assert git_commit() == "a" * 40
    monkeypatch.chdir(ROOT)
    assert git_commit() != "a" * 40


TRY = """
import json, sys
from training.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as end:
        print("ended with", end.code)
"""


def trainings() -> list[list[str]]:
    """What the job's script runs of Handful's own, as arguments of `python -m training`."""
    [script] = VERTEX["workerPoolSpecs"][0]["containerSpec"]["args"]
    lines = [shlex.split(line) for line in script.splitlines()]
    return [line[3:] for line in lines if line[:3] == ["python", "-m", "training"]]


def tried(folder: Path) -> subprocess.CompletedProcess:
    """The job's commands in the image, and its own: every setting is read, and no data are asked for."""
    image = built(folder)
    some = [arguments + ["--print_config" if "fit" in arguments else "--help"] for arguments in trainings()]
    command = ["python", "-c", TRY, json.dumps([*some, image.cmd[3:]])]
    return subprocess.run(command, cwd=image.workdir, env=image.env, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the image is for Linux")
@pytest.mark.ahead(work=tried)
def test_training_image_can_run_every_command_of_the_job(ahead):
    assert [next(word for word in arguments if word != "detector") for arguments in trainings()] == [
        *("fit", "fit", "prune", "export", "evaluate")
    ]
    done = ahead
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ended with 0") == 6
    assert done.stdout.count("workers: 7") == 2
