"""docs/licences.md and the SBOM cover what the image contains."""

import json
import sys

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from benchmarks import ROOT
from benchmarks.sbom import libraries, read_licences, read_lock, sbom

LICENCES = read_licences()
APP = read_lock("requirements.lock")
linux = pytest.mark.skipif(sys.platform != "linux", reason="images are for Linux")


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-store.lock"])
def test_every_package_of_an_image_is_on_the_page(lock):
    packages = {pin.name for pin in read_lock(lock) if not pin.marker or pin.marker.evaluate({"sys_platform": "linux"})}
    assert packages <= LICENCES.keys()


@linux
def test_every_library_inside_a_wheel_is_on_the_page():
    inside = set().union(*(libraries(pin.name) for pin in APP))
    assert {"libx264", "libx265", "libheif"} <= inside
    assert inside <= LICENCES.keys()


@linux
def test_versions_whose_source_a_publisher_owes_are_those_of_the_lock():
    page = (ROOT / "docs/licences.md").read_text(encoding="utf-8")
    versions = {pin.name: str(pin.specifier).removeprefix("==") for pin in APP}
    for name in ("av", "pillow-heif", "opencv-python-headless"):
        assert f"`{name}` {versions[name]}: " in page


@pytest.mark.slow
@linux
def test_sbom_has_packages_libraries_files_model_and_base():
    bom = sbom()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bom)) is None
    components = {component["name"].replace("_", "-").lower(): component for component in bom["components"]}
    others = {"onnxruntime-web", "handful.onnx", "python:3.11-slim"}
    assert components.keys() == {pin.name for pin in APP if not pin.marker or pin.marker.evaluate()} | others
    assert {"libx264", "libx265"} <= {library["name"] for library in components["av"]["components"]}
    assert "unknown" not in json.dumps(bom)
