"""The largest files that the app accepts: processing time, and memory of the server.

Pictures of 50 megapixels, as phones take them, are sent to the API, one of each format. Then three visitors upload a
video of 190 MB each at once, wait for the result, and leave. Memory is that of the server with its decoders.
"""

import io
import tempfile
import time
from pathlib import Path

import av
import cv2
import httpx
import numpy as np
import psutil
from PIL import Image
from playwright.sync_api import sync_playwright

from benchmarks import ROOT, chromium, machine
from benchmarks.app_server import run_app, server_mb, server_process, watch_memory
from benchmarks.soak import expire_sessions
from handful.images import decode
from training.markdown import markdown_table

PICTURE_SIZE = (8160, 6120)
VIDEO_BYTES = 190_000_000
VISITORS = 3
SAMPLE = ROOT / "assets/samples/3L_0.jpg"


def encode_pictures() -> dict[str, bytes]:
    """Return the same hand, 50 megapixels of it, in each format that is expensive to decode."""
    rgb = cv2.resize(decode(SAMPLE), PICTURE_SIZE, interpolation=cv2.INTER_CUBIC)
    image = Image.fromarray(rgb)
    rotated = Image.Exif()
    rotated[0x0112] = 6  # to be rotated by its reader, as most pictures of a phone are
    translucent = image.copy()
    translucent.putalpha(200)
    formats = {
        "JPEG": (image, "JPEG", {}),
        "JPEG, rotated by Exif": (image, "JPEG", {"exif": rotated}),
        "PNG": (image, "PNG", {"compress_level": 1}),
        "PNG with alpha": (translucent, "PNG", {"compress_level": 1}),
        "WebP": (image, "WEBP", {"method": 0}),
        "AVIF": (image, "AVIF", {"speed": 10}),
        "TIFF of floats": (Image.fromarray(np.float32(rgb[..., 0])), "TIFF", {"compression": "tiff_adobe_deflate"}),
    }
    files = {}
    for name, (picture, kind, options) in formats.items():
        picture.save(file := io.BytesIO(), kind, **options)
        files[name] = file.getvalue()
    return files


def write_noisy_video(path: Path) -> None:
    """Write a video (MP4, H.264, 1280×720) of a hand, with too much noise to be compressed well."""
    hand = cv2.resize(decode(SAMPLE), (720, 720), interpolation=cv2.INTER_CUBIC)
    frame = cv2.copyMakeBorder(hand, 0, 0, 280, 280, cv2.BORDER_REPLICATE)
    noise = np.random.default_rng(0).integers(0, 40, (800, 1360, 3), np.uint8)
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", 30, options={"preset": "ultrafast", "qp": "4"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        number = 0
        while not path.exists() or path.stat().st_size < VIDEO_BYTES:
            y, x = (7 * number) % 80, (11 * number) % 80
            noisy = cv2.add(frame, noise[y : y + 720, x : x + 1280])
            video.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(noisy, np.uint8), "rgb24")))
            number += 1
        video.mux(stream.encode())


def measure_pictures(address: str, server: psutil.Process, files: dict[str, bytes]) -> list[dict]:
    """Send one picture after the other to the API."""
    rows = []
    with httpx.Client(base_url=address, timeout=120) as http:
        for name, file in files.items():
            start = time.monotonic()
            with watch_memory(server) as mb:
                http.post("/api/predict", files={"file": ("hand", file)}).raise_for_status()
            seconds = time.monotonic() - start
            rows.append(
                {
                    "picture": name,
                    "file_mb": round(len(file) / 1e6, 1),
                    "seconds": round(seconds, 1),
                    "peak_mb": max(mb) - mb[0],
                    "retained_mb": server_mb(server) - mb[0],
                }
            )
    return rows


def measure_videos(address: str, server: psutil.Process, video: Path) -> dict:
    """Upload the video in several visits at once, and leave when all have results."""
    with sync_playwright() as playwright, watch_memory(server) as mb:
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=["--no-sandbox"])
        start = time.monotonic()
        pages = [browser.new_page(base_url=address) for _ in range(VISITORS)]
        for page in pages:
            page.goto("/videos")
            page.locator("input[type=file]").set_input_files(video)
        for page in pages:
            page.get_by_role("button", name="CSV").wait_for(timeout=1_200_000)
        seconds, done = time.monotonic() - start, server_mb(server)
        for page in pages:
            page.close()
        expire_sessions(browser, address)
        browser.close()
    return {
        "visitors": VISITORS,
        "file_mb": round(video.stat().st_size / 1e6),
        "seconds": round(seconds),
        "mb": {"before": mb[0], "max": max(mb), "done": done, "left": server_mb(server)},
    }


def run() -> dict:
    """Measure, in about ten minutes."""
    files = encode_pictures()
    with tempfile.TemporaryDirectory() as folder, run_app(Path(folder, "log")) as address:
        video = Path(folder, "video.mp4")
        write_noisy_video(video)
        server = server_process(address)
        httpx.post(f"{address}/api/predict", files={"file": ("hand.jpg", SAMPLE.read_bytes())})  # loads the model
        rows = measure_pictures(address, server, files)
        return {"machine": machine(), "pictures": rows, "videos": measure_videos(address, server, video)}


def report(results: dict) -> str:
    """Return the results as tables."""
    keys = ("file_mb", "seconds", "peak_mb", "retained_mb")
    rows = [[row["picture"], *(str(row[key]) for key in keys)] for row in results["pictures"]]
    videos = results["videos"]
    memory = [[str(videos["mb"][when]) for when in ("before", "max", "done", "left")]]
    return "\n\n".join(
        (
            results["machine"],
            markdown_table(["50 megapixels", "MB of file", "seconds", "MB more, maximum", "MB more, afterwards"], rows),
            f"{videos['visitors']} videos of {videos['file_mb']} MB at once, processed in {videos['seconds']} s:",
            markdown_table(["MB before", "maximum", "all processed", "all visitors have left"], memory),
        )
    )
