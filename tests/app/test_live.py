"""The Live page, without a browser."""

import json
import math
import re
import sys
import time
from io import BytesIO
from threading import Event, Thread
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from streamlit.testing.v1 import AppTest

from handful import Prediction, shared_counter
from tests.app.frames import IMAGE, feed, make_hand, make_prediction, video_frame
from tests.app.pages import finger_marks, load_page, metric, open_page, probability_bars, texts
from tests.builders import SAMPLES
from web import browser_camera as browser
from web import inference, metrics, turn_servers
from web.game import TIME_LIMIT_S
from web.uploads import REFUSED_FILE, SERVER_FULL
from web.webcam import Latest, WebcamProcessor


@pytest.fixture(autouse=True)
def _no_session(monkeypatch):
    """Without a server, streamlit-webrtc has no session to ask for."""
    monkeypatch.setattr("streamlit_webrtc.component.get_this_session_info", lambda: None)


@pytest.fixture
def connection(monkeypatch) -> SimpleNamespace:
    """A stand-in for the context of streamlit-webrtc, with a stream that plays."""
    pc, stopped = SimpleNamespace(connectionState="connecting"), []
    worker = SimpleNamespace(pc=pc, stopped=stopped, stop=lambda: stopped.append(True))
    state = SimpleNamespace(playing=True, signalling=False)
    context = SimpleNamespace(video_processor=WebcamProcessor(), state=state, _get_worker=lambda: worker)
    states = []

    def webrtc_streamer(key: str, on_change, **settings) -> SimpleNamespace:
        st.session_state[key] = context
        now = dict(vars(context.state))
        if states and states[-1] != now:
            on_change()
        states.append(now)
        return context

    monkeypatch.setattr("streamlit_webrtc.webrtc_streamer", webrtc_streamer)
    monkeypatch.setattr("web.webcam.RATE_WINDOW_S", 60)  # a busy machine's pause is not a stalled stream
    return context


def open_in_browser_mode() -> AppTest:
    page = load_page("live")
    page.session_state["read"] = "browser"
    return page.run()


def press(page: AppTest, label: str) -> None:
    next(button for button in page.button if button.label == label).click().run()


def chart(page: AppTest) -> tuple[dict, pd.DataFrame]:
    """Return the Vega-Lite spec of the page's chart, and its data."""
    [chart] = page.get("vega_lite_chart")
    return json.loads(chart.proto.spec), convert_arrow_bytes_to_pandas_df(chart.proto.data.data)


# On the server


def test_before_the_start_the_page_says_what_to_do():
    page = open_page("live")
    assert metric(page) == "–"
    assert "Press Start" in texts(page)
    assert [(toggle.label, toggle.value) for toggle in page.toggle] == [("Mirror", True), ("Heatmap", False)]
    assert page.slider[0].value == 0


@pytest.mark.parametrize(
    ("url", "variable", "run_on"),
    [
        ("http://localhost:8501/", "", "server"),
        ("http://127.0.0.1:8501/", "", "server"),
        ("http://[fd00::7]/", "", "server"),
        ("http://192.168.1.7:8501/", "", "server"),
        ("http://kitchen:8501/", "", "server"),
        ("http://kitchen.local:8501/", "", "server"),
        ("https://handful.example.org/", "", "browser"),
        ("https://handful.example.org/", "TURN_URLS", "server"),
        ("https://handful.example.org/", "HF_TOKEN", "server"),
        ("http://8.8.8.8/", "", "browser"),
    ],
)
def test_the_browser_runs_the_model_if_the_server_is_remote_and_has_no_turn(
    connection, monkeypatch, url, variable, run_on
):
    monkeypatch.setattr("streamlit.runtime.context.ContextProxy.url", url)
    monkeypatch.setattr(browser, "camera", lambda *args, **kwargs: {"running": False})
    monkeypatch.setattr(turn_servers, "fetch", list)
    if variable:
        monkeypatch.setenv(variable, "turn:turn.example.org")
    assert open_page("live").session_state["read"] == run_on


@pytest.mark.parametrize(("value", "run_on"), [("browser", "browser"), ("server", "server"), ("nonsense", "server")])
def test_the_address_parameter_says_where_to_run(connection, monkeypatch, value, run_on):
    monkeypatch.setattr(browser, "camera", lambda *args, **kwargs: {"running": False})
    page = load_page("live")
    page.query_params["read"] = value
    page.run()
    [control] = page.segmented_control
    assert control.value == run_on
    assert control.options == ["Server", "This device"]
    control.set_value("browser").run()
    assert page.query_params["read"] == "browser"


def test_the_page_shows_the_latest_prediction(connection):
    page = open_page("live")
    assert metric(page) == "–"
    assert "Waiting for the camera" in texts(page)

    processor = connection.video_processor
    processor.recv(video_frame(IMAGE))
    page.toggle[1].set_value(True)
    page.slider[0].set_value(50).run()
    assert processor.gradcam
    assert processor.stream.min_confidence == 0.5
    assert metric(page) == "3"
    assert "**left · 3**" in texts(page)
    assert " ms per frame" in texts(page)
    # For screen readers: the count as it changes, and each row of the bars as a sentence.
    [region] = page.get("bidi_component")
    assert json.loads(region.proto.json) == "3 fingers"
    probabilities = processor.stream.latest.prediction.hands[0].probabilities
    assert f'aria-label="3: {probabilities[3]:.0%} left, {probabilities[9]:.0%} right"' in page.html[0].body


def test_every_hand_has_its_finger_marks(connection):
    hands = make_hand("2L", fingers=(0.1, 0.9, 0.2, 0.3, 0.8)), make_hand("0R", box=(420.0, 100.0, 600.0, 400.0))
    connection.video_processor.stream.latest = Latest(make_prediction(*hands), math.inf, 20)
    page = open_page("live")
    assert finger_marks(page) == ["raised: index, little", "raised: none"]
    left, right = probability_bars(page)
    assert re.findall('<i class="(raised|)"></i>', left) == ["", "raised", "", "", "raised"]
    assert re.findall('<i class="(raised|)"></i>', right) == [""] * 5
    assert 'class="fingers left"' in left
    assert 'class="fingers right"' in right

    connection.video_processor.stream.latest = Latest(make_prediction(), math.inf, 20)
    page.run()
    assert finger_marks(page) == []


def test_the_page_shows_that_no_hand_is_in_view_and_that_video_has_stopped(connection):
    connection.video_processor.recv(video_frame(IMAGE))
    page = open_page("live")
    latest = connection.video_processor.stream.latest
    connection.video_processor.stream.latest = latest._replace(prediction=Prediction((), 64, 48, 1))
    page.run()
    assert metric(page) == "–"
    assert "No hand in view." in texts(page)

    connection.video_processor.stream.latest = latest._replace(time=time.monotonic() - 61)
    page.run()
    assert "Video has stopped" in page.warning[0].value
    assert metric(page) == "–"
    connection.video_processor.recv(video_frame(IMAGE))
    page.run()
    assert not page.warning
    assert metric(page) == "3"


def test_the_page_offers_this_device_when_no_connection_comes(connection, monkeypatch):
    connection.state.playing, connection.state.signalling = False, True
    page = open_page("live")
    assert not page.warning
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 9)
    page.run()
    assert "No video is coming through" in page.warning[0].value
    assert "Connecting …" in texts(page)
    assert "Press Start" not in texts(page)
    # The offer stays after the connection was given up, until Start is pressed again.
    connection.state.signalling = False
    page.run().run()
    assert "No video is coming through" in page.warning[0].value
    assert "Press Start" in texts(page)
    connection.state.signalling = True
    connection.video_processor = WebcamProcessor()
    page.run()
    assert not page.warning
    monkeypatch.setattr(time, "monotonic", lambda: now + 18)
    connection.state.signalling = False
    page.run()
    press(page, "Run on this device")
    assert page.session_state["read"] == "browser"
    assert page.query_params["read"] == "browser"
    assert not page.warning


def test_a_lost_connection_is_shown_until_the_next_start(connection):
    stream = connection.video_processor.stream
    page = open_page("live")

    def end() -> AppTest:
        connection.state.playing = False
        return page.run().run()

    stream.latest = Latest(make_prediction(make_hand("3L")), time.monotonic() - 61, 20)
    assert "connection was lost" in end().warning[0].value
    connection.video_processor, connection.state.signalling = None, True
    assert not page.run().warning

    # A stream that ends at once, without a frame, is a problem of its own.
    connection.state.signalling = False
    assert "No video is coming through" in end().warning[0].value

    # A stream that ends while frames come was stopped by the visitor.
    connection.video_processor, connection.state.playing = WebcamProcessor(), True
    page.run()
    connection.video_processor.stream.latest = Latest(make_prediction(make_hand("3L")), time.monotonic(), 20)
    assert not end().warning
    assert "Press Start" in texts(page)


@pytest.mark.parametrize("connected", [True, False])
def test_a_connection_that_does_not_come_is_stopped(connection, monkeypatch, connected):
    monkeypatch.setattr("web.webcam.CONNECT_TIMEOUT_S", 0.01)
    connection.state.playing, connection.state.signalling = False, True
    worker = connection._get_worker()
    if connected:
        worker.pc.connectionState = "connected"
    page = open_page("live").run()
    if connected:
        time.sleep(0.1)
        assert worker.stopped == []
        return
    while not worker.stopped:
        time.sleep(0.01)
    # streamlit-webrtc makes another one for the same offer
    connection.video_processor = WebcamProcessor()
    page.run()
    while worker.stopped != [True, True]:
        time.sleep(0.01)


def test_before_the_start_an_expander_explains_camera_problems(connection):
    connection.state.playing = False
    page = open_page("live")
    [expander] = [expander for expander in page.expander if "not start" in expander.label]
    text = expander.markdown[0].value
    assert all(part in text for part in ("access is blocked", "Another program", "No camera was found", "HTTPS"))
    expander.button[0].click().run()
    assert page.session_state["read"] == "browser"

    connection.state.playing = True
    page = open_page("live")
    assert not any("not start" in expander.label for expander in page.expander)


def test_a_full_server_offers_this_device(monkeypatch):
    monkeypatch.setattr("web.cpu.available_cores", lambda: 3)
    metrics.last_frame_times.update(dict.fromkeys("abcde", math.inf))
    assert not open_page("live").info
    metrics.last_frame_times["f"] = math.inf
    page = open_page("live")
    assert "at capacity" in page.info[0].value
    page.button[0].click().run()
    assert page.session_state["read"] == "browser"
    assert not page.info


def test_a_waiting_visitor_gets_a_free_slot(monkeypatch):
    monkeypatch.setattr("web.cpu.available_cores", lambda: 1)
    streams = iter([2, 1, 1])  # one ends before the fragment that waits has run
    monkeypatch.setattr(metrics, "active_streams", lambda: next(streams))
    page = open_page("live")
    assert not page.info
    assert "Press Start" in texts(page)


def test_a_hint_is_shown(connection):
    connection.video_processor.recv(video_frame(np.zeros((480, 640, 3), np.uint8)))
    assert "too dark" in open_page("live").warning[0].value


# The chart


def test_the_chart_has_one_point_per_change_and_grows_beyond_ten_fingers():
    def show(totals: list[int]) -> None:
        from web.widgets import show_count_chart

        show_count_chart(list(enumerate(totals)), 120, (0, 30))

    page = AppTest.from_function(show, args=([1, 1, 1, 3, 3, 3],)).run()
    spec, steps = chart(page)
    assert steps.to_numpy().tolist() == [[0, 1], [3, 3], [5, 3]]
    assert spec["encoding"]["y"]["scale"]["domain"] == [0, 10]
    assert spec["encoding"]["x"]["scale"]["domain"] == [0, 30]
    spec, _ = chart(AppTest.from_function(show, args=([1, 17],)).run())
    assert spec["encoding"]["y"]["scale"]["domain"] == [0, 17]
    assert spec["encoding"]["y"]["axis"]["values"] == [0, 5, 10, 15]


def test_the_chart_is_drawn_while_another_thread_appends_frames(connection):
    stream = connection.video_processor.stream
    feed(stream, make_prediction(make_hand("3L")), 0, 30)
    stream.latest = stream.latest._replace(time=math.inf)
    stream.history.extend(100_000 * [(30.0, 3)])  # so many that the other thread runs before all are copied
    started, ended = Event(), Event()

    def append_frames() -> None:
        while not ended.is_set():
            stream.history.append(stream.history.popleft())
            started.set()
            time.sleep(0)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # as on a busy server
    thread = Thread(target=append_frames)
    thread.start()
    try:
        started.wait()
        page = open_page("live")
    finally:
        ended.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert chart(page)[1].fingers.tolist() == [3, 3]


# In the browser


def test_a_prediction_survives_the_way_from_the_browser():
    expected = shared_counter()(IMAGE)
    message = {
        "width": expected.width,
        "height": expected.height,
        "milliseconds": 20.5,
        "hands": [
            {
                "box": hand.box,
                "crop": hand.crop,
                "probabilities": hand.probabilities.tolist(),
                "finger_probabilities": hand.finger_probabilities.tolist(),
            }
            for hand in expected.hands
        ],
    }
    parsed = browser.parse_prediction(json.loads(json.dumps(message)))
    assert parsed.milliseconds == 20.5
    assert parsed.to_dict() | {"ms": 0} == expected.to_dict() | {"ms": 0}


def test_predictions_from_the_browser_update_the_page(monkeypatch):
    hand = make_hand("3L")
    sent = {"box": hand.box, "crop": hand.crop, "probabilities": hand.probabilities.tolist()}
    sent["finger_probabilities"] = [0.9, 0.8, 0.1, 0.2, 0.7]
    message = {"width": 640, "height": 480, "milliseconds": 20.5, "hands": [sent], "seconds": 0.5, "brightness": 120}

    def camera(key: str, on_predictions, **settings) -> dict:
        st.session_state[key] = {"predictions": [message]}
        on_predictions()
        return {"running": True}

    monkeypatch.setattr(browser, "camera", camera)
    page = open_in_browser_mode()
    assert not page.exception
    assert metric(page) == "3"
    assert finger_marks(page) == ["raised: thumb, index, little"]
    assert "20 ms per frame" in texts(page)


@pytest.mark.parametrize("milliseconds", ["NaN", "Infinity", "-1", "1e300"])
def test_a_forged_duration_does_not_spoil_the_metrics(milliseconds):
    message = json.loads(f'{{"hands": [], "width": 640, "height": 480, "milliseconds": {milliseconds}}}')
    before = metrics.REGISTRY.get_sample_value("handful_reading_seconds_sum", {"where": "browser"}) or 0
    metrics.record_prediction(browser.parse_prediction(message), "browser")
    after = metrics.REGISTRY.get_sample_value("handful_reading_seconds_sum", {"where": "browser"})
    assert 0 <= after - before <= 10


def test_each_picture_of_the_camera_is_predicted_once(monkeypatch):
    class Picture(BytesIO):
        """A picture of `st.camera_input`."""

        file_id = ""

    monkeypatch.setattr(browser, "camera", lambda *args, **kwargs: {"running": False, "problem": "runtime"})
    contents = iter([*2 * [b"no picture"], REFUSED_FILE, *3 * [(SAMPLES / "3L_0.jpg").read_bytes()]])
    predicted, refused = [], []
    predict_file = inference.predict_file
    monkeypatch.setattr(inference, "predict_file", lambda *args: (predicted.append(args), predict_file(*args))[1])
    monkeypatch.setattr(metrics, "record_refusal", lambda *args: refused.append(args))

    def camera_input(label: str) -> BytesIO:
        picture = Picture(next(contents))
        picture.file_id = str(len(picture.getvalue()))
        return picture

    monkeypatch.setattr(st, "camera_input", camera_input)
    page = load_page("live")
    page.session_state["read"] = "browser"
    for _ in range(2):
        assert len(page.run().error) == 2  # the camera's problem, and the picture's
    assert page.run().error[1].value == SERVER_FULL
    for _ in range(3):
        page.run()
    assert metric(page, "Side") == "left"
    assert (len(predicted), refused) == (2, [("live", 415), ("live", 503)])


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        ("missing", "No camera was found"),
        ("refused", "access is blocked"),
        ("busy", "Another program"),
        ("insecure", "HTTPS"),
        ("lost", "disconnected"),
        ("runtime", "cannot run the model"),
        ("a problem of a later version", "could not be opened"),
    ],
)
def test_every_problem_with_the_camera_has_a_message(monkeypatch, problem, text):
    monkeypatch.setattr(browser, "camera", lambda *args, **kwargs: {"running": False, "problem": problem})
    page = open_in_browser_mode()
    assert text in page.error[0].value
    assert metric(page) == "–"


def test_a_browser_that_stops_sending_is_noticed(monkeypatch):
    state, tracked, intervals, fragment = {"running": True}, [], [], st.fragment

    def note_interval(function=None, *, run_every: float | None = None):
        if function is None:
            intervals.append(run_every)
        return fragment(function, run_every=run_every)

    def camera(*args, **settings) -> dict:
        tracked.append(settings["tracked"])
        return state

    monkeypatch.setattr(st, "fragment", note_interval)
    monkeypatch.setattr(browser, "camera", camera)
    page = open_in_browser_mode()
    assert intervals[-1] == 1
    stream = page.session_state["stream"]
    stream.latest = Latest(make_prediction(make_hand("3L")), math.inf, 20)
    page.toggle[0].set_value(False).run()
    assert metric(page) == "3"
    assert page.session_state["stream"] is stream  # settings do not interrupt it
    assert tracked[-1] == stream.latest.prediction.hands

    stream.latest = stream.latest._replace(time=time.monotonic() - 10)
    page.run()
    assert metric(page) == "–"
    assert "Video has stopped" in page.warning[0].value
    assert tracked[-1] == ()

    state["running"] = False
    page.run()
    assert intervals[-1] is None
    assert "Press Start" in texts(page)
    state["running"] = True
    page.run()
    assert not page.warning
    assert "Waiting for the camera" in texts(page)


# The game on the page


def start_game(connection: SimpleNamespace) -> AppTest:
    """Open the page with frames that never end, unfold the game and start it."""
    connection.video_processor.stream.latest = Latest(make_prediction(make_hand("3L")), math.inf, 20)
    page = open_page("live")
    assert "Play" not in [button.label for button in page.button]  # folded
    page.session_state["show me"] = True
    page.run()
    press(page, "Play")
    return page


def test_a_correct_answer_is_counted(connection, monkeypatch):
    page = start_game(connection)
    game = page.session_state["game"]
    assert metric(page, "Show me") == str(game.target)
    hand = make_hand(f"{game.target}L")
    connection.video_processor.stream.latest = Latest(make_prediction(hand), math.inf, 20)
    page.run()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1)
    page.run()
    assert "**1 of 1** correct" in texts(page)


@pytest.mark.parametrize("reason", ["folded", "stalled"])
def test_the_game_stops_when_it_is_not_visible(connection, monkeypatch, reason):
    page = start_game(connection)
    game = page.session_state["game"]
    assert game.target is not None

    stream = connection.video_processor.stream
    if reason == "folded":
        page.session_state["show me"] = False
    else:
        stream.latest = stream.latest._replace(time=time.monotonic() - 3)
    page.run()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + TIME_LIMIT_S + 60)
    page.session_state["show me"] = True
    page.run()
    assert (game.target, game.answers) == (None, [])
