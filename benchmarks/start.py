"""From the start of a server to its first page, in a browser that is open and has fetched nothing of it before.

The first page is there when Live shows its count. Packages matter: Streamlit looks through all that are installed, and
an environment for development has hundreds. `--python` names that of `make run` in another clone.
"""

import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from benchmarks import chromium, machine, summary
from benchmarks.app_server import running
from training.markdown import markdown_table

RUNS = 9


def run(python: str) -> dict:
    """Start a server with an interpreter, look at it, stop it, several times."""
    answers, pages = [], []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=["--no-sandbox", "--disable-gpu"])
        for _ in range(RUNS + 1):
            page = browser.new_page()
            start = time.monotonic()
            with running(Path(folder, "log"), python) as address:
                answers.append(1000 * (time.monotonic() - start))
                page.goto(address)
                page.get_by_test_id("stMetric").wait_for()
                pages.append(1000 * (time.monotonic() - start))
            page.close()
        browser.close()
    # The first one found nothing in the disk's cache.
    return {"machine": machine(), "milliseconds": {"answers": summary(answers[1:]), "shows Live": summary(pages[1:])}}


def report(numbers: dict) -> str:
    """The numbers as a table."""
    rows = [
        [what, *(f"{milliseconds / 1000:.2f}" for milliseconds in times.values())]
        for what, times in numbers["milliseconds"].items()
    ]
    return f"{numbers['machine']}\n\n" + markdown_table(
        ["Seconds from the start until it", "5%", "median", "95%"], rows
    )
