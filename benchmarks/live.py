"""Live in a real browser, predictions by the server and by the browser: rate, latency, and the server's CPU.

Chromium's camera shows a sample at 20 frames a second, 640×480. Browser, camera and server share this machine's cores.
The server's CPU is a share of one core (on Linux).
"""

import os
import re
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks import ROOT, chromium, machine
from benchmarks.app_server import camera_arguments, run_app, server_pid, write_still_video
from training.markdown import markdown_table

PATHS = {"Server": "/", "Browser": "/?read=browser"}
WARM_UP_S = 8
SAMPLES = 10  # of the rate that the page shows, a second apart


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def measure(page: Page, path: str, pid: int | None) -> dict:
    """Start Live, and sample the rate and latency that it shows, and the CPU time of the server."""
    page.goto(path)
    frame = page if "browser" in path else page.frame_locator("iframe")
    frame.get_by_role("button", name="Start").click()
    caption = page.get_by_text(re.compile(r"\d+ fps · \d+ ms per frame"))
    caption.wait_for(timeout=60_000)
    page.wait_for_timeout(1000 * WARM_UP_S)
    samples = []
    before, start = cpu_seconds(pid) if pid else 0.0, time.monotonic()
    for _ in range(SAMPLES):
        samples.append([int(number) for number in re.findall(r"\d+", caption.inner_text())])
        page.wait_for_timeout(1000)
    core = (cpu_seconds(pid) - before) / (time.monotonic() - start) if pid else None
    frame.get_by_role("button", name="Stop").click()
    rates, times = (sorted(column) for column in zip(*samples, strict=True))
    return {"rate": {"lowest": rates[0], "median": rates[SAMPLES // 2]}, "ms": times[SAMPLES // 2], "core": core}


def run() -> dict:
    """Measure predictions by the server, then by the browser."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        video = Path(folder, "camera.y4m")
        write_still_video(ROOT / "assets/samples/3L_0.jpg", video)
        with run_app(Path(folder, "log")) as address:
            arguments = ["--no-sandbox", "--disable-gpu", *camera_arguments(video)]
            browser = playwright.chromium.launch(executable_path=chromium.find(), args=arguments)
            page = browser.new_page(base_url=address, viewport={"width": 1280, "height": 900})
            pid = server_pid(address) if Path("/proc").exists() else None
            rows = {name: measure(page, path, pid) for name, path in PATHS.items()}
            browser.close()
    return {"machine": machine(), "rows": rows}


def report(results: dict) -> str:
    """Return the results as a table."""
    rows = [
        [name, str(row["rate"]["median"]), str(row["rate"]["lowest"]), str(row["ms"])]
        + ["–" if row["core"] is None else f"{row['core']:.0%}"]
        for name, row in results["rows"].items()
    ]
    return f"{results['machine']}\n\n" + markdown_table(
        ["Live, predictions by", "a second, median", "lowest", "ms each", "CPU of the server"], rows
    )
