"""The HTTP API under load: pictures read a second, and how long one waits. Clients share the server's machine."""

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from benchmarks import ROOT, machine
from benchmarks.app_server import running
from training.markdown import markdown_table

CLIENTS = (1, 4, 16, 64)
SECONDS = 8.0
PICTURES = sorted((ROOT / "assets/samples").glob("*_0.jpg"))


def client(address: str, seconds: float, seed: int) -> list[tuple[int, float]]:
    """Send one picture after the other. Returns status and seconds of each."""
    files = [path.read_bytes() for path in PICTURES]
    answers = []
    with httpx.Client(base_url=address, timeout=60) as http:
        end = time.monotonic() + seconds
        while (start := time.monotonic()) < end:
            file = files[(seed + len(answers)) % len(files)]
            status = http.post("/api/predict", files={"file": ("hand.jpg", file)}).status_code
            answers.append((status, time.monotonic() - start))
            if status == 503:
                time.sleep(1)  # as the answer asks for
    return answers


def measure(address: str, clients: int, seconds: float) -> dict:
    """Requests a second and milliseconds of one, with so many clients at once."""
    with ThreadPoolExecutor(clients) as pool:
        each = pool.map(lambda seed: client(address, seconds, seed), range(clients))
        answers = [answer for one in each for answer in one]
    served = [taken for status, taken in answers if status == 200]
    return {
        "clients": clients,
        "requests_a_second": round(len(served) / seconds, 1),
        "ms": dict(zip(("median", "p95"), (1000 * np.percentile(served, (50, 95))).round(1).tolist(), strict=True)),
        "sent_away": sum(status == 503 for status, _ in answers),
    }


def run() -> dict:
    """Measure one number of clients after the other."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder, "log")) as address:
        return {"machine": machine(), "rows": [measure(address, clients, SECONDS) for clients in CLIENTS]}


def report(numbers: dict) -> str:
    """The numbers as a table."""
    rows = [
        [
            str(row["clients"]),
            f"{row['requests_a_second']:.0f}",
            f"{row['ms']['median']:.0f}",
            f"{row['ms']['p95']:.0f}",
            str(row["sent_away"]),
        ]
        for row in numbers["rows"]
    ]
    return f"{numbers['machine']}\n\n" + markdown_table(
        ["Clients", "Pictures/s", "ms, median", "p95", "asked to wait (503)"], rows
    )
