"""The webcam: count fingers live, on the server or in the visitor's browser."""

import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import streamlit as st
from streamlit_webrtc import webrtc_streamer

from handful import Prediction
from handful.images import BadImage, decode
from web import browser_camera as browser
from web import inference, metrics, turn_servers
from web.cpu import available_cores
from web.game import Game
from web.uploads import file_contents
from web.webcam import HISTORY_S, Stream, WebcamProcessor, stop_if_not_connected
from web.widgets import fingers_in_words, show_count_chart, show_prediction, show_probabilities

RUN_ON = {"server": "Server", "browser": "This device"}  # value of the address parameter `read`: label
MAX_STREAMS = 2 * available_cores()  # on the server at once, see `python -m benchmarks load`
CONNECT_HINT_S = 8  # a connection that takes longer gets a hint
NO_CONNECTION = "No video is coming through; a firewall may be blocking it. Run the model on this device instead."
DISCONNECTED = "The camera or the connection was lost. Press Start."


@st.cache_resource
def live_region() -> Callable[..., Any]:
    """Register an invisible ARIA live region. Screen readers do not announce texts that Streamlit replaces."""
    return st.components.v2.component(
        "handful_live_region",
        html='<p role="status"></p>',
        css="p { position: absolute; clip-path: inset(50%); }",
        js="""export default ({ parentElement, data }) => {
            const status = parentElement.querySelector("p");
            if (status.textContent !== data) status.textContent = data;
        }
        // Streamlit adds marks to the browser's performance timeline at each run, and never clears it: 200 MB a day.
        setInterval(() => (performance.clearMarks(), performance.clearMeasures()), 60_000);""",
    )


def show_count(stream: Stream, running: bool, connecting: bool = False) -> None:
    """Show the latest prediction in large type, and its probabilities."""
    latest = stream.latest if running and stream.latest and not stream.latest.stalled else None
    hands = latest.prediction.hands if latest else ()
    total = latest.prediction.total if latest else 0
    with st.container(key="count", gap=None):
        st.metric("Fingers", total if hands else "–")
        live_region()(key="said", data=fingers_in_words(total) if hands else "")
    if hands:
        st.write(" and ".join(f"**{hand.side} · {hand.fingers}** ({hand.confidence:.0%})" for hand in hands))
    elif connecting:
        st.write("Connecting …")
    elif not running:
        st.write("Press Start, allow the camera, and hold up one or two hands. Nothing is stored.")
    elif latest:
        st.write("No hand in view.")
    elif stream.latest:
        st.warning(
            "Video has stopped. If it does not resume within a few seconds, press Stop, then Start.",
            icon=":material/wifi_off:",
        )
    else:
        st.write("Waiting for the camera …")
    if latest and stream.hint:
        st.warning(stream.hint, icon=":material/lightbulb:")
    for hand in hands or (None,):
        show_probabilities(hand)
    if latest:
        st.caption(f"{latest.fps:.0f} fps · {latest.prediction.milliseconds:.0f} ms per frame")
    else:
        st.caption("Works best in even light, with the whole hand in view.")


def show_history(stream: Stream) -> None:
    """Draw the count over the last `HISTORY_S`."""
    history = list(stream.history)  # in one step: the stream's thread appends meanwhile
    now, _ = history[-1]
    show_count_chart([(seconds - now, total) for seconds, total in history], 120, (-HISTORY_S, 0))


def play(game: Game, stream: Stream, running: bool) -> None:
    """Show the game, and update it with the latest prediction."""
    now = time.monotonic()
    if not running or not stream.latest or stream.latest.stalled:
        game.stop()
        st.caption("Start the camera to play: you are asked for a number, and show it.")
    else:
        prediction = stream.latest.prediction
        game.update(prediction.total if prediction.hands else None, now)
        if game.target is None:
            st.button("Play", icon=":material/sports_esports:", on_click=game.ask, args=(now,))
        else:
            with st.container(key="asked"):
                st.metric("Show me", game.target)
            st.button("End game", on_click=game.stop)
    if game.answers:
        show_score(game)


def show_score(game: Game) -> None:
    table = pd.DataFrame(
        [
            {
                "target": answer.target,
                "predicted": answer.predicted,
                "correct": answer.is_correct,
                "seconds": answer.seconds,
            }
            for answer in game.answers
        ]
    )
    correct = table[table.correct]
    median = f", median time {correct.seconds.median():.1f} s" if len(correct) else ""
    st.write(f"**{len(correct)} of {len(table)}** correct{median}.")
    st.download_button("CSV", table.to_csv(index=False), "show-me.csv", icon=":material/download:")


def note_end_of_stream() -> None:
    """Keep the likely reason why a stream ended until the next Start; streamlit-webrtc has none.

    Before it gives up a connection, frames stay away for seconds; before a visitor's Stop, they do not.
    """
    state = st.session_state["live"].state
    st.session_state.ended = ""
    if state.signalling:
        st.session_state.stream = Stream()
    elif not state.playing:
        latest = current_stream().latest
        if not latest:
            st.session_state.ended = NO_CONNECTION
        elif latest.stalled:
            st.session_state.ended = DISCONNECTED


def run_on_server() -> None:
    """Send frames to the server over WebRTC, and show those that it sends back annotated."""
    existing = st.session_state.get("live")  # the streamlit-webrtc context of this session
    if not (existing and existing.video_processor) and metrics.active_streams() >= MAX_STREAMS:
        wait_for_capacity()
        return
    left, right = st.columns([3, 2], gap="medium")
    with left:
        context = webrtc_streamer(
            "live",
            video_processor_factory=WebcamProcessor,
            rtc_configuration={"iceServers": turn_servers.ice_servers()},
            media_stream_constraints={
                "video": {"width": {"ideal": 640}, "height": {"ideal": 480}, "frameRate": {"ideal": 24, "max": 30}},
                "audio": False,
            },
            # A phone would otherwise play it full screen, over the count.
            video_html_attrs={"autoPlay": True, "muted": True, "playsInline": True, "style": {"width": "100%"}},
            media_toggle_controls=False,
            translations={"start": "Start", "stop": "Stop", "select_device": "Choose a camera"},
            on_change=note_end_of_stream,
        )
        running, connecting = context.state.playing, context.state.signalling
        ended = st.session_state.get("ended", "")
        # streamlit-webrtc shows the browser's error message in its iframe, and does not report it to the page.
        if not (running or connecting or ended):
            with st.expander("Camera does not start?"):
                st.write("\n".join(f"- {browser.PROBLEMS[why]}" for why in ("refused", "busy", "missing", "insecure")))
                st.write("Or run the model on this device: that needs no connection, and shows what is wrong here.")
                show_switch("browser")
    if (processor := context.video_processor) and processor.stream is not current_stream():
        st.session_state.stream = processor.stream
        stop_if_not_connected(context)
    rendered = time.monotonic()

    @st.fragment(run_every=0.2 if running else 1 if connecting else turn_servers.REFRESH_S)
    def show() -> None:
        if not (running or connecting) and time.monotonic() - rendered >= turn_servers.REFRESH_S:
            st.rerun()  # Start connects with the ICE servers of the page's last run
        stream = current_stream()
        if processor := context.video_processor:
            processor.mirror, processor.gradcam, stream.min_confidence = settings()
        late = connecting and not stream.latest and time.monotonic() - stream.created > CONNECT_HINT_S
        if problem := NO_CONNECTION if late else ended:
            st.warning(problem, icon=":material/wifi_off:")
        if problem == NO_CONNECTION:
            show_switch("browser")
        show_count(stream, running, connecting)
        show_more(stream, running)

    with right:
        show()


@st.fragment(run_every=5)
def wait_for_capacity() -> None:
    """Show that the server is full, for as long as it is."""
    if metrics.active_streams() < MAX_STREAMS:
        st.rerun()
    st.info("The server is at capacity. Wait here for a free slot, or run the model on this device.")
    show_switch("browser")


def run_in_browser() -> None:
    """Run the model in the browser, which sends predictions only."""
    running = st.session_state.setdefault("browser running", False)

    @st.fragment(run_every=1 if running else None)  # to notice a browser that stopped sending
    def show() -> None:
        mirror, gradcam, min_confidence = settings()
        left, right = st.columns([3, 2], gap="medium")
        with left:
            latest = current_stream().latest
            state = browser.camera(
                "camera",
                mirror=mirror,
                gradcam=gradcam,
                min_confidence=min_confidence,
                tracked=latest.prediction.hands if latest and not latest.stalled else (),
                on_predictions=receive_predictions,
            )
            if state["running"] != running:
                st.session_state["browser running"] = state["running"]
                st.rerun()
            if problem := state.get("problem"):
                st.error(browser.PROBLEMS.get(problem, browser.PROBLEMS["unknown"]))
                if problem == "runtime":
                    show_switch("server")
                    take_pictures()
        with right:
            if not running:
                st.session_state.stream = Stream()
            stream = current_stream()
            stream.min_confidence = min_confidence
            show_count(stream, state["running"] or "starting" in state)
            show_more(stream, state["running"])

    show()


def receive_predictions() -> None:
    """Update the stream with the predictions that the browser has sent."""
    stream = current_stream()
    for message in st.session_state["camera"]["predictions"] or []:
        prediction = browser.parse_prediction(message)
        metrics.record_prediction(prediction, "browser")
        stream.update(prediction, message["seconds"], message["brightness"])


def take_pictures() -> None:
    """Show Streamlit's camera, for single pictures: it needs no WebRTC, and no model in the browser."""
    if not (picture := st.camera_input("Take a picture")):
        return
    # Cached: a rerun of the page must not run the model again.
    cache = st.session_state.get("camera picture", {})
    if picture.file_id not in cache:
        try:
            cache = {picture.file_id: inference.predict_file(file_contents(picture), "live")}
        except BadImage as error:
            metrics.record_refusal("live", error.status)
            cache = {picture.file_id: str(error)}
        st.session_state["camera picture"] = cache
    result = cache[picture.file_id]
    if isinstance(result, Prediction):
        show_prediction(decode(picture.getvalue()), result, picture.file_id)
    else:
        st.error(result)


def current_stream() -> Stream:
    """Return the stream of this session, wherever it runs."""
    return st.session_state.setdefault("stream", Stream())


def show_more(stream: Stream, running: bool) -> None:
    """Show the chart, and the game in an expander."""
    if running and stream.history:
        show_history(stream)
    game: Game = st.session_state.setdefault("game", Game())
    with st.expander("Show me", key="show me", on_change="rerun") as expander:
        if expander.open:
            play(game, stream, running)
        else:
            game.stop()


def show_switch(run_on: str) -> None:
    """Show a button that moves the model to the server or to the browser."""
    label = "Run on the server" if run_on == "server" else "Run on this device"
    if st.button(label, on_click=switch, args=(run_on,), type="primary"):
        st.rerun()  # the whole page, not only this fragment


def switch(run_on: str) -> None:
    st.session_state.read = st.query_params["read"] = run_on


@st.fragment
def show_settings() -> None:
    """Show the display settings, which the running stream picks up by itself.

    A fragment, because the page must not rerun: where several runs follow each other quickly, streamlit-webrtc may
    take that for a visitor who left, and stop the camera.
    """
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.toggle("Mirror", True, key="mirror", bind="query-params")
        st.toggle("Heatmap", key="look", bind="query-params", help="Grad-CAM: where the model looks.")
        st.slider("Minimum confidence", 0, 95, 0, 5, "%d%%", key="sure", bind="query-params")


def settings() -> tuple[bool, bool, float]:
    """Return the display settings: mirror, Grad-CAM heatmap, minimum confidence (0-1)."""
    return st.session_state.mirror, st.session_state.look, st.session_state.sure / 100


def is_local() -> bool:
    """Return whether the page comes from this machine or its own network, without a firewall in between."""
    host = urlsplit(st.context.url or "//localhost").hostname or ""
    try:
        return ip_address(host).is_private
    except ValueError:  # a name
        return "." not in host or host.endswith(".local")


# `bind` would put the labels into the address, so the parameter is kept by hand.
if "read" not in st.session_state:
    default = "server" if is_local() or turn_servers.is_configured() else "browser"
    requested = st.query_params.get("read", default)
    st.session_state.read = requested if requested in RUN_ON else default

stage = st.container()  # above the settings
with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="settings"):
    run_on = st.segmented_control(
        "Run on",
        list(RUN_ON),
        format_func=RUN_ON.__getitem__,
        required=True,
        key="read",
        on_change=lambda: st.query_params.update(read=st.session_state.read),
        help="On this device, no picture leaves it, and no connection is needed once the page has loaded.",
    )
    show_settings()

with stage:
    if run_on == "browser":
        run_in_browser()
    else:
        run_on_server()
