"""The Live page without a browser: what frames tell over time, what helps a visitor, the game."""

import asyncio
import json
import math
import re
import sys
import time
from base64 import b64encode
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from urllib.error import URLError

import av
import numpy as np
import pandas as pd
import pytest
import streamlit as st
from aiortc import MediaStreamTrack
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from streamlit.testing.v1 import AppTest
from streamlit_webrtc.process import AsyncVideoProcessTrack

import web.inference
from handful import CLASSES, Hand, Prediction, shared_counter
from handful.images import decode
from handful.overlay import draw
from web import browser_camera as browser
from web import turn_servers as relay
from web.cpu import available_cores
from web.game import HOLD, LIMIT, Answer, Game
from web.log import LOG
from web.uploads import FULL, NO_ROOM
from web.webcam import DARK, Camera, Latest, Stream

ROOT = Path(__file__).parents[2]
PICTURE = decode(ROOT / "assets/samples/3L_0.jpg")


@pytest.fixture(autouse=True)
def no_session(monkeypatch):
    """Without a server there is no session for streamlit-webrtc to ask, and nobody else's camera."""
    web.inference.last_frames.clear()
    monkeypatch.setattr("streamlit_webrtc.component.get_this_session_info", lambda: None)


def prediction(*hands: Hand) -> Prediction:
    return Prediction(hands, 640, 480, 5.0)


def hand(label: str, box=(200.0, 100.0, 400.0, 400.0), confidence: float = 0.99) -> Hand:
    probabilities = np.full(12, (1 - confidence) / 11, np.float32)
    probabilities[CLASSES.index(label)] = confidence
    side = {"L": "left", "R": "right"}[label[1]]
    return Hand(box, box, int(label[0]), side, confidence, probabilities, np.zeros((12, 8, 8), np.float32))


def follow(stream: Stream, one: Prediction, start: float, seconds: float, light: float = 120) -> None:
    """The same reading in every frame of a time, 20 a second."""
    for frame in range(round(20 * seconds) + 1):
        stream.follow(one, start + frame / 20, light)


# What frames tell over time


def test_the_last_half_minute_is_kept():
    stream = Stream()
    follow(stream, prediction(hand("2L")), 0, 20)
    follow(stream, prediction(hand("2L"), hand("5R", (420.0, 100.0, 600.0, 400.0))), 20.05, 20)
    seconds, totals = zip(*stream.history, strict=True)
    assert seconds[0] == pytest.approx(seconds[-1] - 30, abs=0.1)
    assert set(totals) == {2, 7}
    # A camera that is started anew starts with nothing.
    stream.follow(prediction(), 0.0, 120)
    assert list(stream.history) == [(0.0, 0)]


def test_hands_that_are_not_sure_enough_are_not_told():
    stream = Stream()
    doubtful = prediction(hand("2L", confidence=0.6))
    assert stream.follow(doubtful, 0, 120).total == 2
    stream.sure = 0.9
    assert stream.follow(doubtful, 0.1, 120).hands == ()


def test_frames_are_counted_over_a_moving_window(monkeypatch):
    stream = Stream()
    stream.follow(prediction(), 100.0, 120)
    assert stream.latest.rate == 0
    for frame in range(1, 21):
        stream.follow(prediction(), 100 + frame / 10, 120)
    assert stream.latest.rate == pytest.approx(10)
    for frame in range(1, 61):
        stream.follow(prediction(), 102 + frame / 20, 120)
    assert stream.latest.rate == pytest.approx(20)
    assert not stream.latest.old
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3)
    assert stream.latest.old


@pytest.mark.parametrize(
    ("one", "light", "advice"),
    [
        (prediction(hand("3R")), 120, ""),
        (prediction(), 120, "No hand for a while"),
        (prediction(hand("3R")), DARK - 1, "too dark"),
        (prediction(hand("3R", (0.0, 100.0, 200.0, 400.0))), 120, "cut off"),
        (prediction(hand("3R", (200.0, 2.0, 400.0, 300.0))), 120, "cut off"),
        (prediction(hand("3R", (500.0, 100.0, 640.0, 400.0))), 120, "cut off"),
        # At the lower edge, that is the arm.
        (prediction(hand("3R", (200.0, 200.0, 400.0, 480.0))), 120, ""),
    ],
)
def test_a_visitor_is_told_what_would_help(one, light, advice):
    stream = Stream()
    assert stream.advice == ""
    follow(stream, one, 0, 6, light)
    assert advice in stream.advice
    assert bool(stream.advice) == bool(advice)


def test_help_comes_only_after_a_while_without_a_hand():
    stream = Stream()
    follow(stream, prediction(hand("3R")), 0, 3)
    follow(stream, prediction(), 3, 4.5)
    assert stream.advice == ""
    follow(stream, prediction(), 7.5, 1)
    assert "No hand" in stream.advice


def drawn(page: AppTest) -> tuple[dict, pd.DataFrame]:
    """The page's chart: how it is drawn, and from what."""
    [chart] = page.get("vega_lite_chart")
    return json.loads(chart.proto.spec), convert_arrow_bytes_to_pandas_df(chart.proto.data.data)


def test_the_chart_has_the_steps_of_the_count_and_room_for_four_hands():
    def show(totals: list[int]) -> None:
        from web.widgets import show_counts

        show_counts(list(enumerate(totals)), 120, (0, 30))

    page = AppTest.from_function(show, args=([1, 1, 1, 3, 3, 3],)).run()
    told, steps = drawn(page)
    assert steps.to_numpy().tolist() == [[0, 1], [3, 3], [5, 3]]
    assert told["encoding"]["y"]["scale"]["domain"] == [0, 10]
    assert told["encoding"]["x"]["scale"]["domain"] == [0, 30]
    told, _ = drawn(AppTest.from_function(show, args=([1, 17],)).run())
    assert told["encoding"]["y"]["scale"]["domain"] == [0, 17]
    assert told["encoding"]["y"]["axis"]["values"] == [0, 5, 10, 15]


# On the server


def video_frame(image: np.ndarray) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
    frame.pts, frame.time_base = 0, Fraction(1, 90000)
    return frame


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("gradcam", [True, False])
def test_camera_tells_the_frame_and_shows_its_mirror_image(mirror, gradcam):
    camera = Camera()
    camera.mirror, camera.gradcam = mirror, gradcam
    shown = camera.recv(video_frame(PICTURE)).to_ndarray(format="rgb24")
    told = shared_counter()(PICTURE)
    assert camera.stream.latest.prediction.to_dict() | {"ms": 0} == told.to_dict() | {"ms": 0}
    assert (shown == draw(PICTURE, told, gradcam=gradcam, mirror=mirror)).all()


class Film(MediaStreamTrack):
    """Frames whose colour is their number."""

    kind = "video"
    number = 0

    async def recv(self) -> av.VideoFrame:
        await asyncio.sleep(0.01)
        self.number += 1
        return video_frame(np.full((48, 64, 3), self.number, np.uint8))


def test_a_slow_reader_drops_frames_and_is_never_behind(monkeypatch):
    film = Film()
    behind: list[int] = []

    def read_slowly(image: np.ndarray) -> Prediction:
        behind.append(film.number - image[0, 0, 0])
        # As long as ten frames take, however slow this machine is just now.
        end = film.number + 10
        while film.number < end and film.readyState == "live":
            time.sleep(0.001)
        return Prediction((), 64, 48, 1)

    monkeypatch.setattr(web.inference, "shared_counter", lambda: read_slowly)
    dropped = web.inference.DROPPED._value.get()

    async def watch() -> None:
        track = AsyncVideoProcessTrack(film, Camera())
        for _ in range(100):
            await track.recv()
        film.stop()

    asyncio.run(watch())
    assert 2 <= len(behind) <= 11
    assert max(behind) <= 2  # a queue would be 90 behind at the end
    assert web.inference.DROPPED._value.get() > dropped


def open_page() -> AppTest:
    page = AppTest.from_file(ROOT / "pages/live.py", default_timeout=60).run()
    assert not page.exception
    return page


def fingers(page: AppTest) -> str:
    return next(metric.value for metric in page.metric if metric.label == "Fingers")


def texts(page: AppTest) -> str:
    return "\n".join(element.value for element in (*page.markdown, *page.caption, *page.warning, *page.error))


def test_live_waits_for_its_visitor():
    page = open_page()
    assert fingers(page) == "–"
    assert "Press Start" in texts(page)
    assert [(toggle.label, toggle.value) for toggle in page.toggle] == [
        ("Mirror", True),
        ("Show where the model looks", False),
    ]
    assert page.slider[0].value == 0


@pytest.fixture
def connection(monkeypatch) -> SimpleNamespace:
    """A stream to the server, as streamlit-webrtc tells of it."""
    pc, stopped = SimpleNamespace(connectionState="connecting"), []
    worker = SimpleNamespace(pc=pc, stopped=stopped, stop=lambda: stopped.append(True))
    state = SimpleNamespace(playing=True, signalling=False)
    context = SimpleNamespace(video_processor=Camera(), state=state, _get_worker=lambda: worker)
    known = []

    def streamer(key: str, on_change, **settings) -> SimpleNamespace:
        st.session_state[key] = context
        now = dict(vars(context.state))
        if known and known[-1] != now:
            on_change()
        known.append(now)
        return context

    monkeypatch.setattr("streamlit_webrtc.webrtc_streamer", streamer)
    monkeypatch.setattr("web.webcam.WINDOW", 60)  # a busy machine's pause is not a camera that stopped
    return context


@pytest.mark.parametrize(
    ("url", "named", "way"),
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
def test_far_from_the_server_the_browser_reads_unless_there_is_a_relay(connection, monkeypatch, url, named, way):
    monkeypatch.setattr("streamlit.runtime.context.ContextProxy.url", url)
    monkeypatch.setattr(browser, "camera", lambda *args, **kwargs: {"running": False})
    monkeypatch.setattr(relay, "fetch", list)
    if named:
        monkeypatch.setenv(named, "turn:turn.example.org")
    assert open_page().session_state["read"] == way


def test_live_tells_what_the_camera_read(connection):
    page = open_page()
    assert fingers(page) == "–"
    assert "Waiting for the camera" in texts(page)

    camera = connection.video_processor
    camera.recv(video_frame(PICTURE))
    page.toggle[1].set_value(True)
    page.slider[0].set_value(50).run()
    assert camera.gradcam
    assert camera.stream.sure == 0.5
    assert fingers(page) == "3"
    assert "**left · 3**" in texts(page)
    assert "frames a second" in texts(page)
    # Screen readers tell the count as it changes, and each row of the bars in words.
    [region] = page.get("bidi_component")
    assert json.loads(region.proto.json) == "3 fingers"
    told = camera.stream.latest.prediction.hands[0].probabilities
    assert f'aria-label="3: {told[3]:.0%} left, {told[9]:.0%} right"' in page.get("html")[0].proto.body

    latest = camera.stream.latest
    camera.stream.latest = latest._replace(prediction=Prediction((), 64, 48, 1))
    page.run()
    assert fingers(page) == "–"
    assert "No hand in sight." in texts(page)

    camera.stream.latest = latest._replace(when=time.monotonic() - 61)
    page.run()
    assert "Nothing comes any more" in page.warning[0].value
    assert fingers(page) == "–"
    camera.recv(video_frame(PICTURE))
    page.run()
    assert not page.warning
    assert fingers(page) == "3"


def test_live_offers_the_other_way_when_no_connection_comes(connection, monkeypatch):
    connection.state.playing, connection.state.signalling = False, True
    page = open_page()
    assert not page.warning
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 9)
    page.run()
    assert "No picture comes through" in page.warning[0].value
    assert "Connecting …" in texts(page)
    assert "Press Start" not in texts(page)
    # Whoever looks back once it was given up meets the same, until Start is pressed again.
    connection.state.signalling = False
    page.run().run()
    assert "No picture comes through" in page.warning[0].value
    assert "Press Start" in texts(page)
    connection.state.signalling = True
    connection.video_processor = Camera()
    page.run()
    assert not page.warning
    monkeypatch.setattr(time, "monotonic", lambda: now + 18)
    connection.state.signalling = False
    page.run()
    next(button for button in page.button if button.label == "Read by this browser").click().run()
    assert page.session_state["read"] == "browser"
    assert not page.warning


def test_a_connection_that_was_lost_is_told_until_the_next_start(connection):
    stream = connection.video_processor.stream
    page = open_page()

    def end() -> AppTest:
        connection.state.playing = False
        return page.run().run()

    stream.latest = Latest(prediction(hand("3L")), time.monotonic() - 61, 20)
    assert "connection was lost" in end().warning[0].value
    connection.video_processor, connection.state.signalling = None, True
    assert not page.run().warning

    # What ends at once, without a picture, has nothing to do with what was before.
    connection.state.signalling = False
    assert "No picture comes through" in end().warning[0].value

    # Whoever presses Stop while frames come knows why it ended.
    connection.video_processor, connection.state.playing = Camera(), True
    page.run()
    connection.video_processor.stream.latest = Latest(prediction(hand("3L")), time.monotonic(), 20)
    assert not end().warning
    assert "Press Start" in texts(page)


@pytest.mark.parametrize("came", [True, False])
def test_a_connection_that_does_not_come_is_let_go_of(connection, monkeypatch, came):
    monkeypatch.setattr("web.webcam.GIVE_UP", 0.01)
    connection.state.playing, connection.state.signalling = False, True
    worker = connection._get_worker()
    if came:
        worker.pc.connectionState = "connected"
    page = open_page().run()
    if came:
        time.sleep(0.1)
        assert worker.stopped == []
        return
    while not worker.stopped:
        time.sleep(0.01)
    # streamlit-webrtc makes another one for the same offer
    connection.video_processor = Camera()
    page.run()
    while worker.stopped != [True, True]:
        time.sleep(0.01)


def test_what_to_do_where_the_camera_does_not_start_is_there(connection):
    connection.state.playing = False
    page = open_page()
    [help_] = [one for one in page.expander if "not start" in one.label]
    told = help_.markdown[0].value
    assert all(words in told for words in ("may not use the camera", "Another program", "No camera was found", "https"))
    help_.button[0].click().run()
    assert page.session_state["read"] == "browser"

    connection.state.playing = True
    page = open_page()
    assert not any("not start" in one.label for one in page.expander)


@pytest.mark.parametrize(("quota", "left"), [("max 100000", 64), ("200000 100000", 2), ("50000 100000", 1), (None, 64)])
def test_a_container_has_the_cores_that_it_was_given(monkeypatch, tmp_path, quota, left):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)))
    monkeypatch.setattr("web.cpu.QUOTA", tmp_path / "cpu.max")
    if quota:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert available_cores() == left
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {5})
    assert available_cores() == 1


def test_past_its_limit_the_server_sends_visitors_to_their_browsers(monkeypatch):
    monkeypatch.setattr("web.cpu.available_cores", lambda: 3)
    web.inference.last_frames.update(dict.fromkeys("abcde", math.inf))  # frames go on and on
    assert not open_page().info
    web.inference.last_frames["f"] = math.inf
    page = open_page()
    assert "as many cameras as it can" in page.info[0].value
    page.button[0].click().run()
    assert page.session_state["read"] == "browser"
    assert not page.info


def test_a_visitor_who_waits_for_a_place_gets_one(monkeypatch):
    monkeypatch.setattr("web.cpu.available_cores", lambda: 1)
    taken = iter([2, 1, 1])  # one is free when the fragment that tells of it looks
    monkeypatch.setattr(web.inference, "streams", lambda: next(taken))
    page = open_page()
    assert not page.info
    assert "Press Start" in texts(page)


def test_cameras_are_counted_while_they_run(monkeypatch):
    camera = Camera()
    assert web.inference.streams() == 0  # a connection that fails brings no frame, and never ends
    camera.on_ended()
    assert web.inference.streams() == 0
    for _ in range(2):
        camera.recv(video_frame(PICTURE))
    assert web.inference.streams() == 1
    assert web.inference.REGISTRY.get_sample_value("handful_streams") == 1
    # Whoever closes the page leaves a connection that stays for half a minute.
    now = time.monotonic()
    with monkeypatch.context() as later:
        later.setattr(time, "monotonic", lambda: now + 3)
        assert web.inference.streams() == 0
        camera.recv(video_frame(PICTURE))
        assert web.inference.streams() == 1
    for _ in range(2):
        camera.on_ended()
    assert web.inference.streams() == 0


def test_the_chart_is_drawn_while_frames_come(connection):
    stream = connection.video_processor.stream
    follow(stream, prediction(hand("3L")), 0, 30)
    stream.latest = stream.latest._replace(when=math.inf)
    stream.history.extend(100_000 * [(30.0, 3)])  # so many that another thread has its turn before all are seen
    begun, ended = Event(), Event()

    def film() -> None:
        while not ended.is_set():
            stream.history.append(stream.history.popleft())
            begun.set()
            time.sleep(0)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads take turns as often as they may on a busy server
    thread = Thread(target=film)
    thread.start()
    try:
        begun.wait()
        page = open_page()
    finally:
        ended.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert drawn(page)[1].fingers.tolist() == [3, 3]


def test_only_what_helps_is_told(connection):
    camera = connection.video_processor
    camera.recv(video_frame(np.zeros((480, 640, 3), np.uint8)))
    page = open_page()
    assert "too dark" in page.warning[0].value


# The way there


def service(*answers: dict | OSError):
    """What stands for a service that gives credentials: it answers so, one request after the other."""
    left = iter(answers)

    def ask(request, timeout: float) -> BytesIO:
        if isinstance(answer := next(left), OSError):
            raise answer
        body = BytesIO(json.dumps(answer).encode())
        body.status = 200
        return body

    return ask


@pytest.fixture
def minutes(monkeypatch) -> list[float]:
    """How late it is: a list of one number."""
    late, start = [0.0], time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: start + 60 * late[0])
    monkeypatch.setattr(relay, "_kept", ([], 0.0, 0.0))
    return late


def test_credentials_of_a_relay_are_fetched_anew_long_before_they_lapse(monkeypatch, minutes):
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    answers = [{"username": str(n), "credential": "secret"} for n in range(2)]
    monkeypatch.setattr("urllib.request.urlopen", service(*answers))
    told = []
    # What streamlit-webrtc is told, browser and server alike.
    monkeypatch.setattr(
        "streamlit_webrtc.component._component_func", lambda **args: told.append(args["rtc_configuration"])
    )
    for late in (0, 9, 11):
        minutes[0] = late
        open_page()
    assert [one["iceServers"][0]["username"] for one in told] == ["0", "0", "1"]


def test_a_service_that_gave_no_credentials_is_asked_again(monkeypatch, minutes, caplog):
    monkeypatch.setattr(LOG, "handlers", [caplog.handler])
    monkeypatch.setattr(LOG, "propagate", False)
    monkeypatch.setenv("CLOUDFLARE_TURN_KEY_ID", "key")
    monkeypatch.setenv("CLOUDFLARE_TURN_KEY_API_TOKEN", "token")
    given = [{"urls": ["turn:turn.example.org"], "username": "visitor", "credential": "secret"}]
    lost = URLError("https://example.org/key/token")
    monkeypatch.setattr("urllib.request.urlopen", service(lost, lost, {"iceServers": given}, *4 * [lost]))
    for late, servers in ((0, [relay.STUN]), (0.5, [relay.STUN]), (1.1, [relay.STUN]), (2.2, given), (11, given)):
        minutes[0] = late
        assert relay.ice_servers() == servers
    # What it gave is handed out for as long as it holds.
    for late, servers in ((13, given), (13.5, given), (14.1, given), (52, given), (53.1, [relay.STUN])):
        minutes[0] = late
        assert relay.ice_servers() == servers
    assert [record.variable for record in caplog.records] == 6 * ["CLOUDFLARE_TURN_KEY_ID"]
    assert not re.search("secret|token|example|visitor", str([vars(record) for record in caplog.records]))


def test_a_service_that_is_slow_holds_up_one_visitor_alone(monkeypatch, minutes):
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    asked, answered = Event(), Event()
    monkeypatch.setattr(relay, "fetch", lambda: ["first"])
    assert relay.ice_servers() == ["first"]
    monkeypatch.setattr(relay, "fetch", lambda: (asked.set(), answered.wait(10), ["second"])[-1])
    minutes[0] = 11
    visitor = Thread(target=relay.ice_servers)
    visitor.start()
    asked.wait(10)
    assert relay.ice_servers() == ["first"]
    answered.set()
    visitor.join()
    assert relay.ice_servers() == ["second"]


def test_twilio_gives_servers_to_an_account(monkeypatch, minutes):
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", "AC1")
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "secret")
    given = [{"urls": "turn:global.turn.twilio.com:3478", "username": "visitor", "credential": "word"}]
    requests, answer = [], service({"ice_servers": given})

    def ask(request, timeout: float) -> BytesIO:
        requests.append((request.get_method(), request.full_url, request.get_header("Authorization"), timeout))
        return answer(request, timeout)

    monkeypatch.setattr("urllib.request.urlopen", ask)
    assert relay.ice_servers() == given
    login = b64encode(b"AC1:secret").decode()
    url = "https://api.twilio.com/2010-04-01/Accounts/AC1/Tokens.json"
    assert requests == [("POST", url, f"Basic {login}", relay.PATIENCE)]


def test_addresses_of_a_relay_may_have_spaces_between_them(monkeypatch):
    monkeypatch.setenv("TURN_URLS", "turn:a.example.org, turns:b.example.org, ")
    assert relay.ice_servers()[0]["urls"] == ["turn:a.example.org", "turns:b.example.org"]


# In the browser


class Shot(BytesIO):
    """A picture of Streamlit's camera."""

    file_id = ""


def test_what_a_browser_tells_is_a_reading_like_any_other():
    told = shared_counter()(PICTURE)
    sent = {
        "width": told.width,
        "height": told.height,
        "milliseconds": 20.5,
        "hands": [
            {"box": one.box, "crop": one.crop, "probabilities": [float(p) for p in one.probabilities]}
            for one in told.hands
        ],
    }
    back = browser.to_reading(json.loads(json.dumps(sent)))
    assert back.milliseconds == 20.5
    assert back.to_dict() | {"ms": 0} == told.to_dict() | {"ms": 0}


@pytest.mark.parametrize("milliseconds", ["NaN", "Infinity", "-1", "1e300"])
def test_what_one_browser_tells_does_not_spoil_the_numbers_of_all(milliseconds):
    told = json.loads(f'{{"hands": [], "width": 640, "height": 480, "milliseconds": {milliseconds}}}')
    before = web.inference.REGISTRY.get_sample_value("handful_reading_seconds_sum", {"where": "browser"}) or 0
    web.inference.counted(browser.to_reading(told), "browser")
    after = web.inference.REGISTRY.get_sample_value("handful_reading_seconds_sum", {"where": "browser"})
    assert 0 <= after - before <= 10


def test_one_picture_is_read_once(monkeypatch):
    monkeypatch.setattr(browser, "camera", lambda *args, **kwargs: {"running": False, "problem": "runtime"})
    shots = iter([*2 * [b"no picture"], FULL, *3 * [(ROOT / "assets/samples/3L_0.jpg").read_bytes()]])
    read, refused = [], []
    read_picture = web.inference.read_picture
    monkeypatch.setattr(web.inference, "read_picture", lambda *args: (read.append(args), read_picture(*args))[1])
    monkeypatch.setattr(web.inference, "refused", lambda *args: refused.append(args))

    def shoot(label: str) -> BytesIO:
        shot = Shot(next(shots))
        shot.file_id = str(len(shot.getvalue()))
        return shot

    monkeypatch.setattr(st, "camera_input", shoot)
    page = AppTest.from_file(ROOT / "pages/live.py", default_timeout=60)
    page.session_state["read"] = "browser"
    for _ in range(2):
        assert len(page.run().error) == 2  # the problem, and the picture's
    assert page.run().error[1].value == NO_ROOM
    for _ in range(3):
        page.run()
    assert next(metric.value for metric in page.metric if metric.label == "Side") == "left"
    assert (len(read), refused) == (2, [("live", 415), ("live", 503)])


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        ("missing", "No camera was found"),
        ("refused", "may not use the camera"),
        ("busy", "Another program"),
        ("insecure", "https"),
        ("lost", "camera is gone"),
        ("runtime", "cannot run the model"),
        ("never heard of", "could not be opened"),
    ],
)
def test_every_problem_with_the_camera_has_its_words(monkeypatch, problem, words):
    monkeypatch.setattr(browser, "camera", lambda *args, **kwargs: {"running": False, "problem": problem})
    page = AppTest.from_file(ROOT / "pages/live.py", default_timeout=60)
    page.session_state["read"] = "browser"
    page.run()
    assert words in page.error[0].value
    assert fingers(page) == "–"


def test_a_browser_that_stops_telling_is_noticed(monkeypatch):
    state, told, every, fragment = {"running": True}, [], [], st.fragment

    def noted(function=None, *, run_every: float | None = None):
        if function is None:
            every.append(run_every)
        return fragment(function, run_every=run_every)

    def camera(*args, **settings) -> dict:
        told.append(settings["told"])
        return state

    monkeypatch.setattr(st, "fragment", noted)
    monkeypatch.setattr(browser, "camera", camera)
    page = AppTest.from_file(ROOT / "pages/live.py", default_timeout=60)
    page.session_state["read"] = "browser"
    page.run()
    assert every[-1] == 1  # it looks by itself
    stream = page.session_state["stream"]
    stream.latest = Latest(prediction(hand("3L")), math.inf, 20)
    page.toggle[0].set_value(False).run()
    assert fingers(page) == "3"
    assert page.session_state["stream"] is stream  # settings do not interrupt it
    assert told[-1] == stream.latest.prediction.hands  # drawn there as it is told here

    stream.latest = stream.latest._replace(when=time.monotonic() - 10)
    page.run()
    assert fingers(page) == "–"
    assert "Nothing comes any more" in page.warning[0].value
    assert told[-1] == ()

    state["running"] = False
    page.run()
    assert every[-1] is None
    assert "Press Start" in texts(page)
    state["running"] = True
    page.run()
    assert not page.warning
    assert "Waiting for the camera" in texts(page)


# The game


def test_a_number_that_is_shown_and_held_is_right():
    game = Game(seed=1)
    game.see(3, 0.0)  # nobody asked yet
    assert game.answers == []
    game.ask(0.0)
    asked = game.asked
    assert asked != 3
    game.see(3, 1.0)
    game.see(asked, 2.0)
    game.see(asked, 2.0 + HOLD / 2)
    assert game.answers == []
    game.see(asked, 2.01 + HOLD)
    assert game.answers == [Answer(asked, asked, round(2.01 + HOLD, 2))]
    assert game.answers[0].right
    assert game.asked not in (asked, None)


def test_a_number_that_is_not_told_in_time_is_wrong():
    game = Game(seed=1)
    game.ask(10.0)
    other = next(n for n in range(6) if n != game.asked)
    asked = game.asked
    game.see(other, 11.0)
    game.see(other, 10.0 + LIMIT)
    assert game.answers == [Answer(asked, other, LIMIT)]
    assert not game.answers[0].right


def test_no_number_is_asked_twice_in_a_row_nor_one_that_is_shown():
    game = Game(seed=2)
    game.ask(0.0)
    for seconds in range(0, 200, 10):
        before = game.asked
        game.see(before, float(seconds))
        game.see(before, seconds + 1.0)
        assert game.asked != before


def test_the_game_is_played_on_the_page(connection, monkeypatch):
    stream = connection.video_processor.stream
    stream.latest = Latest(prediction(hand("3L")), math.inf, 20)  # frames go on and on
    page = open_page()
    assert "Ask me" not in [button.label for button in page.button]  # folded
    page.session_state["show me"] = True
    page.run()
    next(button for button in page.button if button.label == "Ask me").click().run()
    game = page.session_state["game"]
    asked = next(metric.value for metric in page.metric if metric.label == "Show me")
    assert asked == str(game.asked)
    stream.latest = Latest(prediction(hand(f"{game.asked}L")), math.inf, 20)
    page.run()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1)
    page.run()
    assert "**1 of 1** right" in texts(page)


@pytest.mark.parametrize("unseen", ["folded", "stalled"])
def test_what_nobody_sees_nobody_answers(connection, monkeypatch, unseen):
    stream = connection.video_processor.stream
    stream.latest = Latest(prediction(hand("3L")), math.inf, 20)
    page = open_page()
    page.session_state["show me"] = True
    page.run()
    next(button for button in page.button if button.label == "Ask me").click().run()
    game = page.session_state["game"]
    assert game.asked is not None

    if unseen == "folded":
        page.session_state["show me"] = False
    else:
        stream.latest = stream.latest._replace(when=time.monotonic() - 3)
    page.run()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + LIMIT + 60)
    page.session_state["show me"] = True
    page.run()
    assert (game.asked, game.answers) == (None, [])
