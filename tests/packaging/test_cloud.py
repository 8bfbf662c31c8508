"""Cloud Build and Vertex AI: valid configurations, whose commands run in the images."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from benchmarks import ROOT
from benchmarks.dockerfile import Image, is_ignored
from benchmarks.sbom import read_lock
from training.lightning.module import git_commit

TRAINING = ROOT / "training/Dockerfile"


def object_schema(required: list[str], **properties: dict) -> dict:
    """Return the JSON schema of an object with these properties only."""
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def array_schema(items: dict) -> dict:
    return {"type": "array", "items": items, "minItems": 1}


TEXT = {"type": "string", "minLength": 1}
ONE_OR_MORE = {"type": "integer", "minimum": 1}
# The part of CustomJobSpec that training/configs/vertex.yaml uses; gcloud rejects unknown names. Source:
# cloud.google.com/vertex-ai/docs/reference/rest/v1/CustomJobSpec
JOB = object_schema(
    ["workerPoolSpecs"],
    workerPoolSpecs=array_schema(
        object_schema(
            ["machineSpec", "containerSpec", "replicaCount"],
            machineSpec=object_schema(
                ["machineType"],
                machineType=TEXT,
                acceleratorType={"enum": ["NVIDIA_TESLA_T4", "NVIDIA_L4", "NVIDIA_TESLA_A100", "NVIDIA_H100_80GB"]},
                acceleratorCount=ONE_OR_MORE,
            ),
            replicaCount=ONE_OR_MORE,
            diskSpec=object_schema([], bootDiskType={"enum": ["pd-ssd", "pd-standard"]}, bootDiskSizeGb=ONE_OR_MORE),
            containerSpec=object_schema(
                ["imageUri"],
                imageUri=TEXT,
                command=array_schema(TEXT),
                args=array_schema(TEXT),
                env=array_schema(object_schema(["name", "value"], name=TEXT, value=TEXT)),
            ),
        )
    ),
    scheduling=object_schema([], timeout={"type": "string", "pattern": r"^\d+s$"}),
)


@pytest.fixture(scope="module")
def build() -> dict:
    return yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())


VERTEX = yaml.safe_load((ROOT / "training/configs/vertex.yaml").read_text())


# Cloud Build


def test_cloudbuild_yaml_is_valid():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.cloudbuild", "cloudbuild.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_steps_test_before_push_and_push_before_deploy(build):
    steps = {step["id"]: step for step in build["steps"]}
    assert list(steps) == ["test", "build", "push", "deploy"]
    assert set(steps["push"]["waitFor"]) == {"test", "build"}
    assert "waitFor" not in steps["deploy"]  # waits for all steps before it
    assert all("timeout" in part for part in (build, *steps.values()))
    *_, command = steps["test"]["args"]
    assert "npm" in command, "missing in the image, but needed by the rendering tests"
    assert (ROOT / command.split()[-1]).is_file()


def test_every_substitution_has_a_default_and_is_used(build):
    text = (ROOT / "cloudbuild.yaml").read_text()
    used = set(re.findall(r"\$\{?(\w+)", text))
    assert used - set(build["substitutions"]) == {"PROJECT_ID", "BUILD_ID"}  # built-in
    assert set(build["substitutions"]) <= used


def test_image_can_load_a_model_from_a_bucket(build):
    assert any(pin.name == "gcsfs" for pin in read_lock(build["substitutions"]["_LOCK"]))


def test_builds_get_the_files_of_git_and_its_history():
    assert [line for line in (ROOT / ".gcloudignore").read_text().splitlines() if not line.startswith("# ")] == [
        "#!include:.gitignore"
    ]


# Vertex AI


def test_vertex_yaml_is_valid():
    jsonschema.validate(VERTEX, JOB)


def build_training_image(folder: Path) -> Image:
    """Build the training image with the packages of this environment."""
    image = Image(folder, TRAINING, install=False)
    image.build()
    return image


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Image:
    if sys.platform == "win32":
        pytest.skip("the image is for Linux")
    return build_training_image(tmp_path_factory.mktemp("image"))


def test_training_image_has_code_only(image):
    assert sorted(path.name for path in image.workdir.iterdir()) == [
        *("handful", "model", "requirements-train.lock", "training")
    ]
    dockerignore = TRAINING.with_name("Dockerfile.dockerignore").read_text()
    for path in ("data/fingers/a.png", "runs/classifier/best.ckpt", ".git/config", "training/__pycache__/a.pyc"):
        assert is_ignored(path, dockerignore)


def test_training_image_has_the_commit_in_its_environment(image, tmp_path, monkeypatch):
    assert image.env["HANDFUL_COMMIT"] == "unknown"
    monkeypatch.chdir(tmp_path)
    assert git_commit() == "unknown"
    monkeypatch.setenv("HANDFUL_COMMIT", "a" * 40)
    assert git_commit() == "a" * 40
    monkeypatch.chdir(ROOT)
    assert git_commit() != "a" * 40


RUN_COMMANDS = """
import json, sys
from training.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as end:
        print("exit status", end.code)
"""


def job_commands() -> list[list[str]]:
    """Return the arguments of each `python -m training` in the job's script."""
    [script] = VERTEX["workerPoolSpecs"][0]["containerSpec"]["args"]
    lines = [shlex.split(line) for line in script.splitlines()]
    return [line[3:] for line in lines if line[:3] == ["python", "-m", "training"]]


def run_job(folder: Path) -> subprocess.CompletedProcess:
    """Run the commands of the job and of the image, with options that parse all settings but need no data."""
    image = build_training_image(folder)
    commands = [arguments + ["--print_config" if "fit" in arguments else "--help"] for arguments in job_commands()]
    command = ["python", "-c", RUN_COMMANDS, json.dumps([*commands, image.cmd[3:]])]
    return subprocess.run(command, cwd=image.workdir, env=image.env, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the image is for Linux")
@pytest.mark.background(work=run_job)
def test_training_image_runs_every_command_of_the_job(background_result):
    assert [next(word for word in arguments if word != "detector") for arguments in job_commands()] == [
        *("fit", "fit", "prune", "export", "evaluate")
    ]
    done = background_result
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("exit status 0") == 6
    assert done.stdout.count("workers: 7") == 2
