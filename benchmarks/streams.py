"""Whether a long stream takes more and more memory: of the server, and of the browser's tab.

Chromium's camera shows a sample at 10 frames a second, in one browser with the model on the device and in another on
the server. Memory is sampled all the time, so growth shows in medians: of the second fifth of the time, when all is
warm, and of the last. No debugger is attached meanwhile: it would record every request.
Then the camera is started and stopped and the page reloaded, over and over; the server's threads and sockets must be
as many as before.
"""

import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL

import psutil
from playwright.sync_api import BrowserType, Page, sync_playwright

from benchmarks import ROOT, chromium, machine
from benchmarks.app_server import camera_arguments, own_mb, run_app, server_mb, server_process, write_still_video
from benchmarks.live import WAYS
from benchmarks.soak import FIFTHS, SESSION_EXPIRY_S, TIDY_S, median_of_fifth, process_usage
from training.markdown import markdown_table

SAMPLE_INTERVAL_S = 5
CAMERA_FPS = 10  # two cores run both ways at once at this rate
CYCLES = 100
START_TIMEOUT_S = 60
SETTLING_S = SESSION_EXPIRY_S + TIDY_S  # a session that was left keeps its event loop, and so two sockets


class Tab:
    """A tab of a Chromium of its own, to which a debugger can be attached.

    Attributes:
        process: Chromium.
        folder: its profile.
    """

    def __init__(self, folder: Path, video: Path) -> None:
        """Start Chromium with an empty tab, its profile in `folder`, `video` before its camera."""
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", *camera_arguments(video)]
        arguments += ["--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
        self.folder = folder
        self.process = psutil.Popen([chromium.find(), *arguments], stderr=DEVNULL)

    @contextmanager
    def attach(self, browsers: BrowserType) -> Generator[Page]:
        """Attach a debugger to the tab, for as long as the context lasts.

        Raises:
            RuntimeError: Chromium did not start within a minute.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (port := self.folder / "DevToolsActivePort").exists():
            if time.monotonic() > deadline:
                raise RuntimeError("Chromium did not start.")
            time.sleep(0.1)
        browser = browsers.connect_over_cdp(f"http://127.0.0.1:{port.read_text().split()[0]}")
        page = browser.contexts[0].pages[0]
        page.set_default_timeout(300_000)
        yield page
        browser.close()  # leaves Chromium running

    def mb(self) -> int:
        """Return what is resident of the tab and of renderers that Chromium keeps ready, beside shared libraries."""
        total = 0
        for process in self.process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # ended meanwhile
                if "--type=renderer" in process.cmdline():
                    total += own_mb(process)
        return total

    def close(self) -> None:
        """End Chromium."""
        self.process.terminate()
        self.process.wait()


def start_camera(page: Page) -> None:
    """Start the camera, and wait for its first prediction."""
    page.get_by_role("button", name="Start", exact=True).click()
    page.locator(".total b", has_text="3").wait_for()


def stream(browsers: BrowserType, tabs: dict[str, Tab], address: str, seconds: float) -> dict[str, dict]:
    """Stream both ways at once for so long, and return the medians of the server's memory and of each tab's."""
    server, samples, rows = server_process(address), {name: [] for name in tabs}, {}
    for name, tab in tabs.items():
        with tab.attach(browsers) as page:
            page.goto(f"{address}/?read={WAYS[name]}")
            start_camera(page)
    start = time.monotonic()
    while (now := time.monotonic() - start) < seconds:
        megabytes = server_mb(server)
        for name, tab in tabs.items():
            samples[name].append({"seconds": now, "server_mb": megabytes, "tab_mb": tab.mb()})
        time.sleep(SAMPLE_INTERVAL_S)
    for name, tab in tabs.items():
        medians = {one: median_of_fifth(samples[name], fifth, seconds) for one, fifth in FIFTHS.items()}
        with tab.attach(browsers) as page:
            rows[name] = {"rate": page.locator(".live").get_by_text("fps").first.text_content()} | medians
            page.goto("about:blank")
    return rows


def cycle(browsers: BrowserType, tab: Tab, address: str, way: str, cycles: int) -> dict:
    """Start, stop and reload so many times, and return what the server holds, before and after."""
    server, usage = server_process(address), []
    with tab.attach(browsers) as page:
        page.goto(f"{address}/?read={way}")
        for number in range(cycles + 1):
            start_camera(page)
            page.get_by_role("button", name="Stop", exact=True).click()
            page.reload()
            page.get_by_role("button", name="Start", exact=True).wait_for()
            if number in (0, cycles):
                time.sleep(SETTLING_S)
                usage.append(process_usage(server))
        page.goto("about:blank")
    return dict(zip(("before", "after"), usage, strict=True))


def run(minutes: float = 30) -> dict:
    """Stream for so many minutes, then start and stop."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        sync_playwright() as playwright,
        run_app(Path(folder, "log")) as address,
        ExitStack() as stack,
    ):
        video = Path(folder, "camera.y4m")
        write_still_video(ROOT / "assets/samples/3L_0.jpg", video, CAMERA_FPS)
        tabs = {name: Tab(Path(folder, name), video) for name in WAYS}
        for tab in tabs.values():
            stack.callback(tab.close)
        rows = stream(playwright.chromium, tabs, address, 60 * minutes)
        cycles = {name: cycle(playwright.chromium, tab, address, WAYS[name], CYCLES // 2) for name, tab in tabs.items()}
    return {"machine": machine(), "minutes": minutes, "streams": rows, "cycles": cycles}


def report(results: dict) -> str:
    """Return the results as two tables."""
    streams = [
        [name, row["rate"], *(f"{row['warm'][key]} → {row['late'][key]}" for key in ("server_mb", "tab_mb"))]
        for name, row in results["streams"].items()
    ]
    cycles = [
        [name, *(f"{row['before'][key]} → {row['after'][key]}" for key in ("threads", "sockets", "mb"))]
        for name, row in results["cycles"].items()
    ]
    return "\n\n".join(
        (
            f"{results['machine']}\n\nA camera for {results['minutes']:g} minutes, second fifth → last fifth:",
            markdown_table(["Run on", "rate", "MB of the server", "MB of the tab"], streams),
            f"{CYCLES // 2} times started, stopped and reloaded, before → after:",
            markdown_table(["Run on", "threads", "sockets", "MB of the server"], cycles),
        )
    )
