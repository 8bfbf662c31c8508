"""The model file that HANDFUL_MODEL names, wherever it lies.

A path is taken as it is. An address, such as gs://bucket/handful.onnx, is fetched by fsspec, which finds credentials
where the store's own tools do. Either may end in #sha256=…: the file must have that checksum.
"""

import hashlib
import os
import re
import tempfile
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

CACHE = Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "handful"  # some have no home
PATIENCE = 60  # seconds that a store may take: an app that waits for ever is never up


class BadModel(ValueError):
    """A model that cannot be had, or is none of Handful's: its text says why, and holds no secret."""


def local(name: str) -> Path:
    """The file that `name` means, on this machine.

    What comes from an address is kept in `CACHE` under its checksum. An address that tells its checksum is fetched
    once; another is fetched each time: what lies there may have changed.

    Raises:
        BadModel: there is no such file, its checksum is another, or it cannot be read or fetched.
    """
    address, told, sha256 = name.partition("#sha256=")
    sha256 = sha256.lower()
    if told and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise BadModel(f"{plain(address)}: after #sha256= come the 64 hexadecimal digits of a checksum.")
    try:
        if "://" in address:
            kept = CACHE / f"{sha256}.onnx"
            return kept if kept.is_file() and checksum(kept) == sha256 else fetch(address, sha256)
        path = Path(os.path.expanduser(address))
        if not path.is_file():
            raise BadModel(f"{path}: there is no such file.")
        check(path, sha256, address)
    except OSError as error:
        raise BadModel(f"{plain(address)}: it cannot be read ({error.strerror}).") from error
    return path


def fetch(address: str, sha256: str = "") -> Path:
    """The file at `address`, in `CACHE` once it is whole and, where `sha256` is told, the one that is meant.

    Raises:
        BadModel: it cannot be had within `PATIENCE` seconds, or is another.
    """
    fetched: Future[Path] = Future()

    def work() -> None:
        try:
            fetched.set_result(download(address, sha256))
        except Exception as error:
            fetched.set_exception(error)

    # Nobody waits for this thread when the process ends: some stores try for minutes.
    Thread(target=work, daemon=True).start()
    try:
        return fetched.result(PATIENCE)
    except BadModel:
        raise
    except TimeoutError:
        raise BadModel(f"{plain(address)}: no answer within {PATIENCE} seconds.") from None
    except Exception as error:  # every store has errors of its own
        raise BadModel(f"{plain(address)}: {type(error).__name__}: {plain(str(error))}") from None


def download(address: str, sha256: str) -> Path:
    """Fetch a file into `CACHE`. Raises whatever its store does."""
    try:
        import fsspec
    except ImportError:
        raise BadModel(f"{plain(address)}: addresses need a package more: pip install fsspec[http]") from None
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        partial = Path(folder) / "partial"
        store, path = fsspec.url_to_fs(address)
        store.get_file(path, str(partial))
        check(partial, sha256, address)
        return partial.replace(CACHE / f"{checksum(partial)}.onnx")


def check(path: Path, sha256: str, address: str) -> None:
    """Raise BadModel if a checksum is told and the file at `path` has another."""
    if sha256 and (found := checksum(path)) != sha256:
        raise BadModel(f"{plain(address)}: its SHA-256 is {found}, not {sha256}.")


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(text: str) -> str:
    """`text` without what addresses in it may keep secret: names and passwords, and the query of a signed one."""
    return re.sub(r"(?<=//)([^/\s]*:\S*|[^/\s]*)@|\?\S+", "", text)
