"""Thousands of damaged files, to everything that takes files: python -m tests.fuzz --files 10000

Pictures of every format and films of every container are cut, spliced, flipped, doubled and filled with rubbish.
Each has to become a reading or one clear message, within five seconds, and nothing may be left behind. Where one
does not, the file is kept and named.
"""

import argparse
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

import tests.browser
from model.images import BadImage, decode
from pages.film import BadFilm, annotate
from tests.server import running
from tests.test_films import film

SAMPLE = Path(__file__).parent.parent / "assets/samples/3L_0.jpg"
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF")
LIMIT = 5.0  # seconds for one file
FILMS = 20  # one file in so many is a film


def originals() -> list[bytes]:
    """A sound file of each format."""
    image = Image.open(SAMPLE).resize((96, 96))
    files = []
    for name in FORMATS:
        file = io.BytesIO()
        image.save(file, name)
        files.append(file.getvalue())
    return files


def damage(sound: list[bytes], rng: np.random.Generator) -> bytes:
    """One of these files, damaged in one to three ways."""
    data = bytearray(sound[rng.integers(len(sound))])
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(data))) if rng.random() < 0.6 else int(rng.integers(min(len(data), 64)))
        length = int(2 ** rng.uniform(0, np.log2(len(data))))
        match rng.integers(7):
            case 0:  # single bits
                for i in rng.integers(at, len(data), rng.integers(1, 20)):
                    data[i] ^= 1 << rng.integers(8)
            case 1:  # cut short
                del data[max(at, 1) :]
            case 2:  # a piece is missing
                del data[max(at, 1) : at + length]
            case 3:  # rubbish
                data[at : at + length] = rng.bytes(min(length, len(data) - at))
            case 4:  # a piece is there twice
                data[at:at] = data[at : at + length]
            case 5:  # numbers as large, or as small, as they can be
                data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0"])
            case 6:  # the end of another file
                other = sound[rng.integers(len(sound))]
                data[at:] = other[int(rng.integers(len(other))) :]
        data = data[:2_000_000] or bytearray(b"\0")
    return bytes(data)


def told(read: Callable[[bytes], object], data: bytes) -> tuple[str, float]:
    """What becomes of a file ("read", "refused"), and the seconds that it took. Any other error is passed on."""
    start = time.monotonic()
    try:
        read(data)
    except (BadImage, BadFilm) as error:
        message = str(error)
    else:
        return "read", time.monotonic() - start
    assert re.fullmatch(r"[A-Z][^\n]{10,200}[.!]", message), message
    return "refused", time.monotonic() - start


def by_decoder(files: list[bytes]) -> Iterator[tuple[str, float]]:
    for data in files:
        yield told(decode, data)


def by_films(films: list[bytes]) -> Iterator[tuple[str, float]]:
    for data in films:
        yield told(lambda data: list(annotate(io.BytesIO(data), io.BytesIO())), data)


def by_command_line(files: list[bytes], folder: Path) -> Iterator[tuple[str, float]]:
    """500 at a time; the seconds are those of the slowest possible: all but the start-up."""
    for k in range(0, len(files), 500):
        part = folder / f"pictures-{k}"
        part.mkdir()
        for i, data in enumerate(files[k : k + 500]):
            (part / f"{i:03}.png").write_bytes(data)
        done = subprocess.run([sys.executable, "-m", "model", part], capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(lines) == len(files[k : k + 500]), "one line for each file"
        for line in lines:
            yield ("refused", 0.0) if "error" in line else ("read", line["ms"] / 1000)


def by_api(files: list[bytes], address: str) -> Iterator[tuple[str, float]]:
    with httpx.Client(base_url=address, timeout=30) as client, ThreadPoolExecutor(4) as pool:

        def post(data: bytes) -> tuple[str, float]:
            start = time.monotonic()
            answer = client.post("/api/predict", files={"file": ("a.png", data)})
            assert answer.status_code in (200, 413, 415, 422), answer.text
            assert ("total" in answer.json()) == (answer.status_code == 200)
            return "read" if answer.status_code == 200 else "refused", time.monotonic() - start

        yield from pool.map(post, files)


def by_page(files: list[bytes], address: str) -> Iterator[tuple[str, float]]:
    """Pictures, 100 at a time, as a visitor drops them; what the table's JSON tells counts."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=tests.browser.find(), args=["--no-sandbox"])
        for k in range(0, len(files), 100):
            part = files[k : k + 100]
            page = browser.new_page(base_url=address)
            page.set_default_timeout(120_000)
            page.goto("/pictures")
            dropped = [{"name": f"{i}.png", "mimeType": "image/png", "buffer": data} for i, data in enumerate(part)]
            start = time.monotonic()
            page.locator("input[type=file]").first.set_input_files(dropped)
            with page.expect_download() as download:
                page.get_by_role("button", name="JSON").click()
            seconds = (time.monotonic() - start) / len(part)
            lines = json.loads(Path(download.value.path()).read_text())
            assert len(lines) == len(part), "one line for each file"
            assert page.get_by_text("Traceback").count() == 0
            page.close()
            for line in lines:
                yield "refused" if "error" in line else "read", seconds
        browser.close()


def resident(pid: int) -> int:
    """Megabytes of memory that a process holds."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) // 1024


def run(count: int, ways: tuple[str, ...], seed: int = 0) -> dict[str, dict]:
    """Hand `count` damaged files to each of the ways (decoder, films, cli, api, page).

    Returns, for each: how many were read and refused, and the seconds of the slowest.

    Raises:
        AssertionError: a file became neither a reading nor one message, took too long, or left something behind.
    """
    rng, sound = np.random.default_rng(seed), originals()
    files = [damage(sound, rng) for _ in range(count)]
    sound_films = [film(kind, parts=("3L_0",), size=(160, 120)).getvalue() for kind in ("mp4", "mov", "webm")]
    films = [damage(sound_films, rng) for _ in range(max(1, count // FILMS))]
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder, "tmp")  # whatever is left behind lies here
        empty.mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(empty)
        try:
            with running(Path(folder, "log"), TMPDIR=str(empty)) as address:
                everything = {
                    "decoder": lambda: by_decoder(files),
                    "films": lambda: by_films(films),
                    "cli": lambda: by_command_line(files, Path(folder)),
                    "api": lambda: by_api(files, address),
                    "page": lambda: by_page(files, address),
                }
                for way in ways:
                    outcomes = list(everything[way]())
                    slowest = max(seconds for _, seconds in outcomes)
                    assert slowest < LIMIT, f"{way}: {slowest:.1f} s for one file"
                    results[way] = {
                        "read": 0,
                        "refused": 0,
                        **Counter(kind for kind, _ in outcomes),
                        "slowest_s": round(slowest, 2),
                    }
                    print(way, results[way], flush=True)
            assert "Traceback" not in Path(folder, "log").read_text(errors="replace"), "the server's log"
        finally:
            tempfile.tempdir = None
            del os.environ["TMPDIR"]
        left = [file.name for file in empty.iterdir() if "playwright" not in file.name]
        assert not left, f"left behind: {left}"
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    own = resident(os.getpid())
    run(arguments.files, ("decoder", "films", "cli", "api", "page"), arguments.seed)
    print(f"Memory of this process: {own} MB before, {resident(os.getpid())} MB after.")
