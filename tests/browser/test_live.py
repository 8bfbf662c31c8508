"""The Live page in a real browser, run on the device and on the server."""

import json
import re

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from benchmarks.app_server import run_app
from handful import shared_counter
from handful.overlay import COLORS
from tests.browser.actions import (
    CODED_CAMERA,
    FAKE_WORKER,
    FIND_COLOR,
    FPS_CAPTION,
    TIMEOUT_MS,
    open_live,
    total,
    wait_until,
)
from tests.browser.cuttable_proxy import CuttableProxy
from web.browser_camera import PROBLEMS

WAYS = pytest.mark.parametrize("way", ["browser", "server"])


def start(page: Page) -> None:
    page.get_by_role("button", name="Start", exact=True).click()


@pytest.mark.parametrize(("query", "is_loaded"), [("", True), ("?read=browser", True), ("?read=server", False)])
def test_the_model_is_loaded_before_the_page_is_there(page, runtime, query, is_loaded):
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.route("**/live.js", lambda route: None)  # never comes
    page.goto(f"/{query}", wait_until="commit")
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_disabled()
    names = ("/browser/worker.js", "/browser/onnxruntime/ort-wasm-simd-threaded.wasm", shared_counter().sha256)

    def loaded() -> list[bool]:
        return [any(url.endswith(name) for url in urls) for name in names]

    wait_until(page, lambda: all(loaded()) if is_loaded else any("live.js" in url for url in urls))
    assert all(loaded()) == is_loaded
    assert len(page.workers) == is_loaded


def test_live_and_teach_share_one_copy_of_the_model(page, expected, runtime):
    open_live(page, "/?read=browser")
    start(page)
    expect(total(page)).to_have_text(str(expected.total))
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("link", name="Teach").click()
    expect(page.get_by_role("heading", name="Teach it")).to_be_visible()
    expect(page.locator(".teach .loading")).to_be_hidden()
    assert len(page.workers) == 1


@WAYS
def test_both_ways_count_the_fingers_in_front_of_the_camera(page, expected, runtime, way):
    hand = expected.hands[0]
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    open_live(page, f"/?read={way}")
    expect(page.locator("link[rel~=icon]")).to_have_attribute("href", re.compile("^data:image/svg"))
    start(page)
    expect(total(page)).to_have_text(str(expected.total))
    expect(page.locator(".words")).to_have_text(re.compile(rf"^{hand.side} · {expected.total} \(\d+%\)$"))
    expect(page.locator(".rate")).to_have_text(FPS_CAPTION)
    expect(page.get_by_role("img", name=f"{hand.side} hand, raised: {', '.join(hand.raised)}")).to_be_visible()
    expect(page.locator(".announcement")).to_have_text(f"{expected.total} fingers")

    # The hand's box is drawn on the picture, both mirrored or not.
    canvas, color = page.locator("canvas[role=img]"), COLORS[hand.side]
    x0, _, x1, _ = hand.box

    def box_is_at(left: float, right: float) -> bool:
        columns = canvas.evaluate(FIND_COLOR, color)  # None while the boxes have faded, on a busy machine
        return columns is not None and columns == pytest.approx([left, right], abs=12)

    wait_until(page, lambda: box_is_at(640 - x1, 640 - x0))
    page.get_by_text("Mirror", exact=True).click()
    page.wait_for_url(re.compile("mirror=false"))
    wait_until(page, lambda: box_is_at(x0, x1))

    # The heatmap is drawn over it.
    def mean_red() -> float:
        return canvas.evaluate(
            """canvas => {
                const { data } = canvas.getContext("2d").getImageData(300, 100, 80, 300);
                return data.filter((_, i) => i % 4 === 0).reduce((sum, red) => sum + red, 0) / (80 * 300);
            }"""
        )

    before = mean_red()
    page.get_by_text("Heatmap", exact=True).click()
    wait_until(page, lambda: abs(mean_red() - before) > 10)

    posts = sum("/api/live" in url for url in urls)
    assert (posts > 0) == (way == "server")
    assert any(url.endswith(f"/browser/handful.onnx?{shared_counter().sha256}") for url in urls) == (way == "browser")
    page.get_by_role("button", name="Stop").click()
    expect(total(page)).to_have_text("–")
    if way == "browser":  # numbers only
        wait_until(
            page, lambda: 'handful_reading_seconds_count{where="browser"}' in page.request.get("/metrics").text()
        )
    else:
        wait_until(page, lambda: "handful_streams 0.0" in page.request.get("/metrics").text())


def test_a_model_that_still_loads_is_not_in_the_way_of_the_server(page, expected):
    page.add_init_script(FAKE_WORKER + "window.Worker.prototype.postMessage = () => {};")
    open_live(page, "/?read=browser")
    expect(page.locator(".loading")).to_be_visible()
    page.get_by_text("Server", exact=True).click()
    expect(page.locator(".loading")).to_be_hidden()
    page.evaluate("window.worker.onmessage({ data: { progress: 0.5 } })")
    assert page.locator(".loading").is_hidden()
    start(page)
    expect(total(page)).to_have_text(str(expected.total))


def test_picture_number_words_and_bars_are_those_of_one_frame(page):
    """Each frame carries its number, from which its count follows: at any moment, all that is shown follows from it."""
    page.add_init_script(FAKE_WORKER + CODED_CAMERA)
    # A picture of another size is another stream: nothing is smoothed.
    page.add_init_script(
        """window.hands = (code) => [{ side: "right", fingers: code % 6, confidence: 1 }];
        window.width = (code) => 640 + code;"""
    )
    open_live(page, "/?read=browser&mirror=false")
    start(page)
    expect(total(page)).to_have_text(re.compile(r"\d"))
    shown = page.evaluate(
        """async () => {
            const live = findLive(), picture = live.querySelector("canvas"), shown = [];
            const canvas = new OffscreenCanvas(8, 1), context = canvas.getContext("2d");
            while (shown.length < 120) {
                await new Promise(requestAnimationFrame);
                context.drawImage(picture, 0, 0, 256, 32, 0, 0, 8, 1);
                const { data } = context.getImageData(0, 0, 8, 1);
                let code = 0;
                for (let bit = 0; bit < 8; bit++) code += (data[4 * bit + 1] > 127) << bit;
                const text = (selector) => live.querySelector(selector).textContent;
                if (live.matches(".stale")) continue;
                shown.push([code, text(".total b"), text(".words"), text(".bars .predicted")]);
            }
            return shown;
        }"""
    )
    assert len({code for code, *_ in shown}) > 5
    for code, number, words, predicted in shown:
        count = str(code % 6)
        assert (number, words, predicted) == (count, f"right · {count} (100%)", count)


def test_boxes_without_a_new_prediction_fade_and_live_frames_go_on(page):
    page.add_init_script(FAKE_WORKER + CODED_CAMERA)
    open_live(page, "/?read=browser")
    start(page)
    expect(total(page)).to_have_text("3")
    canvas = page.locator("canvas[role=img]")
    wait_until(page, lambda: canvas.evaluate(FIND_COLOR, COLORS["left"]))
    page.evaluate("window.delay = Infinity")
    wait_until(page, lambda: canvas.evaluate(FIND_COLOR, COLORS["left"]) is None, 2000)
    expect(page.locator(".live")).to_have_class(re.compile("stale"))
    pictures = []
    for _ in range(5):
        pictures.append(canvas.evaluate("canvas => canvas.getContext('2d').getImageData(0, 5, 640, 1).data.join()"))
        page.wait_for_timeout(120)
    assert len(set(pictures)) > 2
    # After a while there is no number either; and the words say if the camera has stopped, too.
    expect(total(page)).to_have_text("–")
    page.evaluate("clearInterval(window.cameraTimer)")
    expect(page.get_by_text("Video has stopped")).to_be_visible()


# Name, position and size of all elements of the page, but not of what moves within a bar or a chart.
BOXES = """() => [...findLive().querySelectorAll(":not(.track i, .chart *, .rate, .announcement)")].map((one) => {
    const { x, y, width, height } = one.getBoundingClientRect();
    return [one.localName, ...[x, y, width, height].map(Math.round)];
})"""


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["laptop", "phone"])
def test_nothing_moves_and_what_matters_is_in_sight(page, size):
    page.add_init_script(FAKE_WORKER)
    page.set_viewport_size({"width": size[0], "height": size[1]})
    open_live(page, "/?read=browser")
    expect(page.locator(".loading")).to_be_hidden()
    before = page.locator(".picture").bounding_box(), page.locator(".settings").bounding_box()
    start(page)
    expect(page.locator(".rate")).to_have_text(FPS_CAPTION)
    assert (page.locator(".picture").bounding_box(), page.locator(".settings").bounding_box()) == before

    def places(hands: str, number: str) -> list:
        page.evaluate(f"window.hands = () => {hands}")
        expect(total(page)).to_have_text(number)
        return page.evaluate(BOXES)

    left = "{ side: 'left', fingers: 5, box: [10, 100, 200, 300] }"
    right = "{ side: 'right', fingers: 5, box: [400, 100, 600, 300] }"
    one = places(f"[{left}]", "5")
    assert places(f"[{left}, {right}]", "10") == one
    assert places("[]", "–") == one
    last = ".extras" if size[0] > 500 else ".total b"
    box = page.locator(last).bounding_box()
    assert box["y"] + box["height"] <= size[1]
    assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollTop") == 0


def test_before_the_start_the_page_says_what_to_do_in_place_of_empty_bars(page):
    page.add_init_script(FAKE_WORKER)
    open_live(page)
    number, bars, intro = page.locator(".total"), page.locator(".bars"), page.get_by_text("Press Start and hold up")
    for _ in "again", "after a stop":
        expect(intro).to_be_visible()
        expect(page.get_by_text("Space starts and stops")).to_be_visible()
        expect(number).to_be_hidden()
        expect(bars).to_be_hidden()
        start(page)
        expect(bars).to_be_visible()
        expect(number).to_be_visible()
        expect(intro).to_be_hidden()
        page.get_by_role("button", name="Stop").click()


def test_words_name_the_hands_from_left_to_right_as_they_are_seen(page):
    page.add_init_script(FAKE_WORKER)
    open_live(page)
    page.evaluate(
        """window.hands = () => [
            { side: "right", fingers: 2, box: [20, 100, 120, 300] },
            { side: "left", fingers: 4, box: [420, 100, 520, 300] },
        ]"""
    )
    start(page)
    words = page.locator(".words")
    expect(words).to_have_text("left · 4 (90%) and right · 2 (90%)")  # in a mirror
    page.get_by_text("Mirror", exact=True).click()
    expect(words).to_have_text("right · 2 (90%) and left · 4 (90%)")


def test_finger_marks_have_their_thumbs_on_the_inside(page):
    open_live(page)
    start(page)
    thumb_is_leftmost = """(marks) => marks.map(({ firstElementChild, lastElementChild }) =>
        firstElementChild.getBoundingClientRect().x < lastElementChild.getBoundingClientRect().x)"""
    assert page.locator(".head .fingers").evaluate_all(thumb_is_leftmost) == [False, True]  # left, right


def test_words_say_what_is_hidden_and_what_is_too_much(page):
    page.add_init_script(FAKE_WORKER)
    open_live(page, "/?read=browser&sure=60")
    page.evaluate(
        """window.hands = () => [
            { side: "left", fingers: 2, box: [20, 100, 120, 300] },
            { side: "right", fingers: 4, confidence: 0.5, box: [220, 100, 320, 300] },
        ]"""
    )
    start(page)
    words = page.locator(".words")
    expect(words).to_have_text("left · 2 (90%); 1 hand below the minimum confidence")
    expect(total(page)).to_have_text("2")
    page.evaluate(
        """window.hands = () => [30, 180, 330, 480].map((x) => (
            { side: "left", fingers: 1, box: [x, 100, x + 100, 300] }
        ))"""
    )
    expect(total(page)).to_have_text("4")
    expect(page.locator(".hint")).to_have_text("At most 4 hands are counted.")
    page.evaluate("window.hands = () => [{ side: 'left', fingers: 1, box: [0, 100, 100, 300] }]")
    expect(page.locator(".hint")).to_have_text("Your hand is cut off. Move it fully into view.")
    page.evaluate("window.hands = () => []")
    expect(words).to_have_text("No hand in view")
    expect(page.locator(".hint")).to_contain_text("No hand seen for a while")


def test_keys_start_stop_and_set_and_the_picture_can_be_saved(page):
    page.add_init_script(FAKE_WORKER)
    open_live(page)
    page.keyboard.press("Space")
    expect(total(page)).to_have_text("3")
    page.keyboard.press("m")
    expect(page.get_by_role("switch", name="Mirror")).not_to_be_checked()
    page.keyboard.press("h")
    expect(page.get_by_role("switch", name="Heatmap")).to_be_checked()
    page.wait_for_url(re.compile("(?=.*mirror=false)(?=.*look=true)"))
    with page.expect_download() as download:
        page.get_by_role("button", name="Save this picture").click()
    assert download.value.path().read_bytes().startswith(b"\x89PNG")
    with page.expect_download():
        page.keyboard.press("Space")  # on the button, which has the focus
    expect(total(page)).to_have_text("3")
    page.evaluate("document.activeElement.blur(), findLive().getRootNode().activeElement?.blur()")
    page.keyboard.press("Space")
    expect(total(page)).to_have_text("–")
    # The history is that of the session, also after it; without a hand, its total is empty.
    with page.expect_download() as download:
        page.get_by_role("button", name="Save CSV").click()
    header, first, *_ = download.value.path().read_text().splitlines()
    assert (header.split(",")[:2], first.split(",")[:2]) == (["seconds", "total"], ["0.000", "3"])
    # Settings of the address are there after a reload.
    page.reload()
    expect(page.get_by_role("switch", name="Heatmap")).to_be_checked()


def test_the_game_lies_over_the_picture_and_ends_with_the_camera(page):
    page.add_init_script(FAKE_WORKER)
    open_live(page)
    play = page.get_by_role("button", name="Show me")
    expect(play).to_be_disabled()
    start(page)
    play.click()
    stage, picture = page.locator(".show-me-stage"), page.locator(".picture")
    expect(stage).to_be_visible()
    assert stage.bounding_box() == picture.bounding_box()
    page.get_by_role("button", name="End game").click()
    expect(stage).to_be_hidden()
    play.click()
    page.keyboard.press("Escape")
    expect(stage).to_be_hidden()
    page.get_by_role("button", name="Stop").click()
    expect(play).to_be_disabled()


def test_on_a_phone_the_game_brings_the_picture_into_sight(page):
    page.add_init_script(FAKE_WORKER)
    page.set_viewport_size({"width": 390, "height": 844})
    open_live(page)
    start(page)
    play, stage = page.get_by_role("button", name="Show me"), page.locator(".show-me-stage")
    play.scroll_into_view_if_needed()
    play.click()
    expect(stage).to_be_in_viewport(ratio=1)
    header = page.get_by_test_id("stHeader").bounding_box()
    assert stage.bounding_box()["y"] >= header["y"] + header["height"]


def test_it_can_be_tried_without_a_camera(page, runtime):
    open_live(page)
    playable = page.evaluate("document.createElement('video').canPlayType('video/mp4; codecs=avc1.42E01E')")
    if not playable:
        pytest.skip("this Chromium has no H.264")
    page.wait_for_function("findLive().querySelector('.preview').currentTime > 0.2")
    page.get_by_role("button", name="Try it without a camera").click()
    numbers = set()

    def see() -> bool:
        numbers.add(total(page).inner_text())
        return len(numbers & set("12345")) >= 3

    wait_until(page, see)


CAMERA_FAILS = """
    let requests = 0;
    const open = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
    if (open) navigator.mediaDevices.getUserMedia = (options) =>
        requests++ ? open(options) : Promise.reject(new DOMException("no", "%s"));
"""


@pytest.mark.parametrize(
    ("way", "error", "text"),
    [
        ("browser", "NotAllowedError", "Camera access is blocked. Allow it from the icon in the address bar"),
        ("server", "NotAllowedError", "Camera access is blocked. Allow it from the icon in the address bar"),
        ("server", "NotFoundError", "No camera was found"),
        ("browser", "NotReadableError", "Another program is using the camera"),
    ],
)
def test_a_camera_that_does_not_open_is_explained_and_can_be_tried_again(page, way, error, text):
    page.add_init_script(FAKE_WORKER + CAMERA_FAILS % error)
    open_live(page, f"/?read={way}")
    start(page)
    expect(page.get_by_text(text)).to_be_visible()
    expect(page.get_by_role("link", name="Use a picture")).to_have_attribute("href", "pictures")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_text(text)).to_be_hidden()
    expect(total(page)).to_have_text("3")


def test_a_problem_and_what_to_do_about_it_fit_into_the_picture_of_a_phone(page):
    page.add_init_script(FAKE_WORKER + CAMERA_FAILS % "NotAllowedError")
    page.set_viewport_size({"width": 390, "height": 844})
    open_live(page)
    start(page)
    problem, example = page.locator(".problem"), page.get_by_role("button", name="Try it without a camera")
    longest = max(PROBLEMS.values(), key=len)
    for _ in "blocked", "the longest":
        expect(page.get_by_role("button", name="Try again")).to_be_visible()
        picture, first, last = (one.bounding_box() for one in (page.locator(".picture"), problem, example))
        assert first["y"] > picture["y"]
        assert last["y"] + last["height"] < picture["y"] + picture["height"]
        problem.evaluate("(problem, text) => (problem.textContent = text)", longest)


def test_without_https_the_page_says_so_and_reads_on_the_server(page):
    page.add_init_script(
        """Object.defineProperty(window, "isSecureContext", { value: false });
        Object.defineProperty(Navigator.prototype, "mediaDevices", { value: undefined });"""
    )
    open_live(page)
    expect(page.get_by_role("radio", name="Server")).to_be_checked()
    start(page)
    expect(page.get_by_text("Cameras work only over HTTPS")).to_be_visible()


def test_a_full_server_says_so_tries_again_and_offers_this_device(page, expected):
    page.add_init_script(FAKE_WORKER)
    full = {"value": True}

    def answer(route) -> None:
        if full["value"]:
            route.fulfill(status=503, body=json.dumps({"error": "full"}), headers={"Retry-After": "2"})
        else:
            route.continue_()

    page.context.route("**/api/live*", answer)
    open_live(page, "/?read=server")
    start(page)
    notice = page.get_by_text("The server is at capacity. Trying again …")
    expect(notice).to_be_visible()
    full["value"] = False
    expect(total(page)).to_have_text(str(expected.total))
    expect(notice).to_be_hidden()
    full["value"] = True
    expect(notice).to_be_visible()
    page.evaluate("window.hands = () => [{ side: 'right', fingers: 5 }]")
    page.get_by_role("button", name="Run on this device").click()
    expect(total(page)).to_have_text("5")
    expect(notice).to_be_hidden()
    page.wait_for_url(re.compile("read=browser"))


def test_start_is_disabled_until_the_code_has_loaded(page):
    routes = []
    page.context.route("**/live.js", lambda route: routes.append(route))
    with page.expect_request("**/live.js"):
        page.goto("/")
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_disabled()
    routes.pop().abort()
    expect(page.get_by_text("Part of this page failed to load. Reload it.")).to_be_visible()
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_disabled()


@pytest.mark.parametrize("answer", ["none", "other bytes"])
def test_without_the_pinned_runtime_the_page_offers_the_server(page, expected, runtime, answer):
    def handle(route):
        if answer == "none":
            route.abort()
        else:
            route.fulfill(body="self.stolen = true;", content_type="text/javascript")

    page.context.route(re.compile("ort.*(mjs|wasm)$"), handle)
    open_live(page, "/?read=browser")
    start(page)
    expect(page.get_by_text("The model cannot be loaded or run")).to_be_visible()
    page.get_by_text("Server", exact=True).click()
    page.get_by_role("button", name="Try again").click()
    expect(total(page)).to_have_text(str(expected.total))


def test_who_has_not_chosen_starts_on_the_server_where_the_runtime_cannot_be_fetched(page, expected):
    """And reads so before: the video does not go there unannounced."""
    page.context.route(re.compile("ort.*(mjs|wasm)$"), lambda route: route.abort())
    open_live(page)
    expect(page.locator(".privacy")).to_have_text(re.compile("cannot be loaded .* goes to this server"))
    expect(page.get_by_label("Server")).to_be_checked()
    assert "read=" not in page.url, "another visit tries this device again"
    start(page)
    expect(total(page)).to_have_text(str(expected.total))


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


def test_the_camera_chosen_of_several_is_kept_in_the_address(page):
    page.add_init_script(FAKE_WORKER + TWO_CAMERAS)
    page.set_viewport_size({"width": 390, "height": 844})
    open_live(page, "/?read=browser&camera=gone")  # a camera that is not there any more
    start(page)
    expect(total(page)).to_have_text("3")
    choice, icons = page.get_by_role("combobox", name="Camera"), page.locator(".corner").bounding_box()
    box = choice.bounding_box()
    assert box["x"] + box["width"] < icons["x"]  # also on a phone
    choice.select_option("Two")
    page.wait_for_url(re.compile("(?=.*camera=two)(?=.*read=browser)"))
    page.get_by_role("button", name="Stop").click()
    start(page)
    expect(total(page)).to_have_text("3")
    assert page.evaluate("window.requested") == ["gone", "any", "two", "two"]


def test_live_goes_on_after_a_lost_connection_and_its_page_stays_small(browser, address, expected):
    proxy = CuttableProxy(address)
    page = browser.new_page(base_url=proxy.address, viewport={"width": 1280, "height": 900})
    page.set_default_timeout(TIMEOUT_MS)
    # The interval of the page's own cleaning up, shortened.
    page.add_init_script("const every = setInterval; window.setInterval = (f, ms) => every(f, ms == 60_000 ? 500 : ms)")
    open_live(page, "/?read=server")
    start(page)
    expect(total(page)).to_have_text(str(expected.total))
    proxy.cut()
    expect(page.get_by_text("The server does not answer. Trying again …")).to_be_visible(timeout=TIMEOUT_MS)
    proxy.restore()
    expect(page.get_by_role("dialog", name="Connection error")).to_be_hidden(timeout=TIMEOUT_MS)
    expect(total(page)).to_have_text(str(expected.total), timeout=TIMEOUT_MS)
    # The marks that Streamlit sets at each run are cleared: a page may stay open for days.
    page.wait_for_function("!performance.getEntriesByType('mark').length")
    page.close()


@pytest.mark.slow
def test_visitors_who_come_reload_and_leave_are_no_errors(browser, runtime, tmp_path):
    with run_app(tmp_path / "log") as address:
        for way in ("browser", "server"):
            page = browser.new_page(base_url=address)
            page.set_default_timeout(TIMEOUT_MS)
            open_live(page, f"/?read={way}")
            start(page)
            expect(total(page)).to_have_text(re.compile(r"\d"))
            page.get_by_text("Mirror", exact=True).click()
            page.reload()
            page.locator(".start:enabled").wait_for()
            start(page)
            page.get_by_text("Heatmap", exact=True).click()
            page.goto("/pictures")
            page.go_back()
            page.locator(".start:enabled").wait_for()
            start(page)
            expect(total(page)).to_have_text(re.compile(r"\d"))
            page.close()
        page = browser.new_page(base_url=address)
        for _ in range(5):
            page.goto("/")
            page.wait_for_timeout(float(np.random.default_rng().uniform(0, 1500)))
        page.close()
    log = (tmp_path / "log").read_text()
    assert not re.search("Traceback|ERROR|Error|exc_info|does not exist", log), log
