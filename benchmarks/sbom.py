"""Write sbom.json: what the Docker image consists of, as CycloneDX. `python -m benchmarks.sbom`, or `make sbom`.

Packages are those of requirements.lock, described by this environment, which has the same versions. Added is what these
do not say themselves: the libraries inside wheels for Linux, the files for browsers, the model, and the base image.
"""

import base64
import hashlib
import json
import re
import subprocess
import sys
from importlib.metadata import distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks import ROOT
from benchmarks.dockerfile import parse_dockerfile


def read_lock(name: str) -> list[Requirement]:
    """Return the requirements of a lock file, with their markers."""
    return [Requirement(line) for line in re.findall(r"^[\w.-]+==[^\\\n]+", (ROOT / name).read_text(), re.M)]


def read_licences() -> dict[str, str]:
    """Return the licences of packages and libraries by name, from the tables of docs/licences.md."""
    tables = re.findall(r"^\| (.+) \| (.+) \|$", (ROOT / "docs/licences.md").read_text(encoding="utf-8"), re.M)
    return {
        name: licence.replace("*", "")
        for licence, names in tables
        for name in re.sub(r" \(.*?\)", "", names).split(", ")
    }


def libraries(package: str) -> set[str]:
    """Return the names of the shared libraries inside the installed wheel of a package, without hashes and versions."""
    names = [file.name for file in distribution(package).files or () if file.parts[0].endswith(".libs")]
    return {re.sub(r"(-r0)?(-[0-9a-f]{8})+\..*", "", name) for name in names}


def component(kind: str, name: str, licence: str = "Apache-2.0", **rest: object) -> dict:
    """Return a component as CycloneDX has it."""
    return {"type": kind, "name": name, "licenses": [{"license": {"name": licence}}], **rest}


def additions() -> list[dict]:
    """Return the components that are no Python packages: files for browsers, the model, the base image."""
    runtime = json.loads((ROOT / "assets/browser/runtime.json").read_text())
    files = [
        component("file", name, "MIT", hashes=[{"alg": "SHA-384", "content": base64.b64decode(digest).hex()}])
        for name, digest in ((name, integrity.removeprefix("sha384-")) for name, integrity in runtime["files"].items())
    ]
    version, name = runtime["version"], "onnxruntime-web"
    model = hashlib.sha256((ROOT / "model/handful.onnx").read_bytes()).hexdigest()
    *_, base = [rest for name, rest in parse_dockerfile((ROOT / "Dockerfile").read_text()) if name == "FROM"]
    tag, digest = base.split("@")
    return [
        component("library", name, "MIT", version=version, purl=f"pkg:npm/{name}@{version}", components=files),
        component("machine-learning-model", "handful.onnx", hashes=[{"alg": "SHA-256", "content": model}]),
        {"type": "container", "name": tag, "version": digest, "purl": f"pkg:docker/{tag.split(':')[0]}@{digest}"},
    ]


def sbom() -> dict:
    """Return what the image consists of, as CycloneDX."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", "pyproject.toml"]
    options = ["--output-reproducible", "--no-validate"]
    done = subprocess.run([*command, *options], cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    bom = json.loads(done.stdout)
    lock = read_lock("requirements.lock")
    shipped = {canonicalize_name(pin.name) for pin in lock if not pin.marker or pin.marker.evaluate()}
    licences = read_licences()
    packages = [package for package in bom["components"] if canonicalize_name(package["name"]) in shipped]
    for package in packages:
        inside = sorted(libraries(package["name"]))
        package["components"] = [component("library", name, licences.get(name, "unknown")) for name in inside]
    refs = {bom["metadata"]["component"]["bom-ref"], *(package["bom-ref"] for package in packages)}
    bom["components"] = packages + additions()
    bom["dependencies"] = [
        entry | {"dependsOn": sorted(refs.intersection(entry.get("dependsOn", ())))}
        for entry in bom["dependencies"]
        if entry["ref"] in refs
    ]
    return bom


if __name__ == "__main__":
    (ROOT / "sbom.json").write_text(json.dumps(sbom(), indent=2) + "\n", encoding="utf-8")
