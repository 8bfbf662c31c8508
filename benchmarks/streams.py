"""Whether a long stream takes more and more memory: of the server, and of the browser's tab.

Chromium's camera shows a sample at 10 frames a second, in one browser with the model on the device and in another on
the server. Memory is sampled all the time, so growth shows in medians: of the second fifth of the time, when all is
warm, and of the last.
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
CAMERA_FPS = 10  # two cores run both ways at once at this rate
CYCLES = 100
GARBAGE_S = 3  # the tab gives its memory back a moment later
SETTLING_S = SESSION_EXPIRY_S + TIDY_S  # a session that was left keeps its event loop, and so two sockets


def tab_mb(browser: Browser) -> int:
    """Return what is resident of the browser's pages, beside the libraries that all its processes share."""
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    return sum(memory_mb(process["id"], "RssAnon") for process in processes if process["type"] == "renderer")


def free_garbage(page: Page) -> None:
    """Collect a tab's garbage: a browser keeps what pages that are gone held until it needs the memory."""
    page.context.new_cdp_session(page).send("HeapProfiler.collectGarbage")
    page.wait_for_timeout(1000 * GARBAGE_S)


def start_camera(page: Page) -> None:
    """Start the camera, and wait for its first prediction."""
    page.get_by_role("button", name="Start", exact=True).click()
    page.locator(".total b", has_text="3").wait_for()


def stream(browsers: dict[str, Browser], address: str, seconds: float) -> dict[str, dict]:
    """Stream both ways at once for so long, and return the medians of the server's memory and of each tab's."""
    pid, pages, samples = server_pid(address), {}, {name: [] for name in browsers}
    for name, browser in browsers.items():
        page = pages[name] = browser.new_page()
        page.set_default_timeout(300_000)
        page.goto(f"{address}/?read={WAYS[name]}")
        start_camera(page)
    start = time.monotonic()
    while (now := time.monotonic() - start) < seconds:
        server = server_mb(pid)
        for name, browser in browsers.items():
            samples[name].append({"seconds": now, "server_mb": server, "tab_mb": tab_mb(browser)})
        time.sleep(SAMPLE_INTERVAL_S)
    rows = {}
    for name, page in pages.items():
        rate = page.locator(".live").get_by_text("fps").first.text_content()
        medians = {one: median_of_fifth(samples[name], fifth, seconds) for one, fifth in FIFTHS.items()}
        rows[name] = {"rate": rate} | medians
        page.close()
    return rows


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
    """Stream for so many minutes, then start and stop."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        video = Path(folder, "camera.y4m")
        write_still_video(ROOT / "assets/samples/3L_0.jpg", video, CAMERA_FPS)
        arguments = ["--no-sandbox", "--disable-gpu", *camera_arguments(video)]
        browsers = {name: playwright.chromium.launch(executable_path=chromium.find(), args=arguments) for name in WAYS}
        with run_app(Path(folder, "log")) as address:
            rows = stream(browsers, address, 60 * minutes)
            cycles = {name: cycle(browser, address, WAYS[name], CYCLES // 2) for name, browser in browsers.items()}
        for browser in browsers.values():
            browser.close()
    return {"machine": machine(), "minutes": minutes, "streams": rows, "cycles": cycles}


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
