"""How many cameras this machine serves at once, if the model runs on the server.

Clients in a separate process send frames of 640×480 as Live does: each has a camera of 20 frames a second, and sends
the newest frame when it has the prediction of the one before. The age of a prediction is the time since the camera had
its frame. Clients share the server's cores, so a server with its cores to itself serves more; a browser encodes its
frames, here they are encoded ahead.
"""

import asyncio
import math
import multiprocessing
import tempfile
import time
from pathlib import Path

import cv2
import httpx
import numpy as np

from benchmarks import ROOT, machine
from benchmarks.app_server import cpu_seconds, run_app, server_process
from handful.images import decode
from training.markdown import markdown_table

STREAMS = (1, 2, 4, 6, 8)
SECONDS = 8.0  # for each
FPS = 20
JPEG_QUALITY = 80  # as the browser's


def moving_hand() -> list[bytes]:
    """Return a second of a hand that moves, as JPEGs."""
    image = np.full((480, 640, 3), 150, np.uint8)
    image[60:460, 120:520] = cv2.resize(decode(ROOT / "assets/samples/3L_0.jpg"), (400, 400))
    frames = (np.roll(image, 2 * number, 1)[..., ::-1] for number in range(FPS))
    return [cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes() for frame in frames]


async def send_frames(address: str, name: str, frames: list[bytes], seconds: float) -> list[tuple[int, float]]:
    """Send the frames of one camera. Returns status and age in seconds of each answer."""
    answers = []
    async with httpx.AsyncClient(base_url=address, timeout=60) as http:
        start, sent = time.monotonic(), -1
        while (now := time.monotonic() - start) < seconds:
            number = math.floor(now * FPS)
            if number == sent:
                await asyncio.sleep((number + 1) / FPS - now)
                continue
            sent = number
            response = await http.post(
                f"/api/live?stream={name}", content=frames[number % FPS], headers={"Content-Type": "image/jpeg"}
            )
            answers.append((response.status_code, time.monotonic() - start - number / FPS))
            if response.status_code == 503:
                await asyncio.sleep(float(response.headers["Retry-After"]))
    return answers


def send_all(address: str, streams: int, seconds: float) -> list[list[tuple[int, float]]]:
    """Send the frames of so many cameras at once."""

    async def run() -> list[list[tuple[int, float]]]:
        frames = moving_hand()
        names = (f"{streams}-{number}" for number in range(streams))
        return await asyncio.gather(*(send_frames(address, name, frames, seconds) for name in names))

    return asyncio.run(run())


def measure(address: str, streams: int, seconds: float) -> dict:
    """Return the frame rates of the slowest and of the median stream, and the age of predictions in ms."""
    server = server_process(address)
    before = cpu_seconds(server)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        lists = pool.apply(send_all, (address, streams, seconds))
    cpu = cpu_seconds(server) - before
    rates = [sum(status == 200 for status, _ in answers) / seconds for answers in lists]
    ages = [1000 * age for answers in lists for status, age in answers if status == 200]
    return {
        "streams": streams,
        "served": sum(rate > 0 for rate in rates),
        "slowest": round(min(rate for rate in rates if rate > 0), 1),
        "median": round(float(np.median([rate for rate in rates if rate > 0])), 1),
        "age_ms": dict(zip(("median", "p95"), np.percentile(ages, (50, 95)).round().tolist(), strict=True)),
        "core": round(cpu / seconds, 2),
    }


def run() -> dict:
    """Measure each number of streams in turn."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, run_app(Path(folder, "log")) as address:
        for streams in STREAMS:
            rows.append(measure(address, streams, SECONDS))
            time.sleep(3)  # until the server has forgotten these cameras
    return {"machine": machine(), "rows": rows}


def report(results: dict) -> str:
    """Return the results as a table."""
    rows = [
        [
            str(row["streams"]),
            str(row["served"]),
            f"{row['slowest']:.1f}",
            f"{row['median']:.1f}",
            f"{row['age_ms']['median']:.0f}",
            f"{row['age_ms']['p95']:.0f}",
            f"{row['core']:.0%}",
        ]
        for row in results["rows"]
    ]
    header = ["Cameras", "served", "Frames/s, slowest", "median", "Age ms, median", "p95", "CPU, of a core"]
    return f"{results['machine']}\n\n" + markdown_table(header, rows)
