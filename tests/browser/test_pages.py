"""The other pages and the API's documentation in a real browser, and the app behind a proxy."""

import os
import re
import shutil
import struct
import subprocess
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import expect

from benchmarks import soak
from benchmarks.app_server import run_app
from benchmarks.dockerfile import free_port
from handful import CLASSES, FINGERS, shared_counter
from handful.images import decode
from handful.overlay import COLORS
from tests.browser.actions import PICTURE, TIMEOUT_MS, choose, headline, metric, total
from tests.builders import make_video

LEFT = f"rgb{COLORS['left']}"
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
NGINX_CONFIG = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off; client_max_body_size 25m;
    client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
    uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
    map $http_upgrade $connection_upgrade {{ default upgrade; "" close; }}
    upstream replicas {{ hash $cookie_visitor; {servers} }}
    server {{
        listen 127.0.0.1:{port};
        location /count/ {{
            proxy_pass http://replicas/;
            proxy_http_version 1.1; proxy_request_buffering off;  # its workers may not enter the folder
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }}
    }}
}}
"""


@pytest.mark.skipif(not NGINX, reason="needs nginx")
def test_two_replicas_serve_behind_a_proxy_under_a_path(browser, address, expected, runtime, tmp_path):
    tmp_path.chmod(0o755)
    port = free_port()
    with run_app(tmp_path / "log") as other:
        servers = " ".join(f"server {one.removeprefix('http://')};" for one in (address, other))
        (tmp_path / "nginx.conf").write_text(NGINX_CONFIG.format(folder=tmp_path, port=port, servers=servers))
        proxy = subprocess.Popen([NGINX, "-c", tmp_path / "nginx.conf", "-p", tmp_path])
        try:
            site = f"http://127.0.0.1:{port}"
            for visitor, query in (("1", "?read=server"), ("2", "?read=browser")):
                page = browser.new_page(base_url=site, viewport={"width": 1280, "height": 900})
                page.set_default_timeout(TIMEOUT_MS)
                page.context.add_cookies([{"name": "visitor", "value": visitor, "url": site}])
                page.goto(f"/count/{query}")
                page.get_by_role("button", name="Start", exact=True).click()
                expect(total(page)).to_have_text(str(expected.total))
                if "browser" in query:
                    page.get_by_role("button", name="Stop").click()  # which reports the predictions
                    expect(total(page)).to_have_text("–")
                    page.wait_for_timeout(1000)
                    page.goto("/count/pictures")
                    page.locator("input[type=file]").first.set_input_files(PICTURE)
                    expect(headline(page)).to_have_text("3 fingers · 1 hand", timeout=TIMEOUT_MS)
                page.close()
            # One visitor each, with all that he did.
            metrics = httpx.get(f"{other}/metrics").text
            assert sorted(re.findall(r'handful_reading_seconds_count{where="(\w+)"}', metrics)) == [
                "browser",
                "pictures",
            ]
        finally:
            proxy.terminate()
            proxy.wait()


@pytest.mark.parametrize("number", [0, 2], ids=["camera", "picture"])
def test_visitors_of_the_soak_benchmark_get_what_they_wait_for(browser, address, monkeypatch, number):
    monkeypatch.setattr(soak, "VISIT_S", 0)
    soak.visit(browser, address, number)


def test_browsers_ask_nobody_but_this_server(page, address, runtime):
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.goto("/about")
    for name in ("Live", "Pictures", "Videos", "Samples", "Teach", "Evaluation"):
        page.get_by_role("link", name=name, exact=True).click()
        expect(page).to_have_title(f"{name} · Handful")
        icon = page.locator("link[rel~=icon]")
        expect(icon).to_have_attribute("href", re.compile("^data:image/svg"))
    page.locator(".answer").wait_for()
    hosts = {urlsplit(url).netloc for url in urls if url.startswith("http")}
    assert hosts == {urlsplit(address).netloc}


def test_responses_on_a_keep_alive_connection_are_not_delayed(address):
    with httpx.Client(base_url=address) as client:
        seconds = sorted(client.get("/api/health").elapsed.total_seconds() for _ in range(21))
    assert seconds[7] < 0.03  # 0.04 and more if a body waits for the client's delayed ACK of the headers


def test_the_api_documentation_predicts_a_picture_and_shows_its_address_even_under_a_path(page, address):
    page.goto("/api/docs")
    page.get_by_label("Picture").set_input_files(PICTURE)
    expect(page.locator("#answer")).to_contain_text('"total": 3')
    page.route(
        "**/count/**", lambda route: route.fulfill(response=route.fetch(url=route.request.url.replace("/count", "")))
    )
    page.goto("/count/api/docs")
    expect(page.get_by_role("heading", name="POST /count/api/predict")).to_be_visible()
    expect(page.get_by_text(f"curl -F file=@hand.jpg {address}/count/api/predict", exact=True)).to_be_visible()


def test_a_dropped_picture_is_predicted_and_explained(page):
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
    expect(headline(page)).to_have_text("3 fingers · 1 hand", timeout=TIMEOUT_MS)
    card = page.get_by_role("region", name="left hand")
    expect(card).to_contain_text("3 fingers")
    expect(card).to_have_css("border-left-color", LEFT)
    probabilities = page.locator(".bars > span:not(.track):not(.head)")
    expect(probabilities).to_have_count(len(CLASSES))
    assert sum(int(text.rstrip("%")) for text in probabilities.all_inner_texts()) == pytest.approx(100, abs=6)
    marks = page.get_by_role("img", name=f"raised: {', '.join(hand.raised)}").locator("i")
    lit = [mark.evaluate("mark => getComputedStyle(mark).backgroundColor") == LEFT for mark in marks.all()]
    assert lit == [finger in hand.raised for finger in FINGERS]
    expect(page.locator(".bars .predicted")).to_have_text(str(hand.fingers))
    expect(page.locator(".bars .predicted")).to_have_css("font-weight", "700")
    expect(page.locator(".bars b").nth(1)).to_have_css("font-weight", "400")
    overlay = page.get_by_test_id("stImage").locator("img")
    source = overlay.get_attribute("src")
    assert overlay.evaluate("image => image.decode().then(() => image.naturalWidth)") == 1460  # sharp captions
    with page.expect_download() as download:
        page.get_by_role("button", name="Annotated picture").click()
    assert download.value.suggested_filename == "hand-annotated.jpg"
    assert decode(download.value.path()).shape == (1460, 1460, 3)
    choose(page, "Explain class", "0 right")
    expect(overlay).not_to_have_attribute("src", source, timeout=TIMEOUT_MS)


def test_a_large_video_can_be_stopped_and_its_result_downloaded(page, tmp_path):
    padding = 25_000_000  # a box at the end, which players skip
    large = tmp_path / "hand.mp4"
    large.write_bytes(make_video(samples=("3L_0", "5R_1") * 30).read() + struct.pack(">I4s", padding, b"free"))
    os.truncate(large, large.stat().st_size - 8 + padding)
    page.goto("/videos")
    page.locator("input[type=file]").first.set_input_files(large)
    expect(page.get_by_text(re.compile(r"[\d.]+ of 60 s processed, \d+ s left"))).to_be_visible(timeout=TIMEOUT_MS)
    preview = page.get_by_alt_text("The frame that was just annotated")
    assert preview.evaluate("image => image.decode().then(() => image.naturalWidth)") == 640
    page.get_by_role("button", name="Stop here").click()
    summary = page.get_by_text(re.compile(r"[\d,]+ frames, [\d.]+ seconds"))
    expect(summary).to_be_visible(timeout=TIMEOUT_MS)
    assert 0 < int(summary.inner_text().split()[0].replace(",", "")) < 600
    expect(page.get_by_text(re.compile(r"Stopped at [\d.]+ of 60 s\."))).to_be_visible()
    # The frames up to then are a video that plays.
    video = page.locator("video")
    assert video.evaluate("async video => { await video.play(); return video.videoWidth; }") == 640
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    assert download.value.path().read_text().startswith("seconds,fingers,hands,raised\n0.0,3,left 3,")


def test_chart_and_player_of_a_video_are_in_step_and_the_example_makes_room(page):
    page.goto("/videos")
    page.get_by_role("button", name="Use this video").click()
    expect(page.get_by_text(re.compile(r"[\d.]+ of 6.0 s processed"))).to_be_visible(timeout=TIMEOUT_MS)
    expect(page.get_by_text("No video at hand?")).to_have_count(0)
    expect(page.locator("video")).to_have_count(0)
    chart = page.get_by_role("slider", name="Position in the video")
    expect(chart).to_have_attribute("aria-valuetext", "0.0 s · 0 fingers · right 0", timeout=TIMEOUT_MS)
    video = page.locator("video")
    video.evaluate("video => video.currentTime = 3.7")
    expect(chart).to_have_attribute("aria-valuetext", "3.7 s · 3 fingers · right 3")
    box = chart.bounding_box()
    page.mouse.click(box["x"] + 0.3 * box["width"], box["y"] + 20)
    expect(chart).to_have_attribute("aria-valuetext", "1.8 s · 1 finger · right 1")
    assert video.evaluate("video => video.currentTime") == pytest.approx(1.8, abs=0.05)
    chart.press("ArrowRight")
    expect(chart).to_have_attribute("aria-valuetext", "1.9 s · 1 finger · right 1")
    # While it plays, too.
    video.evaluate("video => (video.muted = true, video.play())")
    expect(chart).to_have_attribute("aria-valuetext", re.compile("2 fingers"), timeout=TIMEOUT_MS)
    # A heatmap needs another run.
    page.get_by_text("Heatmap", exact=True).click()
    expect(page.get_by_text(re.compile(r"[\d.]+ of 6.0 s processed"))).to_be_visible(timeout=TIMEOUT_MS)
    expect(chart).to_be_visible(timeout=TIMEOUT_MS)


def test_the_uploader_shows_why_it_refuses_a_file(page):
    page.goto("/pictures")
    files = [{"name": "notes.txt", "mimeType": "text/plain", "buffer": b"notes"}]
    files += [{"name": "large.jpg", "mimeType": "image/jpeg", "buffer": bytes(20_100_000)}]
    page.locator("input[type=file]").first.set_input_files(files)
    for reason in ("text/plain files are not allowed", "File must be 20.0MB or smaller"):
        expect(page.get_by_text(reason)).to_be_visible(timeout=TIMEOUT_MS)
        assert page.get_by_text(reason).bounding_box()["width"] > 100  # not only for screen readers


def test_what_is_chosen_of_the_samples_is_in_the_address(page):
    page.goto("/samples?hardest=true")
    expect(page.get_by_text("24 of 24 pictures")).to_be_visible(timeout=TIMEOUT_MS)
    page.get_by_test_id("stButtonGroup").get_by_text("left", exact=True).click()
    expect(page.get_by_text("12 of 12 pictures")).to_be_visible(timeout=TIMEOUT_MS)
    assert sorted(page.url.rpartition("?")[2].split("&")) == ["hand=left", "hardest=true"]


def test_an_embedding_site_can_let_the_app_upload_and_use_the_camera(page, address):
    page.set_extra_http_headers({"X-Forwarded-Proto": "https"})  # from a proxy; browsers trust localhost alike
    page.goto("/metrics")
    app = address.replace("127.0.0.1", "localhost")
    page.evaluate(
        "url => document.body.insertAdjacentHTML("
        "'afterbegin', `<iframe src=${url} allow=camera width=1000 height=800>`)",
        f"{app}/pictures",
    )
    frame = page.frame_locator("iframe")
    frame.locator("input[type=file]").first.set_input_files(PICTURE)
    expect(headline(frame)).to_have_text("3 fingers · 1 hand", timeout=TIMEOUT_MS)
    frame.get_by_role("tab", name="Camera").click()
    expect(frame.get_by_role("button", name="Take Photo")).to_be_enabled(timeout=TIMEOUT_MS)
    (cookie,) = page.context.cookies(app)
    assert (cookie["sameSite"], cookie["secure"], cookie["partitionKey"]) == ("None", True, "http://127.0.0.1")
    # Without https, Streamlit's cookie is unchanged.
    assert "SameSite=Lax" in httpx.get(f"{address}/_stcore/health").headers["set-cookie"]


def test_a_click_on_a_sample_opens_it(page):
    page.goto("/samples")
    expect(page.get_by_text("24 of 24 pictures")).to_be_visible(timeout=TIMEOUT_MS)
    thumbnail = page.locator("[class*=st-key-thumbnail]").nth(5)
    box = thumbnail.locator("img").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text(re.compile("Correct|Incorrect"))).to_be_visible(timeout=TIMEOUT_MS)
    expect(headline(dialog)).to_have_text(re.compile("[0-5] fingers? · 1 hand|No hand found"))
    expect(dialog.get_by_test_id("stImage").locator("img")).to_be_visible()


def test_a_cell_of_the_confusion_matrix_shows_its_pictures(page):
    page.goto("/evaluation")
    expect(page.locator(".answer strong")).to_have_text(re.compile(r"\d\d"), timeout=TIMEOUT_MS)
    expect(metric(page, "Pictures")).to_be_hidden()
    page.get_by_test_id("stExpander").filter(has_text="One set in detail").locator("summary").click()
    expect(metric(page, "Pictures")).to_have_text(re.compile("[1-9]"), timeout=TIMEOUT_MS)
    choose(page, "Evaluated on", "Kaggle Fingers")
    expect(metric(page, "Pictures")).to_have_text("3,600", timeout=TIMEOUT_MS)
    cells = page.locator(".st-key-confusion-12 .mark-rect path")
    expect(cells).to_have_count(len(CLASSES) ** 2, timeout=TIMEOUT_MS)
    cells.last.click(force=True)  # the text on it intercepts clicks
    box = page.get_by_role("combobox", name="Hands of the cell")
    expect(box).to_have_value("5R, correct: 300", timeout=TIMEOUT_MS)
    # Those that the data folder has.
    expect(page.locator("[class*=st-key-thumbnail-correct]")).to_have_count(2, timeout=TIMEOUT_MS)
    # The address leads there again, unfolded.
    expect(page).to_have_url(re.compile(r"set=fingers-test&cell=5R-5R"))
    page.reload()
    expect(box).to_have_value("5R, correct: 300", timeout=TIMEOUT_MS)
    expect(box).to_be_visible()
