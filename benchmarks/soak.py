"""A server that stays up: visitors come and go, for half an hour, and what the server holds is noted.

Chromium films a sample at 10 frames a second. Each visitor starts the camera, stays a while and leaves without a
word, as visitors do; every third one has a picture read instead. They come at a steady pace, as long as the machine can
keep it, so that as many are there late as early. Memory, threads and sockets are those of the
server's process, after each visitor. They go up and down with those who came within two minutes, so that what grows
shows in medians: of the second fifth of the time, when it is warm, and of the last. Those before the first one and at
the end are taken after a look at the page alone: Streamlit forgets the visits that are two minutes old when the next
one comes. A few more threads are there then, of no visitor: they wait for the next file to send or name to look up,
and are no more after many visits than after some.
"""

import os
import re
import tempfile
import time
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser, TimeoutError, sync_playwright

from benchmarks import ROOT, chromium, machine
from benchmarks.app_server import camera_arguments, film, running
from training.markdown import markdown_table

STAY = 12  # seconds of a visit
PACE = 16  # seconds from one visitor to the next
FORGOTTEN = 150  # seconds after which Streamlit has forgotten a visit: it keeps them for 120
FIFTHS = {"warm": 1, "late": 4}  # of the time, from 0


def held(pid: int) -> dict[str, int]:
    """What a process holds: resident megabytes, threads, sockets."""
    status = Path(f"/proc/{pid}/status").read_text()
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(link))
        except FileNotFoundError:  # closed meanwhile
            continue
    return {
        "mb": int(re.search(r"VmRSS:\s+(\d+)", status)[1]) // 1024,  # type: ignore[index]
        "threads": int(re.search(r"Threads:\s+(\d+)", status)[1]),  # type: ignore[index]
        "sockets": sum(link.startswith("socket:") for link in links),
    }


def middle(notes: list[dict[str, int]], fifth: int, seconds: float) -> dict[str, int]:
    """Medians of what was held in a fifth, 0 … 4, of so many seconds."""
    of_it = [note for note in notes if fifth <= 5 * note["seconds"] / seconds < fifth + 1] or notes[-1:]
    return {key: round(median(note[key] for note in of_it)) for key in of_it[0] if key != "seconds"}


def server_at(address: str) -> int:
    """The process that serves an address."""
    port = address.rpartition(":")[2]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--server.port" in words and port.encode() in words:
            return int(folder.name)
    raise RuntimeError(f"No process serves {address}.")


def visit(browser: Browser, address: str, number: int) -> None:
    """One visitor, who leaves without pressing Stop."""
    page = browser.new_page(base_url=address, viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    if number % 3 == 2:
        page.goto("/pictures")
        page.locator("input[type=file]").first.set_input_files(ROOT / "assets/samples/3L_0.jpg")
        page.get_by_test_id("stMetric").first.wait_for()
    else:
        page.goto("/")
        page.frame_locator("iframe").get_by_role("button", name="Start").click()
        page.get_by_text(re.compile(r"\d+ frames a second, \d+ ms each")).wait_for()
        page.wait_for_timeout(1000 * STAY)
    page.close()


def look(browser: Browser, address: str) -> None:
    """One who opens the page, sees it and goes."""
    page = browser.new_page()
    page.goto(address)
    page.get_by_test_id("stMetric").wait_for()
    page.close()


def run(minutes: float = 30) -> dict:
    """Measure. Takes `minutes` and a few more."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        video = Path(folder, "camera.y4m")
        film(ROOT / "assets/samples/3L_0.jpg", video, rate=10)
        arguments = ["--no-sandbox", "--disable-gpu", *camera_arguments(video)]
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=arguments)
        with running(Path(folder, "log")) as address:
            look(browser, address)
            pid = server_at(address)
            time.sleep(FORGOTTEN)
            idle = held(pid)
            notes, lost = [], 0
            start = time.monotonic()
            while (now := time.monotonic() - start) < 60 * minutes:
                try:
                    visit(browser, address, len(notes))
                except TimeoutError:  # the others still come
                    lost += 1
                    for context in browser.contexts:
                        context.close()
                notes.append({"seconds": round(now), **held(pid)})
                time.sleep(max(0.0, start + PACE * len(notes) - time.monotonic()))
            time.sleep(FORGOTTEN)
            look(browser, address)
            time.sleep(FORGOTTEN)
            end = held(pid)
            browser.close()
    return {
        "machine": machine(),
        "minutes": minutes,
        "visitors": len(notes),
        "lost": lost,
        "idle": idle,
        **{when: middle(notes, fifth, 60 * minutes) for when, fifth in FIFTHS.items()},
        "most": {key: max(note[key] for note in notes) for key in idle},
        "end": end,
        "notes": notes,
    }


def report(numbers: dict) -> str:
    """The numbers as a table."""
    when = {
        "idle": "before the first visitor",
        "warm": "second fifth of the time, median",
        "late": "last fifth, median",
        "most": "at most",
        "end": "all have left",
    }
    rows = [[title, *(str(numbers[key][what]) for what in ("mb", "threads", "sockets"))] for key, title in when.items()]
    return (
        f"{numbers['machine']}\n\n{numbers['visitors']} visitors in {numbers['minutes']:g} minutes, "
        f"{numbers['lost']} of them saw nothing within a minute\n\n"
        + markdown_table(["Server", "MB resident", "threads", "sockets"], rows)
    )
