"""The Live page and the frames that browsers send to the server, without a browser."""

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

import cv2
import httpx
import numpy as np
import pytest
import streamlit as st
from starlette.testclient import TestClient
from streamlit.testing.v1 import AppTest

from benchmarks.hostile import jpeg_of_scans
from handful import COUNTS, shared_counter
from handful.images import decode
from handful.labels import decode as decode_label
from handful.labels import decode_probabilities
from handful.personal import FITTED, PersonalHead
from tests.app.pages import load_page, open_page
from tests.builders import SAMPLES, counting_on
from web import api, browser_camera, inference, live, log, metrics

JPEG = (SAMPLES / "3L_0.jpg").read_bytes()


def post(client: httpx.Client, body: bytes = JPEG, stream: str = "one", **headers: str) -> httpx.Response:
    """Send a frame as a browser does."""
    return client.post(f"/api/live?stream={stream}", content=body, headers={"Content-Type": "image/jpeg", **headers})


def encode_jpeg(width: int, height: int) -> bytes:
    return cv2.imencode(".jpg", np.full((height, width, 3), 90, np.uint8))[1].tobytes()


def metric_value(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0


# The page


def component_data(page) -> dict:
    [component] = page.get("bidi_component")
    return json.loads(component.proto.json)


def test_the_page_is_a_component_that_has_all_it_needs():
    data = component_data(open_page("live"))
    assert data["settings"] == {"read": None, "mirror": True, "look": False, "sure": 0, "camera": None}
    assert data["model"] == f"handful.onnx?{shared_counter().sha256}"
    assert data["labels"]["counts"] == list(COUNTS)
    assert "blocked" in data["problems"]["refused"]


def test_the_settings_are_those_of_the_address():
    page = load_page("live")
    page.query_params.update({"read": "server", "mirror": "false", "look": "true", "sure": "60", "camera": "two"})
    page.run()
    expected = {"read": "server", "mirror": False, "look": True, "sure": 60, "camera": "two"}
    assert component_data(page)["settings"] == expected


@pytest.mark.parametrize("sure", ["", "-1", "1e9", "²", "60%", "0" * 5000])
def test_nonsense_in_the_address_is_ignored(sure):
    settings = browser_camera.settings_of_address({"read": "cloud", "mirror": "yes", "look": "1", "sure": sure})
    assert settings == browser_camera.settings_of_address({})
    for digits in (4, 5000):  # Python refuses to read 4301
        assert browser_camera.settings_of_address({"sure": "9" * digits})["sure"] == 95


def test_changed_settings_are_written_into_the_address(monkeypatch):
    address: dict = {"sure": "30"}
    monkeypatch.setattr(type(st.query_params), "from_dict", lambda self, parameters: address.update(new=parameters))
    changed = {"read": "browser", "mirror": False, "look": False, "sure": 60, "camera": "Two", "forged": "x"}
    monkeypatch.setattr(st, "session_state", {"live": {"settings": changed}})
    browser_camera.update_address("live")
    assert address["new"] == {"read": "browser", "mirror": "false", "sure": "60", "camera": "Two"}


def forge_settings(camera: object) -> None:
    import streamlit as st

    from web import browser_camera

    st.session_state["live"] = {"settings": {"camera": camera, "mirror": False}}
    browser_camera.update_address("live")


@pytest.mark.parametrize("camera", [{"a": 1}, ["a", "b"], "\ud800", "a\0b", 7])
def test_forged_settings_raise_nothing(camera):
    """In an address there are texts only, and these have an encoding."""
    page = AppTest.from_function(forge_settings, kwargs={"camera": camera}).run()
    assert not page.exception
    assert page.query_params["mirror"] == "false"


@pytest.mark.parametrize("milliseconds", ["20.5", "NaN", "Infinity", "-1", "1e300"])
def test_predictions_of_the_browser_are_counted_and_forged_ones_do_not_spoil_the_metrics(monkeypatch, milliseconds):
    report = json.loads(f'[{{"milliseconds": {milliseconds}, "fingers": [3, 99, "x", 0, 5, 5]}}]')
    monkeypatch.setattr(st, "session_state", {"live": {"report": report}})

    def values() -> list[float]:
        names = ("handful_reading_seconds_count", "handful_reading_seconds_sum")
        return [metric_value(name, where="browser") for name in names] + [
            metric_value("handful_hands_total", fingers=count) for count in ("3", "0", "99")
        ]

    before = values()
    browser_camera.record_report("live")
    predictions, seconds, *hands = np.subtract(values(), before)
    assert predictions == 1
    assert 0 <= seconds <= 10
    assert hands == [1, 1, 0]


def test_of_a_forged_report_a_thousand_predictions_of_four_hands_count(monkeypatch):
    report = [{"milliseconds": 20.5, "fingers": [3, [3], None, "3", 5]}] * 1001
    monkeypatch.setattr(st, "session_state", {"live": {"report": report}})
    before = [metric_value("handful_hands_total", fingers=count) for count in ("3", "5")]
    browser_camera.record_report("live")
    after = [metric_value("handful_hands_total", fingers=count) for count in ("3", "5")]
    assert np.subtract(after, before).tolist() == [1000, 0]


@pytest.mark.parametrize(
    "report",
    [
        *("text", {"a": 1}, 3, None, [None], ["x"], [3]),
        *([{}], [{"milliseconds": 1}], [{"milliseconds": None, "fingers": []}], [{"milliseconds": "1", "fingers": []}]),
        [{"milliseconds": 1, "fingers": 5}],
    ],
)
def test_a_forged_report_of_other_types_is_ignored(monkeypatch, report):
    monkeypatch.setattr(st, "session_state", {"live": {"report": report, "settings": report}})
    before = metric_value("handful_reading_seconds_count", where="browser")
    browser_camera.record_report("live")
    browser_camera.update_address("live")
    assert metric_value("handful_reading_seconds_count", where="browser") == before


def test_forged_numbers_are_bounded_and_forged_counts_left_out(monkeypatch):
    report = [{"milliseconds": 10**400, "fingers": [True, 1.0, 2]}]
    monkeypatch.setattr(st, "session_state", {"live": {"report": report}})
    names = ("1", "2", "True", "1.0")
    before = [metric_value("handful_hands_total", fingers=count) for count in names]
    browser_camera.record_report("live")
    after = [metric_value("handful_hands_total", fingers=count) for count in names]
    assert np.subtract(after, before).tolist() == [0, 1, 0, 0]


# Frames on the server


def test_a_frame_is_predicted_as_python_does_with_heatmaps_on_request(client):
    [expected] = shared_counter()(decode(JPEG)).hands
    response = post(client)
    assert response.status_code == 200
    answer = response.json()
    [hand] = answer.pop("hands")
    assert answer.pop("milliseconds") > 0
    assert answer == {"width": 256, "height": 256, "brightness": pytest.approx(decode(JPEG)[..., 1].mean(), abs=1)}
    # Another JPEG decoder, so that pixels differ by one or two.
    assert hand["box"] == pytest.approx(expected.box, abs=1)
    assert hand["probabilities"] == pytest.approx(expected.probabilities, abs=0.02)
    assert hand["finger_probabilities"] == pytest.approx(expected.finger_probabilities, abs=0.05)
    assert "heatmap" not in hand

    response = client.post("/api/live?stream=one&heatmap=1", content=JPEG, headers={"Content-Type": "image/jpeg"})
    heatmap = response.json()["hands"][0]["heatmap"]
    values = np.reshape(heatmap["values"], (heatmap["height"], heatmap["width"]))
    assert values == pytest.approx(expected.gradcam(), abs=0.1)


def to_bytes(head: PersonalHead) -> bytes:
    """Return a head's numbers as a browser sends them before a frame."""
    return b"".join(head.weights[name].astype("<f4").tobytes() for name in FITTED)


def post_with_head(client: httpx.Client, head: bytes, model: str = "", stream: str = "one") -> httpx.Response:
    query = f"stream={stream}&personal={model or shared_counter().sha256}"
    headers = {"Content-Type": "application/octet-stream"}
    return client.post(f"/api/live?{query}", content=head + JPEG, headers=headers)


def count_in(response: httpx.Response) -> int:
    [hand] = response.json()["hands"]
    return decode_label(decode_probabilities(np.array(hand["probabilities"])))[0]


def test_a_frame_is_predicted_with_the_head_before_it(client):
    head = counting_on()
    response = post_with_head(client, to_bytes(head))
    [expected] = shared_counter()(decode(JPEG), head).hands
    [hand] = response.json()["hands"]
    assert hand["probabilities"] == pytest.approx(expected.probabilities, abs=0.02)
    assert count_in(response) == 4


def test_the_heads_of_visitors_concern_their_own_frames_only(client, monkeypatch):
    """At once, and one without a head; the server's own head is that of who has none."""
    monkeypatch.setattr(live, "MAX_STREAMS", 8)
    heads = [None, *map(counting_on, (1, 2))] * 2

    def counts(visitor: int) -> list[int]:
        head, name = heads[visitor], str(visitor)
        send = partial(post_with_head, client, to_bytes(head)) if head else partial(post, client)
        return [count_in(send(stream=name)) for _ in range(5)]

    def all_counts() -> list[list[int]]:
        with ThreadPoolExecutor(len(heads)) as pool:
            return list(pool.map(counts, range(len(heads))))

    assert all_counts() == [[3] * 5, [4] * 5, [5] * 5] * 2
    monkeypatch.setattr(shared_counter(), "personal", counting_on(3))
    assert all_counts() == [[0] * 5, [4] * 5, [5] * 5] * 2


@pytest.mark.parametrize(
    ("head", "model", "status", "message"),
    [
        (to_bytes(counting_on()), "0" * 64, 400, "another model"),
        (to_bytes(counting_on())[:-200_000], "", 400, "damaged"),
        (np.full(1469, np.nan, "<f4").tobytes(), "", 400, "damaged"),
        (np.full(1469, np.inf, "<f4").tobytes(), "", 400, "damaged"),
        (np.full(1469, 1e30, "<f4").tobytes(), "", 400, "damaged"),
        (bytes(live.MAX_BYTES), "", 413, "1 MB"),
    ],
    ids=["another model", "no head", "NaN", "infinite", "large numbers", "too many bytes"],
)
def test_a_head_that_cannot_be_used_is_refused_in_words(client, head, model, status, message):
    response = post_with_head(client, head, model)
    assert response.status_code == status
    assert message in response.json()["error"]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "message"),
    [
        (b"", "image/jpeg", 415, "JPEG"),
        (b"no picture", "image/jpeg", 415, "JPEG"),
        (JPEG[:40], "image/jpeg", 415, "JPEG"),
        (JPEG, "multipart/form-data", 415, "image/jpeg"),
        (bytes(live.MAX_BYTES + 1), "image/jpeg", 413, "1 MB"),
        (encode_jpeg(2000, 1001), "image/jpeg", 413, "megapixels"),
        (jpeg_of_scans(side=64), "image/jpeg", 422, "takes too long"),
    ],
    ids=["empty", "text", "truncated header", "a form", "too many bytes", "too many pixels", "many scans"],
)
def test_bad_frames_are_refused_with_a_message_and_counted(client, body, content_type, status, message):
    kind = metrics.REFUSAL_KINDS[status]
    before = metric_value("handful_refused_total", where="live", kind=kind)
    response = post(client, body, **{"Content-Type": content_type})
    assert response.status_code == status
    assert message in response.json()["error"]
    assert metric_value("handful_refused_total", where="live", kind=kind) == before + 1


def test_a_frame_that_breaks_off_is_predicted_or_refused(client):
    assert post(client, JPEG[:4000]).status_code in (200, 422)


def test_other_sites_may_not_send_frames(client):
    """Browsers ask first, as the content type is none of a form's, and get no permission."""
    headers = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    response = client.options("/api/live", headers=headers)
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.fixture
def slow_prediction(monkeypatch) -> tuple[Event, Event]:
    """Two events of a prediction that takes long: it has started; it may go on."""
    started, go_on = Event(), Event()
    predict = inference.predict

    def wait(*arguments):
        started.set()
        assert go_on.wait(30)
        return predict(*arguments)

    monkeypatch.setattr(inference, "predict", wait)
    return started, go_on


def test_the_server_answers_others_during_a_prediction(client, slow_prediction):
    started, go_on = slow_prediction
    with ThreadPoolExecutor(1) as pool:
        response = pool.submit(post, client)
        assert started.wait(30)
        assert client.get("/api/health").status_code == 200
        go_on.set()
        assert response.result().status_code == 200


def test_a_camera_has_one_frame_under_way(client, slow_prediction):
    started, go_on = slow_prediction
    with ThreadPoolExecutor(1) as pool:
        response = pool.submit(post, client)
        assert started.wait(30)
        assert post(client).status_code == 503
        go_on.set()
        assert response.result().status_code == 200
    assert post(client).status_code == 200


def test_a_full_server_refuses_new_cameras_and_goes_on_with_the_others(client, monkeypatch):
    monkeypatch.setattr(live, "MAX_STREAMS", 2)
    assert [post(client, stream=name).status_code for name in "ab"] == [200, 200]
    assert "handful_streams 2.0" in client.get("/metrics").text
    refused = post(client, stream="c")
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "2"
    assert "capacity" in refused.json()["error"]
    assert [post(client, stream=name).status_code for name in "ab"] == [200, 200]
    # One leaves.
    live.streams["a"].last_frame -= 3
    assert "handful_streams 1.0" in client.get("/metrics").text
    assert [post(client, stream=name).status_code for name in "ca"] == [200, 503]


def test_a_client_with_many_cameras_makes_room_for_others(client, monkeypatch):
    monkeypatch.setattr(live, "MAX_STREAMS", 3)
    other = TestClient(client.app, client=("203.0.113.5", 50000))
    assert [post(client, stream=name).status_code for name in "abc"] == [200] * 3
    assert post(other, stream="x").status_code == 200  # in the place of the newest one
    assert [post(client, stream=name).status_code for name in "abc"] == [200, 200, 503]
    assert [post(other, stream=name).status_code for name in "xy"] == [200, 503]  # not in that of equals


def test_a_slow_upload_does_not_hold_its_place(monkeypatch):
    monkeypatch.setattr(live, "UPLOAD_TIMEOUT_S", 0.1)

    async def body() -> AsyncIterator[bytes]:
        yield JPEG[:100]
        await asyncio.sleep(60)

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api.api), base_url="http://handful") as client:
            return await client.post("/live?stream=one", content=body(), headers={"Content-Type": "image/jpeg"})

    assert asyncio.run(send()).status_code == 408
    assert not live.streams["one"].waiting


def test_the_log_has_a_line_for_the_start_and_the_end_of_a_camera(client, capsys):
    log.start()
    for _ in range(3):
        post(client, stream="a-name")
    live.streams["a-name"].last_frame -= 3
    live.forget_ended()
    written = capsys.readouterr().err
    started, ended = (json.loads(line) for line in written.splitlines())
    assert (started["event"], started["streams"]) == ("stream started", 1)
    assert (ended["event"], ended["frames"], ended["streams"]) == ("stream ended", 3, 0)
    assert "a-name" not in written
