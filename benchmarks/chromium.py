"""The Chromium that the browser tests drive. `python benchmarks/chromium.py` installs one where there is none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """Path of the Chromium that $CHROMIUM names, else of one on PATH, else of Playwright's own."""
    for name in (os.environ.get("CHROMIUM"), *NAMES):
        if name and (path := shutil.which(name)):
            return path
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def install() -> str:
    """Path of a Chromium, installed first if there is none.

    Raises:
        SystemExit: no way to install one worked; says what to do.
    """
    ways = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    # Debian's package brings the system libraries that Playwright's download needs too.
    # Ubuntu's is a stub for snap: there Playwright comes first.
    if shutil.which("apt-get") and os.geteuid() == 0:
        debian = "ID=debian" in Path("/etc/os-release").read_text().splitlines()
        apt = ["sh", "-c", "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -yq chromium"]
        ways = [apt, *ways] if debian else [[*ways[0], "--with-deps"], apt]
    while not (path := find()):
        if not ways:
            sys.exit("The browser tests need Chromium. Install it, or name one: CHROMIUM=/path/to/chromium make test")
        way = ways.pop(0)
        print("No Chromium yet:", *way, flush=True)
        # The next way is tried if this one fails: a missing browser is what is asked, not how it failed.
        subprocess.run(way, check=False)
    return path


if __name__ == "__main__":
    print(install())
