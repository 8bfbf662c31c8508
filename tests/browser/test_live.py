"""The Live page in a real browser: predictions by the server over WebRTC, and by the browser itself."""

import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from benchmarks.app_server import run_app
from benchmarks.dockerfile import free_port
from handful import shared_counter
from handful.overlay import COLORS
from tests.browser.actions import FIND_COLOR, FPS_CAPTION, TIMEOUT_MS, metric, record_messages, wait_until
from tests.browser.cuttable_proxy import CuttableProxy

TURNSERVER = shutil.which("turnserver")


def test_the_server_counts_the_fingers_in_front_of_the_camera(page, expected):
    messages = record_messages(page)
    page.goto("/")
    expect(metric(page, "Fingers")).to_have_text("–", timeout=TIMEOUT_MS)
    expect(page.locator("link[rel~=icon]")).to_have_attribute("href", re.compile("^data:image/svg"))
    # A click may be lost while the page is still being built.
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning", timeout=TIMEOUT_MS)
    page.frame_locator("iframe").get_by_role("button", name="Start").click()
    expect(metric(page, "Fingers")).to_have_text(str(expected.total), timeout=TIMEOUT_MS)
    expect(page.get_by_text(f"{expected.hands[0].side} · {expected.total}")).to_be_visible()
    expect(page.get_by_text(FPS_CAPTION)).to_be_visible(timeout=TIMEOUT_MS)
    assert "handful_streams 1.0" in page.request.get("/metrics").text()

    # Changed settings rerun fragments only, and the stream goes on.
    messages.clear()
    page.get_by_text("Heatmap").click()
    page.get_by_text("Mirror").click()
    page.wait_for_url(re.compile("(?=.*look=true)(?=.*mirror=false)"))
    wait_until(page, lambda: sum(message.HasField("new_session") for message in messages) >= 5)
    runs = [message.metadata.run for message in messages if message.HasField("new_session")]
    assert all(run.fragment_ids for run in runs)
    expect(metric(page, "Fingers")).to_have_text(str(expected.total))

    page.frame_locator("iframe").get_by_role("button", name="Stop").click()
    expect(metric(page, "Fingers")).to_have_text("–", timeout=TIMEOUT_MS)
    wait_until(page, lambda: "handful_streams 0.0" in page.request.get("/metrics").text())


@pytest.fixture
def turn_server(tmp_path) -> Iterator[dict[str, str]]:
    """coturn on this machine, and the app's variables for it."""
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
@pytest.mark.parametrize("has_relay", [True, False])
def test_without_a_direct_path_a_stream_needs_a_turn_server(browser, expected, turn_server, tmp_path, has_relay):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    # As behind a firewall that lets only the relay through.
    page.add_init_script(
        """const Connection = window.RTCPeerConnection;
        window.RTCPeerConnection = function (config) {
            return new Connection({...config, iceTransportPolicy: "relay"});
        };"""
    )
    with run_app(tmp_path / "app", **(turn_server if has_relay else {})) as address:
        page.goto(address)
        page.frame_locator("iframe").get_by_role("button", name="Start").click(timeout=TIMEOUT_MS)
        if has_relay:
            expect(metric(page, "Fingers")).to_have_text(str(expected.total), timeout=3 * TIMEOUT_MS)
        else:
            expect(page.get_by_text("No video is coming through")).to_be_visible(timeout=TIMEOUT_MS)
            assert "handful_streams 0.0" in page.request.get(f"{address}/metrics").text()
            page.get_by_role("button", name="Run on this device").click()
            expect(page.locator("canvas[role=img]")).to_be_visible(timeout=TIMEOUT_MS)
        page.close()
    assert "secret" not in (tmp_path / "app").read_text()


# Chromium's fake camera is only one: this adds another, "Two", with the same picture.
TWO_CAMERAS = """
    const enumerate = navigator.mediaDevices.enumerateDevices.bind(navigator.mediaDevices);
    const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.enumerateDevices = async () =>
        [...(await enumerate()), {kind: "videoinput", deviceId: "two", label: "Two"}];
    window.requested = [];
    navigator.mediaDevices.getUserMedia = ({video: {deviceId, ...video}}) => {
        window.requested.push(deviceId?.exact ?? "any");
        return open({video: deviceId?.exact === "two" ? video : {...video, deviceId}});
    };
"""


def test_the_browser_counts_by_itself(page, expected, runtime):
    hand = expected.hands[0]
    urls = []
    messages = record_messages(page)
    page.on("request", lambda request: urls.append(request.url))
    page.add_init_script(TWO_CAMERAS)
    # The interval of the page's own cleaning up, shortened.
    page.add_init_script("const every = setInterval; window.setInterval = (f, ms) => every(f, ms == 60_000 ? 500 : ms)")
    page.goto("/?read=browser&camera=gone")  # a camera that is not there any more
    page.get_by_role("button", name="Start").click()
    expect(metric(page, "Fingers")).to_have_text(str(expected.total), timeout=TIMEOUT_MS)
    expect(page.get_by_text(f"{hand.side} · {expected.total}")).to_be_visible()
    expect(page.get_by_text(FPS_CAPTION)).to_be_visible(timeout=TIMEOUT_MS)
    expect(page.get_by_role("img", name=f"raised: {', '.join(hand.raised)}")).to_be_visible()
    announcement = page.get_by_role("status").filter(has_text=f"{expected.total} fingers").element_handle()

    # The hand's box is drawn on the picture, both mirrored or not.
    canvas, color = page.locator("canvas[role=img]"), COLORS[hand.side]
    x0, _, x1, _ = hand.box
    assert canvas.evaluate(FIND_COLOR, color) == pytest.approx([640 - x1, 640 - x0], abs=12)
    page.get_by_text("Mirror").click()
    page.wait_for_url(re.compile("mirror=false"))
    wait_until(page, lambda: canvas.evaluate(FIND_COLOR, color) == pytest.approx([x0, x1], abs=12))

    # Settings do not interrupt it. Screen readers announce each count once, from an element that stays.
    assert announcement.evaluate("element => element.isConnected && element.textContent") == f"{expected.total} fingers"
    expect(page.get_by_role("button", name="Stop")).to_be_visible(timeout=TIMEOUT_MS)
    expect(metric(page, "Fingers")).to_have_text(str(expected.total))

    # The marks that Streamlit sets at each run are cleared: a page may stay open for days.
    page.wait_for_function("performance.now() - performance.getEntriesByType('mark')[0]?.startTime < 2000")
    page.get_by_role("button", name="Stop").click()
    expect(metric(page, "Fingers")).to_have_text("–", timeout=TIMEOUT_MS)
    assert any(url.endswith(f"/browser/handful.onnx?{shared_counter().sha256}") for url in urls)
    # Sent five times a second, messages are small, and sent whole: the browser may have evicted what a hash refers to.
    assert max(message.ByteSize() for message in messages) < 10_000
    assert not any(message.HasField("ref_hash") for message in messages)

    # The camera selected is used from now on, and kept in the address beside the other settings.
    page.get_by_role("combobox", name="Camera").select_option("Two")
    page.wait_for_url(re.compile("(?=.*camera=two)(?=.*mirror=false)"))
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible(timeout=TIMEOUT_MS)
    assert page.evaluate("window.requested") == ["gone", "any", "two", "two"]


def test_frames_are_predicted_one_at_a_time_even_after_a_restart(page, expected, runtime):
    # A worker as slow as an old phone's, still busy when the camera is restarted.
    page.add_init_script(
        """
        window.posted = window.pending = window.maxPending = 0;
        window.Worker = class extends Worker {
          constructor(...options) {
            super(...options);
            this.addEventListener("message", ({ data }) => (window.pending -= "prediction" in data));
          }
          postMessage(message, ...rest) {
            if (!message.bitmap) return super.postMessage(message, ...rest);
            window.posted++;
            window.maxPending = Math.max(window.maxPending, ++window.pending);
            setTimeout(() => super.postMessage(message, ...rest), 500);
          }
        };
        """
    )
    page.goto("/?read=browser")
    page.get_by_role("button", name="Start").click()
    page.wait_for_function("window.posted === 1")
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Start").click()
    expect(metric(page, "Fingers")).to_have_text(str(expected.total), timeout=TIMEOUT_MS)
    page.wait_for_function("window.posted >= 3")
    assert page.evaluate("window.maxPending") == 1


def test_start_is_disabled_until_the_camera_code_has_loaded(page):
    routes = []
    page.context.route("**/camera.js", lambda route: routes.append(route))
    with page.expect_request("**/camera.js"):
        page.goto("/?read=browser")
    expect(page.get_by_role("button", name="Start")).to_be_disabled()
    routes.pop().abort()
    expect(page.get_by_text("Part of this page failed to load. Reload it.")).to_be_visible()
    expect(page.get_by_role("button", name="Start")).to_be_disabled()


@pytest.mark.parametrize("answer", ["none", "other bytes"])
def test_without_the_pinned_runtime_the_page_offers_single_pictures(page, runtime, answer):
    def handle(route):
        if answer == "none":
            route.abort()
        else:
            route.fulfill(body="self.stolen = true;", content_type="text/javascript")

    page.context.route(re.compile("ort.*(mjs|wasm)$"), handle)
    page.goto("/?read=browser")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("This browser cannot run the model")).to_be_visible(timeout=TIMEOUT_MS)
    page.wait_for_function("document.querySelector('[data-testid=stCameraInput] video')?.readyState >= 2")
    page.get_by_role("button", name="Take Photo").click()
    expect(metric(page, "Side")).to_have_text("left", timeout=TIMEOUT_MS)
    page.get_by_role("button", name="Run on the server").click()
    expect(page.frame_locator("iframe").get_by_role("button", name="Start")).to_be_visible(timeout=TIMEOUT_MS)


@pytest.mark.parametrize("query", ["", "?read=browser"])
def test_live_goes_on_after_a_lost_connection(browser, address, expected, runtime, query):
    proxy = CuttableProxy(address)
    page = browser.new_page(base_url=proxy.address, viewport={"width": 1280, "height": 900})
    page.goto(f"/{query}")
    expect(metric(page, "Fingers")).to_have_text("–", timeout=TIMEOUT_MS)
    (page if query else page.frame_locator("iframe")).get_by_role("button", name="Start").click()
    expect(metric(page, "Fingers")).to_have_text(str(expected.total), timeout=TIMEOUT_MS)
    fps = page.get_by_text(FPS_CAPTION)
    expect(fps).to_be_visible(timeout=TIMEOUT_MS)
    expect(page.get_by_test_id("stVegaLiteChart").get_by_role("img")).to_be_visible(timeout=TIMEOUT_MS)
    proxy.cut()
    dialog = page.get_by_role("dialog", name="Connection error")
    expect(dialog).to_be_visible(timeout=TIMEOUT_MS)
    proxy.restore()
    expect(dialog).to_be_hidden(timeout=TIMEOUT_MS)
    # New numbers come. (For a moment the old page is there beside the new one.)
    expect(fps).to_have_count(1, timeout=TIMEOUT_MS)
    before = fps.inner_text()
    expect(fps).not_to_have_text(before, timeout=TIMEOUT_MS)
    expect(metric(page, "Fingers")).to_have_text(str(expected.total), timeout=TIMEOUT_MS)
    page.close()


def test_a_refused_camera_is_explained(page, runtime):
    page.add_init_script(
        """let requests = 0;
        navigator.mediaDevices.getUserMedia = () => requests++ ? new Promise(() => {}) : Promise.reject(
            new DOMException("no", "NotAllowedError")
        );"""
    )
    page.goto("/?read=browser")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("Camera access is blocked")).to_be_visible(timeout=TIMEOUT_MS)
    # The next attempt removes the explanation.
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("Camera access is blocked")).to_be_hidden()
    expect(page.get_by_text("Waiting for the camera")).to_be_visible()
