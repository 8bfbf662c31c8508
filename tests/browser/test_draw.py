"""What Live draws on its picture, in a browser, beside what Python draws on it."""

import base64

import cv2
import numpy as np
import pytest
from playwright.sync_api import Page

from handful import Prediction
from handful.overlay import browser_colors, draw
from tests.browser.components import open_component

SCRIPT = """
    window.drawOn = async (png, hands, options) => {
        const frame = await createImageBitmap(await (await fetch(png)).blob());
        const { width, height } = frame;
        const canvas = Object.assign(document.createElement("canvas"), { width, height });
        module.drawFrame(canvas.getContext("2d"), frame, { width, height, hands, ...options });
        return canvas.toDataURL();
    };
"""
DATA_URL = "data:image/png;base64,"


def draw_in_browser(page: Page, frame: np.ndarray, prediction: Prediction, **options) -> np.ndarray:
    """Return the frame with what the browser draws on it, (H, W, 3) uint8 RGB."""
    hands = []
    for hand in prediction.hands:
        heatmap = hand.gradcam()
        height, width = heatmap.shape
        message = {"box": hand.box, "crop": hand.crop, "side": hand.side, "fingers": hand.fingers}
        hands.append(message | {"heatmap": {"width": width, "height": height, "values": heatmap.ravel().tolist()}})
    png = base64.b64encode(cv2.imencode(".png", frame[..., ::-1])[1].tobytes()).decode()
    arguments = [DATA_URL + png, hands, {"colors": browser_colors(), **options}]
    url = page.evaluate("arguments => drawOn(...arguments)", arguments)
    data = np.frombuffer(base64.b64decode(url.removeprefix(DATA_URL)), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)


@pytest.mark.parametrize("mirror", [False, True])
def test_the_browser_draws_boxes_and_heatmaps_as_python_does(component_page, camera_frame, expected, mirror):
    open_component(component_page, "draw", SCRIPT)
    theirs = draw_in_browser(component_page, camera_frame, expected, gradcam=True, mirror=mirror)
    ours = draw(camera_frame, expected, gradcam=True, mirror=mirror)
    difference = np.abs(theirs.astype(int) - ours)
    assert np.percentile(difference, 95) < 12  # the rest are texts and lines
    assert np.abs(theirs.astype(int) - draw(camera_frame, expected, mirror=mirror)).mean() > 6
