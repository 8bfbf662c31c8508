"""Does what the Dockerfile says without Docker: `python benchmarks/dockerfile.py` builds, starts, asks and stops.

The image is a folder, its Python a fresh virtual environment, and its user one without an account, where this
process may become another user. WORKDIR, COPY, ARG, ENV, RUN, USER, HEALTHCHECK and CMD are read from the Dockerfile.
A stage on Node uses this machine's npm; where there is none, it is left out, and what it would give too.
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

ROOT = Path(__file__).parent.parent
MB = 1_000_000


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """The lines of a Dockerfile as (instruction, rest), comments left out and continued lines joined."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = (line.split(maxsplit=1) for line in joined.splitlines())
    return [(name.upper(), rest) for name, rest in pairs]


def ignored(path: str, dockerignore: str) -> bool:
    """Whether .dockerignore keeps `path` (relative, with /) out of the build: its last matching line decides."""
    verdict = False
    for line in dockerignore.splitlines():
        pattern = line.strip().lstrip("!")
        if not pattern or pattern.startswith("#"):
            continue
        regex = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        # A line that matches a folder holds for all that is in it.
        if re.fullmatch(f"{regex}(/.*)?", path):
            verdict = not line.startswith("!")
    return verdict


def base_python(uid: int) -> str:
    """A Python 3.11 or newer that user `uid` may run: root's own is often out of sight of the others."""
    check = "import sys, venv; sys.exit(sys.version_info < (3, 11))"
    for python in (getattr(sys, "_base_executable", sys.executable), "/usr/local/bin/python3", "/usr/bin/python3"):
        try:
            if subprocess.run([python, "-c", check], **become(uid), cwd="/").returncode == 0:
                return python
        except OSError:
            continue
    raise SystemExit(f"No Python 3.11 or newer that user {uid} may run.")


def become(uid: int) -> dict:
    """What makes a subprocess run as user `uid`; nothing if that is who we are."""
    return {} if uid == os.geteuid() else {"user": uid, "group": uid, "extra_groups": []}


PAGES = """
import json
import re
import streamlit_webrtc.component
from streamlit.testing.v1 import AppTest
streamlit_webrtc.component.get_this_session_info = lambda: None  # there is no server here to ask
names = re.findall('Page[(]"([a-z]+)[.]py"', open("pages/navigation.py").read())
pages = {name: AppTest.from_file(f"pages/{name}.py", default_timeout=60) for name in names}
print(json.dumps({name: [error.message for error in page.run().exception] for name, page in pages.items()}))
"""


@dataclass
class Image:
    """A Dockerfile, replayed into the folder `root` up to its CMD.

    Without `install`, nothing is: RUN is left out, and this very Python takes the place of the base's.
    `stage` is the folder below `root` that the instructions are about: "image" at last.
    """

    root: Path
    dockerfile: Path = ROOT / "Dockerfile"
    install: bool = True
    stage: str = "image"
    uid: int = field(default_factory=os.geteuid)
    env: dict[str, str] = field(default_factory=dict)
    workdir: Path = Path("/")
    cmd: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def build(self) -> None:
        """Replay the Dockerfile.

        Raises:
            NotImplementedError: the Dockerfile holds an instruction that is not replayed here.
        """
        left_out: set[str] = set()
        for name, rest in instructions(self.dockerfile.read_text()):
            if name != "FROM" and self.stage in left_out:
                continue
            match name:
                case "FROM":
                    base, *named = rest.split()
                    self.stage = named[1] if named else "image"
                    if base.startswith("node:"):
                        self.env = {"PATH": os.environ["PATH"]}
                        if not shutil.which("npm"):
                            left_out.add(self.stage)
                    elif self.install:
                        self._python(base)
                    else:
                        self.env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
                case "ARG":
                    self.env |= dict([rest.split("=", 1)])
                case "ENV":
                    pairs = shlex.split(string.Template(rest).safe_substitute(self.env))
                    self.env |= dict(pair.split("=", 1) for pair in pairs)
                case "WORKDIR":
                    self.workdir = self._inside(rest)
                    self.workdir.mkdir(parents=True, exist_ok=True)
                case "COPY":
                    *sources, target = shlex.split(rest)
                    stage = sources.pop(0).removeprefix("--from=") if sources[0].startswith("--from=") else None
                    for source in sources:
                        if not stage:
                            self._copy(source, target)
                        elif stage not in left_out:
                            shutil.copytree(self.root / stage / source.lstrip("/"), self.workdir / target)
                case "RUN" if not self.install:
                    pass
                case "RUN":
                    # How this machine's pip reaches its packages is no business of the image's.
                    reach = {
                        k: v for k, v in os.environ.items() if k.startswith("PIP_") or k.lower().endswith("_proxy")
                    }
                    subprocess.run(["sh", "-c", rest], cwd=self.workdir, env=self.env | reach, check=True)
                case "USER":
                    # Only root can become another user; anyone else stays who they are.
                    self.uid = int(rest) if os.geteuid() == 0 else os.geteuid()
                case "HEALTHCHECK":
                    self.health = command(rest.split("CMD", 1)[1])
                case "CMD":
                    self.cmd = command(rest)
                case "EXPOSE":
                    pass
                case _:
                    raise NotImplementedError(f"{name} {rest}")

    def start(self, port: int) -> subprocess.Popen:
        """Run CMD with $PORT set, as `docker run --env PORT=…` does."""
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
                **become(self.uid),
            )

    def healthy(self) -> bool:
        """What HEALTHCHECK tells now."""
        check = subprocess.run(self.health, cwd=self.workdir, env=self.env, capture_output=True, **become(self.uid))
        return check.returncode == 0

    def pages(self) -> dict[str, list[str]]:
        """What goes wrong on each page, with what is installed in the image."""
        told = subprocess.run(
            ["python", "-c", PAGES], cwd=self.workdir, env=self.env, capture_output=True, text=True, check=True
        )
        return json.loads(told.stdout)

    def size(self) -> int:
        """Bytes that the Dockerfile adds to its base."""
        parts = (self.root / "image", self.root / "python")
        return sum(path.lstat().st_size for part in parts for path in part.rglob("*") if not path.is_dir())

    def _python(self, base: str) -> None:
        if not base.startswith("python:3."):
            raise NotImplementedError(f"FROM {base}")
        # The user of the image has to get in: a temporary folder lets only its owner do so.
        self.root.chmod(0o755)
        venv = self.root / "python"
        python = base_python(1000 if os.geteuid() == 0 else os.geteuid())
        subprocess.run([python, "-m", "venv", "--without-pip", venv], check=True)
        pip = [sys.executable, "-m", "pip", "--python", venv / "bin/python", "install", "-q", "pip"]
        subprocess.run(pip, check=True)
        self.env = {"PATH": f"{venv}/bin:/usr/local/bin:/usr/bin:/bin"}

    def _inside(self, path: str) -> Path:
        return self.root / self.stage / (PurePosixPath("/") / path).relative_to("/")

    def _copy(self, source: str, target: str) -> None:
        own = self.dockerfile.with_name(f"{self.dockerfile.name}.dockerignore")
        dockerignore = (own if own.exists() else ROOT / ".dockerignore").read_text()
        origin, copy = ROOT / source, self.workdir / target
        files = [origin] if origin.is_file() else [path for path in origin.rglob("*") if path.is_file()]
        files = [path for path in files if not ignored(path.relative_to(ROOT).as_posix(), dockerignore)]
        if not files:
            raise FileNotFoundError(f"COPY {source}: nothing of it is in the build")
        for path in files:
            to = copy / path.name if origin.is_file() else copy / path.relative_to(origin)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to)


def command(rest: str) -> list[str]:
    """The arguments of a CMD: a JSON list as it is, anything else a line for the shell."""
    return json.loads(rest) if rest.lstrip().startswith("[") else ["sh", "-c", rest]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port: int, path: str, picture: Path | None = None) -> dict:
    """The JSON that the app answers: to GET, or to POST of a picture as the form field `file`."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if picture:
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{picture.name}"\r\n\r\n'
        request.data = head.encode() + picture.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        request.add_header("Content-Type", f"multipart/form-data; boundary={boundary}")
    # No proxy stands between this machine and itself.
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        return json.load(answer)


def replay() -> dict:
    """Build, start, ask and stop; what was seen and measured on the way."""
    report: dict = {}
    with tempfile.TemporaryDirectory() as folder:
        image = Image(Path(folder))
        start = time.monotonic()
        image.build()
        report["built_s"] = round(time.monotonic() - start, 1)
        report["default_port"] = int(image.env["PORT"])
        report["mb"] = round(image.size() / MB)
        report["files"] = sorted(path.name for path in image.workdir.iterdir())
        report["runtime"] = sorted(path.name for path in (image.workdir / "assets/browser/onnxruntime").glob("*"))
        report["packages"] = sorted(path.name for path in image.root.glob("python/lib/*/site-packages/*"))
        report["uid"] = image.uid
        port = free_port()
        start = time.monotonic()
        server = image.start(port)
        try:
            while not image.healthy():
                if server.poll() is not None or time.monotonic() - start > 60:
                    raise RuntimeError(f"The app did not come up:\n{(image.root / 'log').read_text()}")
            report["healthy_s"] = round(time.monotonic() - start, 1)
            report["health"] = ask(port, "/api/health")
            report["pages"] = image.pages()
            report["reading"] = ask(port, "/api/predict", min((image.workdir / "assets/samples").iterdir()))
            start = time.monotonic()
            server.terminate()
            # As `docker stop` waits, before it kills.
            server.wait(timeout=10)
            report["stopped_s"] = round(time.monotonic() - start, 1)
            report["exit"] = server.returncode
            report["unhealthy_when_stopped"] = not image.healthy()
        finally:
            server.kill()
            server.wait()
    return report


if __name__ == "__main__":
    print(json.dumps({key: value for key, value in replay().items() if key != "packages"}, indent=2))
