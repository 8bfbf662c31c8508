"""The camera component without a page around it: camera.js, and the worker that runs the model."""

import base64

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from benchmarks import ROOT
from handful import CLASSES, COUNTS, SIDES, shared_counter
from handful.images import decode
from handful.overlay import COLORS
from tests.browser.actions import FIND_COLOR, wait_until
from web.browser_camera import ASSETS, component_data, parse_prediction

PREDICT = """async ([frames, labels]) => {
    const worker = new Worker("/browser/worker.js", {type: "module"});
    const post = (message) => new Promise((resolve, reject) => {
        worker.onmessage = ({data}) => data.error ? reject(Error(data.error)) : resolve(data.prediction);
        worker.postMessage(message);
    });
    const {files} = await (await fetch("/browser/runtime.json")).json();
    const runtime = {files, urls: [new URL("/browser/onnxruntime/", location).href]};
    await post({model: new URL("/browser/handful.onnx", location).href, runtime, labels});
    const predictions = [];
    for (const {width, height, rgba} of frames) {
        const pixels = Uint8ClampedArray.from(atob(rgba), (byte) => byte.charCodeAt(0));
        predictions.push(await post({bitmap: await createImageBitmap(new ImageData(pixels, width, height))}));
    }
    return predictions;
}"""


def test_the_browser_predicts_the_same_as_python(page, runtime):
    """Frames without a hand, with two and close crops of each class: same classes, boxes, probabilities and maps."""
    empty = np.full((480, 640, 3), 150, np.uint8)
    two = empty.copy()
    for x, name in ((20, "2L_3"), (360, "5R_1")):
        two[120:376, x : x + 256] = decode(ROOT / f"assets/samples/{name}.jpg")
    frames = [empty, two, *(decode(ROOT / f"assets/samples/{label}_1.jpg") for label in CLASSES)]

    def to_message(image: np.ndarray) -> dict:
        rgba = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
        return {"width": image.shape[1], "height": image.shape[0], "rgba": base64.b64encode(rgba.tobytes()).decode()}

    page.goto("/metrics")
    labels = {"counts": COUNTS, "sides": SIDES}
    messages = page.evaluate(PREDICT, [[to_message(image) for image in frames], labels])
    assert len(shared_counter()(two).hands) == 2
    for image, message in zip(frames, messages, strict=True):
        python, browser = shared_counter()(image), parse_prediction(message)
        assert [hand.label for hand in browser.hands] == [hand.label for hand in python.hands]
        assert message["brightness"] == pytest.approx(image[..., 1].mean())
        for ours, theirs, drawn in zip(python.hands, browser.hands, message["hands"], strict=True):
            assert theirs.probabilities == pytest.approx(ours.probabilities, abs=1e-3)
            assert theirs.finger_probabilities == pytest.approx(ours.finger_probabilities, abs=1e-3)
            assert theirs.box == pytest.approx(ours.box, abs=0.05)
            assert (drawn["fingers"], drawn["side"]) == (ours.fingers, ours.side)
            heatmap = np.reshape(drawn["heatmap"]["values"], (drawn["heatmap"]["height"], drawn["heatmap"]["width"]))
            assert heatmap == pytest.approx(ours.gradcam(), abs=5e-3)


def show_camera(page: Page, **settings) -> None:
    """Show the component on an empty page, which can `hide()` and `show()` it as Streamlit does."""
    page.goto("/metrics")
    page.evaluate(
        """async ([html, data]) => {
          const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
          navigator.mediaDevices.getUserMedia = async (constraints) => {
            await window.permission;
            return (window.stream = await open(constraints));
          };
          const { default: mount } = await import("/browser/camera.js");
          window.predictions = 0;
          window.states = [];
          window.show = () => {
            const parentElement = document.createElement("div");
            parentElement.innerHTML = html;
            document.body.prepend(parentElement);
            const setStateValue = (name, value) => {
              if (name === "predictions") window.predictions += value.length;
              else window.states.push(value);
            };
            const unmount = mount({ parentElement, data, setStateValue });
            return () => (unmount(), parentElement.remove());
          };
          window.hide = window.show();
        }""",
        [
            (ASSETS / "camera.html").read_text(),
            component_data(mirror=True, gradcam=False, min_confidence=0, **settings),
        ],
    )


def test_a_camera_allowed_after_the_visitor_left_is_released(page):
    show_camera(page)
    page.evaluate("() => { window.permission = new Promise((resolve) => (window.allow = resolve)) }")
    page.get_by_role("button", name="Start").click()
    page.evaluate("window.hide(), history.pushState(null, '', '/pictures')")
    page.wait_for_function("window.states.length === 2")
    page.evaluate("window.allow()")
    page.wait_for_function("window.stream?.getTracks()[0].readyState === 'ended'", timeout=3_000)
    assert page.evaluate("window.states") == [{"running": False, "starting": True}, {"running": False}]


def test_a_camera_can_be_stopped_and_lost_while_the_model_loads(page, runtime):
    show_camera(page)
    routes = []
    page.context.route("**/worker.js", lambda route: routes.append(route))
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("Loading the model")).to_be_visible()
    # The camera's picture is there already.
    page.wait_for_function(
        "document.querySelector('canvas').getContext('2d').getImageData(320, 240, 1, 1).data[3] === 255"
    )
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Loading the model")).to_be_hidden()
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("Loading the model")).to_be_visible()
    page.evaluate("window.stream.getTracks()[0].dispatchEvent(new Event('ended'))")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("Loading the model")).to_be_visible()
    for route in routes:
        route.continue_()
    page.wait_for_function("window.predictions > 0")
    states = page.evaluate("states.map(({running, starting, problem}) => starting ? 'starting' : problem ?? running)")
    assert states == ["starting", False, "starting", "lost", "starting", True]
    assert len(routes) == 1  # all starts share one worker


def test_a_download_that_stalls_is_given_up(page, runtime):
    code = (ASSETS / "worker.js").read_text()
    assert "DOWNLOAD_TIMEOUT_MS = 90_000" in code
    code = code.replace("DOWNLOAD_TIMEOUT_MS = 90_000", "DOWNLOAD_TIMEOUT_MS = 200")
    page.context.route("**/worker.js", lambda route: route.fulfill(body=code, content_type="text/javascript"))
    page.context.route("**/*.onnx*", lambda route: None)
    show_camera(page)
    page.get_by_role("button", name="Start").click()
    page.wait_for_function("window.states.at(-1)?.problem === 'runtime'")


# A worker that needs no model, and predicts the same left hand for each frame.
FAKE_WORKER = """
    window.Worker = class {
        constructor() {
            window.worker = this;
            this.pending = 0;
        }
        postMessage({bitmap}) {
            const heatmap = {width: 1, height: 1, values: [1]}, probabilities = Array(12).fill(1 / 12);
            const box = [100, 100, 300, 300], finger_probabilities = Array(5).fill(0.5);
            const hand = {box, crop: box, probabilities, finger_probabilities, heatmap};
            const hands = [{...hand, fingers: 3, side: "left", confidence: 0.9}];
            const prediction = {hands, width: 640, height: 480, milliseconds: 5, brightness: 120};
            this.pending++;
            setTimeout(() => {
                if (!this.onmessage) return;
                this.pending--;
                this.onmessage({data: bitmap ? {prediction} : {ready: true}});
            }, 50);
        }
        terminate() {
            this.onmessage = undefined;
        }
    };
"""


def test_a_dead_worker_is_replaced(page):
    page.add_init_script(FAKE_WORKER)
    show_camera(page)
    page.get_by_role("button", name="Start").click()
    page.wait_for_function("window.predictions > 0")
    page.evaluate("window.first = window.worker, window.worker.onerror({message: 'out of memory'})")
    assert page.evaluate("window.states.at(-1).problem") == "runtime"
    page.evaluate("window.predictions = 0")
    page.get_by_role("button", name="Start").click()
    page.wait_for_function("window.predictions > 0")
    assert page.evaluate("window.first !== window.worker")
    # One that dies without an error is recognised by its silence.
    page.evaluate("window.worker.terminate()")
    page.wait_for_function("window.worker.pending > 0")
    page.evaluate("window.predictions = 0")
    page.evaluate("const now = performance.now.bind(performance); performance.now = () => now() + 20_000")
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Start").click()
    page.wait_for_function("window.predictions > 0")


def test_a_box_has_the_label_of_the_tracked_hand_that_overlaps_most(page):
    page.add_init_script(FAKE_WORKER)
    near = {"box": [120, 110, 310, 290], "fingers": 4, "side": "right", "confidence": 0.8}
    far = {"box": [0, 0, 110, 480], "fingers": 2, "side": "left", "confidence": 1}
    show_camera(page, tracked=[far, near, far])
    page.get_by_role("button", name="Start").click()
    canvas = page.locator("canvas[role=img]")
    wait_until(page, lambda: canvas.evaluate(FIND_COLOR, COLORS["right"]) == pytest.approx([340, 540], abs=5))
    assert canvas.evaluate(FIND_COLOR, COLORS["left"]) is None
    # The camera on the back of a phone is not mirrored.
    page.evaluate("MediaStreamTrack.prototype.getSettings = () => ({facingMode: 'environment'})")
    wait_until(page, lambda: canvas.evaluate(FIND_COLOR, COLORS["right"]) == pytest.approx([100, 300], abs=5))


def test_the_camera_goes_on_while_the_page_is_rebuilt(page, runtime):
    show_camera(page)
    # A frame that the browser cannot provide is skipped.
    page.evaluate(
        """() => {
          const create = window.createImageBitmap;
          window.createImageBitmap = async () => {
            window.createImageBitmap = create;
            throw new DOMException("no frame", "InvalidStateError");
          };
        }"""
    )
    page.get_by_role("button", name="Start").click()
    page.wait_for_function("window.predictions > 0")
    # As Streamlit does when the connection comes back, after longer than RERENDER_TIMEOUT_MS.
    page.evaluate("window.hide()")
    page.wait_for_timeout(700)
    page.evaluate("window.hide = window.show(), window.predictions = 0")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    page.wait_for_function("window.predictions > 0")
    # It stops when the visitor goes to another page.
    page.evaluate("window.hide(), history.pushState(null, '', '/pictures')")
    page.wait_for_function("window.stream.getTracks()[0].readyState === 'ended'", timeout=3_000)
