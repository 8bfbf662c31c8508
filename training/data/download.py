"""Downloads of one commit of a GitHub repository."""

import errno
import http.client
import shutil
import stat
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from training.errors import BadData

GITHUB = "https://github.com"
RETRIES = 4  # after 1, 2, 4 … seconds
TIMEOUT_S = 60
# Errors of the disk, not of the network: no use in trying again.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EISDIR)


def fetch_archive(repository: str, commit: str, folder: Path, members: Sequence[str] = ("*",)) -> None:
    """Download one commit of a public GitHub repository into `folder`, unless it has files already.

    Checked and unpacked beside `folder` first: it is complete afterwards, or not there.

    Args:
        repository: owner/name.
        commit: 40 hex digits.
        folder: where the files go.
        members: glob patterns of the files to unpack, as paths in the repository; * matches / too.

    Raises:
        BadData: no network, no such commit, disk full, or a broken archive.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        return
    name = repository.partition("/")[2]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as temporary:
            archive = Path(temporary) / f"{name}.zip"
            download(f"{GITHUB}/{repository}/archive/{commit}.zip", archive)
            files = unpack(archive, commit, Path(temporary) / "files", members)
            if folder.is_dir():
                folder.rmdir()
            files.rename(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BadData(f"{folder.parent}: the disk is full. Make room and run this again.") from None
        raise BadData(f"{folder}: cannot be written ({error}). Choose another folder.") from error


def download(url: str, file: Path) -> None:
    """Download a file, in up to `RETRIES` + 1 attempts.

    `torchvision.datasets.utils.download_url` neither retries nor times out, takes a truncated response for a complete
    one, and falls back to plain HTTP.

    Raises:
        BadData: the server refuses, or the network fails.
        OSError: the disk fails.
    """
    # Uncompressed: Content-Length then counts the bytes of the file.
    request = urllib.request.Request(url, headers={"User-Agent": "handful", "Accept-Encoding": "identity"})
    for attempt in range(RETRIES + 1):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                total = int(response.headers["Content-Length"] or 0)
                with file.open("wb") as out, tqdm.wrapattr(response, "read", total or None, desc=file.stem) as body:
                    shutil.copyfileobj(body, out)
            if (size := file.stat().st_size) >= total:
                return
            problem: Exception = http.client.IncompleteRead(b"", total - size)
        except urllib.error.HTTPError as error:
            if error.code not in (408, 429) and error.code < 500:
                raise BadData(
                    f"{url}: the server answered {error.code} {error.reason}. If the address opens in a browser, "
                    "save the file, unpack it, and name its folder instead."
                ) from None
            problem = error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise
            problem = error
        if attempt < RETRIES:
            time.sleep(2**attempt)
    raise BadData(f"{url}: could not be downloaded ({problem}). Check the network and run this again.")


def unpack(archive: Path, commit: str, folder: Path, patterns: Sequence[str]) -> Path:
    """Check an archive made by GitHub, and unpack the members that match. Return the root folder of the repository.

    Raises:
        BadData: it is damaged, of another commit, without matching members, or has a path that leads outside.
    """
    try:
        with zipfile.ZipFile(archive) as zipped:
            if zipped.comment.decode("ascii", "replace") != commit:  # git archive writes the commit there
                raise BadData(f"{archive.name}: this is not commit {commit}.")
            if damaged := zipped.testzip():  # all members: one bad checksum means a bad transfer
                raise BadData(f"{archive.name}: Bad CRC-32 for {damaged}.")
            members = [member for member in zipped.infolist() if matches(member, patterns)]
            if not members:
                raise BadData(f"{archive.name}: none of the files needed is in it.")
            zipped.extractall(folder, members)
    except (BadData, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadData(f"{error} The download is broken: run this again to download anew.") from None
    return folder / PurePosixPath(members[0].filename).parts[0]


def matches(member: zipfile.ZipInfo, patterns: Sequence[str]) -> bool:
    """Return whether a member of an archive is a regular file that matches one of the patterns.

    Raises:
        BadData: its path leads out of the folder.
    """
    # All members are in one folder, named after repository and commit.
    parts = PurePosixPath(member.filename).parts[1:]
    if member.is_dir() or stat.S_ISLNK(member.external_attr >> 16):
        return False
    if not any(fnmatchcase("/".join(parts), pattern) for pattern in patterns):
        return False
    if member.filename.startswith("/") or any(part == ".." or set(part) & set("\\:") for part in parts):
        raise BadData(f"{member.filename!r} would be written outside the folder.")
    return True
