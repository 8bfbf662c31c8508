"""Memory, threads and sockets of a server while visitors come and go, for half an hour.

Chromium's camera shows a sample at 10 frames a second. Each visitor starts the camera, stays a while and leaves without
pressing Stop; every third one uploads a picture instead. They come at a steady pace, if the machine can keep it, so
that as many are there late as early. What the server's process holds is sampled after each visit.

It goes up and down with the visitors of the last two minutes, so growth shows in medians: of the second fifth of the
time, when the server is warm, and of the last. The samples before the first visitor and at the end are taken after a
visit to the page alone: Streamlit forgets sessions that ended two minutes ago when the next one begins. Some more
threads are there at the end, of no visitor: they wait for files to send or names to resolve, and their number is
bounded.

With --attack, the memory of the server with its decoders is compared with that of a fresh one, which has had a visitor
of each kind: after hostile pictures, after a hundred visits with a reload each, after many videos in one visit.
"""

import re
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil
from playwright.sync_api import Browser, TimeoutError, sync_playwright

from benchmarks import ROOT, attack, chromium, machine
from benchmarks.app_server import MB, camera_arguments, run_app, server_mb, server_process, write_still_video
from training.markdown import markdown_table

VISIT_S = 12
ARRIVAL_INTERVAL_S = 16
SESSION_EXPIRY_S = 150  # Streamlit keeps a session for 120 seconds after its visitor has left
VISITS, VIDEOS = 100, 10  # of --attack
TIDY_S = 70  # web/tidy.py, and some more
FIFTHS = {"warm": 1, "late": 4}  # of the time, from 0


def process_usage(process: psutil.Process) -> dict[str, int]:
    """Return resident megabytes, threads and network sockets of a process."""
    return {
        "mb": process.memory_info().rss // MB,
        "threads": process.num_threads(),
        "sockets": len(process.net_connections("all")),
    }


def median_of_fifth(samples: list[dict[str, int]], fifth: int, seconds: float) -> dict[str, int]:
    """Return the medians of the samples in one fifth, 0 … 4, of so many seconds."""
    selected = [one for one in samples if fifth <= 5 * one["seconds"] / seconds < fifth + 1] or samples[-1:]
    return {key: round(median(one[key] for one in selected)) for key in selected[0] if key != "seconds"}


def visit(browser: Browser, address: str, number: int) -> None:
    """Visit Live or Pictures, and leave without pressing Stop."""
    page = browser.new_page(base_url=address, viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    if number % 3 == 2:
        page.goto("/pictures")
        page.locator("input[type=file]").first.set_input_files(ROOT / "assets/samples/3L_0.jpg")
        page.locator("[class*=st-key-headline]").wait_for()
    else:
        page.goto("/?read=server")
        page.get_by_role("button", name="Start", exact=True).click()
        page.get_by_text(re.compile(r"\d+ fps · \d+ ms per frame")).wait_for()
        page.wait_for_timeout(1000 * VISIT_S)
    page.close()


def open_and_leave(browser: Browser, address: str, reloads: int = 0) -> None:
    """Open the first page, reload it, and leave."""
    page = browser.new_page()
    page.set_default_timeout(120_000)
    page.goto(address)
    for _ in range(reloads):
        page.get_by_role("button", name="Start", exact=True).wait_for()
        page.reload()
    page.get_by_role("button", name="Start", exact=True).wait_for()
    page.close()


def expire_sessions(browser: Browser, address: str) -> None:
    """Wait until the server has freed the sessions of all visitors who have left."""
    time.sleep(SESSION_EXPIRY_S)
    open_and_leave(browser, address)  # expired sessions are freed when another one begins
    time.sleep(SESSION_EXPIRY_S)


def annotate_videos(browser: Browser, address: str, videos: int) -> None:
    """Annotate a video so many times in one visit: with and without heatmaps."""
    page = browser.new_page()
    page.set_default_timeout(300_000)
    page.goto(f"{address}/videos")
    page.locator("input[type=file]").set_input_files(ROOT / "assets/counting.mp4")
    for _ in range(videos):
        page.get_by_role("button", name="CSV").wait_for()
        page.get_by_text("Heatmap", exact=False).first.click()
        page.get_by_role("button", name="CSV").wait_for(state="detached")
    page.close()


def attack_server(browser: Browser, address: str) -> dict[str, int]:
    """Return the megabytes of a fresh server, and after each kind of load that a minute without visitors follows."""
    server = server_process(address)

    def settled_mb() -> int:
        time.sleep(SESSION_EXPIRY_S + TIDY_S)
        return server_mb(server)

    for number in range(3):
        visit(browser, address, number)
    annotate_videos(browser, address, 1)
    mb = {"fresh": settled_mb()}
    for make in attack.KINDS.values():
        attack.send(address, "198.51.100.1", make())
    attack.send_at_once(address, attack.KINDS[attack.SLOWEST]())
    mb[f"hostile pictures, {len(attack.KINDS) + attack.FILES}"] = settled_mb()
    for _ in range(VISITS):
        open_and_leave(browser, address, reloads=1)
    mb[f"visits with a reload, {VISITS}"] = settled_mb()
    annotate_videos(browser, address, VIDEOS)
    mb[f"videos in a visit, {VIDEOS}"] = settled_mb()
    return mb


def run(minutes: float = 30, attack: bool = False) -> dict:
    """Measure for so many minutes, and some more; or what an attack leaves."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        video = Path(folder, "camera.y4m")
        write_still_video(ROOT / "assets/samples/3L_0.jpg", video, fps=10)
        arguments = ["--no-sandbox", "--disable-gpu", *camera_arguments(video)]
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=arguments)
        with run_app(Path(folder, "log")) as address:
            if attack:
                return {"machine": machine(), "mb": attack_server(browser, address)}
            open_and_leave(browser, address)
            server = server_process(address)
            time.sleep(SESSION_EXPIRY_S)
            idle = process_usage(server)
            samples, failed = [], 0
            start = time.monotonic()
            while (now := time.monotonic() - start) < 60 * minutes:
                try:
                    visit(browser, address, len(samples))
                except TimeoutError:  # the others still come
                    failed += 1
                    for context in browser.contexts:
                        context.close()
                samples.append({"seconds": round(now), **process_usage(server)})
                time.sleep(max(0.0, start + ARRIVAL_INTERVAL_S * len(samples) - time.monotonic()))
            expire_sessions(browser, address)
            end = process_usage(server)
            browser.close()
    return {
        "machine": machine(),
        "minutes": minutes,
        "visitors": len(samples),
        "failed": failed,
        "idle": idle,
        **{name: median_of_fifth(samples, fifth, 60 * minutes) for name, fifth in FIFTHS.items()},
        "max": {key: max(one[key] for one in samples) for key in idle},
        "end": end,
        "samples": samples,
    }


def report(results: dict) -> str:
    """Return the results as a table."""
    if "mb" in results:
        mb = results["mb"]
        rows = [[name, str(megabytes), f"{megabytes / mb['fresh'] - 1:+.0%}"] for name, megabytes in mb.items()]
        return f"{results['machine']}\n\n" + markdown_table(["Server, minutes after", "MB resident", "change"], rows)
    titles = {
        "idle": "before the first visitor",
        "warm": "second fifth of the time, median",
        "late": "last fifth, median",
        "max": "maximum",
        "end": "all visitors have left",
    }
    keys = ("mb", "threads", "sockets")
    rows = [[title, *(str(results[name][key]) for key in keys)] for name, title in titles.items()]
    return (
        f"{results['machine']}\n\n{results['visitors']} visitors in {results['minutes']:g} minutes, "
        f"for {results['failed']} of whom no result appeared within a minute\n\n"
        + markdown_table(["Server", "MB resident", "threads", "sockets"], rows)
    )
