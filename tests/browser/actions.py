"""What several browser tests do on a page."""

import re
import time
from collections.abc import Callable

from playwright.sync_api import FrameLocator, Locator, Page, WebSocket
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from benchmarks import ROOT

PICTURE = ROOT / "assets/samples/3L_0.jpg"
# On a busy machine, with eight programs per core, the first visit to a page takes 20 seconds, and so does the first
# count of a stream. Elsewhere nothing takes so long.
TIMEOUT_MS = 60_000
FPS_CAPTION = re.compile(r"[1-9]\d* fps · \d+ ms per frame")

# In place of a worker that runs the model: predicts `hands(code)` for a frame, whose code is the number that
# CODED_CAMERA has drawn into it. Without CODED_CAMERA, that number means nothing.
FAKE_WORKER = """
    window.hands = () => [{ side: "left", fingers: 3 }];
    window.delay = 30;
    window.Worker = class {
        constructor() {
            window.worker = this;
        }
        postMessage({ bitmap }) {
            if (!bitmap) {
                setTimeout(() => this.onmessage?.({ data: { ready: true } }));
                return;
            }
            const canvas = new OffscreenCanvas(8, 1), context = canvas.getContext("2d");
            context.drawImage(bitmap, 0, 0, 256, 32, 0, 0, 8, 1);
            const { data } = context.getImageData(0, 0, 8, 1);
            let code = 0;
            for (let bit = 0; bit < 8; bit++) code += (data[4 * bit + 1] > 127) << bit;
            const hands = window.hands(code).map(({ side, fingers, confidence = 0.9, box = [200, 100, 400, 300] }) => {
                const probabilities = Array(12).fill((1 - confidence) / 11);
                const heatmap = { width: 1, height: 1, values: [1] };
                probabilities[(side === "left" ? 0 : 6) + fingers] = confidence;
                const finger_probabilities = [0.1, 0.9, 0.8, 0.7, 0.6];
                return { box, crop: box, probabilities, finger_probabilities, heatmap };
            });
            const width = window.width?.(code) ?? 640;
            const prediction = { hands, width, height: 480, milliseconds: 5, brightness: 120 };
            setTimeout(() => window.delay < 1e6 && this.onmessage?.({ data: { prediction, bitmap } }), window.delay);
        }
        terminate() {
            this.onmessage = undefined;
        }
    };
"""

# A camera whose frames carry their number, 0-255, as black and white blocks along the upper edge.
CODED_CAMERA = """
    navigator.mediaDevices.getUserMedia = async () => {
        const canvas = Object.assign(document.createElement("canvas"), { width: 640, height: 480 });
        const context = canvas.getContext("2d");
        let code = 0;
        window.cameraTimer = setInterval(() => {
            code = (code + 1) % 256;
            context.fillStyle = "#888";
            context.fillRect(0, 0, 640, 480);
            for (let bit = 0; bit < 8; bit++) {
                context.fillStyle = (code >> bit) & 1 ? "white" : "black";
                context.fillRect(32 * bit, 0, 32, 32);
            }
        }, 50);
        return canvas.captureStream();
    };
"""


def metric(page: Page, label: str) -> Locator:
    """Return the value of a metric on the page."""
    return page.get_by_test_id("stMetric").filter(has_text=label).get_by_test_id("stMetricValue").first


def total(page: Page) -> Locator:
    """Return the large number on Live."""
    return page.locator(".live .total b")


def open_live(page: Page, path: str = "/") -> None:
    """Open Live, with `findLive()` for scripts: the component's element, which is in a shadow root."""
    page.add_init_script(
        """window.findLive = () => {
            for (const element of document.querySelectorAll("*")) {
                const live = element.shadowRoot?.querySelector(".live");
                if (live) return live;
            }
        };"""
    )
    page.goto(path)
    page.locator(".start:enabled").wait_for()


def headline(page: Page | FrameLocator | Locator) -> Locator:
    """Return the headline of the picture that is shown: "10 fingers · 2 hands"."""
    return page.locator("[class*=st-key-headline]").get_by_role("heading")


def wait_until(page: Page, condition: Callable[[], object], timeout_ms: int = TIMEOUT_MS) -> None:
    """Wait until `condition()` is true.

    Raises:
        AssertionError: it is not within the timeout.
    """
    end = time.monotonic() + timeout_ms / 1000
    while not condition():
        assert time.monotonic() < end, "the condition is still false"
        page.wait_for_timeout(50)


def record_messages(page: Page) -> list[ForwardMsg]:
    """Return a list that collects the messages of the server to the page from now on."""
    messages: list[ForwardMsg] = []

    def on_websocket(socket: WebSocket) -> None:
        if "_stcore" in socket.url:
            socket.on("framereceived", lambda frame: messages.append(ForwardMsg.FromString(frame)))

    page.on("websocket", on_websocket)
    return messages


def choose(page: Page, label: str, option: str) -> None:
    """Choose an option of a select box. A rerun of the page closes its list: then it is opened again."""
    box, choice = page.get_by_role("combobox", name=label), page.get_by_role("option", name=option)
    end = time.monotonic() + TIMEOUT_MS / 1000
    while True:
        if box.get_attribute("aria-expanded") != "true":
            box.click()
        try:
            choice.click(timeout=2_000)
            return
        except PlaywrightTimeout:
            if time.monotonic() > end:
                raise


# Of a canvas and a colour (R, G, B): the first and the last column that have it; null if none does.
FIND_COLOR = """(canvas, color) => {
    const {data, width} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const columns = [];
    const isNear = (i) => color.every((value, k) => Math.abs(data[i + k] - value) < 10);
    for (let i = 0; i < data.length; i += 4) if (isNear(i)) columns.push(i / 4 % width);
    return columns.length ? [Math.min(...columns), Math.max(...columns)] : null;
}"""
