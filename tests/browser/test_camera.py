"""Live without a page around it: the worker that runs the model, the tracker, and the camera."""

import base64
import hashlib

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from benchmarks import ROOT
from handful import CLASSES, COUNTS, FINGERS, SIDES, Prediction, hand_from_probabilities, shared_counter
from handful.images import decode
from handful.personal import PersonalHead, with_heads
from handful.tracking import Tracker
from tests.browser.actions import FAKE_WORKER, total
from tests.builders import counting_on
from web.browser_camera import ASSETS, heads_data, live_data, read_html, settings_of_address

LABELS = {"counts": COUNTS, "sides": SIDES, "fingers": FINGERS}
PREDICT = """async ([frames, labels, heads, file]) => {
    const personal = await import("/browser/personal.js");
    const worker = new Worker("/browser/worker.js", {type: "module"});
    const post = (message) => new Promise((resolve, reject) => {
        worker.onmessage = ({data}) => {
            if (data.error) reject(Error(data.error));
            else if (!data.progress) resolve(data.prediction);
        };
        worker.postMessage(message);
    });
    const {files} = await (await fetch("/browser/runtime.json")).json();
    const runtime = {files, urls: [new URL("/browser/onnxruntime/", location).href]};
    await post({model: new URL("/browser/handful.onnx", location).href, runtime, labels});
    const predict = async (head, weights) => {
        worker.postMessage({head, weights});
        const predictions = [];
        for (const {width, height, rgba} of frames) {
            const pixels = Uint8ClampedArray.from(atob(rgba), (byte) => byte.charCodeAt(0));
            const bitmap = await createImageBitmap(new ImageData(pixels, width, height));
            predictions.push(await post({bitmap, heatmap: true}));
        }
        return predictions;
    };
    const {weights} = personal.parse(file, heads);
    return [await predict(null, null), await predict("own", weights), await predict(null, null)];
}"""


def test_the_browser_predicts_the_same_as_python(page, runtime):
    """Frames without a hand, with two and close crops of each class: same boxes, probabilities and maps.

    Then with a personal head, and without it again.
    """
    empty = np.full((480, 640, 3), 150, np.uint8)
    two = empty.copy()
    for x, name in ((20, "2L_3"), (360, "5R_1")):
        two[120:376, x : x + 256] = decode(ROOT / f"assets/samples/{name}.jpg")
    frames = [empty, two, *(decode(ROOT / f"assets/samples/{label}_1.jpg") for label in CLASSES)]

    def to_message(image: np.ndarray) -> dict:
        rgba = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
        return {"width": image.shape[1], "height": image.shape[0], "rgba": base64.b64encode(rgba.tobytes()).decode()}

    page.goto("/metrics")
    head = PersonalHead.from_json(counting_on().to_json().encode())
    messages = [to_message(image) for image in frames]
    predictions = page.evaluate(PREDICT, [messages, LABELS, heads_data(), head.to_json()])
    assert len(shared_counter()(two).hands) == 2
    for personal, browser in zip((None, head, None), predictions, strict=True):
        for image, theirs in zip(frames, browser, strict=True):
            assert_same(shared_counter()(image, personal), theirs)
            assert theirs["brightness"] == pytest.approx(image[..., 1].mean())


def assert_same(python: Prediction, browser: dict) -> None:
    assert len(browser["hands"]) == len(python.hands)
    assert (browser["width"], browser["height"]) == (python.width, python.height)
    for ours, theirs in zip(python.hands, browser["hands"], strict=True):
        assert theirs["probabilities"] == pytest.approx(ours.probabilities, abs=1e-3)
        assert theirs["finger_probabilities"] == pytest.approx(ours.finger_probabilities, abs=1e-3)
        assert theirs["box"] == pytest.approx(ours.box, abs=0.05)
        assert theirs["crop"] == pytest.approx(ours.crop, abs=0.05)
        heatmap = theirs["heatmap"]
        values = np.reshape(heatmap["values"], (heatmap["height"], heatmap["width"]))
        assert values == pytest.approx(ours.gradcam(), abs=5e-3)


def test_the_browser_writes_a_head_into_the_model_as_python_does(page):
    head = counting_on()
    page.goto("/metrics")
    sha256, message = page.evaluate(
        """async ([heads, file]) => {
            const { withHeads } = await import("/browser/heads.js");
            const { parse } = await import("/browser/personal.js");
            const model = await (await fetch("/browser/handful.onnx")).arrayBuffer();
            const bytes = withHeads(model, parse(file, heads).weights);
            const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
            let message = "";
            try {
                withHeads(model, new Map([["classifier.head.bias", new Float32Array(13)]]));
            } catch (error) {
                message = error.message;
            }
            return [Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join(""), message];
        }""",
        [heads_data(), head.to_json()],
    )
    weights = PersonalHead.from_json(head.to_json().encode()).weights
    assert sha256 == hashlib.sha256(with_heads(shared_counter().path.read_bytes(), weights)).hexdigest()
    assert message == "The model has no classifier.head.bias of 13 numbers."


def random_stream(rng: np.random.Generator) -> list[tuple[float, list[dict]]]:
    """Return times and hands that move, change, cross, come and go; with pauses, as of a slow or hidden page."""
    frames, seconds = [], 0.0
    hands = [{"x": 100.0, "class": 3}, {"x": 400.0, "class": 8}, {"x": 250.0, "class": 11}]
    for _ in range(400):
        seconds += rng.choice([0.03, 0.05, 0.1, 0.3, 1.2], p=[0.4, 0.3, 0.24, 0.05, 0.01])
        seen = []
        for hand in hands:
            hand["x"] = float(np.clip(hand["x"] + rng.normal(0, 8) + (rng.random() < 0.02) * 200, 0, 540) % 540)
            if rng.random() < 0.05:
                hand["class"] = int(rng.integers(len(CLASSES)))
            if rng.random() < 0.2:
                continue
            scores = rng.dirichlet(np.full(len(CLASSES), 0.3))
            scores[hand["class"]] += rng.uniform(0.5, 3)
            box = [hand["x"], 100.0, hand["x"] + 100, 250.0]
            probabilities, fingers = (scores / scores.sum()).tolist(), rng.random(len(FINGERS)).tolist()
            seen.append({"box": box, "crop": box, "probabilities": probabilities, "finger_probabilities": fingers})
        frames.append((seconds, sorted(seen, key=lambda hand: hand["box"][0])))
    return frames


def test_the_browser_tracks_hands_as_python_does(page):
    frames = random_stream(np.random.default_rng(7))
    page.goto("/metrics")
    theirs = page.evaluate(
        """async ([frames, labels]) => {
            const { Tracker } = await import("/browser/tracker.js");
            const tracker = new Tracker(labels);
            return frames.map(([seconds, hands]) => tracker.update({ hands, width: 640, height: 480 }, seconds));
        }""",
        [frames, LABELS],
    )
    tracker, shown = Tracker(), 0
    for (seconds, hands), tracked in zip(frames, theirs, strict=True):
        detected = [
            hand_from_probabilities(
                tuple(hand["box"]),
                tuple(hand["crop"]),
                np.array(hand["probabilities"], np.float32),
                np.zeros((len(CLASSES), 1, 1), np.float32),
                np.array(hand["finger_probabilities"], np.float32),
            )
            for hand in hands
        ]
        expected = tracker(Prediction(tuple(detected), 640, 480, 1.0), seconds).hands
        assert [(hand["side"], hand["fingers"]) for hand in tracked] == [(one.side, one.fingers) for one in expected]
        for hand, one in zip(tracked, expected, strict=True):
            assert hand["box"] == pytest.approx(one.box, abs=1e-3)
            assert hand["confidence"] == pytest.approx(one.confidence, abs=1e-4)
            assert hand["raised"] == list(one.raised)
        shown += len(tracked)
    assert shown > 500


def show_live(page: Page) -> None:
    """Show Live on an empty page, which can `hide()` and `show()` it as Streamlit does."""
    page.goto("/metrics")
    page.evaluate(
        """async ([html, data]) => {
          const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
          navigator.mediaDevices.getUserMedia = async (constraints) => {
            await window.permission;
            return (window.stream = await open(constraints));
          };
          const { default: mount } = await import("/browser/live.js");
          window.show = () => {
            const parentElement = document.createElement("div");
            parentElement.innerHTML = html;
            document.body.prepend(parentElement);
            const unmount = mount({ parentElement, data, setStateValue() {}, setTriggerValue() {} });
            return () => (unmount(), parentElement.remove());
          };
          window.hide = window.show();
        }""",
        [read_html("live"), live_data(settings_of_address({"read": "browser"}))],
    )


def start(page: Page) -> None:
    page.get_by_role("button", name="Start", exact=True).click()


def test_a_camera_allowed_after_the_visitor_left_is_released(page):
    page.add_init_script(FAKE_WORKER)
    show_live(page)
    page.evaluate("() => { window.permission = new Promise((resolve) => (window.allow = resolve)) }")
    start(page)
    page.evaluate("window.hide(), history.pushState(null, '', '/pictures')")
    page.wait_for_timeout(700)  # more than RERENDER_TIMEOUT_MS
    page.evaluate("window.allow()")
    page.wait_for_function("window.stream?.getTracks()[0].readyState === 'ended'", timeout=3_000)


def test_the_camera_goes_on_while_the_page_is_rebuilt(page):
    page.add_init_script(FAKE_WORKER)
    show_live(page)
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
    start(page)
    expect(total(page)).to_have_text("3")
    # As Streamlit does when the connection comes back, after longer than RERENDER_TIMEOUT_MS.
    page.evaluate("window.hide()")
    page.wait_for_timeout(700)
    page.evaluate("window.hide = window.show(), window.hands = () => [{ side: 'right', fingers: 5 }]")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(total(page)).to_have_text("5")
    # It stops when the visitor goes to another page.
    page.evaluate("window.hide(), history.pushState(null, '', '/pictures')")
    page.wait_for_function("window.stream.getTracks()[0].readyState === 'ended'", timeout=3_000)


def test_a_camera_can_be_lost_and_a_dead_worker_is_replaced(page):
    page.add_init_script(FAKE_WORKER)
    show_live(page)
    start(page)
    expect(total(page)).to_have_text("3")
    page.evaluate("window.stream.getTracks()[0].dispatchEvent(new Event('ended'))")
    expect(page.get_by_text("The camera was disconnected")).to_be_visible()
    expect(total(page)).to_have_text("–")
    page.get_by_role("button", name="Try again").click()
    expect(total(page)).to_have_text("3")
    page.evaluate("window.first = window.worker, window.delay = Infinity")
    page.wait_for_timeout(200)  # until a frame is under way
    page.evaluate("window.worker.onerror({message: 'out of memory'}), window.delay = 30")
    expect(page.get_by_text("The model cannot be loaded or run")).to_be_visible()
    page.get_by_role("button", name="Try again").click()
    expect(total(page)).to_have_text("3")
    assert page.evaluate("window.first !== window.worker")


def test_a_download_that_stalls_is_given_up(page, runtime):
    code = (ASSETS / "worker.js").read_text()
    assert "DOWNLOAD_TIMEOUT_MS = 90_000" in code
    code = code.replace("DOWNLOAD_TIMEOUT_MS = 90_000", "DOWNLOAD_TIMEOUT_MS = 200")
    page.context.route("**/worker.js", lambda route: route.fulfill(body=code, content_type="text/javascript"))
    page.context.route("**/*.onnx*", lambda route: None)
    show_live(page)
    start(page)
    expect(page.get_by_text("The model cannot be loaded or run")).to_be_visible()
