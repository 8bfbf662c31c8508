"""Downloads of a commit from GitHub, served by this machine."""

import errno
import io
import zipfile

import cv2
import numpy as np
import pytest

from tests.training.conftest import COMMIT, github_zip
from training.data import download
from training.data.download import fetch_archive
from training.data.registry import SOURCES, open_source
from training.errors import BadData


def files_in(folder):
    return {str(file.relative_to(folder).as_posix()): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_matching_members_are_unpacked(server, tmp_path):
    folder = tmp_path / "sets" / "hands"
    fetch_archive("someone/hands", COMMIT, folder, ("images/*",))
    assert server.requests == [f"/someone/hands/archive/{COMMIT}.zip"]
    assert files_in(folder) == {path: content for path, content in server.files.items() if path != "README.md"}
    assert list(folder.parent.iterdir()) == [folder]
    fetch_archive("someone/hands", COMMIT, folder)
    assert len(server.requests) == 1, "it is there already"


def test_a_truncated_download_is_retried(server, tmp_path):
    server.truncate_at = [1000, 2000]
    fetch_archive("someone/hands", COMMIT, tmp_path / "hands")
    assert len(server.requests) == 3
    assert files_in(tmp_path / "hands") == server.files


def test_a_download_that_keeps_breaking_is_an_error_and_leaves_nothing_behind(server, tmp_path):
    server.truncate_at = [100] * 5
    with pytest.raises(BadData, match=r"could not be downloaded .* Check the network and run this again\.$"):
        fetch_archive("someone/hands", COMMIT, tmp_path / "hands")
    assert not list(tmp_path.iterdir())


def test_a_server_error_is_retried(server, tmp_path):
    server.status = 503
    with pytest.raises(BadData, match="503"):
        fetch_archive("someone/hands", COMMIT, tmp_path / "hands")
    assert len(server.requests) == 5


def test_a_missing_commit_is_not_retried(server, tmp_path):
    server.status = 404
    with pytest.raises(BadData, match=r"answered 404.*save the file, unpack it"):
        fetch_archive("someone/hands", COMMIT, tmp_path / "hands")
    assert len(server.requests) == 1


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "GITHUB", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    with pytest.raises(BadData, match="Check the network"):
        fetch_archive("someone/hands", COMMIT, tmp_path / "hands")
    assert not list(tmp_path.iterdir())


def flip_a_byte(content):
    middle = content.index(b"images/1.jpg") + 1000
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (flip_a_byte, "Bad CRC|invalid"),
        (lambda content: content[: len(content) // 2], "not a zip"),
        (lambda content: b"<html>Please log in to this network</html>", "not a zip"),
        (lambda content: github_zip({"images/2.jpg": b""}, commit="f" * 40), "not commit 0123"),
        (lambda content: github_zip({"README.md": b""}), "none of the files"),
    ],
    ids=["flipped byte", "half of it", "login page", "another commit", "no matching member"],
)
def test_a_broken_archive_is_discarded_and_the_next_one_used(spoil, words, server, tmp_path):
    good, server.content = server.content, spoil(server.content)
    with pytest.raises(BadData, match=f"({words}).*run this again to download anew"):
        fetch_archive("someone/hands", COMMIT, tmp_path / "hands", ("images/2.jpg",))
    assert not list(tmp_path.iterdir())
    server.content = good
    fetch_archive("someone/hands", COMMIT, tmp_path / "hands", ("images/2.jpg",))
    assert list(files_in(tmp_path / "hands")) == ["images/2.jpg"]


@pytest.mark.parametrize("path", ["../../out.jpg", "a/../../../out.jpg", "c:\\out.jpg", "..\\out.jpg"])
def test_nothing_is_written_outside_the_folder(path, server, tmp_path):
    server.content = github_zip({path: b"out"})
    with pytest.raises(BadData, match="outside the folder"):
        fetch_archive("someone/hands", COMMIT, tmp_path / "sets" / "hands")
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_symbolic_links_are_left_out(server, tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as zipped:
        link = zipfile.ZipInfo(f"hands-{COMMIT}/link")
        link.external_attr = 0o120777 << 16
        zipped.writestr(link, "/etc")
        zipped.writestr(f"hands-{COMMIT}/link/file", b"1")
        zipped.comment = COMMIT.encode()
    server.content = packed.getvalue()
    fetch_archive("someone/hands", COMMIT, tmp_path / "hands")
    assert files_in(tmp_path / "hands") == {"link/file": b"1"}


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "cannot be written")])
def test_errors_of_the_disk_are_explained(code, words, server, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(code, "no")

    monkeypatch.setattr(download.shutil, "copyfileobj", refuse)
    with pytest.raises(BadData, match=words):
        fetch_archive("someone/hands", COMMIT, tmp_path / "hands")
    assert not (tmp_path / "hands").exists()
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("name", "member", "other"),
    [
        ("digits", "Dataset/5/IMG_1.JPG", "Dataset/0/IMG_1.JPG"),
        ("counting", "Raw_Images/Human/Set1/5/five_1.jpg", "Raw_Images/Human/Set2/5/five_1.jpg"),
        ("webcam", "images/train/2_pic1.jpg", "images/2_pic1.jpg"),
    ],
)
def test_the_members_of_a_source_are_those_that_its_reader_needs(name, member, other, server, tmp_path):
    image = cv2.imencode(".jpg", np.full((100, 100, 3), 200, np.uint8))[1].tobytes()
    header = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    extra = {
        "Raw_Images/Human/Set1/0/imbk.jpg": image,
        "Backgrounds/Office/1.jpg": image,
        "data/train_labels.csv": f"{header}2_pic1.jpg,100,100,3-hand,10,10,50,50".encode(),
        "data/test_labels.csv": header.encode(),
    }
    source = SOURCES[name]
    server.content = github_zip({member: image, other: image, "README.md": b"", **extra}, source.commit)
    fetch_archive("someone/hands", source.commit, tmp_path / source.path, source.members)
    assert member in files_in(tmp_path / source.path)
    assert not {other, "README.md"} & set(files_in(tmp_path / source.path))
    assert len(open_source(name, tmp_path)) == 1
