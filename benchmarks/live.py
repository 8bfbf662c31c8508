"""Live in a real browser, read by the server and by the browser itself: readings a second, and how long each takes.

What the server has to do for it is told as a share of one core (on Linux).
Chromium films a sample at 20 frames a second, 640×480. Browser, camera and server share this machine's cores.
"""

import os
import re
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks import ROOT, chromium, machine
from benchmarks.app_server import camera_arguments, film, running
from benchmarks.soak import server_at
from training.markdown import markdown_table

WAYS = {"By the server": "/", "By the browser": "/?read=browser"}
SETTLE, SAMPLES = 8, 10  # seconds before the first look, and looks, a second apart


def worked(pid: int) -> float:
    """Seconds of a core that a process has had so far."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def watch(page: Page, path: str, pid: int | None) -> dict:
    """Start Live, and note what it tells of itself, and what the server's process had to do."""
    page.goto(path)
    frame = page if "browser" in path else page.frame_locator("iframe")
    frame.get_by_role("button", name="Start").click()
    caption = page.get_by_text(re.compile(r"\d+ frames a second, \d+ ms each"))
    caption.wait_for(timeout=60_000)
    page.wait_for_timeout(1000 * SETTLE)
    told = []
    before, start = worked(pid) if pid else 0.0, time.monotonic()
    for _ in range(SAMPLES):
        told.append([int(number) for number in re.findall(r"\d+", caption.inner_text())])
        page.wait_for_timeout(1000)
    core = (worked(pid) - before) / (time.monotonic() - start) if pid else None
    frame.get_by_role("button", name="Stop").click()
    rates, times = (sorted(column) for column in zip(*told, strict=True))
    return {"rate": {"lowest": rates[0], "median": rates[SAMPLES // 2]}, "ms": times[SAMPLES // 2], "core": core}


def run() -> dict:
    """Measure both ways."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        video = Path(folder, "camera.y4m")
        film(ROOT / "assets/samples/3L_0.jpg", video)
        with running(Path(folder, "log")) as address:
            arguments = ["--no-sandbox", "--disable-gpu", *camera_arguments(video)]
            browser = playwright.chromium.launch(executable_path=chromium.find(), args=arguments)
            page = browser.new_page(base_url=address, viewport={"width": 1280, "height": 900})
            pid = server_at(address) if Path("/proc").exists() else None
            rows = {way: watch(page, path, pid) for way, path in WAYS.items()}
            browser.close()
    return {"machine": machine(), "rows": rows}


def report(numbers: dict) -> str:
    """The numbers as a table."""
    rows = [
        [way, str(row["rate"]["median"]), str(row["rate"]["lowest"]), str(row["ms"])]
        + ["–" if row["core"] is None else f"{row['core']:.0%}"]
        for way, row in numbers["rows"].items()
    ]
    return f"{numbers['machine']}\n\n" + markdown_table(
        ["Live", "Readings/s, median", "lowest", "ms each", "Server, of a core"], rows
    )
