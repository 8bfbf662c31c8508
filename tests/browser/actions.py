"""What several browser tests do on a page."""

import re
import time
from collections.abc import Callable

from playwright.sync_api import Locator, Page, WebSocket
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from benchmarks import ROOT

PICTURE = ROOT / "assets/samples/3L_0.jpg"
# On a busy machine, with eight programs per core, the first visit to a page takes 20 seconds, and so does the first
# count of a stream. Elsewhere nothing takes so long.
TIMEOUT_MS = 60_000
FPS_CAPTION = re.compile(r"[1-9]\d* fps · \d+ ms per frame")


def metric(page: Page, label: str) -> Locator:
    """Return the value of a metric on the page."""
    return page.get_by_test_id("stMetric").filter(has_text=label).get_by_test_id("stMetricValue").first


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
