"""Live in a real browser, run on the device and on the server: how long after a pose its number is on the screen.

Chromium's camera shows a video of bundled hands before a grey wall, a new pose every 1.5 seconds, 30 frames a second.
Each frame carries its number as black and white blocks along its upper edge. A script in the page reads it from the
camera's frames and from the picture that Live shows, and notes what is on the screen at each change:

- the delay of a pose, from the camera's first frame of it to the first picture of it beside the right number;
- whether number, words and picture change together, in one animation frame;
- the time from the click on Start to the first number, on a page that has just been opened or was open for a while.

Browser, camera and server share this machine's cores. The server's CPU is a share of one core (on Linux).
"""

import tempfile
import time
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from playwright.sync_api import Browser, sync_playwright

from benchmarks import ROOT, chromium, machine
from benchmarks.app_server import camera_arguments, cpu_seconds, run_app, server_process
from handful import shared_counter
from handful.images import decode
from training.markdown import markdown_table

WAYS = {"This device": "browser", "Server": "server"}
POSES = (("3L_0",), ("1R_0",), ("5R_1", "2L_3"), ("4L_0",), ("2R_0",), ("0R_0", "3L_1"), ("5L_0",), ("1L_1",))
FPS, POSE_S = 30, 1.5
FRAMES_OF_A_POSE = round(FPS * POSE_S)
BLOCK_PX, BITS = 32, 12  # of the time code; its blocks are as wide as they are high
SECONDS = 18.0  # of each way
READING_S = 6.0  # that a visitor reads the page before the click

# Reads the time code of the camera's frames, and notes what is on the screen whenever it changes.
OBSERVE = """({ block, bits }) => {
    const readCode = (source, scale, canvas) => {
        const context = canvas.getContext("2d", { willReadFrequently: true });
        context.drawImage(source, 0, 0, block * bits * scale, block * scale, 0, 0, bits, 1);
        const { data } = context.getImageData(0, 0, bits, 1);
        let code = 0;
        for (let bit = 0; bit < bits; bit++) code += (data[4 * bit + 1] > 127) << bit;
        return code;
    };
    const tiny = () => new OffscreenCanvas(bits, 1);
    const seen = (window.seen = []), shown = (window.shown = []);
    const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (constraints) => {
        const stream = await open(constraints), video = document.createElement("video"), canvas = tiny();
        Object.assign(video, { srcObject: stream.clone(), muted: true });
        const next = (now, { captureTime }) => {
            seen.push([captureTime ?? now, readCode(video, 1, canvas)]);
            video.requestVideoFrameCallback(next);
        };
        video.requestVideoFrameCallback(next);
        video.play();
        return stream;
    };
    const findLive = () => {
        for (const element of document.querySelectorAll("*")) {
            const live = element.shadowRoot?.querySelector(".live");
            if (live) return live;
        }
    };
    const timer = setInterval(() => {
        const live = findLive();
        if (!live) return;
        clearInterval(timer);
        const [number, words, picture] = [".total b", ".words", "canvas"].map((one) => live.querySelector(one));
        const canvas = tiny();
        let frame = 0;
        const count = () => (frame++, requestAnimationFrame(count));
        count();
        const note = () => {
            const code = readCode(picture, picture.width / 640, canvas);
            shown.push([performance.now(), number.textContent, words.textContent, code, frame]);
        };
        const options = { childList: true, characterData: true, subtree: true };
        for (const element of [number, words]) new MutationObserver(note).observe(element, options);
        live.querySelector(".start").addEventListener("click", () => (window.clicked = performance.now()), true);
    }, 20);
}"""


def write_number(frame: np.ndarray, number: int) -> None:
    """Write a number into a frame in blocks along its upper edge, which survive JPEG."""
    for bit in range(BITS):
        frame[:BLOCK_PX, BLOCK_PX * bit : BLOCK_PX * (bit + 1)] = 255 * (number >> bit & 1)


def show_pose(names: tuple[str, ...]) -> np.ndarray:
    """Return a frame, (480, 640, 3) uint8 RGB, with these samples side by side."""
    frame = np.full((480, 640, 3), 150, np.uint8)
    for number, name in enumerate(names):
        left = 320 * number + 32 + 160 * (len(names) == 1)
        frame[160:416, left : left + 256] = decode(ROOT / f"assets/samples/{name}.jpg")
    return frame


def write_video(path: Path) -> list[int]:
    """Write the video, as MJPEG, which plays over and over. Returns the total of each pose.

    Raises:
        ValueError: the model miscounts a pose: its delay would be endless.
    """
    totals = [sum(int(name[0]) for name in names) for names in POSES]
    with path.open("wb") as file:
        for pose, names in enumerate(POSES):
            frame = show_pose(names)
            if (predicted := shared_counter()(frame).total) != totals[pose]:
                raise ValueError(f"The model counts {predicted} fingers in {names}.")
            for number in range(FRAMES_OF_A_POSE):
                write_number(frame, pose * FRAMES_OF_A_POSE + number)
                file.write(cv2.imencode(".jpg", frame[..., ::-1])[1].tobytes())
    return totals


def delays(seen: list[list], shown: list[list], totals: list[int]) -> list[float]:
    """Return the delay in ms of each pose, in the order in which they came.

    Args:
        seen: (ms, number) of the camera's frames.
        shown: (ms, number, words, frame's number, …) at each change on the screen.
        totals: of the poses.

    Poses of which nothing is known to the end, the first and the last, are left out. One whose number never comes
    counts with its whole duration.
    """
    starts = []
    for when, number in seen:
        pose = number // FRAMES_OF_A_POSE
        if not starts or starts[-1][1] != pose:
            starts.append((when, pose))
    results = []
    for (start, pose), (end, _) in zip(starts[1:], starts[2:], strict=False):
        right = [
            when
            for when, number, _, code, *_ in shown
            if start <= when < end and code // FRAMES_OF_A_POSE == pose and number == str(totals[pose])
        ]
        results.append((min(right) if right else end) - start)
    return results


def count_splits(shown: list[list]) -> int:
    """Return how many times number and words did not change in the same animation frame, or contradict each other."""
    last_of_frame = {frame: (number, words) for _, number, words, _, frame in shown}
    return sum(number != sum_of_words(words) for number, words in last_of_frame.values())


def sum_of_words(words: str) -> str:
    """Return the total that words such as "left · 3 (98%) and right · 2 (97%)" mean."""
    counts = [int(part.split()[0]) for part in words.split("· ")[1:]]
    return str(sum(counts)) if counts else "–"


def start_page(browser: Browser, address: str, way: str, wait_s: float) -> tuple:
    """Open Live, click Start after a while, and return the page and the ms from the click to the first number."""
    page = browser.new_page(base_url=address, viewport={"width": 1280, "height": 800})
    page.add_init_script(f"({OBSERVE})({{ block: {BLOCK_PX}, bits: {BITS} }})")
    page.goto(f"/?read={way}&mirror=false")
    start = page.get_by_role("button", name="Start", exact=True)
    start.wait_for()
    page.wait_for_function("window.shown")
    page.wait_for_timeout(1000 * wait_s)
    start.click(timeout=60_000)
    first = page.wait_for_function(
        "() => (shown.find(([when, number]) => when > window.clicked && number !== '–') ?? [])[0]", timeout=60_000
    ).json_value()
    return page, first - page.evaluate("clicked")


def measure(browser: Browser, address: str, way: str, totals: list[int]) -> dict:
    """Measure one way to run Live."""
    server = server_process(address)
    page, at_once = start_page(browser, address, way, 0)
    page.close()
    page, after_reading = start_page(browser, address, way, READING_S)
    page.wait_for_timeout(2000)
    page.evaluate("seen.length = shown.length = 0")
    before, start = cpu_seconds(server), time.monotonic()
    page.wait_for_timeout(1000 * SECONDS)
    core = (cpu_seconds(server) - before) / (time.monotonic() - start)
    rate = page.locator(".rate").inner_text()
    seen, shown = page.evaluate("[seen, shown]")
    page.close()
    times = delays(seen, shown, totals)
    return {
        "delay_ms": {"median": round(median(times)), "worst": round(max(times)), "poses": len(times)},
        "first_number_ms": {"at once": round(at_once), "after reading": round(after_reading)},
        "splits": count_splits(shown),
        "rate": rate,
        "core": round(core, 3),
    }


def run() -> dict:
    """Measure both ways."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        video = Path(folder, "camera.mjpeg")
        totals = write_video(video)
        with run_app(Path(folder, "log")) as address:
            arguments = ["--no-sandbox", "--disable-gpu", *camera_arguments(video)]
            browser = playwright.chromium.launch(executable_path=chromium.find(), args=arguments)
            rows = {name: measure(browser, address, way, totals) for name, way in WAYS.items()}
            browser.close()
    return {"machine": machine(), "rows": rows}


def report(results: dict) -> str:
    """Return the results as a table."""
    rows = [
        [
            name,
            f"{row['delay_ms']['median']} / {row['delay_ms']['worst']} ({row['delay_ms']['poses']})",
            f"{row['first_number_ms']['after reading']} / {row['first_number_ms']['at once']}",
            str(row["splits"]),
            row["rate"],
            f"{row['core']:.0%}",
        ]
        for name, row in results["rows"].items()
    ]
    header = [
        "Live, run on",
        "pose to number ms, median / worst (poses)",
        "click to number ms, page read / just opened",
        "changed apart",
        "rate",
        "CPU of the server",
    ]
    return f"{results['machine']}\n\n" + markdown_table(header, rows)
