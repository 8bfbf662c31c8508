"""What images, machines and CI install is pinned by checksum, and the pins are those of the requirements."""

import re
from collections.abc import Iterator

import pytest

from benchmarks import ROOT
from benchmarks.dockerfile import parse_dockerfile
from benchmarks.sbom import read_lock

NAMES = ["requirements", "requirements-store", "requirements-train", "requirements-dev"]
locks = pytest.mark.parametrize("name", NAMES)
DOCKERFILES = [ROOT / "Dockerfile", ROOT / "training/Dockerfile"]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def entries(name: str) -> list[str]:
    """Return the entries of a lock: a pin, its hashes and who needs it."""
    return re.findall(r"^[\w.-]+==.*\n(?: .*\n)+", text(f"{name}.lock"), re.M)


def required(name: str) -> Iterator[tuple[str, str]]:
    """Yield (file, pin) for all lines of a requirements file and of the files that it includes."""
    for line in text(f"{name}.txt").splitlines():
        if line.startswith("-r "):
            yield from required(line.removeprefix("-r ").removesuffix(".txt"))
        elif line and not line.startswith("#"):
            yield f"{name}.txt", re.sub(r"\[.*?\]", "", line.lower().replace("_", "-"))


@locks
def test_lock_is_that_of_its_requirements(name):
    """As much as can be known without an index. If it fails: make lock."""
    direct = {(file, entry.split()[0]) for entry in entries(name) for file in re.findall(r"-r (\S+)", entry)}
    assert direct == set(required(name))


@locks
def test_all_locks_have_the_versions_that_the_tests_run_with(name):
    tested = {(pin.name, str(pin.specifier)) for pin in read_lock("requirements-dev.lock")}
    assert {(pin.name, str(pin.specifier)) for pin in read_lock(f"{name}.lock")} <= tested


@locks
def test_every_locked_package_has_hashes(name):
    assert len(entries(name)) == len(read_lock(f"{name}.lock")) > 40
    assert all("--hash=sha256:" in entry for entry in entries(name))


@locks
def test_lock_names_no_index(name):
    assert not re.search(r"://|^--|@ ", text(f"{name}.lock"), re.M)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_images_start_from_digests_and_install_only_what_is_locked(dockerfile):
    lines = parse_dockerfile(dockerfile.read_text())
    bases = [rest.split()[0] for name, rest in lines if name == "FROM"]
    assert all(re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", base) for base in bases)
    installs = [rest for name, rest in lines if name == "RUN" and "pip install" in rest]
    assert installs
    assert all("--require-hashes" in rest for rest in installs)


def test_both_images_have_the_same_python():
    bases = [re.findall(r"^FROM (python\S+)", path.read_text(), re.M) for path in DOCKERFILES]
    assert bases[0] == bases[1]


def test_ci_runs_actions_by_commit_and_installs_only_what_is_locked():
    workflow = text(".github/workflows/ci.yml")
    uses = re.findall(r"uses: (.+)", workflow)
    assert uses
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action) for action in uses)
    installs = re.findall(r"pip.? install.*", workflow)
    assert installs
    assert all("--require-hashes" in line for line in installs)
