"""The Chromium that browser tests and benchmarks drive. `python benchmarks/chromium.py` installs one if needed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """Return the path of $CHROMIUM, of a Chromium on PATH, or of Playwright's own; None if there is none."""
    for name in (os.environ.get("CHROMIUM"), *NAMES):
        if name and (path := shutil.which(name)):
            return path
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def install() -> str:
    """Return the path of a Chromium, installed first if there is none.

    Raises:
        SystemExit: it cannot be installed; says what to do.
    """
    commands = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    # Debian's package brings the system libraries that Playwright's download needs too.
    # Ubuntu's is a stub for snap: there Playwright comes first.
    if shutil.which("apt-get") and os.geteuid() == 0:
        debian = "ID=debian" in Path("/etc/os-release").read_text().splitlines()
        apt = ["sh", "-c", "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -yq chromium"]
        commands = [apt, *commands] if debian else [[*commands[0], "--with-deps"], apt]
    while not (path := find()):
        if not commands:
            sys.exit("The browser tests need Chromium. Install it, or name one: CHROMIUM=/path/to/chromium make test")
        command = commands.pop(0)
        print("Chromium is missing:", *command, flush=True)
        subprocess.run(command, check=False)  # whether it worked, find() shows
    return path


if __name__ == "__main__":
    print(install())
