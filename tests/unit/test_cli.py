"""The command line: one line of JSON per picture, whatever the pictures."""

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
from benchmarks import hostile
from handful import CLASSES, FINGERS, FingerCounter, shared_counter
from handful.images import decode

HAND = Path(__file__).parents[2] / "assets/samples/5L_0.jpg"
COMMAND = [sys.executable, "-m", "handful"]
links = pytest.mark.skipif(os.name != "posix", reason="Windows lets few users make links")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Make a working folder of nested pictures and of files that are not pictures."""
    monkeypatch.chdir(tmp_path)
    # For subprocesses: the working folder is not the repository.
    monkeypatch.setenv("PYTHONPATH", str(Path(cli.__file__).parents[1]))
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # would hide a missing flush
    random = np.random.default_rng(0)
    for name in "a/two.png", "a/one.JPG", "a/deep/er/two.png", "b/two.png", "b/two.webp":
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 60, 3), np.uint8)).save(path)
    shutil.copy(HAND, tmp_path / "hand.jpg")
    (tmp_path / "in/a/notes.txt").write_text("not a picture")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    return tmp_path


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


# Output


def test_prints_one_json_line_per_picture(folder, capsys):
    assert cli.main(["hand.jpg"]) == 0
    [line] = lines(capsys.readouterr().out)
    assert list(line) == ["file", "width", "height", "total", "hands", "ms"]
    assert (line["file"], line["width"], line["height"]) == ("hand.jpg", 256, 256)
    [hand] = line["hands"]
    assert list(hand) == ["fingers", "raised", "side", "confidence", "box", "probabilities"]
    assert line["total"] == hand["fingers"] == 5
    assert hand["raised"] == list(FINGERS)
    assert list(hand["probabilities"]) == list(CLASSES)
    x0, y0, x1, y1 = hand["box"]
    assert 0 <= x0 < x1 <= 256
    assert 0 <= y0 < y1 <= 256


def test_folders_are_searched_recursively_in_sorted_order(folder, capsys):
    assert cli.main(["in/b", "in"]) == 0
    files = [line["file"] for line in lines(capsys.readouterr().out)]
    inner = ["in/a/deep/er/two.png", "in/a/one.JPG", "in/a/two.png", "in/b/two.png", "in/b/two.webp"]
    assert files == ["in/b/two.png", "in/b/two.webp", *inner]


def test_failed_pictures_have_a_line_with_the_error(folder, capsys):
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
def test_file_names_that_are_not_utf8(folder):
    name = b"in/caf\xe9 \xf0\x9f\x96\x90 \n.png"
    os.rename(b"in/a/two.png", name)
    process = subprocess.run([*COMMAND, name, "--csv", "t.csv", "--overlays", "out"], capture_output=True, timeout=60)
    assert (process.returncode, process.stderr) == (0, b"")
    assert os.fsencode(json.loads(process.stdout)["file"]) == name
    assert name in (folder / "t.csv").read_bytes()
    assert os.listdir(b"out") == [name.removeprefix(b"in/") + b".jpg"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_pipes_in_a_folder_are_skipped(folder):
    os.mkfifo("in/b/pipe.png")
    os.symlink("nothing.png", "in/b/gone.png")
    assert [str(path) for path, _ in cli.find_pictures(Path("in/b"))] == [
        "in/b/gone.png",
        "in/b/two.png",
        "in/b/two.webp",
    ]


def test_unreadable_folder_is_reported(folder, capsys, monkeypatch):
    scandir = os.scandir

    def denied(path):  # not by chmod, which does not stop root
        if Path(path) == Path("in/b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert cli.main(["in"]) == 1
    *pictures, error = lines(capsys.readouterr().out)
    assert len(pictures) == 3
    assert error == {"file": "in/b", "error": "This folder cannot be opened: Permission denied"}


# --csv


def test_table_has_a_row_per_hand_and_per_picture_without_hands(folder, capsys):
    shutil.copy(HAND.with_name("0R_0.jpg"), "fist.jpg")
    assert cli.main(["hand.jpg", "fist.jpg", "in/a/two.png", "broken.png", "--csv", "table.csv"]) == 1
    picture, _, without_hands, error = lines(capsys.readouterr().out)
    with open("table.csv", newline="", encoding="utf-8") as file:
        first, fist, second, third = csv.DictReader(file)
    assert without_hands["hands"] == []
    assert (second["file"], second["total"], second["fingers"]) == ("in/a/two.png", "0", "")
    [hand] = picture["hands"]
    expected = {key: picture[key] for key in ("file", "width", "height", "total", "ms")}
    expected |= {key: hand[key] for key in ("fingers", "side", "confidence")}
    expected |= {"raised": "thumb+index+middle+ring+little"}
    expected |= {**dict(zip(("x0", "y0", "x1", "y1"), hand["box"], strict=True)), **hand["probabilities"], "error": ""}
    assert first == {key: str(value) for key, value in expected.items()}
    assert (fist["fingers"], fist["raised"], fist["side"]) == ("0", "", "right")
    assert {key: value for key, value in third.items() if value} == error


@pytest.mark.parametrize("name", ["=1+2.png", "+1.png", "@x.png"])
def test_file_names_are_no_formulas_in_the_table(folder, name):
    Path(name).write_bytes(Path("in/a/two.png").read_bytes())
    assert cli.main([name, "--csv", "table.csv"]) == 0
    with open("table.csv", newline="", encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    assert row["file"] == os.path.join(".", name)


# --overlays


def test_overlays_mirror_the_folders_of_the_pictures(folder):
    assert cli.main(["in/a", str(folder / "in/b"), "--overlays", "out/deep"]) == 0
    written = sorted(path.relative_to("out/deep").as_posix() for path in Path("out").rglob("*.*"))
    assert written == ["a/deep/er/two.png.jpg", "a/one.JPG.jpg", "a/two.png.jpg", "b/two.png.jpg", "b/two.webp.jpg"]


@pytest.mark.parametrize("path", ["in/a/two.png", "./in/../in/a/two.png", "in/a"])
def test_overlays_of_one_folder_have_no_subfolder(folder, path):
    assert cli.main([path, "--overlays", "out"]) == 0
    overlay, picture = decode("out/two.png.jpg"), decode("in/a/two.png")
    assert max(picture.shape) < max(overlay.shape) == cli.MIN_OVERLAY_SIDE  # enlarged, so that captions can be read


def test_overlays_of_pictures_on_two_drives_are_a_usage_error(folder, capsys, monkeypatch):
    def on_two_drives(paths):
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr(os.path, "commonpath", on_two_drives)  # possible only on Windows
    assert cli.main(["in/a/two.png"]) == 0
    with pytest.raises(SystemExit, match="2"):
        cli.main(["in/a/two.png", "--overlays", "out"])
    assert "cannot write: Paths don't have the same drive" in capsys.readouterr().err


def test_overlay_that_cannot_be_written_is_an_error_of_its_picture(folder, capsys):
    (folder / "out/two.png.jpg").mkdir(parents=True)
    assert cli.main(["in/a/two.png", "in/a/one.JPG", "--overlays", "out"]) == 1
    first, second = lines(capsys.readouterr().out)
    assert first["error"].startswith("The overlay cannot be written: ")
    assert first["width"] == 60  # the prediction is printed nevertheless
    assert "error" not in second


def test_overlays_of_the_run_before_are_not_read(folder, capsys):
    for _ in range(2):
        assert cli.main(["in", "--overlays", "in/out"]) == 0
        assert len(lines(capsys.readouterr().out)) == 5


def test_pictures_in_the_folder_of_overlays_are_read(folder, capsys):
    for _ in range(2):
        assert cli.main(["in", "--overlays", "in/b"]) == 0
        assert len(lines(capsys.readouterr().out)) == 5
    assert Path("in/b/b/two.webp.jpg").exists()


@pytest.mark.parametrize("link", [False, pytest.param(True, marks=links)], ids=["", "by a link"])
def test_overlays_beside_their_pictures_are_a_usage_error(folder, capsys, link):
    if link:
        os.symlink(folder / "in/a", "link", target_is_directory=True)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["in/a", "--overlays", "link" if link else "in/../in/a"])
    assert "choose another folder" in capsys.readouterr().err


# Errors


@pytest.mark.parametrize("arguments", [[], ["--csv"], ["in", "--unknown"]])
def test_wrong_usage_exits_with_2(folder, arguments, capsys):
    with pytest.raises(SystemExit) as exited:
        cli.main(arguments)
    assert exited.value.code == 2
    assert "usage: handful" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "target"), [("--csv", "none/t.csv"), ("--csv", "in"), ("--overlays", "broken.png")])
def test_output_that_cannot_be_written_is_reported_before_the_work(folder, option, target, capsys, monkeypatch):
    monkeypatch.setattr(cli, "run", lambda *args: pytest.fail("started first"))
    with pytest.raises(SystemExit) as exited:
        cli.main(["in", option, target])
    printed = capsys.readouterr()
    assert (exited.value.code, printed.out) == (2, "")
    assert "cannot write: " in printed.err
    assert target in printed.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["in", "--csv", "hand.jpg"],
        ["hand", "--csv", "hand"],
        pytest.param(["in", "--csv", "link.csv"], marks=links),
    ],
)
def test_a_table_in_place_of_a_picture_is_a_usage_error(folder, capsys, arguments):
    shutil.copy(HAND, "hand")
    if "link.csv" in arguments:
        os.symlink("hand.jpg", "link.csv")
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    assert "the table would replace" in capsys.readouterr().err
    assert Path("hand.jpg").read_bytes() == Path("hand").read_bytes() == HAND.read_bytes()


def test_an_unexpected_error_is_one_of_its_picture(folder, capsys, monkeypatch):
    def count(image, personal):
        if image.shape[0] > 100:
            raise RuntimeError("of onnxruntime")
        return shared_counter()(image, personal)

    monkeypatch.setattr(cli, "shared_counter", lambda: count)
    assert cli.main(["hand.jpg", "in/a/two.png"]) == 1
    first, second = lines(capsys.readouterr().out)
    assert first == {
        "file": "hand.jpg",
        "error": "This picture cannot be processed (RuntimeError). Save it again as JPEG.",
    }
    assert second["total"] == 0


@pytest.mark.parametrize("make", hostile.TOO_NARROW.values(), ids=hostile.TOO_NARROW)
def test_a_picture_that_onnxruntime_cannot_resize_does_not_end_the_others(folder, capsys, make):
    Path("narrow.bmp").write_bytes(make())
    assert cli.main(["narrow.bmp", "in/a/two.png"]) == 1
    assert [("error" in line) for line in lines(capsys.readouterr().out)] == [True, False]


def test_missing_model_is_reported(folder, capsys, monkeypatch):
    monkeypatch.delenv("HANDFUL_MODEL", raising=False)
    # Bound as a default argument, so that patching MODEL has no effect.
    monkeypatch.setattr(FingerCounter.__init__, "__defaults__", (Path("handful.onnx"), 1, None))
    shared_counter.cache_clear()
    assert cli.main(["hand.jpg"]) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "handful: handful.onnx: there is no such file.\n")


# As a process


def test_process_prints_only_json_lines(folder):
    process = subprocess.run([*COMMAND, "in", "broken.png"], capture_output=True, text=True, timeout=60)
    assert process.returncode == 1
    assert len(lines(process.stdout)) == 6
    assert process.stderr == ""


@pytest.mark.skipif(os.name != "posix", reason="named pipes")
@pytest.mark.timeout(60)
def test_lines_are_printed_at_once(folder):
    os.mkfifo("slow.png")
    with subprocess.Popen([*COMMAND, "in/a/two.png", "slow.png"], stdout=subprocess.PIPE, text=True) as process:
        assert json.loads(process.stdout.readline())["file"] == "in/a/two.png"
        Path("slow.png").write_bytes(Path("in/a/two.png").read_bytes())
        assert json.loads(process.stdout.readline())["file"] == "slow.png"
    assert process.returncode == 0


def test_a_reader_that_leaves_ends_it_quietly_with_141(folder):
    many = ["in/a/two.png"] * 2000
    with subprocess.Popen([*COMMAND, *many], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux's full disk")
@pytest.mark.parametrize("output", ["table", "stdout"])
def test_a_full_disk_is_one_line(folder, output):
    command = [*COMMAND, "in/a/two.png", *(["--csv", "/dev/full"] if output == "table" else [])]
    with open("/dev/full" if output == "stdout" else os.devnull, "w") as stdout:
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "handful: cannot write: No space left on device\n")


@pytest.mark.skipif(os.name != "posix", reason="a shell")
def test_a_closed_stdout_is_one_line(folder):
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "in/a/two.png"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "handful: cannot write: stdout is closed\n")


@pytest.mark.skipif(os.name != "posix", reason="a shell")
def test_a_closed_stderr_is_no_error(folder):
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND, "in/a/two.png", "broken.png"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert len(lines(done.stdout)) == 2


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_ends_quietly_and_every_line_has_its_row(folder):
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


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("again", [False, True], ids=["", "and again at the end"])
def test_ctrl_c_as_the_clock_of_a_picture_starts_ends_at_once(folder, again):
    code = f"""
import atexit, os, runpy, signal, sys
from threading import Timer
def interrupt(timer, start=Timer.start):
    start(timer)
    os.kill(os.getpid(), signal.SIGINT)
Timer.start = interrupt
if {again}:
    atexit.register(os.kill, os.getpid(), signal.SIGINT)
sys.argv = ["handful", "hand.jpg"]
runpy.run_module("handful", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("module", ["numpy", "onnxruntime", "handful.cli"])
def test_an_early_ctrl_c_ends_quietly(folder, module):
    """While that module is imported."""
    code = f"""
import os, runpy, signal, sys
class Interrupt:
    def find_spec(self, name, path, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
sys.argv = ["handful", "hand.jpg"]
runpy.run_module("handful", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.skipif(os.name != "posix", reason="terminals")
def test_progress_bar_on_a_terminal(folder):
    import pty

    terminal, slave = pty.openpty()
    with open("lines.txt", "w") as file:
        process = subprocess.Popen([*COMMAND, "in"], stdout=file, stderr=slave)
    os.close(slave)
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            shown += os.read(terminal, 1000)
        except OSError:  # on Linux: the other end is closed
            break
    os.close(terminal)
    assert process.wait(timeout=60) == 0
    assert shown.decode().split("\r")[1:3] == [f"[{'#' * 6}{'.' * 24}] 1/5", f"[{'#' * 12}{'.' * 18}] 2/5"]
    assert shown.decode().rstrip().endswith(f"[{'#' * 30}] 5/5")
    assert len(lines(Path("lines.txt").read_text())) == 5


def test_a_head_that_cannot_be_used_costs_no_table(tmp_path):
    head, table = tmp_path / "head.json", tmp_path / "table.csv"
    head.write_text("nonsense")
    table.write_text("of the last run")
    command = [sys.executable, "-m", "handful", HAND, "--csv", table, "--personal", head]
    run = subprocess.run(command, capture_output=True, text=True)
    assert (run.returncode, len(run.stderr.splitlines())) == (1, 1)
    assert table.read_text() == "of the last run"
