"""What a visitor costs the others who sends pictures that take as long as can be.

Each kind of file, as large as the API takes it, is sent on its own. Then one client sends 40 of the slowest at once,
while another sends an ordinary picture after the other. Memory is that of the server with its decoders.
"""

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from benchmarks import ROOT, hostile, machine
from benchmarks.app_server import run_app, server_mb, server_process, watch_memory
from training.markdown import markdown_table

FILES = 40
RECOVERY_S = 10
KINDS = {
    "HEIC of overlays": lambda: hostile.heic_of_overlays(3, 4),
    "BMP of run lengths": lambda: hostile.rle_bmp(7000, 7000),
    "JPEG of 2,000 scans": lambda: hostile.jpeg_of_scans(2000, 2000),
    "JPEG of 95 scans": lambda: hostile.jpeg_of_scans(85, 7000),
    "JPEG of fill bytes": lambda: hostile.padded_jpeg(19_000_000 * b"\xff"),
    "JPEG of comments": lambda: hostile.padded_jpeg(4_700_000 * b"\xff\xfe\0\2"),
    "TIFF of strips": lambda: hostile.tiff_of_strips(2_000_000),
    "TIFF of one tile": lambda: hostile.tiff_of_one_tile(24_000),
    "PNG of empty chunks": lambda: hostile.png_of_chunks(b"abCd", 1_600_000),
    "PNG of text chunks": lambda: hostile.png_of_chunks(b"tEXt", 1_300_000, b"a\0"),
    "PNG of one column": lambda: hostile.TOO_NARROW["PNG, one pixel wide"](),
    "GIF of comments": lambda: hostile.gif_of_comments(3_900_000),
    "AVIF of another size": lambda: hostile.lying_avif(4000),
}
SLOWEST = "JPEG of 95 scans"  # no more are decoded


def send(address: str, client: str, data: bytes) -> tuple[int, float]:
    """Send a picture as this client. Returns status and seconds."""
    start = time.monotonic()
    with httpx.Client(base_url=address, headers={"X-Forwarded-For": client}, timeout=600) as http:
        status = http.post("/api/predict", files={"file": ("hand.jpg", data)}).status_code
    return status, time.monotonic() - start


def send_at_once(address: str, data: bytes) -> list[tuple[int, float]]:
    """Send a picture `FILES` times at once, as one client. Returns status and seconds of each."""
    with ThreadPoolExecutor(FILES) as pool:
        return list(pool.map(lambda _: send(address, "198.51.100.1", data), range(FILES)))


def run() -> dict:
    """Attack a server of its own."""
    picture = (ROOT / "assets/samples/3L_0.jpg").read_bytes()
    with tempfile.TemporaryDirectory() as folder, run_app(Path(folder, "log")) as address:
        server = server_process(address)
        send(address, "198.51.100.1", picture)
        idle_mb = server_mb(server)
        alone = []
        for name, make in KINDS.items():
            data = make()
            with watch_memory(server) as mb:
                status, seconds = send(address, "198.51.100.1", data)
            alone.append({"kind": name, "bytes": len(data), "seconds": seconds, "status": status, "mb": max(mb)})
        data, others = KINDS[SLOWEST](), []
        with ThreadPoolExecutor(1) as pool, watch_memory(server) as mb:
            attack = pool.submit(send_at_once, address, data)
            start = time.monotonic()
            while not attack.done():
                others.append(send(address, "198.51.100.2", picture))
                time.sleep(0.1)
        duration = time.monotonic() - start
        time.sleep(RECOVERY_S)
        after_mb, after = server_mb(server), [send(address, "198.51.100.2", picture)[1] for _ in range(10)]
        log = Path(folder, "log").read_text()
    return {
        "machine": machine(),
        "alone": alone,
        "attack_s": duration,
        "statuses": [status for status, _ in attack.result()],
        "others": len(others),
        "others_failed": sum(status != 200 for status, _ in others),
        "others_longest_s": max(seconds for _, seconds in others),
        "after_longest_s": max(after),
        "mb": {"idle": idle_mb, "attack": max(mb), "after": after_mb},
        "tracebacks": log.count("Traceback"),
    }


def report(results: dict) -> str:
    """Return the results as a table and a paragraph."""
    rows = [
        [row["kind"], f"{row['bytes'] / 1000:,.0f}", f"{row['seconds']:.1f}", str(row["status"]), str(row["mb"])]
        for row in results["alone"]
    ]
    statuses = {status: results["statuses"].count(status) for status in sorted(set(results["statuses"]))}
    mb = results["mb"]
    return (
        f"{results['machine']}\n\n"
        + markdown_table(["Kind", "kB", "seconds", "status", "MB of all processes"], rows)
        + f"\n\n{FILES} files at once by one client: {results['attack_s']:.0f} s, answers {statuses}. Meanwhile, "
        f"another client's {results['others']} pictures took {results['others_longest_s']:.2f} s at most, and "
        f"{results['others_failed']} failed. {RECOVERY_S} s later: {results['after_longest_s']:.2f} s at most.\n"
        f"MB: {mb['idle']} before, {mb['attack']} at most, {mb['after']} {RECOVERY_S} s after. "
        f"Tracebacks in the log: {results['tracebacks']}."
    )
