"""From the start of a server to its first page in a browser that is already open, with an empty cache.

The first page is complete when Live can be started. Installed packages matter: Streamlit scans all of them, and a
development environment has hundreds. `--python` names the interpreter of another one, such as that of `make run`.
"""

import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from benchmarks import chromium, machine, summary
from benchmarks.app_server import run_app
from training.markdown import markdown_table

RUNS = 9


def run(python: str) -> dict:
    """Start a server with an interpreter, open its first page, stop it; `RUNS` times."""
    answers, pages = [], []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=["--no-sandbox", "--disable-gpu"])
        for _ in range(RUNS + 1):
            page = browser.new_page()
            start = time.monotonic()
            with run_app(Path(folder, "log"), python) as address:
                answers.append(1000 * (time.monotonic() - start))
                page.goto(address)
                page.locator(".start:enabled").wait_for()
                pages.append(1000 * (time.monotonic() - start))
            page.close()
        browser.close()
    # The first run warms the disk cache.
    return {"machine": machine(), "milliseconds": {"answers": summary(answers[1:]), "shows Live": summary(pages[1:])}}


def report(results: dict) -> str:
    """Return the results as a table."""
    rows = [
        [event, *(f"{milliseconds / 1000:.2f}" for milliseconds in times.values())]
        for event, times in results["milliseconds"].items()
    ]
    return f"{results['machine']}\n\n" + markdown_table(
        ["Seconds from the start until it", "5%", "median", "95%"], rows
    )
