"""The wheel, installed in a new environment that has its declared dependencies and nothing else."""

import json
import os
import subprocess
import sys
import sysconfig
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from benchmarks.dockerfile import ROOT

pytestmark = pytest.mark.slow

SAMPLE = ROOT / "assets/samples/3L_0.jpg"


def pip(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments], check=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    [file] = folder.iterdir()
    return file


def requirements(metadata: list[str]) -> set[str]:
    """Return the names of all distributions that `metadata`, lines of Requires-Dist, needs here, directly or not."""
    names: set[str] = set()
    for requirement in map(Requirement, metadata):
        if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
            names |= {requirement.name} | requirements(distribution(requirement.name).requires or [])
    return names


class Environment:
    """A virtual environment without pip. Dependencies are links to this environment's: installing them takes long."""

    def __init__(self, folder: Path, wheel: Path):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        paths = sysconfig.get_paths("venv", {"base": str(folder), "platbase": str(folder)})
        self.scripts, self.packages = Path(paths["scripts"]), Path(paths["purelib"])
        pip("--python", folder, "install", "--quiet", "--no-deps", wheel)
        with ZipFile(wheel) as archive:
            [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            lines = archive.read(metadata).decode().split("\n\n")[0].splitlines()
        needed = requirements(
            [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
        )
        for dependency in map(distribution, needed):
            for name in {file.parts[0] for file in dependency.files or ()} - {"..", "__pycache__"}:
                if not (self.packages / name).exists():
                    (self.packages / name).symlink_to(dependency.locate_file(name))

    def run(self, program: str, *arguments: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in another folder than the repository."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HANDFUL_"))}
        command = [self.scripts / program, *arguments]
        return subprocess.run(command, cwd=cwd, env=inherited | env, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Environment:
    return Environment(tmp_path_factory.mktemp("environment"), wheel)


def test_wheel_holds_the_runtime_and_the_model_only(wheel):
    with ZipFile(wheel) as archive:
        files = [name for name in archive.namelist() if ".dist-info/" not in name]
    modules = [f"handful/{path.name}" for path in (ROOT / "handful").glob("*.py")]
    assert sorted(files) == sorted([*modules, "handful/handful.onnx"])


def test_command_counts_fingers_in_any_folder(environment, tmp_path):
    for program, *arguments in ["handful"], ["python", "-m", "handful"]:
        done = environment.run(program, *arguments, SAMPLE, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        result = json.loads(done.stdout)
        [hand] = result["hands"]
        assert (result["total"], hand["fingers"], hand["side"]) == (3, 3, "left")


def test_exit_status_is_that_of_the_command_line(environment, tmp_path):
    assert environment.run("handful", "missing.jpg", cwd=tmp_path).returncode == 1
    assert environment.run("handful", cwd=tmp_path).returncode == 2


def test_library_is_imported_from_the_environment(environment, tmp_path):
    code = "import handful; handful.FingerCounter(); print(handful.__file__, handful.MODEL, sep='\\n')"
    done = environment.run("python", "-c", code, cwd=tmp_path)
    assert done.stdout.splitlines() == [
        str(environment.packages / "handful" / name) for name in ("__init__.py", "handful.onnx")
    ], done.stderr


def test_missing_model_is_reported(environment, tmp_path):
    model = environment.packages / "handful/handful.onnx"
    model.rename(tmp_path / "handful.onnx")
    try:
        done = environment.run("handful", SAMPLE, cwd=tmp_path)
    finally:
        (tmp_path / "handful.onnx").rename(model)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"handful: {model}: there is no such file.\n"


def test_remote_model_needs_the_optional_dependency(environment, tmp_path):
    done = environment.run("handful", SAMPLE, cwd=tmp_path, HANDFUL_MODEL="https://127.0.0.1/handful.onnx")
    assert "pip install fsspec[http]" in done.stderr
    assert json.loads(done.stdout)["total"] == 3
