"""python -m handful: a line of JSON for every picture, whatever the pictures."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import handful.cli as cli
from handful import CLASSES
from handful.images import decode

HAND = Path(__file__).parents[2] / "assets/samples/5L_0.jpg"
COMMAND = [sys.executable, "-m", "handful"]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder of pictures in folders, with files that are none."""
    monkeypatch.chdir(tmp_path)
    # `python -m handful` works from any folder that the project can be found from.
    monkeypatch.setenv("PYTHONPATH", str(Path(cli.__file__).parents[1]))
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # it would flush what the command forgets to
    random = np.random.default_rng(0)
    for name in "a/two.png", "a/one.JPG", "a/deep/er/two.png", "b/two.png", "b/two.webp":
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 60, 3), np.uint8)).save(path)
    shutil.copy(HAND, tmp_path / "hand.jpg")
    (tmp_path / "in/a/notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return tmp_path


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


# What is printed


def test_a_picture_is_a_line(folder, capsys):
    assert cli.main(["hand.jpg"]) == 0
    [line] = lines(capsys.readouterr().out)
    assert list(line) == ["file", "width", "height", "total", "hands", "ms"]
    assert (line["file"], line["width"], line["height"]) == ("hand.jpg", 256, 256)
    [hand] = line["hands"]
    assert list(hand) == ["fingers", "side", "confidence", "box", "probabilities"]
    assert line["total"] == hand["fingers"] == 5
    assert list(hand["probabilities"]) == list(CLASSES)
    x0, y0, x1, y1 = hand["box"]
    assert 0 <= x0 < x1 <= 256
    assert 0 <= y0 < y1 <= 256


def test_folders_are_searched_in_order_of_name(folder, capsys):
    assert cli.main(["in/b", "in"]) == 0
    files = [line["file"] for line in lines(capsys.readouterr().out)]
    inner = ["in/a/deep/er/two.png", "in/a/one.JPG", "in/a/two.png", "in/b/two.png", "in/b/two.webp"]
    assert files == ["in/b/two.png", "in/b/two.webp", *inner]


def test_errors_have_lines_too_and_the_work_goes_on(folder, capsys):
    assert cli.main(["nothing.png", "empty", "broken.png", "in/a/two.png"]) == 1
    *errors, last = lines(capsys.readouterr().out)
    assert [list(line) for line in errors] == [["file", "error"]] * 3
    assert [line["file"] for line in errors] == ["nothing.png", "empty", "broken.png"]
    assert errors[0]["error"] == "No such file: nothing.png"
    assert errors[1]["error"] == "There are no pictures in this folder."
    assert "not a picture" in errors[2]["error"]
    assert last["file"] == "in/a/two.png"
    assert "error" not in last


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux allows any bytes in a name")
def test_names_that_are_not_utf8(folder):
    name = b"in/caf\xe9 \xf0\x9f\x96\x90 \n.png"
    os.rename(b"in/a/two.png", name)
    ran = subprocess.run([*COMMAND, name, "--csv", "t.csv", "--overlays", "out"], capture_output=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert os.fsencode(json.loads(ran.stdout)["file"]) == name
    assert name in (folder / "t.csv").read_bytes()
    assert os.listdir(b"out") == [name.removeprefix(b"in/") + b".jpg"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_pipe_in_a_folder_keeps_nobody_waiting(folder):
    os.mkfifo("in/b/pipe.png")
    os.symlink("nothing.png", "in/b/gone.png")
    assert [str(path) for path, _ in cli.find(Path("in/b"))] == ["in/b/gone.png", "in/b/two.png", "in/b/two.webp"]


def test_a_closed_folder_is_told(folder, capsys, monkeypatch):
    scandir = os.scandir

    def closed(path):  # chmod would not do: nothing is closed to root
        if Path(path) == Path("in/b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert cli.main(["in"]) == 1
    *pictures, error = lines(capsys.readouterr().out)
    assert len(pictures) == 3
    assert error == {"file": "in/b", "error": "This folder cannot be opened: Permission denied"}


# The table


def test_the_table_has_a_row_for_a_hand_and_for_an_error(folder, capsys):
    assert cli.main(["hand.jpg", "in/a/two.png", "broken.png", "--csv", "table.csv"]) == 1
    picture, none, error = lines(capsys.readouterr().out)
    with open("table.csv", newline="", encoding="utf-8") as file:
        first, empty, second = csv.DictReader(file)
    assert none["hands"] == []
    assert (empty["file"], empty["total"], empty["fingers"]) == ("in/a/two.png", "0", ""), "no hand is a row too"
    [hand] = picture["hands"]
    expected = {key: picture[key] for key in ("file", "width", "height", "total", "ms")}
    expected |= {key: hand[key] for key in ("fingers", "side", "confidence")}
    expected |= {**dict(zip(("x0", "y0", "x1", "y1"), hand["box"], strict=True)), **hand["probabilities"], "error": ""}
    assert first == {key: str(value) for key, value in expected.items()}
    assert {key: value for key, value in second.items() if value} == error


# The overlays


def test_overlays_lie_to_one_another_as_the_pictures_do(folder):
    assert cli.main(["in/a", str(folder / "in/b"), "--overlays", "out/deep"]) == 0
    written = sorted(path.relative_to("out/deep").as_posix() for path in Path("out").rglob("*.*"))
    assert written == ["a/deep/er/two.png.jpg", "a/one.JPG.jpg", "a/two.png.jpg", "b/two.png.jpg", "b/two.webp.jpg"]


@pytest.mark.parametrize("path", ["in/a/two.png", "./in/../in/a/two.png", "in/a"])
def test_the_overlay_of_one_picture_or_folder_lies_at_the_top(folder, path):
    assert cli.main([path, "--overlays", "out"]) == 0
    overlay, picture = decode("out/two.png.jpg"), decode("in/a/two.png")
    assert overlay.shape == picture.shape
    assert (overlay != picture).any()


def test_pictures_on_two_drives_have_no_folder_in_common_for_overlays_to_lie_in(folder, capsys, monkeypatch):
    def on_two_drives(paths):
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr(os.path, "commonpath", on_two_drives)  # only Windows has several
    assert cli.main(["in/a/two.png"]) == 0
    with pytest.raises(SystemExit, match="2"):
        cli.main(["in/a/two.png", "--overlays", "out"])
    assert "cannot write: Paths don't have the same drive" in capsys.readouterr().err


def test_an_overlay_that_cannot_be_written_is_an_error_of_its_picture(folder, capsys):
    (folder / "out/two.png.jpg").mkdir(parents=True)
    assert cli.main(["in/a/two.png", "in/a/one.JPG", "--overlays", "out"]) == 1
    first, second = lines(capsys.readouterr().out)
    assert first["error"].startswith("The overlay cannot be written: ")
    assert first["width"] == 60  # what was read is told all the same
    assert "error" not in second


# Usage


@pytest.mark.parametrize("arguments", [[], ["--csv"], ["in", "--unknown"]])
def test_wrong_usage(folder, arguments, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2
    assert "usage: handful" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "target"), [("--csv", "none/t.csv"), ("--csv", "in"), ("--overlays", "broken.png")])
def test_what_cannot_be_written_is_told_before_the_work(folder, option, target, capsys, monkeypatch):
    monkeypatch.setattr(cli, "decode", lambda path: pytest.fail("the work had begun"))
    with pytest.raises(SystemExit) as left:
        cli.main(["in", option, target])
    told = capsys.readouterr()
    assert (left.value.code, told.out) == (2, "")
    assert "cannot write: " in told.err
    assert target in told.err


# As a process


def test_the_command_prints_lines_and_nothing_else(folder):
    ran = subprocess.run([*COMMAND, "in", "broken.png"], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert len(lines(ran.stdout)) == 6
    assert ran.stderr == ""


@pytest.mark.skipif(os.name != "posix", reason="named pipes")
@pytest.mark.timeout(60)
def test_a_line_is_printed_as_soon_as_its_picture_is_read(folder):
    os.mkfifo("slow.png")
    with subprocess.Popen([*COMMAND, "in/a/two.png", "slow.png"], stdout=subprocess.PIPE, text=True) as process:
        assert json.loads(process.stdout.readline())["file"] == "in/a/two.png"
        Path("slow.png").write_bytes(Path("in/a/two.png").read_bytes())
        assert json.loads(process.stdout.readline())["file"] == "slow.png"
    assert process.returncode == 0


def test_a_reader_that_has_seen_enough_is_no_error(folder):
    many = ["in/a/two.png"] * 2000
    with subprocess.Popen([*COMMAND, *many], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_is_quiet_and_every_line_has_its_row(folder):
    many = ["in/a/two.png"] * 2000
    command = [*COMMAND, *many, "--csv", "table.csv"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out += process.stdout.read()
        assert process.stderr.read() == ""
    assert process.returncode == 130
    with open("table.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert 1 <= len(lines(out)) <= len(rows) <= len(lines(out)) + 1


@pytest.mark.skipif(os.name != "posix", reason="terminals")
def test_a_terminal_shows_progress(folder):
    import pty

    terminal, end = pty.openpty()
    with open("lines.txt", "w") as file:
        process = subprocess.Popen([*COMMAND, "in"], stdout=file, stderr=end)
    os.close(end)
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            shown += os.read(terminal, 1000)
        except OSError:  # how Linux tells that the other end is closed
            break
    os.close(terminal)
    assert process.wait(timeout=60) == 0
    assert shown.decode().split("\r")[1:3] == [f"[{'#' * 6}{'.' * 24}] 1/5", f"[{'#' * 12}{'.' * 18}] 2/5"]
    assert shown.decode().rstrip().endswith(f"[{'#' * 30}] 5/5")
    assert len(lines(Path("lines.txt").read_text())) == 5
