"""DecodeProcess decodes as `decode` does, in a process that is ended where a picture takes too much."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import numpy as np
import psutil
import pytest

from benchmarks import hostile
from benchmarks.app_server import own_mb
from handful import decode_process
from handful.decode_process import DecodeProcess
from handful.images import BadImage, decode
from tests.builders import SAMPLES, png
from tests.unit.test_images import NOT_PICTURES, VALID, encode

HAND = (SAMPLES / "3L_0.jpg").read_bytes()
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="such a limit, and /proc, are Linux's")


@pytest.fixture(scope="module")
def decoder() -> Iterator[DecodeProcess]:
    with DecodeProcess() as decoder:
        yield decoder


def refusal(decoder: DecodeProcess, source: bytes | Path) -> str:
    with pytest.raises(BadImage) as caught:
        decoder.decode(source)
    return str(caught.value)


@pytest.mark.parametrize("data", VALID)
def test_pictures_are_those_of_decode(decoder, data):
    picture = decoder.decode(data)
    np.testing.assert_array_equal(picture, decode(data))
    assert picture.flags.c_contiguous
    picture[0, 0] = 1, 2, 3  # writable


@pytest.mark.parametrize("source", [*NOT_PICTURES.values(), b"", HAND[:500], Path("none.jpg"), bytes(20_000_001)])
def test_refusals_are_those_of_decode(decoder, source):
    with pytest.raises(BadImage) as expected:
        decode(source)
    with pytest.raises(BadImage) as caught:
        decoder.decode(source)
    assert (str(caught.value), caught.value.status) == (str(expected.value), expected.value.status)


def test_a_picture_stays_as_it_is_while_others_are_decoded(decoder):
    pictures = [decoder.decode(png((60, height))) for height in (40, 50, 60)]
    for picture, height in zip(pictures, (40, 50, 60), strict=True):
        np.testing.assert_array_equal(picture, decode(png((60, height))))


def test_a_picture_for_which_there_is_no_memory_here_is_refused_and_the_next_one_decoded(decoder, monkeypatch):
    def no_memory(*arguments: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(decode_process.np, "empty", no_memory)
        assert "damaged" in refusal(decoder, HAND)
    np.testing.assert_array_equal(decoder.decode(HAND), decode(HAND))


@pytest.mark.skipif(os.name != "posix", reason="Windows does not limit CPU time")
@pytest.mark.parametrize("make", hostile.SLOW.values(), ids=hostile.SLOW)
def test_a_picture_beyond_the_cpu_time_is_refused_and_the_next_one_decoded(make):
    with DecodeProcess(cpu_s=0.05) as decoder:
        assert refusal(decoder, make()) == "This picture takes too long to read. Save it again as JPEG or PNG."
        assert decoder.decode(HAND).shape == (256, 256, 3)


def test_cpu_time_is_counted_for_each_picture():
    with DecodeProcess(cpu_s=0.3) as decoder:
        data = encode(np.zeros((1500, 1500, 3), np.uint8), "PNG")
        for _ in range(40):
            decoder.decode(data)


def test_a_picture_beyond_the_wall_time_is_refused_and_the_next_one_decoded():
    with DecodeProcess() as decoder:
        decoder.decode(HAND)
        decoder.wall_s = 0.01
        assert "too long" in refusal(decoder, hostile.SLOW["PNG"]())
        decoder.wall_s = 60
        assert decoder.decode(HAND).shape == (256, 256, 3)


@on_linux
def test_memory_is_limited_by_the_pixels_that_a_file_says(tmp_path):
    """As a file might do that is recognized by nothing else: here, with the check of its structure switched off."""
    worker = (
        Path(decode_process.WORKER)
        .read_text()
        .replace("if __name__", "import handful.images\nhandful.images.is_costly = lambda data: False\nif __name__")
    )
    (tmp_path / "decode_worker.py").write_text(worker.replace("__file__", repr(decode_process.__file__)))
    data = hostile.tiff_of_one_tile(24_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode_process, "WORKER", tmp_path / "decode_worker.py")
        with DecodeProcess(cpu_s=60) as decoder:
            decoder.decode(HAND)
            Path(f"/proc/{decoder.process.pid}/clear_refs").write_text("5")
            assert "Save it again" in refusal(decoder, data)
            status = Path(f"/proc/{decoder.process.pid}/status").read_text()
            peak_kb = int(status.partition("VmHWM:")[2].split()[0])
            assert peak_kb < 400_000
            assert decoder.decode(HAND).shape == (256, 256, 3)


@on_linux
def test_a_large_picture_leaves_no_memory_in_the_process():
    with DecodeProcess() as decoder:
        decoder.decode(HAND)
        process = psutil.Process(decoder.process.pid)
        before = own_mb(process)
        decoder.decode(
            encode(np.zeros((3000, 3000, 3), np.uint8), "JPEG") + bytes(18_000_000)
        )  # what follows is ignored
        deadline = time.monotonic() + 30
        while own_mb(process) > before + 5:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_process_that_ends_in_a_decoder_refuses_the_picture(decoder):
    process = decoder.process
    os.kill(process.pid, getattr(signal, "SIGSTOP", signal.SIGTERM))
    Timer(0.2, process.kill).start()
    assert "damaged" in refusal(decoder, HAND)
    assert decoder.decode(HAND).shape == (256, 256, 3)


@pytest.mark.parametrize("end", [DecodeProcess.kill, lambda decoder: decoder.process.kill(), DecodeProcess.close])
def test_a_process_that_ended_between_pictures_is_replaced(decoder, end):
    end(decoder)
    decoder.process.wait()
    assert decoder.decode(HAND).shape == (256, 256, 3)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="Windows cannot stop a process")
def test_a_process_that_is_ended_while_it_starts_is_replaced():
    with DecodeProcess() as decoder:
        os.kill(decoder.process.pid, signal.SIGSTOP)
        Timer(0.2, decoder.kill).start()
        assert "damaged" in refusal(decoder, HAND)
        assert decoder.decode(HAND).shape == (256, 256, 3)


def test_a_process_that_cannot_start_is_no_fault_of_the_picture(tmp_path, monkeypatch):
    (tmp_path / "worker.py").write_text("1 / 0")
    monkeypatch.setattr(decode_process, "WORKER", tmp_path / "worker.py")
    with DecodeProcess() as decoder, pytest.raises(RuntimeError, match="does not start: status 1"):
        decoder.decode(HAND)


@on_linux
def test_the_process_has_neither_streamlit_nor_onnxruntime(decoder):
    decoder.decode(HAND)
    files = Path(f"/proc/{decoder.process.pid}/maps").read_text()
    assert "_imaging" in files
    assert "onnxruntime" not in files
    assert "streamlit" not in files


@on_linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_the_process_ends_with_the_one_that_started_it(number):
    code = "from handful.decode_process import DecodeProcess; d = DecodeProcess(); d.decode(open(0, 'rb')); "
    code += "print(d.process.pid, flush=True); import time; time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        parent.stdin.write(HAND)
        parent.stdin.close()
        pid = int(parent.stdout.readline())
        parent.send_signal(number)
    start = time.monotonic()
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() - start < 10
        time.sleep(0.05)


def test_closing_does_not_wait_for_a_lock_that_ctrl_c_left_behind():
    process = DecodeProcess()
    process.process._waitpid_lock.acquire()  # as in `Popen.poll`, between taking the lock and its `try`
    start = time.monotonic()
    process.close()
    assert time.monotonic() - start < 5
