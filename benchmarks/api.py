"""Throughput and latency of the HTTP API with 1 to 64 clients, which share the server's machine."""

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from benchmarks import ROOT, machine
from benchmarks.app_server import cpu_seconds, run_app, server_process
from training.markdown import markdown_table

CLIENTS = (1, 4, 16, 64)
SECONDS = 8.0
PICTURES = sorted((ROOT / "assets/samples").glob("*_0.jpg"))


def send_pictures(address: str, seconds: float, offset: int) -> list[tuple[int, float]]:
    """Send one picture after the other, from the `offset`th. Returns status and seconds of each request."""
    files = [path.read_bytes() for path in PICTURES]
    answers = []
    with httpx.Client(base_url=address, timeout=60) as http:
        end = time.monotonic() + seconds
        while (start := time.monotonic()) < end:
            file = files[(offset + len(answers)) % len(files)]
            status = http.post("/api/predict", files={"file": ("hand.jpg", file)}).status_code
            answers.append((status, time.monotonic() - start))
            if status == 503:
                time.sleep(1)  # as Retry-After says
    return answers


def measure(address: str, clients: int, seconds: float) -> dict:
    """Return requests a second, their latency, and the CPU time of each, with so many concurrent clients."""
    server = server_process(address)
    before = cpu_seconds(server)
    with ThreadPoolExecutor(clients) as pool:
        lists = pool.map(lambda offset: send_pictures(address, seconds, offset), range(clients))
        answers = [answer for each in lists for answer in each]
    cpu = cpu_seconds(server) - before
    latencies = [elapsed for status, elapsed in answers if status == 200]
    return {
        "clients": clients,
        "requests_a_second": round(len(latencies) / seconds, 1),
        "ms": dict(zip(("median", "p95"), (1000 * np.percentile(latencies, (50, 95))).round(1).tolist(), strict=True)),
        "cpu_ms": round(1000 * cpu / len(latencies), 1),
        "rejected": sum(status == 503 for status, _ in answers),
    }


def run() -> dict:
    """Measure each number of clients in turn."""
    with tempfile.TemporaryDirectory() as folder, run_app(Path(folder, "log")) as address:
        return {"machine": machine(), "rows": [measure(address, clients, SECONDS) for clients in CLIENTS]}


def report(results: dict) -> str:
    """Return the results as a table."""
    rows = [
        [
            str(row["clients"]),
            f"{row['requests_a_second']:.0f}",
            f"{row['ms']['median']:.0f}",
            f"{row['ms']['p95']:.0f}",
            f"{row['cpu_ms']:.1f}",
            str(row["rejected"]),
        ]
        for row in results["rows"]
    ]
    return f"{results['machine']}\n\n" + markdown_table(
        ["Clients", "Pictures/s", "ms, median", "p95", "CPU time, ms", "rejected (503)"], rows
    )
