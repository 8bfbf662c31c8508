"""Find the model file that HANDFUL_MODEL names: a path, or an address such as gs://bucket/handful.onnx.

Addresses are downloaded by fsspec, which finds credentials where the store's own tools do; file:// stands before a
path. Either form may end in #sha256=…, the checksum that the file must have.
"""

import hashlib
import json
import os
import re
import tempfile
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

from handful.labels import CLASSES

# os.path.expanduser never fails; Path.home() does for users without a home.
CACHE = Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "handful"
MAX_MODEL_BYTES = 100_000_000  # Handful's own has 1.5 million
DOWNLOAD_TIMEOUT_S = 60  # the app does not start before


class BadModel(ValueError):
    """A model file that is missing, cannot be downloaded, or is not a Handful model.

    The message says why, without secrets.
    """


def resolve(name: str) -> Path:
    """Return the local path of the model that `name` stands for, downloading it if it is an address.

    Downloads are stored in `CACHE` under their checksum. An address with a checksum is downloaded once; one without
    is downloaded each time, as the file may have changed.

    Raises:
        BadModel: there is no such file, it has another checksum, or it cannot be read or downloaded.
    """
    address, has_checksum, sha256 = name.removeprefix("file://").partition("#sha256=")
    sha256 = sha256.lower()
    if has_checksum and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise BadModel(f"{redact(address)}: #sha256= takes a checksum of 64 hexadecimal digits.")
    try:
        if "://" in address:
            cached = CACHE / f"{sha256}.onnx"
            return cached if cached.is_file() and checksum(cached) == sha256 else download(address, sha256)
        path = Path(os.path.expanduser(address))
        check(path)
        verify(path, sha256, address)
    except OSError as error:
        raise BadModel(f"{redact(address)}: it cannot be read ({error.strerror}).") from error
    return path


def download(address: str, sha256: str) -> Path:
    """Download `address` into `CACHE`, verify its checksum if `sha256` is not empty, and return the path.

    Raises:
        BadModel: the download fails or takes more than `DOWNLOAD_TIMEOUT_S`, or the checksum is another.
    """
    result: Future[Path] = Future()

    def work() -> None:
        try:
            result.set_result(_download(address, sha256))
        except Exception as error:
            result.set_exception(error)

    # A daemon: some stores retry for minutes, which must not delay the end of the process.
    Thread(target=work, daemon=True).start()
    try:
        return result.result(DOWNLOAD_TIMEOUT_S)
    except BadModel:
        raise
    except TimeoutError:
        raise BadModel(f"{redact(address)}: no answer within {DOWNLOAD_TIMEOUT_S} seconds.") from None
    except Exception as error:  # each store has its own types
        raise BadModel(f"{redact(address)}: {type(error).__name__}: {redact(str(error))}") from None


def _download(address: str, sha256: str) -> Path:
    try:
        import fsspec
    except ImportError:
        raise BadModel(f"{redact(address)}: addresses need another package: pip install fsspec[http]") from None

    class SizeLimit(fsspec.Callback):
        """Ends a download that is too large, as it learns of its size or of more bytes."""

        def call(self, hook_name: str | None = None, **kwargs: object) -> None:
            if max(self.size or 0, self.value) > MAX_MODEL_BYTES:
                raise BadModel(f"{redact(address)}: it has more than {MAX_MODEL_BYTES // 1_000_000} MB.")

    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        partial = Path(folder) / "partial"
        store, path = fsspec.url_to_fs(address)
        store.get_file(path, str(partial), callback=SizeLimit())
        verify(partial, sha256, address)
        return partial.replace(CACHE / f"{checksum(partial)}.onnx")


def check(path: Path) -> None:
    """Raise BadModel if this cannot be read or is no Handful model, by its size and the classes in its metadata.

    It is not opened unless it is a file, as a pipe or a device may never end, and onnxruntime gets no foreign model, as
    it would load tensors of any size.
    """
    try:
        if not path.is_file():
            raise BadModel(f"{path}: this is not a file." if path.exists() else f"{path}: there is no such file.")
        if path.stat().st_size > MAX_MODEL_BYTES or json.dumps(CLASSES).encode() not in path.read_bytes():
            raise BadModel(f"{path}: not a Handful model, which has the classes {', '.join(CLASSES)}.")
    except OSError as error:
        raise BadModel(f"{path}: it cannot be read ({error.strerror}).") from error


def verify(path: Path, sha256: str, address: str) -> None:
    """Raise BadModel if `sha256` is not empty and is not the checksum of the file at `path`."""
    if sha256 and (actual := checksum(path)) != sha256:
        raise BadModel(f"{redact(address)}: its SHA-256 is {actual}, not {sha256}.")


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def redact(text: str) -> str:
    """Remove secrets from the addresses in `text`: user names, passwords, and the queries of signed ones."""
    return re.sub(r"(?<=//)([^/\s]*:\S*|[^/\s]*)@|\?\S+", "", text)
