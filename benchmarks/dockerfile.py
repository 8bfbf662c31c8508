"""Replay the Dockerfile without Docker: build, start, check and stop the app, and measure it.

python -m benchmarks.dockerfile

The image is a folder, its Python a new virtual environment, and its user one without an account, if this process may
switch users. WORKDIR, COPY, ARG, ENV, RUN, USER, HEALTHCHECK and CMD are read from the Dockerfile. Node stages use this
machine's npm, and are skipped without it.
"""

import json
import os
import re
import shlex
import shutil
import socket
import string
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from benchmarks import ROOT

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 10  # as for `docker stop`


def parse_dockerfile(dockerfile: str) -> list[tuple[str, str]]:
    """Return the lines of a Dockerfile as (instruction, rest), without comments and with continued lines joined."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = (line.split(maxsplit=1) for line in joined.splitlines())
    return [(name.upper(), rest) for name, rest in pairs]


def is_ignored(path: str, dockerignore: str) -> bool:
    """Return whether .dockerignore excludes `path` (relative, with /). The last matching line decides."""
    result = False
    for line in dockerignore.splitlines():
        pattern = line.strip().lstrip("!")
        if not pattern or pattern.startswith("#"):
            continue
        regex = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        # A line that matches a folder applies to everything in it.
        if re.fullmatch(f"{regex}(/.*)?", path):
            result = not line.startswith("!")
    return result


def parse_command(rest: str) -> list[str]:
    """Return the arguments of a CMD: a JSON list, or anything else as a line for the shell."""
    return json.loads(rest) if rest.lstrip().startswith("[") else ["sh", "-c", rest]


def find_python(uid: int) -> str:
    """Return a Python 3.11 or newer that user `uid` may run: others often have no access to root's."""
    check = "import sys, venv; sys.exit(sys.version_info < (3, 11))"
    for python in (getattr(sys, "_base_executable", sys.executable), "/usr/local/bin/python3", "/usr/bin/python3"):
        try:
            if subprocess.run([python, "-c", check], **as_user(uid), cwd="/").returncode == 0:
                return python
        except OSError:
            continue
    raise SystemExit(f"No Python 3.11 or newer that user {uid} may run.")


def as_user(uid: int) -> dict:
    """Return the arguments that run a subprocess as user `uid`; none if this process is of that user."""
    return {} if uid == os.geteuid() else {"user": uid, "group": uid, "extra_groups": []}


RUN_PAGES = """
import json
import re
from streamlit.testing.v1 import AppTest
names = re.findall('Page[(]"([a-z]+)[.]py"', open("pages/navigation.py").read())
pages = {name: AppTest.from_file(f"pages/{name}.py", default_timeout=60) for name in names}
print(json.dumps({name: [error.message for error in page.run().exception] for name, page in pages.items()}))
"""


@dataclass
class Image:
    """A Dockerfile, replayed into the folder `root` up to its CMD.

    Without `install`, RUN is skipped and this Python replaces that of the base image. `stage` is the subfolder of
    `root` that instructions apply to, "image" in the last stage.
    """

    root: Path
    dockerfile: Path = ROOT / "Dockerfile"
    install: bool = True
    stage: str = "image"
    uid: int = field(default_factory=os.geteuid)
    env: dict[str, str] = field(default_factory=dict)
    workdir: Path = Path("/")
    cmd: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)

    def build(self) -> None:
        """Replay the Dockerfile.

        Raises:
            NotImplementedError: the Dockerfile has an unsupported instruction.
        """
        skipped: set[str] = set()
        for name, rest in parse_dockerfile(self.dockerfile.read_text()):
            if name != "FROM" and self.stage in skipped:
                continue
            match name:
                case "FROM":
                    base, *named = rest.split()
                    self.stage = named[1] if named else "image"
                    if base.startswith("node:"):
                        self.env = {"PATH": os.environ["PATH"]}
                        if not shutil.which("npm"):
                            skipped.add(self.stage)
                    elif self.install:
                        self._create_python(base)
                    else:
                        self.env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
                case "ARG":
                    self.env |= dict([rest.split("=", 1)])
                case "ENV":
                    pairs = shlex.split(string.Template(rest).safe_substitute(self.env))
                    self.env |= dict(pair.split("=", 1) for pair in pairs)
                case "WORKDIR":
                    self.workdir = self._in_stage(rest)
                    self.workdir.mkdir(parents=True, exist_ok=True)
                case "COPY":
                    *sources, target = shlex.split(rest)
                    stage = sources.pop(0).removeprefix("--from=") if sources[0].startswith("--from=") else None
                    for source in sources:
                        if not stage:
                            self._copy(source, target)
                        elif stage not in skipped:
                            shutil.copytree(self.root / stage / source.lstrip("/"), self.workdir / target)
                case "RUN" if not self.install:
                    pass
                case "RUN":
                    # pip's settings and proxies are those of this machine, not of the image.
                    network = {
                        k: v for k, v in os.environ.items() if k.startswith("PIP_") or k.lower().endswith("_proxy")
                    }
                    subprocess.run(["sh", "-c", rest], cwd=self.workdir, env=self.env | network, check=True)
                case "USER":
                    # Only root can switch users.
                    self.uid = int(rest) if os.geteuid() == 0 else os.geteuid()
                case "HEALTHCHECK":
                    self.healthcheck = parse_command(rest.split("CMD", 1)[1])
                case "CMD":
                    self.cmd = parse_command(rest)
                case "EXPOSE":
                    pass
                case _:
                    raise NotImplementedError(f"{name} {rest}")

    def start(self, port: int) -> subprocess.Popen:
        """Run CMD with $PORT set, like `docker run --env PORT=…`."""
        self.env["PORT"] = str(port)
        with (self.root / "log").open("wb") as log:
            return subprocess.Popen(
                self.cmd,
                cwd=self.workdir,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **as_user(self.uid),
            )

    def is_healthy(self) -> bool:
        """Run HEALTHCHECK and return whether it succeeds."""
        check = subprocess.run(
            self.healthcheck, cwd=self.workdir, env=self.env, capture_output=True, **as_user(self.uid)
        )
        return check.returncode == 0

    def page_errors(self) -> dict[str, list[str]]:
        """Run each page with the packages of the image, and return its exceptions."""
        process = subprocess.run(
            ["python", "-c", RUN_PAGES], cwd=self.workdir, env=self.env, capture_output=True, text=True, check=True
        )
        return json.loads(process.stdout)

    def size(self) -> int:
        """Return how many bytes the Dockerfile adds to its base image."""
        parts = (self.root / "image", self.root / "python")
        return sum(path.lstat().st_size for part in parts for path in part.rglob("*") if not path.is_dir())

    def _create_python(self, base: str) -> None:
        if not base.startswith("python:3."):
            raise NotImplementedError(f"FROM {base}")
        # Access for the image's user: a temporary folder is its owner's only.
        self.root.chmod(0o755)
        venv = self.root / "python"
        python = find_python(1000 if os.geteuid() == 0 else os.geteuid())
        subprocess.run([python, "-m", "venv", "--without-pip", venv], check=True)
        pip = [sys.executable, "-m", "pip", "--python", venv / "bin/python", "install", "-q", "pip"]
        subprocess.run(pip, check=True)
        self.env = {"PATH": f"{venv}/bin:/usr/local/bin:/usr/bin:/bin"}

    def _in_stage(self, path: str) -> Path:
        return self.root / self.stage / (PurePosixPath("/") / path).relative_to("/")

    def _copy(self, source: str, target: str) -> None:
        specific = self.dockerfile.with_name(f"{self.dockerfile.name}.dockerignore")
        dockerignore = (specific if specific.exists() else ROOT / ".dockerignore").read_text()
        origin, copy = ROOT / source, self.workdir / target
        files = [origin] if origin.is_file() else [path for path in origin.rglob("*") if path.is_file()]
        files = [path for path in files if not is_ignored(path.relative_to(ROOT).as_posix(), dockerignore)]
        if not files:
            raise FileNotFoundError(f"COPY {source}: no such files in the build context")
        for path in files:
            to = copy / path.name if origin.is_file() else copy / path.relative_to(origin)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def request_json(port: int, path: str, picture: Path | None = None) -> dict:
    """Return the app's JSON response to GET, or to POST with a picture as the form field `file`."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if picture:
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{picture.name}"\r\n\r\n'
        request.data = head.encode() + picture.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        request.add_header("Content-Type", f"multipart/form-data; boundary={boundary}")
    # Without a proxy, which cannot reach this machine.
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as response:
        return json.load(response)


def replay() -> dict:
    """Build, start, check and stop the app; return a report of results, times and sizes.

    Raises:
        RuntimeError: the app did not start; the message has its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        image = Image(Path(folder))
        start = time.monotonic()
        image.build()
        report: dict = {
            "build_s": round(time.monotonic() - start, 1),
            "default_port": int(image.env["PORT"]),
            "size_mb": round(image.size() / 1e6),
            "files": sorted(path.name for path in image.workdir.iterdir()),
            "browser_runtime": sorted(path.name for path in (image.workdir / "assets/browser/onnxruntime").glob("*")),
            "packages": sorted(path.name for path in image.root.glob("python/lib/*/site-packages/*")),
            "uid": image.uid,
        }
        port = free_port()
        start = time.monotonic()
        server = image.start(port)
        try:
            while not image.is_healthy():
                if server.poll() is not None or time.monotonic() - start > START_TIMEOUT_S:
                    raise RuntimeError(f"The app did not start:\n{(image.root / 'log').read_text()}")
            report["start_s"] = round(time.monotonic() - start, 1)
            report["health"] = request_json(port, "/api/health")
            report["page_errors"] = image.page_errors()
            sample = min((image.workdir / "assets/samples").iterdir())
            report["prediction"] = request_json(port, "/api/predict", sample)
            start = time.monotonic()
            server.terminate()
            server.wait(timeout=STOP_TIMEOUT_S)
            report["stop_s"] = round(time.monotonic() - start, 1)
            report["exit_status"] = server.returncode
            report["healthy_after_stop"] = image.is_healthy()
        finally:
            server.kill()
            server.wait()
    return report


if __name__ == "__main__":
    print(json.dumps({key: value for key, value in replay().items() if key != "packages"}, indent=2))
