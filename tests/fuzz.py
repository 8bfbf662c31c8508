"""Feed thousands of damaged files to everything that takes files: python -m tests.fuzz --files 10000

Pictures of every format, videos of every container and texts with misleading content are truncated, spliced, mixed,
flipped, duplicated and overwritten with random bytes; their names are odd. Each must give a prediction or one clear
message, the same in all ways, within five seconds, with bounded memory and no files left behind. A file that fails is
saved and its name is printed.
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
import psutil
from PIL import Image
from playwright.sync_api import sync_playwright

from benchmarks import chromium, hostile
from benchmarks.app_server import MB, run_app, server_process
from handful.images import BadImage, decode
from tests.builders import make_video
from web.video import BadVideo, annotate

SAMPLE = Path(__file__).parent.parent / "assets/samples/3L_0.jpg"
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF")
TEXTS = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>',
    b"<!DOCTYPE html><script>alert(1)</script>",
    b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj trailer<</Root 1 0 R>>\n%%EOF",
    b"PK\5\6" + bytes(18),  # an empty zip file
    b"v=0\r\nc=IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n",
    b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1/video.ts\n#EXT-X-ENDLIST\n",
)
NAMES = ("hand", "手 ✋", "'\"<b>&amp;", "\u202egnp", "-rf", "x" * 200, "%2e%2f", "a\nb", "$(id)", "..", "![](a.png)")
TIMEOUT_S = 5.0  # for one file
MAX_GROWTH_MB = 1000  # of this process, which decodes too, or of the server
VIDEO_FRACTION = 1 / 20  # of the files
FILES_PER_UPLOAD = 20  # on the page
FILES_PER_COMMAND = 500
FAILED_DIR = Path(tempfile.gettempdir(), "handful-fuzz")

File = tuple[str, bytes]  # name and content
Outcome = tuple[str, float]  # "predicted" or "refused", and the seconds that it took


def pictures() -> list[bytes]:
    """Return a valid file of each format and of some rare kinds, and those whose structure is hostile."""
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
        (Image.new("RGB", (30_000, 150)), "PNG", {}),
    ]
    files = []
    for picture, name, options in kinds:
        file = io.BytesIO()
        picture.save(file, name, **options)
        files.append(file.getvalue())
    files += [make() for make in hostile.REFUSED.values()]
    return [*files, hostile.png_of_chunks(b"tEXt", 1000, b"a\0"), hostile.gif_of_comments(1000)]


def videos() -> list[bytes]:
    """Return a valid video of each container."""
    return [make_video(kind, samples=("3L_0",), size=(160, 120)).getvalue() for kind in ("mp4", "mov", "webm")]


def damage(valid: list[bytes], rng: np.random.Generator, others: list[bytes]) -> bytes:
    """Return one of the valid files, damaged in one to three ways, partly with pieces of others."""
    data = bytearray(valid[rng.integers(len(valid))])
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(data))) if rng.random() < 0.6 else int(rng.integers(min(len(data), 64)))
        length = int(2 ** rng.uniform(0, np.log2(len(data))))
        other = others[rng.integers(len(others))]
        match rng.integers(9):
            case 0:  # flip bits
                for i in rng.integers(at, len(data), rng.integers(1, 20)):
                    data[i] ^= 1 << rng.integers(8)
            case 1:  # truncate
                del data[max(at, 1) :]
            case 2:  # delete a piece
                del data[max(at, 1) : at + length]
            case 3:  # overwrite with random bytes
                data[at : at + length] = rng.bytes(min(length, len(data) - at))
            case 4:  # duplicate a piece
                data[at:at] = data[at : at + length]
            case 5:  # extreme integers
                data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0"])
            case 6:  # the end of another file
                data[at:] = other[int(rng.integers(len(other))) :]
            case 7:  # insert another file
                position = int(rng.choice([0, at, len(data)]))
                data[position:position] = other
            case 8:  # the first bytes of another file
                data[:16] = other[:16]
        data = data[:2_000_000] or bytearray(b"\0")
    return bytes(data)


def save(files: list[File]) -> None:
    FAILED_DIR.mkdir(exist_ok=True)
    for name, data in files:
        (FAILED_DIR / name).write_bytes(data)


def abort(file: File) -> None:
    """End this process: a thread that hangs in a decoder cannot be ended otherwise."""
    save([file])
    print(f"{file[0]!r} hangs; see {FAILED_DIR}", file=sys.__stderr__, flush=True)
    os._exit(1)


def measure(process: Callable[[bytes], object], file: File) -> Outcome:
    """Process a file and return the outcome. Errors other than refusals are passed on."""
    watchdog = Timer(2 * TIMEOUT_S, abort, [file])
    watchdog.start()
    start = time.perf_counter()
    try:
        process(file[1])
    except (BadImage, BadVideo) as error:
        message = str(error)
    else:
        return "predicted", time.perf_counter() - start
    finally:
        watchdog.cancel()
    assert re.fullmatch(r"[A-Z][^\n]{10,200}[.!]", message), message
    return "refused", time.perf_counter() - start


def by_decoder(files: list[File]) -> Generator[Outcome]:
    for file in files:
        yield measure(decode, file)


def by_annotation(files: list[File]) -> Generator[Outcome]:
    for file in files:
        yield measure(lambda data: list(annotate(io.BytesIO(data), io.BytesIO())), file)


def by_command_line(files: list[File], folder: Path) -> Generator[Outcome]:
    for k in range(0, len(files), FILES_PER_COMMAND):
        batch = files[k : k + FILES_PER_COMMAND]
        pictures = folder / f"pictures-{k}"
        pictures.mkdir()
        (pictures / "0.jpg").write_bytes(SAMPLE.read_bytes())  # whose time includes the start-up
        for name, data in batch:
            (pictures / name).write_bytes(data)
        command = [sys.executable, "-m", "handful", pictures]
        with (
            Path(folder, "errors").open("w+") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):
            process.stdout.readline()
            start = time.perf_counter()
            for name, _ in batch:
                watchdog = Timer(TIMEOUT_S, process.kill)
                watchdog.start()
                line = json.loads(process.stdout.readline())
                watchdog.cancel()
                seconds, start = time.perf_counter() - start, time.perf_counter()
                assert line["file"] == str(pictures / name)
                yield "refused" if "error" in line else "predicted", seconds
            assert not process.stdout.read(), "one line for each file"
            errors.seek(0)
            assert "Traceback" not in errors.read()


def by_api(files: list[File], address: str) -> Generator[Outcome]:
    """Four requests at a time."""
    with httpx.Client(base_url=address, timeout=TIMEOUT_S) as client, ThreadPoolExecutor(4) as pool:

        def post(file: File) -> Outcome:
            start = time.perf_counter()
            response = client.post("/api/predict", files={"file": file})
            assert response.status_code in (200, 413, 415, 422), response.text
            assert ("total" in response.json()) == (response.status_code == 200)
            return "predicted" if response.status_code == 200 else "refused", time.perf_counter() - start

        yield from pool.map(post, files)


def by_page(files: list[File], address: str) -> Generator[Outcome]:
    """Many files per upload, with outcomes from the JSON of the table.

    The seconds of each file are those by which its upload takes longer than one of valid pictures.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=["--no-sandbox"])
        for k in range(-2 * FILES_PER_UPLOAD, len(files), FILES_PER_UPLOAD):
            valid = k < 0  # to measure the usual time, of the second upload
            batch = [("hand.jpg", SAMPLE.read_bytes())] * FILES_PER_UPLOAD if valid else files[k : k + FILES_PER_UPLOAD]
            page = browser.new_page(base_url=address)
            page.goto("/pictures")
            uploads = [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in batch]
            start = time.perf_counter()
            page.locator("input[type=file]").first.set_input_files(uploads)
            with page.expect_download() as download:
                page.get_by_role("button", name="JSON").click()
            seconds = time.perf_counter() - start
            lines = json.loads(Path(download.value.path()).read_text())
            assert len(lines) == len(batch), "one line for each file"
            page.close()
            if valid:
                usual_seconds = seconds
                continue
            for line in lines:
                yield "refused" if "error" in line else "predicted", max(0.0, seconds - usual_seconds)
        browser.close()


def check(way: str, files: list[File], outcomes: Generator[Outcome], expected: list[str]) -> list[Outcome]:
    """Return the outcome of each file.

    Raises:
        AssertionError: a file failed, took too long or, if `expected` is not empty, had another outcome.
    """
    checked: list[Outcome] = []
    try:
        with closing(outcomes):
            for kind, seconds in outcomes:
                assert seconds < TIMEOUT_S, f"{seconds:.1f} s for one file"
                assert not expected or kind == expected[len(checked)], f"{kind}, but not elsewhere"
                checked.append((kind, seconds))
    except Exception as error:
        save(files[len(checked) :][: FILES_PER_UPLOAD if way == "page" else 1])
        raise AssertionError(f"{way}: {error!r}; see {FAILED_DIR / files[len(checked)][0]}") from error
    return checked


def make_files(count: int, seed: int) -> tuple[list[File], slice]:
    """Return `count` files, nearly all damaged, and which of them are videos or texts."""
    rng, valid_pictures, valid_videos = np.random.default_rng(seed), pictures(), videos()
    valid = [*valid_pictures, *valid_videos, *TEXTS]
    data = valid + [damage(valid_videos, rng, valid) for _ in range(max(1, int(VIDEO_FRACTION * count)))]
    of_videos = slice(len(valid_pictures), len(data))
    data += [damage(valid_pictures, rng, valid) for _ in range(count - len(data))]
    return [(f"{i:05} {NAMES[i % len(NAMES)]}.png", content) for i, content in enumerate(data)], of_videos


def peak_mb(pid: int) -> int:
    """Return the most that was resident of a process since its `clear_refs` (on Linux)."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024


def run(count: int, ways: tuple[str, ...], seed: int = 0) -> dict[str, dict]:
    """Feed `count` files to each of the ways: decoder, cli, api, page; and the videos to videos.

    Returns, for each way: how many files were predicted and refused, the seconds of the slowest, and the megabytes by
    which this process or the server has grown at most.

    Raises:
        AssertionError: a requirement of this module's docstring is not met.
    """
    files, of_videos = make_files(count, seed)
    results: dict[str, dict] = {}
    expected: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder, "tmp")  # to find files that are left behind
        temporary.mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        try:
            with run_app(Path(folder, "log"), TMPDIR=str(temporary)) as address:
                before = {one: one.memory_info().rss // MB for one in (psutil.Process(), server_process(address))}
                for process in before:
                    Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # resets VmHWM
                for way in ways:
                    fed = files[of_videos] if way == "videos" else files
                    outcomes = {
                        "decoder": lambda: by_decoder(files),
                        "videos": lambda: by_annotation(files[of_videos]),
                        "cli": lambda: by_command_line(files, Path(folder)),
                        "api": lambda: by_api(files, address),
                        "page": lambda: by_page(files, address),
                    }[way]()
                    checked = check(way, fed, outcomes, [] if way == "videos" else expected)
                    if way != "videos":
                        expected = [kind for kind, _ in checked]
                    growth = max(peak_mb(process.pid) - mb for process, mb in before.items())
                    assert growth < MAX_GROWTH_MB, f"{way}: {growth} MB more"
                    slowest = max(seconds for _, seconds in checked)
                    kinds = Counter(kind for kind, _ in checked)
                    results[way] = {**kinds, "slowest_s": round(slowest, 2), "growth_mb": growth}
                    print(way, results[way], flush=True)
            assert "Traceback" not in Path(folder, "log").read_text(errors="replace"), "in the server's log"
        finally:
            tempfile.tempdir = None
            del os.environ["TMPDIR"]
        left = [file.name for file in temporary.iterdir() if "playwright" not in file.name]
        assert not left, f"left behind: {left}"
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    run(arguments.files, ("decoder", "videos", "cli", "api", "page"), arguments.seed)
