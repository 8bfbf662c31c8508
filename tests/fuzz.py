"""Thousands of damaged files, to everything that takes files: python -m tests.fuzz --files 10000

Pictures of every format, films of every container and texts that pretend to be either are cut, spliced, flipped,
doubled, put into one another and filled with rubbish; their names are odd. Each has to become a reading or one clear
message, the same everywhere, within five seconds; memory stays bounded, and nothing is left behind. A file with which
that is not so is kept and named.
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
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Timer

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from benchmarks import chromium
from benchmarks.app_server import running
from benchmarks.soak import server_at
from handful.images import BadImage, decode
from tests.app.test_videos import film
from web.video import BadVideo, annotate

SAMPLE = Path(__file__).parent.parent / "assets/samples/3L_0.jpg"
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF")
TEXTS = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>',
    b"<!DOCTYPE html><script>alert(1)</script>",
    b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj trailer<</Root 1 0 R>>\n%%EOF",
    b"PK\5\6" + bytes(18),  # an archive
    b"v=0\r\nc=IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n",
    b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1/film.ts\n#EXT-X-ENDLIST\n",
)
NAMES = ("hand", "手 ✋", "'\"<b>&amp;", "\u202egnp", "-rf", "x" * 200, "%2e%2f", "a\nb", "$(id)", "..", "![](a.png)")
LIMIT = 5.0  # seconds for one file
MEMORY = 1000  # MB by which a process grows at most: the server may decode two pictures of 50 megapixels at once
FILMS = 20  # one file in so many is a film
ROUND = 20  # files that are dropped on the page at once
KEPT = Path(tempfile.gettempdir(), "handful-fuzz")  # files that something went wrong with

File = tuple[str, bytes]  # its name, and what is in it
Outcome = tuple[str, float]  # "read" or "refused", and the seconds that it took at most


def pictures() -> list[bytes]:
    """A sound file of each format, and of each odd kind."""
    image = Image.open(SAMPLE).resize((96, 96))
    levels = np.asarray(image.convert("L"), np.float32)
    levels[:9] = np.nan
    kinds = [
        *((image, name, {}) for name in FORMATS),
        *((image, name, {"save_all": True, "append_images": [image.rotate(90)]}) for name in ("GIF", "WEBP")),
        (image.convert("CMYK"), "JPEG", {}),
        (Image.fromarray(np.asarray(image.convert("L"), np.uint16) << 8), "PNG", {}),
        (Image.fromarray(levels), "TIFF", {}),
        (Image.new("RGB", (1, 1)), "PNG", {}),
        (Image.new("RGB", (30_000, 2)), "PNG", {}),
    ]
    files = []
    for picture, name, options in kinds:
        file = io.BytesIO()
        picture.save(file, name, **options)
        files.append(file.getvalue())
    return files


def films() -> list[bytes]:
    """A sound film of each container."""
    return [film(kind, parts=("3L_0",), size=(160, 120)).getvalue() for kind in ("mp4", "mov", "webm")]


def damage(sound: list[bytes], rng: np.random.Generator, others: list[bytes]) -> bytes:
    """One of the sound files, damaged in one to three ways, among them pieces of others."""
    data = bytearray(sound[rng.integers(len(sound))])
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(data))) if rng.random() < 0.6 else int(rng.integers(min(len(data), 64)))
        length = int(2 ** rng.uniform(0, np.log2(len(data))))
        other = others[rng.integers(len(others))]
        match rng.integers(9):
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
                data[at:] = other[int(rng.integers(len(other))) :]
            case 7:  # two files in one
                place = int(rng.choice([0, at, len(data)]))
                data[place:place] = other
            case 8:  # what another file begins with
                data[:16] = other[:16]
        data = data[:2_000_000] or bytearray(b"\0")
    return bytes(data)


def keep(files: list[File]) -> None:
    KEPT.mkdir(exist_ok=True)
    for name, data in files:
        (KEPT / name).write_bytes(data)


def give_up(file: File) -> None:
    """End this process: nothing else ends a thread that a decoder holds."""
    keep([file])
    print(f"{file[0]!r} has no end; see {KEPT}", file=sys.__stderr__, flush=True)
    os._exit(1)


def told(read: Callable[[bytes], object], file: File) -> Outcome:
    """What becomes of a file. Any other error is passed on."""
    watch = Timer(2 * LIMIT, give_up, [file])
    watch.start()
    start = time.perf_counter()
    try:
        read(file[1])
    except (BadImage, BadVideo) as error:
        message = str(error)
    else:
        return "read", time.perf_counter() - start
    finally:
        watch.cancel()
    assert re.fullmatch(r"[A-Z][^\n]{10,200}[.!]", message), message
    return "refused", time.perf_counter() - start


def by_decoder(files: list[File]) -> Generator[Outcome]:
    for file in files:
        yield told(decode, file)


def by_films(files: list[File]) -> Generator[Outcome]:
    for file in files:
        yield told(lambda data: list(annotate(io.BytesIO(data), io.BytesIO())), file)


def by_command_line(files: list[File], folder: Path) -> Generator[Outcome]:
    """500 at a time: each is told as soon as it is read."""
    for k in range(0, len(files), 500):
        part = folder / f"pictures-{k}"
        part.mkdir()
        (part / "0.jpg").write_bytes(SAMPLE.read_bytes())  # takes the start-up
        for name, data in files[k : k + 500]:
            (part / name).write_bytes(data)
        command = [sys.executable, "-m", "handful", part]
        with (
            Path(folder, "errors").open("w+") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):
            process.stdout.readline()
            start = time.perf_counter()
            for name, _ in files[k : k + 500]:
                watch = Timer(LIMIT, process.kill)
                watch.start()
                line = json.loads(process.stdout.readline())
                watch.cancel()
                seconds, start = time.perf_counter() - start, time.perf_counter()
                assert line["file"] == str(part / name)
                yield "refused" if "error" in line else "read", seconds
            assert not process.stdout.read(), "one line for each file"
            errors.seek(0)
            assert "Traceback" not in errors.read()


def by_api(files: list[File], address: str) -> Generator[Outcome]:
    """Four at a time."""
    with httpx.Client(base_url=address, timeout=LIMIT) as client, ThreadPoolExecutor(4) as pool:

        def post(file: File) -> Outcome:
            start = time.perf_counter()
            answer = client.post("/api/predict", files={"file": file})
            assert answer.status_code in (200, 413, 415, 422), answer.text
            assert ("total" in answer.json()) == (answer.status_code == 200)
            return "read" if answer.status_code == 200 else "refused", time.perf_counter() - start

        yield from pool.map(post, files)


def by_page(files: list[File], address: str) -> Generator[Outcome]:
    """Many at once, as a visitor drops them; what the table's JSON tells counts.

    The seconds are those that the whole round takes longer than one of sound pictures: no file takes more.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=["--no-sandbox"])
        for k in range(-2 * ROUND, len(files), ROUND):
            part = files[k : k + ROUND] if k >= 0 else [("hand.jpg", SAMPLE.read_bytes())] * ROUND
            page = browser.new_page(base_url=address)
            page.goto("/pictures")
            dropped = [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in part]
            start = time.perf_counter()
            page.locator("input[type=file]").first.set_input_files(dropped)
            with page.expect_download() as download:
                page.get_by_role("button", name="JSON").click()
            seconds = time.perf_counter() - start
            lines = json.loads(Path(download.value.path()).read_text())
            assert len(lines) == len(part), "one line for each file"
            page.close()
            if k < 0:
                usual = seconds
                continue
            for line in lines:
                yield "refused" if "error" in line else "read", max(0.0, seconds - usual)
        browser.close()


def memory(pid: int, what: str) -> int:
    """Megabytes that a process holds: "VmRSS" now, "VmHWM" at most since it was told to count anew."""
    return int(re.search(rf"{what}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) // 1024


def judged(way: str, files: list[File], outcomes: Generator[Outcome], known: list[str]) -> list[Outcome]:
    """What became of each file; `known` tells what it did elsewhere, if anything.

    Raises:
        AssertionError: one of them became neither a reading nor a message in time, or not the same as elsewhere.
    """
    judged: list[Outcome] = []
    try:
        with closing(outcomes):
            for kind, seconds in outcomes:
                assert seconds < LIMIT, f"{seconds:.1f} s for one file"
                assert not known or kind == known[len(judged)], f"{kind}, but not elsewhere"
                judged.append((kind, seconds))
    except Exception as error:
        keep(files[len(judged) :][: ROUND if way == "page" else 1])
        raise AssertionError(f"{way}: {error!r}; see {KEPT / files[len(judged)][0]}") from error
    return judged


def run(count: int, ways: tuple[str, ...], seed: int = 0) -> dict[str, dict]:
    """Hand `count` files, nearly all damaged, to each of the ways: decoder, cli, api, page; the films to films.

    Returns, for each: how many were read and refused, the seconds of the slowest, and the megabytes by which this
    process or the server's had grown at most.

    Raises:
        AssertionError: something is not as this module's first lines say.
    """
    rng, sound, moving = np.random.default_rng(seed), pictures(), films()
    everything = [*sound, *moving, *TEXTS]
    data = everything + [damage(moving, rng, everything) for _ in range(max(1, count // FILMS))]
    of_films = slice(len(sound), len(data))
    data += [damage(sound, rng, everything) for _ in range(count - len(data))]
    files = [(f"{i:05} {NAMES[i % len(NAMES)]}.png", one) for i, one in enumerate(data)]
    results: dict[str, dict] = {}
    known: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder, "tmp")  # whatever is left behind lies here
        empty.mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(empty)
        try:
            with running(Path(folder, "log"), TMPDIR=str(empty)) as address:
                held = {pid: memory(pid, "VmRSS") for pid in (os.getpid(), server_at(address))}
                for pid in held:
                    Path(f"/proc/{pid}/clear_refs").write_text("5")
                for way in ways:
                    handed = files[of_films] if way == "films" else files
                    outcomes = {
                        "decoder": lambda: by_decoder(files),
                        "films": lambda: by_films(files[of_films]),
                        "cli": lambda: by_command_line(files, Path(folder)),
                        "api": lambda: by_api(files, address),
                        "page": lambda: by_page(files, address),
                    }[way]()
                    told = judged(way, handed, outcomes, [] if way == "films" else known)
                    if way != "films":
                        known = [kind for kind, _ in told]
                    grown = max(memory(pid, "VmHWM") - before for pid, before in held.items())
                    assert grown < MEMORY, f"{way}: {grown} MB more"
                    slowest = max(seconds for _, seconds in told)
                    kinds = Counter(kind for kind, _ in told)
                    results[way] = {**kinds, "slowest_s": round(slowest, 2), "grown_mb": grown}
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
    run(arguments.files, ("decoder", "films", "cli", "api", "page"), arguments.seed)
