"""The pages in a real browser, as a visitor sees them."""

import base64
import os
import re
import shutil
import struct
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, WebSocket, expect, sync_playwright
from playwright.sync_api import TimeoutError as Late
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from benchmarks import chromium
from benchmarks.app_server import ROOT, Wire, camera_arguments, film, running
from benchmarks.dockerfile import free_port
from handful import CLASSES, shared_counter
from handful.images import decode
from tests.app.test_videos import film as film_of
from tests.builders import write_fingers
from training.data.sources.own_hand import OwnHand
from web.browser_camera import ASSETS, HOME, RUNTIME, component_data, to_reading

CHROMIUM = chromium.find()
pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: python benchmarks/chromium.py"),
    pytest.mark.usefixtures("quiet"),
]
PICTURE = ROOT / "assets/samples/3L_0.jpg"
TURNSERVER = shutil.which("turnserver")
# What the first visitor to a page waits for, on a busy machine: where eight programs ask for each core, a page takes
# 20 seconds, and so does a stream's first count. Elsewhere nobody waits so long.
WAIT = 60_000


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    data = tmp_path_factory.mktemp("data")
    write_fingers(data / "fingers", train=1, test=2)
    with running(tmp_path_factory.mktemp("log") / "log", HANDFUL_DATA=str(data)) as address:
        yield address


@pytest.fixture(scope="module")
def filmed(tmp_path_factory) -> tuple[Path, np.ndarray]:
    video = tmp_path_factory.mktemp("camera") / "camera.y4m"
    return video, film(PICTURE, video, rate=10)


@pytest.fixture(scope="module")
def browser(filmed) -> Iterator[Browser]:
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*quiet, *camera_arguments(filmed[0])])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address) -> Iterator[Page]:
    page = browser.new_page(base_url=address, viewport={"width": 1280, "height": 900})
    page.set_default_timeout(WAIT)
    yield page
    page.close()


def metric(page: Page, label: str):
    return page.get_by_test_id("stMetric").filter(has_text=label).get_by_test_id("stMetricValue").first


def received(page: Page) -> list[ForwardMsg]:
    """What the page is told by the server from now on."""
    came: list[ForwardMsg] = []

    def open_(socket: WebSocket) -> None:
        if "_stcore" in socket.url:
            socket.on("framereceived", lambda frame: came.append(ForwardMsg.FromString(frame)))

    page.on("websocket", open_)
    return came


def choose(page: Page, label: str, option: str) -> None:
    """Pick from a select box of the page. What is built meanwhile closes its list: it is opened again, for a while."""
    box, offered = page.get_by_role("combobox", name=label), page.get_by_role("option", name=option)
    end = time.monotonic() + WAIT / 1000
    while True:
        if box.get_attribute("aria-expanded") != "true":
            box.click()
        try:
            offered.click(timeout=2_000)
            return
        except Late:
            if time.monotonic() > end:
                raise


def test_live_counts_what_the_camera_shows(page, filmed):
    came = received(page)
    page.goto("/")
    expect(metric(page, "Fingers")).to_have_text("–", timeout=WAIT)
    expect(page.locator("link[rel~=icon]")).to_have_attribute("href", re.compile("^data:image/svg"))
    # A page that is still being built may lose the click.
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning", timeout=WAIT)
    page.frame_locator("iframe").get_by_role("button", name="Start").click()
    told = shared_counter()(filmed[1])
    assert told.total == int(PICTURE.name[0])
    expect(metric(page, "Fingers")).to_have_text(str(told.total), timeout=WAIT)
    expect(page.get_by_text(f"{told.hands[0].side} · {told.total}")).to_be_visible()
    expect(page.get_by_text(re.compile(r"[1-9]\d* frames a second, \d+ ms each"))).to_be_visible(timeout=WAIT)
    # The stream goes on while the settings change: the page is not built anew.
    came.clear()
    page.get_by_text("Show where the model looks").click()
    page.get_by_text("Mirror").click()
    page.wait_for_timeout(1500)
    expect(metric(page, "Fingers")).to_have_text(str(told.total))
    assert "look=true" in page.url
    runs = [message.metadata.run for message in came if message.HasField("new_session")]
    assert runs
    assert all(run.fragment_ids for run in runs)
    assert "handful_streams 1.0" in page.request.get("/metrics").text()
    page.frame_locator("iframe").get_by_role("button", name="Stop").click()
    expect(metric(page, "Fingers")).to_have_text("–", timeout=WAIT)
    page.wait_for_timeout(1000)
    assert "handful_streams 0.0" in page.request.get("/metrics").text()


@pytest.fixture
def turn_server(tmp_path) -> Iterator[dict[str, str]]:
    """coturn on this machine, and the variables that tell the app of it."""
    port = free_port()
    command = [TURNSERVER, "-n", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", f"--listening-port={port}"]
    command += ["--lt-cred-mech", "--user=visitor:secret", "--realm=handful", "--allow-loopback-peers", "--no-cli"]
    command += ["--no-tls", "--no-dtls", f"--pidfile={tmp_path / 'pid'}", f"--userdb={tmp_path / 'db'}"]
    command += [f"--log-file={tmp_path / 'log'}", "--simple-log", "--verbose"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield {"TURN_URLS": f"turn:127.0.0.1:{port}", "TURN_USERNAME": "visitor", "TURN_CREDENTIAL": "secret"}
    process.terminate()
    process.wait()


@pytest.mark.skipif(not TURNSERVER, reason="needs coturn")
@pytest.mark.parametrize("with_server", [True, False])
def test_a_stream_counts_through_a_relay_where_no_direct_path_is(browser, filmed, turn_server, tmp_path, with_server):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    # As behind a firewall that lets nothing pass but the relay.
    page.add_init_script(
        """const Direct = window.RTCPeerConnection;
        window.RTCPeerConnection = function (config) {
            return new Direct({...config, iceTransportPolicy: "relay"});
        };"""
    )
    with running(tmp_path / "app", **(turn_server if with_server else {})) as address:
        page.goto(address)
        page.frame_locator("iframe").get_by_role("button", name="Start").click(timeout=WAIT)
        if with_server:
            expect(metric(page, "Fingers")).to_have_text(str(shared_counter()(filmed[1]).total), timeout=3 * WAIT)
        else:
            # Without one there is no way: the page offers the other way to read.
            expect(page.get_by_text("No picture comes through")).to_be_visible(timeout=WAIT)
            assert "handful_streams 0.0" in page.request.get(f"{address}/metrics").text()
            page.get_by_role("button", name="Read by this browser").click()
            expect(page.locator("canvas[role=img]")).to_be_visible(timeout=WAIT)
        page.close()
    assert "secret" not in (tmp_path / "app").read_text()


@pytest.fixture(scope="session")
def runtime() -> None:
    """What browsers read with, put beside the app where it is not there yet."""
    if not all((HOME / name).exists() for name in RUNTIME["files"]):
        if not shutil.which("npm"):
            pytest.skip("needs npm, once: make browser")
        subprocess.run(["sh", "runtime.sh"], cwd=HOME.parent, check=True)


# Chromium films but one file: another camera, Two, shows the same.
TWO_CAMERAS = """
    const there = navigator.mediaDevices.enumerateDevices.bind(navigator.mediaDevices);
    const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.enumerateDevices = async () =>
        [...(await there()), {kind: "videoinput", deviceId: "two", label: "Two"}];
    window.asked = [];
    navigator.mediaDevices.getUserMedia = ({video: {deviceId, ...video}}) => {
        window.asked.push(deviceId?.exact ?? "any");
        return open({video: deviceId?.exact === "two" ? video : {...video, deviceId}});
    };
"""


# Where a canvas has a colour: the first and the last column.
COLOURED = """(canvas, colour) => {
    const {data, width} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const places = [];
    const near = (i) => colour.every((value, k) => Math.abs(data[i + k] - value) < 10);
    for (let i = 0; i < data.length; i += 4) if (near(i)) places.push(i / 4 % width);
    return places.length ? [Math.min(...places), Math.max(...places)] : null;
}"""


def test_the_browser_reads_by_itself(page, filmed, runtime):
    told = shared_counter()(filmed[1])
    sent = []
    came = received(page)
    page.on("request", lambda request: sent.append(request.url))
    page.add_init_script(TWO_CAMERAS)
    page.add_init_script("const every = setInterval; window.setInterval = (f, ms) => every(f, ms == 60_000 ? 500 : ms)")
    # A camera that was picked once, and is there no more, is no hindrance.
    page.goto("/?read=browser&camera=gone")
    page.get_by_role("button", name="Start").click()
    expect(metric(page, "Fingers")).to_have_text(str(told.total), timeout=WAIT)
    expect(page.get_by_text(f"{told.hands[0].side} · {told.total}")).to_be_visible()
    expect(page.get_by_text(re.compile(r"\d+ frames a second, \d+ ms each"))).to_be_visible(timeout=WAIT)
    said = page.get_by_role("status").filter(has_text=f"{told.total} fingers").element_handle()
    # The picture is there, with the hand's box on it; mirrored, the box changes sides.
    canvas, blue = page.locator("canvas[role=img]"), [0, 98, 177]
    x0, _, x1, _ = told.hands[0].box
    assert canvas.evaluate(COLOURED, blue) == pytest.approx([640 - x1, 640 - x0], abs=12)
    page.get_by_text("Mirror").click()
    page.wait_for_timeout(1500)
    assert canvas.evaluate(COLOURED, blue) == pytest.approx([x0, x1], abs=12)
    assert "mirror=false" in page.url
    # Settings do not interrupt it, and screen readers are told each count once, in a place that stays.
    assert said.evaluate("place => place.isConnected && place.textContent") == f"{told.total} fingers"
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(metric(page, "Fingers")).to_have_text(str(told.total))
    # What Streamlit notes of each run is forgotten: a page may stay open for days.
    page.wait_for_function("performance.now() - performance.getEntriesByType('mark')[0]?.startTime < 2000")
    page.get_by_role("button", name="Stop").click()
    expect(metric(page, "Fingers")).to_have_text("–", timeout=WAIT)
    assert any(url.endswith(f"/browser/handful.onnx?{shared_counter().sha256}") for url in sent)
    # Told five times a second, little comes, and whole: not as something that the browser may have thrown away.
    assert max(message.ByteSize() for message in came) < 10_000
    assert not any(message.HasField("ref_hash") for message in came)
    # The camera that is picked is asked for from now on, and kept in the address beside the other settings.
    page.get_by_role("combobox", name="Camera").select_option("Two")
    page.wait_for_url(re.compile("(?=.*camera=two)(?=.*mirror=false)"))
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    assert page.evaluate("window.asked") == ["gone", "any", "two", "two"]


def test_one_frame_is_read_at_a_time_also_once_the_camera_was_stopped_and_started(page, filmed, runtime):
    # A reader as slow as an old phone's: it still reads when the camera is started again.
    page.add_init_script(
        """
        window.asked = window.waiting = window.most = 0;
        window.Worker = class extends Worker {
          constructor(...place) {
            super(...place);
            this.addEventListener("message", ({ data }) => (window.waiting -= "reading" in data));
          }
          postMessage(message, ...rest) {
            if (!message.bitmap) return super.postMessage(message, ...rest);
            window.asked++;
            window.most = Math.max(window.most, ++window.waiting);
            setTimeout(() => super.postMessage(message, ...rest), 700);
          }
        };
        """
    )
    page.goto("/?read=browser")
    page.get_by_role("button", name="Start").click()
    page.wait_for_function("window.asked === 1")
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Start").click()
    expect(metric(page, "Fingers")).to_have_text(str(shared_counter()(filmed[1]).total), timeout=WAIT)
    page.wait_for_function("window.asked >= 3")
    assert page.evaluate("window.most") == 1


READ = """async frames => {
    const reader = new Worker("/browser/worker.js", {type: "module"});
    const answer = message => new Promise((resolve, reject) => {
        reader.onmessage = ({data}) => data.error ? reject(Error(data.error)) : resolve(data.reading);
        reader.postMessage(message);
    });
    const {files} = await (await fetch("/browser/runtime.json")).json();
    const places = [new URL("/browser/onnxruntime/", location).href];
    await answer({model: new URL("/browser/handful.onnx", location).href, runtime: {files, places}});
    const readings = [];
    for (const {width, height, rgba} of frames) {
        const pixels = Uint8ClampedArray.from(atob(rgba), one => one.charCodeAt(0));
        readings.push(await answer({bitmap: await createImageBitmap(new ImageData(pixels, width, height))}));
    }
    return readings;
}"""


def test_a_browser_reads_as_python_does(page, runtime):
    """Same frames, same hands, same numbers: whole frames with no hand, one or two, and close crops."""
    room = np.full((480, 640, 3), 150, np.uint8)
    two = room.copy()
    for x, name in ((20, "2L_3"), (360, "5R_1")):
        two[120:376, x : x + 256] = decode(ROOT / f"assets/samples/{name}.jpg")
    frames = [room, two, *(decode(ROOT / f"assets/samples/{label}_1.jpg") for label in CLASSES)]

    def sent(image: np.ndarray) -> dict:
        rgba = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
        return {"width": image.shape[1], "height": image.shape[0], "rgba": base64.b64encode(rgba.tobytes()).decode()}

    page.goto("/?read=browser")
    page.get_by_role("button", name="Start").wait_for()
    predictions = page.evaluate(READ, [sent(image) for image in frames])
    assert len(shared_counter()(two).hands) == 2
    for image, one in zip(frames, predictions, strict=True):
        here, there = shared_counter()(image), to_reading(one)
        assert [hand.label for hand in there.hands] == [hand.label for hand in here.hands]
        assert one["light"] == pytest.approx(image[..., 1].mean())
        for mine, theirs, drawn in zip(here.hands, there.hands, one["hands"], strict=True):
            assert theirs.probabilities == pytest.approx(mine.probabilities, abs=1e-3)
            assert theirs.box == pytest.approx(mine.box, abs=0.05)
            assert (drawn["fingers"], drawn["side"]) == (mine.fingers, mine.side)
            heat = np.reshape(drawn["heat"]["values"], (drawn["heat"]["height"], drawn["heat"]["width"]))
            assert heat == pytest.approx(mine.gradcam(), abs=5e-3)


def test_start_waits_for_the_code_that_it_starts(page):
    held = []
    page.context.route("**/camera.js", lambda route: held.append(route))
    with page.expect_request("**/camera.js"):
        page.goto("/?read=browser")
    expect(page.get_by_role("button", name="Start")).to_be_disabled()
    held.pop().abort()
    expect(page.get_by_text("A part of this page did not come. Reload it.")).to_be_visible()
    expect(page.get_by_role("button", name="Start")).to_be_disabled()


@pytest.mark.parametrize("answer", ["nothing", "other bytes"])
def test_a_runtime_that_is_not_there_or_not_the_pinned_one_is_told(page, runtime, answer):
    def meddle(route):
        if answer == "nothing":
            route.abort()
        else:
            route.fulfill(body="self.stolen = true;", content_type="text/javascript")

    page.context.route(re.compile("ort.*(mjs|wasm)$"), meddle)
    page.goto("/?read=browser")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("This browser cannot run the model")).to_be_visible(timeout=WAIT)
    # What needs nothing of the browser but a camera is there at once.
    page.wait_for_function("document.querySelector('[data-testid=stCameraInput] video')?.readyState >= 2")
    page.get_by_role("button", name="Take Photo").click()
    expect(metric(page, "Side")).to_have_text("left", timeout=WAIT)
    page.get_by_role("button", name="Read by the server").click()
    expect(page.frame_locator("iframe").get_by_role("button", name="Start")).to_be_visible(timeout=WAIT)


@pytest.mark.parametrize("query", ["", "?read=browser"])
def test_a_connection_that_is_lost_comes_back(browser, filmed, address, runtime, query):
    wire = Wire(address)
    page = browser.new_page(base_url=wire.address, viewport={"width": 1280, "height": 900})
    page.goto(f"/{query}")
    expect(metric(page, "Fingers")).to_have_text("–", timeout=WAIT)
    (page if query else page.frame_locator("iframe")).get_by_role("button", name="Start").click()
    total = str(shared_counter()(filmed[1]).total)
    expect(metric(page, "Fingers")).to_have_text(total, timeout=WAIT)
    told = page.get_by_text(re.compile(r"\d+ frames a second, \d+ ms each"))
    expect(told).to_be_visible(timeout=WAIT)
    expect(page.get_by_test_id("stVegaLiteChart").get_by_role("img")).to_be_visible(timeout=WAIT)
    wire.cut()
    expect(page.get_by_role("dialog", name="Connection error")).to_be_visible(timeout=WAIT)
    wire.mend()
    expect(page.get_by_role("dialog", name="Connection error")).to_be_hidden(timeout=WAIT)
    # It goes on by itself, and what is told is new. (For a moment the page that was is there beside the new one.)
    expect(told).to_have_count(1, timeout=WAIT)
    before = told.inner_text()
    expect(told).not_to_have_text(before, timeout=WAIT)
    expect(metric(page, "Fingers")).to_have_text(total, timeout=WAIT)
    page.close()


def show_camera(page: Page, **settings) -> None:
    """The camera's component alone, which the page can `hide()` and `show()` as Streamlit does."""
    page.goto("/metrics")
    page.evaluate(
        """async ([html, data]) => {
          const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
          navigator.mediaDevices.getUserMedia = async (wish) => {
            await window.allowed;
            return (window.stream = await open(wish));
          };
          const { default: camera } = await import("/browser/camera.js");
          window.readings = 0;
          window.states = [];
          window.show = () => {
            const parentElement = document.createElement("div");
            parentElement.innerHTML = html;
            document.body.prepend(parentElement);
            const setStateValue = (name, value) => {
              if (name === "readings") window.readings += value.length;
              else window.states.push(value);
            };
            const clean = camera({ parentElement, data, setStateValue });
            return () => (clean(), parentElement.remove());
          };
          window.hide = window.show();
        }""",
        [(ASSETS / "camera.html").read_text(), component_data(mirror=True, gradcam=False, sure=0, **settings)],
    )


def test_a_camera_that_is_allowed_once_the_visitor_has_left_is_let_go(page):
    show_camera(page)
    page.evaluate("() => { window.allowed = new Promise((resolve) => (window.allow = resolve)) }")
    page.get_by_role("button", name="Start").click()
    page.evaluate("window.hide(), history.pushState(null, '', '/pictures')")
    page.wait_for_timeout(700)
    page.evaluate("window.allow()")
    page.wait_for_function("window.stream?.getTracks()[0].readyState === 'ended'", timeout=3_000)
    assert page.evaluate("window.states") == [{"running": False, "starting": True}, {"running": False}]


def test_a_camera_that_is_lost_while_the_model_loads_does_not_run(page, runtime):
    show_camera(page)
    held = []
    page.context.route("**/worker.js", lambda route: held.append(route))
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("Loading the model")).to_be_visible()
    # The camera shows its picture, and can be stopped.
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
    page.wait_for_timeout(500)
    for route in held:
        route.continue_()
    page.wait_for_function("window.readings > 0")
    told = page.evaluate("states.map(({running, starting, problem}) => starting ? 'starting' : problem ?? running)")
    assert told == ["starting", False, "starting", "lost", "starting", True]
    assert len(held) == 1  # all starts wait for one model


def test_a_file_that_does_not_come_is_given_up(page, runtime):
    reader = (ASSETS / "worker.js").read_text()
    assert "LATE = 90_000" in reader
    quick = reader.replace("LATE = 90_000", "LATE = 200")
    page.context.route("**/worker.js", lambda route: route.fulfill(body=quick, content_type="text/javascript"))
    page.context.route("**/*.onnx*", lambda route: None)
    show_camera(page)
    page.get_by_role("button", name="Start").click()
    page.wait_for_function("window.states.at(-1)?.problem === 'runtime'")


# A reader that is there at once, and sees the same hand in each frame.
READER = """
    window.Worker = class {
        constructor() {
            window.reader = this;
        }
        postMessage({bitmap}) {
            const heat = {width: 1, height: 1, values: [1]}, probabilities = Array(12).fill(1 / 12);
            const hand = {box: [100, 100, 300, 300], crop: [100, 100, 300, 300], probabilities, heat};
            const hands = [{...hand, fingers: 3, side: "left", confidence: 0.9}];
            const reading = {hands, width: 640, height: 480, milliseconds: 5, light: 120};
            setTimeout(() => this.onmessage?.({data: bitmap ? {reading} : {ready: true}}), 50);
        }
        terminate() {
            this.onmessage = undefined;
        }
    };
"""


def test_a_reader_that_died_is_replaced(page):
    page.add_init_script(READER)
    show_camera(page)
    page.get_by_role("button", name="Start").click()
    page.wait_for_function("window.readings > 0")
    page.evaluate("window.first = window.reader, window.reader.onerror({message: 'out of memory'})")
    assert page.evaluate("window.states.at(-1).problem") == "runtime"
    page.evaluate("window.readings = 0")
    page.get_by_role("button", name="Start").click()
    page.wait_for_function("window.readings > 0")
    assert page.evaluate("window.first !== window.reader")
    # Or without a word: then it is noticed once it has been silent for long.
    page.evaluate("window.reader.terminate()")
    page.wait_for_timeout(300)
    page.evaluate("window.readings = 0")
    page.evaluate("const now = performance.now.bind(performance); performance.now = () => now() + 20_000")
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Start").click()
    page.wait_for_function("window.readings > 0")


def test_a_hand_is_named_as_the_page_tells_it(page):
    page.add_init_script(READER)
    near = {"box": [120, 110, 310, 290], "fingers": 4, "side": "right", "confidence": 0.8}
    far = {"box": [0, 0, 110, 480], "fingers": 2, "side": "left", "confidence": 1}
    show_camera(page, told=[far, near, far])
    page.get_by_role("button", name="Start").click()
    page.wait_for_function("window.readings > 0")
    page.wait_for_timeout(200)
    canvas = page.locator("canvas[role=img]")
    blue, orange = (canvas.evaluate(COLOURED, colour) for colour in ([0, 98, 177], [190, 76, 0]))
    assert (blue, orange) == (None, pytest.approx([340, 540], abs=5))
    # The camera at a phone's back is no mirror.
    page.evaluate("MediaStreamTrack.prototype.getSettings = () => ({facingMode: 'environment'})")
    page.wait_for_timeout(200)
    assert canvas.evaluate(COLOURED, [190, 76, 0]) == pytest.approx([100, 300], abs=5)


def test_the_camera_goes_on_while_the_page_is_built_anew(page, runtime):
    # As Streamlit does to a component of a page whose connection comes back.
    show_camera(page)
    # A frame that the browser cannot give is left out.
    page.evaluate(
        """() => {
          const give = window.createImageBitmap;
          window.createImageBitmap = async () => {
            window.createImageBitmap = give;
            throw new DOMException("no frame", "InvalidStateError");
          };
        }"""
    )
    page.get_by_role("button", name="Start").click()
    page.wait_for_function("window.readings > 0")
    page.evaluate("window.hide()")
    page.wait_for_timeout(1500)
    page.evaluate("window.hide = window.show(), window.readings = 0")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    page.wait_for_function("window.readings > 0")
    # Whoever goes to another page is not looked at any longer.
    page.evaluate("window.hide(), history.pushState(null, '', '/pictures')")
    page.wait_for_function("window.stream.getTracks()[0].readyState === 'ended'", timeout=3_000)


def test_a_browser_that_refuses_the_camera_is_told_what_to_do(page, runtime):
    page.add_init_script(
        """let asked = 0;
        navigator.mediaDevices.getUserMedia = () => asked++ ? new Promise(() => {}) : Promise.reject(
            new DOMException("no", "NotAllowedError")
        );"""
    )
    page.goto("/?read=browser")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("The browser may not use the camera")).to_be_visible(timeout=WAIT)
    # Whoever tries again is told no longer what was amiss before.
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("The browser may not use the camera")).to_be_hidden()
    expect(page.get_by_text("Waiting for the camera")).to_be_visible()


NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
PROXY = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off; client_max_body_size 25m;
    client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
    uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
    map $http_upgrade $connection_upgrade {{ default upgrade; "" close; }}
    upstream copies {{ hash $cookie_visitor; {copies} }}
    server {{
        listen 127.0.0.1:{port};
        location /count/ {{
            proxy_pass http://copies/;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }}
    }}
}}
"""


@pytest.mark.skipif(not NGINX, reason="needs nginx")
def test_two_copies_serve_behind_a_proxy_and_under_a_path(browser, filmed, address, runtime, tmp_path):
    tmp_path.chmod(0o755)
    port = free_port()
    with running(tmp_path / "log") as other:
        copies = " ".join(f"server {one.removeprefix('http://')};" for one in (address, other))
        (tmp_path / "nginx.conf").write_text(PROXY.format(folder=tmp_path, port=port, copies=copies))
        proxy = subprocess.Popen([NGINX, "-c", tmp_path / "nginx.conf", "-p", tmp_path])
        try:
            total = str(shared_counter()(filmed[1]).total)
            site = f"http://127.0.0.1:{port}"
            for visitor, query in (("1", ""), ("2", "?read=browser")):
                page = browser.new_page(base_url=site, viewport={"width": 1280, "height": 900})
                page.set_default_timeout(WAIT)
                page.context.add_cookies([{"name": "visitor", "value": visitor, "url": site}])
                page.goto(f"/count/{query}")
                frame = page if query else page.frame_locator("iframe")
                frame.get_by_role("button", name="Start").click()
                expect(metric(page, "Fingers")).to_have_text(total, timeout=WAIT)
                if query:
                    page.goto("/count/pictures")
                    page.locator("input[type=file]").first.set_input_files(PICTURE)
                    expect(metric(page, "Fingers")).to_have_text("3", timeout=WAIT)
                page.close()
            # Each copy had one of the two, all that one did.
            read = re.findall(r'handful_reading_seconds_count{where="(\w+)"}', httpx.get(f"{other}/metrics").text)
            assert sorted(read) == ["browser", "pictures"]
        finally:
            proxy.terminate()
            proxy.wait()


def test_answers_on_a_kept_connection_come_at_once(address):
    with httpx.Client(base_url=address) as client:
        seconds = sorted(client.get("/api/health").elapsed.total_seconds() for _ in range(21))
    assert seconds[7] < 0.03  # 0.04 and more where an answer waits until the client has told that its head has come


def test_the_api_s_docs_read_a_picture_and_tell_its_address_under_a_path_too(page, address):
    page.goto("/api/docs")
    page.get_by_label("Picture").set_input_files(PICTURE)
    expect(page.locator("#answer")).to_contain_text('"total": 3')
    page.route(
        "**/count/**", lambda route: route.fulfill(response=route.fetch(url=route.request.url.replace("/count", "")))
    )
    page.goto("/count/api/docs")
    expect(page.get_by_role("heading", name="POST /count/api/predict")).to_be_visible()
    expect(page.get_by_text(f"curl -F file=@hand.jpg {address}/count/api/predict", exact=True)).to_be_visible()


def test_a_picture_is_dropped_and_read(page):
    page.goto("/pictures")
    page.get_by_test_id("stFileUploaderDropzone").wait_for()
    transfer = page.evaluate_handle(
        """async bytes => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "hand.jpg", {type: "image/jpeg"}));
            return transfer;
        }""",
        list(PICTURE.read_bytes()),
    )
    page.get_by_test_id("stFileUploaderDropzone").dispatch_event("drop", {"dataTransfer": transfer})
    hand = shared_counter()(decode(PICTURE)).hands[0]
    assert hand.label == PICTURE.name[:2]
    expect(metric(page, "Fingers")).to_have_text(str(hand.fingers), timeout=WAIT)
    expect(metric(page, "Side")).to_have_text(hand.side)
    shares = page.locator(".bars > span:not(.track):not(.head)")
    expect(shares).to_have_count(len(CLASSES))
    assert sum(int(text.rstrip("%")) for text in shares.all_inner_texts()) == pytest.approx(100, abs=6)
    expect(page.locator(".bars .told")).to_have_text(str(hand.fingers))
    expect(page.locator(".bars .told")).to_have_css("font-weight", "700")
    expect(page.locator(".bars b").nth(1)).to_have_css("font-weight", "400")
    overlay = page.get_by_test_id("stImage").locator("img")
    first = overlay.get_attribute("src")
    assert overlay.evaluate("image => image.decode().then(() => image.naturalWidth)") == 256
    # Another class has another map.
    choose(page, "for the class", "0 right")
    expect(overlay).not_to_have_attribute("src", first, timeout=WAIT)


def test_a_large_film_is_read_and_can_be_stopped(page, tmp_path):
    padding = 25_000_000  # a box at its end that players pass over
    large = tmp_path / "hand.mp4"
    large.write_bytes(film_of(parts=("3L_0", "5R_1") * 30).read() + struct.pack(">I4s", padding, b"free"))
    os.truncate(large, large.stat().st_size - 8 + padding)
    page.goto("/videos")
    page.locator("input[type=file]").first.set_input_files(large)
    expect(page.get_by_text(re.compile(r"\d+ s read, \d+ s left"))).to_be_visible(timeout=WAIT)
    page.get_by_role("button", name="Stop here").click()
    told = page.get_by_text(re.compile(r"[\d,]+ frames, [\d.]+ seconds"))
    expect(told).to_be_visible(timeout=WAIT)
    assert 0 < int(told.inner_text().split()[0].replace(",", "")) < 600
    # What was read until then is there, as a film that plays.
    video = page.locator("video")
    assert video.evaluate("async video => { await video.play(); return video.videoWidth; }") == 640
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    assert download.value.path().read_text().startswith("seconds,fingers,hands\n0.0,3,left 3\n")


def test_another_site_that_shows_the_app_in_a_frame_lets_it_upload_and_film(page, address):
    page.set_extra_http_headers({"X-Forwarded-Proto": "https"})  # as a proxy tells; to browsers, localhost is as safe
    page.goto("/metrics")
    page.evaluate(
        "at => document.body.insertAdjacentHTML('afterbegin', `<iframe src=${at} allow=camera width=1000 height=800>`)",
        f"{address.replace('127.0.0.1', 'localhost')}/pictures",
    )
    frame = page.frame_locator("iframe")
    frame.locator("input[type=file]").first.set_input_files(PICTURE)
    expect(frame.get_by_test_id("stMetricValue").first).to_have_text("3", timeout=WAIT)
    frame.get_by_role("tab", name="Camera").click()
    expect(frame.get_by_role("button", name="Take Photo")).to_be_enabled(timeout=WAIT)
    (cookie,) = page.context.cookies(address.replace("127.0.0.1", "localhost"))
    assert (cookie["sameSite"], cookie["secure"], cookie["partitionKey"]) == ("None", True, "http://127.0.0.1")
    # Where nobody tells of https, Streamlit's cookie is as it was.
    assert "SameSite=Lax" in httpx.get(f"{address}/_stcore/health").headers["set-cookie"]


def test_a_click_on_a_sample_opens_it(page):
    page.goto("/samples")
    expect(page.get_by_text("24 of 24 pictures")).to_be_visible(timeout=WAIT)
    thumbnail = page.locator("[class*=st-key-thumbnail]").nth(5)
    box = thumbnail.locator("img").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text(re.compile("Right|Wrong"))).to_be_visible(timeout=WAIT)
    expect(metric(page, "Fingers")).to_have_text(re.compile("[0-5]"))
    expect(dialog.get_by_test_id("stImage").locator("img")).to_be_visible()


def test_a_cell_of_the_confusion_matrix_tells_its_pictures(page):
    page.goto("/evaluation")
    expect(page.locator(".scores").first).to_contain_text("Kaggle Fingers", timeout=WAIT)
    expect(metric(page, "Pictures")).to_have_text(re.compile("[1-9]"), timeout=WAIT)
    choose(page, "Measured on", "Kaggle Fingers")
    expect(metric(page, "Pictures")).to_have_text("3,600", timeout=WAIT)
    expect(page.get_by_test_id("stVegaLiteChart").first).to_contain_text("a fifth of the light", timeout=WAIT)
    cells = page.locator(".st-key-confusion-12 .mark-rect path")
    expect(cells).to_have_count(12 * 12, timeout=WAIT)
    cells.last.click(force=True)  # its number is written over it
    box = page.get_by_role("combobox", name="Pictures of the cell")
    expect(box).to_have_value("5R, and told so: 300", timeout=WAIT)
    # Those of the data set that is here.
    expect(page.locator("[class*=st-key-thumbnail-right]")).to_have_count(2, timeout=WAIT)


PAGES = ["/", "/?read=browser", "/pictures", "/videos", "/samples", "/teach", "/evaluation"]


@pytest.fixture(scope="module")
def axe(tmp_path_factory) -> str:
    """Deque's accessibility checker, a script."""
    if not shutil.which("npm"):
        pytest.skip("needs npm")
    folder = tmp_path_factory.mktemp("axe")
    subprocess.run(["npm", "pack", "--silent", "axe-core@4.14.1"], cwd=folder, check=True)
    with tarfile.open(folder / "axe-core-4.14.1.tgz") as package:
        return package.extractfile("package/axe.min.js").read().decode()


@pytest.fixture(scope="module", params=PAGES)
def phone(request, browser, address) -> Iterator[Page]:
    """Each of the pages on a phone that likes it dark, once all of it is there."""
    page = browser.new_page(base_url=address, viewport={"width": 390, "height": 844}, color_scheme="dark")
    page.goto(request.param)
    parts = page.get_by_test_id("stMainBlockContainer").get_by_test_id("stElementContainer")
    parts.filter(visible=True).nth(3).wait_for(timeout=WAIT)
    page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')", timeout=WAIT)
    yield page
    page.close()


def test_nothing_is_wider_than_a_phone_nor_cut_off(phone):
    widest = phone.evaluate(
        "Math.max(...['html', '[data-testid=stMain]'].map(q => document.querySelector(q).scrollWidth))"
    )
    assert widest <= 390
    labels = phone.get_by_test_id("stWidgetLabel").get_by_test_id("stMarkdownContainer")
    cut = "labels => labels.filter(one => one.scrollWidth > one.clientWidth).map(one => one.textContent)"
    assert labels.evaluate_all(cut) == []


def test_everyone_can_use_it(phone, axe, runtime):
    """Nothing serious: names for screen readers, contrast, roles; on a wide page, dark at first, light and in use."""
    phone.set_viewport_size({"width": 1280, "height": 900})
    nothing_serious(phone, axe)
    dark = phone.get_by_test_id("stApp").evaluate("app => getComputedStyle(app).backgroundColor")
    phone.emulate_media(color_scheme="light")
    expect(phone.get_by_test_id("stApp")).not_to_have_css("background-color", dark, timeout=WAIT)
    use(phone)
    nothing_serious(phone, axe)


def use(page: Page) -> None:
    """Do what a page is for, if there is anything to do; by Tab and Enter alone where the browser reads."""
    match urlsplit(page.url)[2:4]:
        case "/", "":
            stream = page.frame_locator("iframe")
            stream.get_by_role("button", name="Start").click(timeout=WAIT)
            stream.get_by_role("button", name="Stop").wait_for(timeout=WAIT)
            stream.get_by_role("progressbar").wait_for(state="hidden", timeout=WAIT)  # streamlit-webrtc's
        case "/", _:
            start = page.get_by_role("button", name="Start")
            for _ in range(20):
                page.keyboard.press("Tab")
                if start.evaluate("button => button.matches(':focus')"):
                    break
            page.keyboard.press("Enter")
            expect(metric(page, "Fingers")).to_have_text(PICTURE.name[0], timeout=WAIT)
        case "/pictures", _:
            page.locator("input[type=file]").first.set_input_files(PICTURE)
            expect(metric(page, "Fingers")).to_have_text(PICTURE.name[0], timeout=WAIT)
        case "/samples", _:
            page.locator("[class*=st-key-thumbnail] .stButton button").first.click()
            expect(page.get_by_role("dialog").get_by_text(re.compile("Right|Wrong"))).to_be_visible(timeout=WAIT)


# What fades in has come; a spinner may turn.
STILL = """document.getAnimations().every(
    one => one.playState === 'finished' || one.effect.getComputedTiming().endTime === Infinity
)"""


def nothing_serious(page: Page, axe: str) -> None:
    page.wait_for_function(STILL)
    for frame in page.frames:  # Live's too, which streamlit-webrtc fills
        frame.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then(told => told.violations)")
    serious = {one["id"]: one["nodes"][0]["html"] for one in found if one["impact"] in ("serious", "critical")}
    assert serious == {}


@pytest.mark.slow
def test_a_hand_is_recorded_and_taken_home(page, filmed, browser, address, tmp_path):
    page.add_init_script("const wait = setTimeout; window.setTimeout = (f, ms, ...more) => wait(f, ms / 4, ...more)")
    page.goto("/teach")
    for fingers in (0, 1, 4, 5):
        page.get_by_role("button", name=str(fingers), exact=True).click()
    page.get_by_role("button", name="right", exact=True).click()
    page.get_by_role("radio", name="6", exact=True).click()
    expect(page.get_by_text("Round 1 of 3, 6 to go")).to_be_visible(timeout=WAIT)
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("That is all")).to_be_visible(timeout=2 * WAIT)
    # The camera is let go.
    expect(page.get_by_role("button", name="Start")).to_be_visible()
    expect(page.get_by_text("12 pictures, a hand in each.")).to_be_visible()
    # Nobody else sees them.
    other = browser.new_page(base_url=address)
    other.goto("/teach")
    expect(other.get_by_text("Round 1 of 3, 36 to go")).to_be_visible(timeout=WAIT)
    expect(other.get_by_role("button", name="Download")).to_have_count(0)
    other.close()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download own-hand.zip").click()
    download.value.save_as(tmp_path / download.value.suggested_filename)
    hands = OwnHand(tmp_path)
    assert [CLASSES[hands.frame(i).targets[0]] for i in range(len(hands))] == ["2L"] * 6 + ["3L"] * 6
    assert hands.validation.reshape(2, 6).tolist() == [[False] * 4 + [True] * 2] * 2
    # As the camera saw it, not as the mirror on the page showed it.
    frame = hands.frame(0)
    assert frame.image.shape == filmed[1].shape
    assert np.abs(frame.image.astype(int) - filmed[1]).mean() < 5
    assert frame.boxes[0] == pytest.approx(shared_counter()(filmed[1]).hands[0].box, abs=16)
