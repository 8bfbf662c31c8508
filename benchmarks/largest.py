"""The largest files that are taken: how long a server is at them, and what they take of its memory.

Pictures of 50 megapixels, as phones take them, go to the API, a format after the other. Then three visitors bring a
film of 190 MB each, at once, see it read, and leave. Memory is what is resident of the server's process, the most of it
as Linux keeps it.
"""

import io
import re
import tempfile
import time
from pathlib import Path

import av
import cv2
import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from benchmarks import ROOT, chromium, machine
from benchmarks.app_server import running
from benchmarks.soak import FORGOTTEN, look, server_at
from handful.images import decode
from training.markdown import markdown_table

SIZE = (8160, 6120)
FILM = 190_000_000  # bytes
VISITORS = 3
SAMPLE = ROOT / "assets/samples/3L_0.jpg"


def pictures() -> dict[str, bytes]:
    """The same hand, 50 megapixels of it, in every kind of file that takes more than its share."""
    rgb = cv2.resize(decode(SAMPLE), SIZE, interpolation=cv2.INTER_CUBIC)
    image = Image.fromarray(rgb)
    turned = Image.Exif()
    turned[0x0112] = 6  # stood upright by its reader, as most pictures of a phone are
    clear = image.copy()
    clear.putalpha(200)
    files = {
        "JPEG": (image, "JPEG", {}),
        "JPEG, turned": (image, "JPEG", {"exif": turned}),
        "PNG": (image, "PNG", {"compress_level": 1}),
        "PNG, see-through": (clear, "PNG", {"compress_level": 1}),
        "WebP": (image, "WEBP", {"method": 0}),
        "AVIF": (image, "AVIF", {"speed": 10}),
        "TIFF of floats": (Image.fromarray(np.float32(rgb[..., 0])), "TIFF", {"compression": "tiff_adobe_deflate"}),
    }
    made = {}
    for name, (picture, kind, options) in files.items():
        picture.save(file := io.BytesIO(), kind, **options)
        made[name] = file.getvalue()
    return made


def write_film(path: Path) -> None:
    """A film (MP4, H.264, 1280×720) of a hand in heavy grain, which leaves the encoder nothing to save."""
    hand = cv2.resize(decode(SAMPLE), (720, 720), interpolation=cv2.INTER_CUBIC)
    frame = cv2.copyMakeBorder(hand, 0, 0, 280, 280, cv2.BORDER_REPLICATE)
    grain = np.random.default_rng(0).integers(0, 40, (800, 1360, 3), np.uint8)
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", 30, options={"preset": "ultrafast", "qp": "4"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        number = 0
        while not path.exists() or path.stat().st_size < FILM:
            y, x = (7 * number) % 80, (11 * number) % 80
            noisy = cv2.add(frame, grain[y : y + 720, x : x + 1280])
            film.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(noisy, np.uint8), "rgb24")))
            number += 1
        film.mux(stream.encode())


def resident(pid: int, most: bool = False) -> int:
    """Megabytes that a process holds; or the most that it held since `forget_most`."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{'VmHWM' if most else 'VmRSS'}:\s+(\d+)", status)[1]) // 1024  # type: ignore[index]


def forget_most(pid: int) -> None:
    """See man 5 proc."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def read_pictures(address: str, pid: int, files: dict[str, bytes]) -> list[dict]:
    """Send a picture after the other."""
    rows = []
    with httpx.Client(base_url=address, timeout=120) as http:
        for name, file in files.items():
            before = resident(pid)
            forget_most(pid)
            start = time.monotonic()
            http.post("/api/predict", files={"file": ("hand", file)}).raise_for_status()
            seconds = time.monotonic() - start
            rows.append(
                {
                    "picture": name,
                    "file_mb": round(len(file) / 1e6, 1),
                    "seconds": round(seconds, 1),
                    "more_mb": resident(pid, most=True) - before,
                    "kept_mb": resident(pid) - before,
                }
            )
    return rows


def read_films(address: str, pid: int, film: Path) -> dict:
    """Let visitors come with their films at once, and leave."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=["--no-sandbox"])
        forget_most(pid)
        before, start = resident(pid), time.monotonic()
        pages = [browser.new_page(base_url=address) for _ in range(VISITORS)]
        for page in pages:
            page.goto("/videos")
            page.locator("input[type=file]").set_input_files(film)
        for page in pages:
            page.get_by_role("button", name="CSV").wait_for(timeout=1_200_000)
        seconds, all_read = time.monotonic() - start, resident(pid)
        for page in pages:
            page.close()
        # As the soak does: what the last visits held goes with them.
        time.sleep(FORGOTTEN)
        look(browser, address)
        time.sleep(FORGOTTEN)
        browser.close()
    return {
        "visitors": VISITORS,
        "file_mb": round(film.stat().st_size / 1e6),
        "seconds": round(seconds),
        "mb": {"before": before, "most": resident(pid, most=True), "all read": all_read, "left": resident(pid)},
    }


def run() -> dict:
    """Measure. Takes about ten minutes."""
    files = pictures()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder, "log")) as address:
        film = Path(folder, "film.mp4")
        write_film(film)
        pid = server_at(address)
        httpx.post(f"{address}/api/predict", files={"file": ("hand.jpg", SAMPLE.read_bytes())})  # all is loaded then
        rows = read_pictures(address, pid, files)
        return {"machine": machine(), "pictures": rows, "films": read_films(address, pid, film)}


def report(numbers: dict) -> str:
    """The numbers as tables."""
    keys = ("file_mb", "seconds", "more_mb", "kept_mb")
    rows = [[row["picture"], *(str(row[key]) for key in keys)] for row in numbers["pictures"]]
    films = numbers["films"]
    memory = [[str(films["mb"][when]) for when in ("before", "most", "all read", "left")]]
    return "\n\n".join(
        (
            numbers["machine"],
            markdown_table(["50 megapixels", "MB of file", "seconds", "MB more, at most", "MB more, after it"], rows),
            f"{films['visitors']} films of {films['file_mb']} MB at once, read in {films['seconds']} s:",
            markdown_table(["MB before", "at most", "all are read", "all have left"], memory),
        )
    )
