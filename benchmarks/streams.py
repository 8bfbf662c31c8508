"""Whether a long stream takes more and more memory: of the server, and of the browser's tab.

Chromium's camera shows a sample at 20 frames a second, first with the model on the device, then on the server. Memory
is sampled all the time, so growth shows in medians: of the second fifth of the time, when all is warm, and of the last.
Then the camera is started and stopped and the page reloaded, over and over; the server's threads and sockets must be
as many as before.
"""

import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks import ROOT, chromium, machine
from benchmarks.app_server import camera_arguments, memory_mb, run_app, server_mb, server_pid, write_still_video
from benchmarks.live import WAYS
from benchmarks.soak import FIFTHS, SESSION_EXPIRY_S, TIDY_S, median_of_fifth, process_usage
from training.markdown import markdown_table

SAMPLE_INTERVAL_S = 5
CYCLES = 100
SETTLING_S = SESSION_EXPIRY_S + TIDY_S  # a session that was left keeps its event loop, and so two sockets


def tab_mb(browser: Browser) -> int:
    """Return what is resident of the browser's pages, beside the libraries that all its processes share."""
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    return sum(memory_mb(process["id"], "RssAnon") for process in processes if process["type"] == "renderer")


def free_garbage(page: Page) -> None:
    """Free what the page no longer needs: a browser keeps the memory of pages that are gone for later."""
    page.context.new_cdp_session(page).send("Memory.forciblyPurgeJavaScriptMemory")


def start_camera(page: Page) -> None:
    """Start the camera, and wait for its first prediction."""
    page.get_by_role("button", name="Start", exact=True).click()
    page.locator(".total b", has_text="3").wait_for()


def stream(browser: Browser, address: str, way: str, seconds: float) -> dict:
    """Stream for so long, and return the medians of both memories, early and late."""
    page, pid, samples = browser.new_page(), server_pid(address), []
    page.set_default_timeout(300_000)
    page.goto(f"{address}/?read={way}")
    start_camera(page)
    start = time.monotonic()
    while (now := time.monotonic() - start) < seconds:
        samples.append({"seconds": now, "server_mb": server_mb(pid), "tab_mb": tab_mb(browser)})
        page.wait_for_timeout(1000 * SAMPLE_INTERVAL_S)
    frames = page.locator(".live").get_by_text("fps").first.text_content()
    page.close()
    return {"rate": frames} | {name: median_of_fifth(samples, fifth, seconds) for name, fifth in FIFTHS.items()}


def cycle(browser: Browser, address: str, way: str, cycles: int) -> dict:
    """Start, stop and reload so many times, and return threads and sockets of the server, before and after."""
    page, pid = browser.new_page(), server_pid(address)
    page.set_default_timeout(300_000)
    page.goto(f"{address}/?read={way}")
    usage = []
    for number in range(cycles + 1):
        start_camera(page)
        page.get_by_role("button", name="Stop", exact=True).click()
        page.reload()
        page.get_by_role("button", name="Start", exact=True).wait_for()
        if number in (0, cycles):
            time.sleep(SETTLING_S)
            free_garbage(page)
            usage.append(process_usage(pid) | {"tab_mb": tab_mb(browser)})
    page.close()
    return dict(zip(("before", "after"), usage, strict=True))


def run(minutes: float = 30) -> dict:
    """Stream both ways, for half of the time each, then start and stop."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        video = Path(folder, "camera.y4m")
        write_still_video(ROOT / "assets/samples/3L_0.jpg", video)
        arguments = ["--no-sandbox", "--disable-gpu", *camera_arguments(video)]
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=arguments)
        with run_app(Path(folder, "log")) as address:
            rows = {name: stream(browser, address, way, 30 * minutes) for name, way in WAYS.items()}
            cycles = {name: cycle(browser, address, way, CYCLES // 2) for name, way in WAYS.items()}
        browser.close()
    return {"machine": machine(), "minutes": minutes / 2, "streams": rows, "cycles": cycles}


def report(results: dict) -> str:
    """Return the results as two tables."""
    streams = [
        [name, row["rate"], *(f"{row['warm'][key]} → {row['late'][key]}" for key in ("server_mb", "tab_mb"))]
        for name, row in results["streams"].items()
    ]
    cycles = [
        [name, *(f"{row['before'][key]} → {row['after'][key]}" for key in ("threads", "sockets", "mb", "tab_mb"))]
        for name, row in results["cycles"].items()
    ]
    return "\n\n".join(
        (
            f"{results['machine']}\n\nA camera for {results['minutes']:g} minutes, second fifth → last fifth:",
            markdown_table(["Run on", "rate", "MB of the server", "MB of the tab"], streams),
            f"{CYCLES // 2} times started, stopped and reloaded, before → after:",
            markdown_table(["Run on", "threads", "sockets", "MB of the server", "MB of the tab"], cycles),
        )
    )
