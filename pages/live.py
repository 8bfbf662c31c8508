"""The webcam: how many fingers are up, while they are."""

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
from web import inference as metrics
from web import turn_servers as relay
from web.cpu import available_cores
from web.game import Game
from web.uploads import contents
from web.webcam import HISTORY, Camera, Stream, give_up
from web.widgets import show_counts, show_probabilities, show_reading

WAYS = ("server", "browser")
MOST_STREAMS = 2 * available_cores()  # cameras that the server reads at once, see `python -m benchmarks load`
PATIENCE = 8  # seconds to wait for a connection before offering the other way
NO_CONNECTION = "No picture comes through: a firewall may be in the way. This browser can read by itself."
LOST = "The camera or the connection was lost. Press Start."


@st.cache_resource
def live_region() -> Callable[..., Any]:
    """What screen readers say by themselves, and nobody sees. Of a text that Streamlit builds anew they say nothing."""
    return st.components.v2.component(
        "handful_live_region",
        html='<p role="status"></p>',
        css="p { position: absolute; clip-path: inset(50%); }",
        js="""export default ({ parentElement, data }) => {
            const place = parentElement.querySelector("p");
            if (place.textContent !== data) place.textContent = data;
        }
        // Streamlit notes each run in the browser's timeline, which forgets nothing: 200 MB in a day.
        setInterval(() => (performance.clearMarks(), performance.clearMeasures()), 60_000);""",
    )


def show_count(stream: Stream, running: bool, connecting: bool = False) -> None:
    """Show what was read last, big, and why."""
    latest = stream.latest if running and stream.latest and not stream.latest.old else None
    hands = latest.prediction.hands if latest else ()
    total = latest.prediction.total if latest else 0
    with st.container(key="count", gap=None):
        st.metric("Fingers", total if hands else "–")
        live_region()(key="said", data=f"{total} {'finger' if total == 1 else 'fingers'}" if hands else "")
    if hands:
        st.write(" and ".join(f"**{hand.side} · {hand.fingers}**, {hand.confidence:.0%} sure" for hand in hands))
    elif connecting:
        st.write("Connecting …")
    elif not running:
        st.write("Press Start, let the browser use the camera, and hold up a hand, or two. Nothing is stored.")
    elif latest:
        st.write("No hand in sight.")
    elif stream.latest:
        st.warning(
            "Nothing comes any more. Wait a few seconds; if it does not go on by itself, press Stop, then Start.",
            icon=":material/wifi_off:",
        )
    else:
        st.write("Waiting for the camera …")
    if latest and stream.advice:
        st.warning(stream.advice, icon=":material/lightbulb:")
    for hand in hands or (None,):
        show_probabilities(hand)
    if latest:
        st.caption(f"{latest.rate:.0f} frames a second, {latest.prediction.milliseconds:.0f} ms each")
    else:
        st.caption("It reads best in even light, with the whole hand in the picture.")


def show_history(stream: Stream) -> None:
    """The count over the last half minute."""
    history = list(stream.history)  # at once: the camera's thread goes on meanwhile
    now, _ = history[-1]
    show_counts([(seconds - now, total) for seconds, total in history], 120, (-HISTORY, 0))


def play(game: Game, stream: Stream, running: bool) -> None:
    """The game: a number is asked for, and shown."""
    now = time.monotonic()
    if not running or not stream.latest or stream.latest.old:
        game.stop()
        st.caption("It takes a camera that runs: a number is asked for, you show it.")
    else:
        prediction = stream.latest.prediction
        game.see(prediction.total if prediction.hands else None, now)
        if game.asked is None:
            st.button("Ask me", icon=":material/sports_esports:", on_click=game.ask, args=(now,))
        else:
            with st.container(key="asked"):
                st.metric("Show me", game.asked)
            st.button("Enough", on_click=game.stop)
    if game.answers:
        table = pd.DataFrame(
            [
                {"asked": answer.asked, "told": answer.told, "right": answer.right, "seconds": answer.seconds}
                for answer in game.answers
            ]
        )
        right = table[table.right]
        st.write(
            f"**{len(right)} of {len(table)}** right"
            + (f", in {right.seconds.median():.1f} seconds each (median)." if len(right) else ".")
        )
        st.download_button("CSV", table.to_csv(index=False), "show-me.csv", icon=":material/download:")


def look_for_end() -> None:
    """Remember why a stream ended, until the next Start: streamlit-webrtc tells no more than that it did.

    Before a connection is given up, frames stay away for seconds; a visitor's Stop comes while they do not.
    """
    state = st.session_state["live"].state
    st.session_state.ended = ""
    if state.signalling:
        st.session_state.stream = Stream()  # what comes next starts with nothing
    elif not state.playing:
        latest = stream_here().latest
        if not latest:
            st.session_state.ended = NO_CONNECTION
        elif latest.old:
            st.session_state.ended = LOST


def read_on_server() -> None:
    """Frames go to the server by WebRTC and come back drawn upon."""
    own = st.session_state.get("live")  # what streamlit-webrtc keeps of this visit's stream
    if not (own and own.video_processor) and metrics.streams() >= MOST_STREAMS:
        wait_for_a_place()
        return
    picture, count = st.columns([3, 2], gap="medium")
    with picture:
        context = webrtc_streamer(
            "live",
            video_processor_factory=Camera,
            rtc_configuration={"iceServers": relay.ice_servers()},
            media_stream_constraints={
                "video": {"width": {"ideal": 640}, "height": {"ideal": 480}, "frameRate": {"ideal": 24, "max": 30}},
                "audio": False,
            },
            # A phone would otherwise play it full screen, over the count.
            video_html_attrs={"autoPlay": True, "muted": True, "playsInline": True, "style": {"width": "100%"}},
            media_toggle_controls=False,
            translations={"start": "Start", "stop": "Stop", "select_device": "Choose a camera"},
            on_change=look_for_end,
        )
        running, connecting = context.state.playing, context.state.signalling
        ended = st.session_state.get("ended", "")
        # What is amiss stands in streamlit-webrtc's own frame, in a browser's words. It is not told here.
        if not (running or connecting or ended):
            with st.expander("Does the camera not start?"):
                st.write("\n".join(f"- {browser.PROBLEMS[why]}" for why in ("refused", "busy", "missing", "insecure")))
                st.write("Or your browser reads by itself: it needs no connection, and says here what is amiss.")
                switch("Read by this browser", "browser")
    if (camera := context.video_processor) and camera.stream is not stream_here():
        st.session_state.stream = camera.stream
        give_up(context._get_worker())
    now = time.monotonic()

    @st.fragment(run_every=0.2 if running else 1 if connecting else relay.KEPT)
    def show() -> None:
        if not (running or connecting) and time.monotonic() - now >= relay.KEPT:
            st.rerun()  # Start connects by what the page was told last
        stream = stream_here()
        if camera := context.video_processor:
            camera.mirror, camera.gradcam, stream.sure = settings()
        late = connecting and not stream.latest and time.monotonic() - stream.began > PATIENCE
        if amiss := NO_CONNECTION if late else ended:
            st.warning(amiss, icon=":material/wifi_off:")
        if amiss == NO_CONNECTION:
            switch("Read by this browser", "browser")
        show_count(stream, running, connecting)
        show_more(stream, running)

    with count:
        show()


@st.fragment(run_every=5)
def wait_for_a_place() -> None:
    """Tell that the server is full, for as long as it is."""
    if metrics.streams() < MOST_STREAMS:
        st.rerun()
    st.info("The server reads as many cameras as it can. Wait here for a place, or let your browser read by itself.")
    switch("Read by this browser", "browser")


def read_here() -> None:
    """Frames are read in the browser; what was read comes here."""
    running = st.session_state.setdefault("reads here", False)

    @st.fragment(run_every=1 if running else None)  # a reader that stops tells nothing of it
    def show() -> None:
        mirror, gradcam, sure = settings()
        camera, count = st.columns([3, 2], gap="medium")
        with camera:
            latest = stream_here().latest
            told = latest.prediction.hands if latest and not latest.old else ()
            state = browser.camera("camera", mirror=mirror, gradcam=gradcam, sure=sure, told=told, on_readings=follow)
            if state["running"] != running:
                st.session_state["reads here"] = state["running"]
                st.rerun()
            if problem := state.get("problem"):
                st.error(browser.PROBLEMS.get(problem, browser.PROBLEMS["unknown"]))
                if problem == "runtime":
                    switch("Read by the server", "server")
                    take_pictures()
        with count:
            if not running:
                st.session_state.stream = Stream()  # what comes next starts with nothing
            stream = stream_here()
            stream.sure = sure
            show_count(stream, state["running"] or "starting" in state)
            show_more(stream, state["running"])

    show()


def take_pictures() -> None:
    """The camera, one picture at a time: needs no connection of its own, and nothing to run in the browser."""
    if not (shot := st.camera_input("One picture")):
        return
    # What was read stays read: a click elsewhere reads nothing anew.
    known = st.session_state.get("shot", {})
    if shot.file_id not in known:
        try:
            known = {shot.file_id: metrics.read_picture(contents(shot), "live")}
        except BadImage as error:
            metrics.refused("live", error.status)
            known = {shot.file_id: str(error)}
        st.session_state.shot = known
    prediction = known[shot.file_id]
    if isinstance(prediction, Prediction):
        show_reading(decode(shot.getvalue()), prediction, shot.file_id)
    else:
        st.error(prediction)


def stream_here() -> Stream:
    """The stream of this visit, whoever reads it."""
    return st.session_state.setdefault("stream", Stream())


def follow() -> None:
    """Take what the browser has read since the last time."""
    told = st.session_state["camera"]["readings"] or []
    stream = stream_here()
    for one in told:
        prediction = metrics.counted(browser.to_reading(one), "browser")
        stream.follow(prediction, one["seconds"], one["light"])


def show_more(stream: Stream, running: bool) -> None:
    if running and stream.history:
        show_history(stream)
    game: Game = st.session_state.setdefault("game", Game())
    with st.expander("Show me", key="show me", on_change="rerun") as unfolded:
        if unfolded.open:
            play(game, stream, running)
        else:
            game.stop()  # nobody answers what is not seen


def switch(label: str, way: str) -> None:
    """A button for the other way to read."""
    if st.button(label, on_click=st.session_state.update, kwargs={"read": way}, type="primary"):
        st.rerun()  # all of the page, not this fragment alone


@st.fragment
def choose() -> None:
    """What of a camera is shown, and how: whatever shows it takes that up by itself.

    The page is not built anew for it. Where several runs of it follow each other closely, streamlit-webrtc may take
    that for a visitor who left, and stop the camera.
    """
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.toggle("Mirror", True, key="mirror", bind="query-params")
        st.toggle("Show where the model looks", key="look", bind="query-params")
        st.slider("Only hands at least so sure", 0, 95, 0, 5, "%d%%", key="sure", bind="query-params")


def settings() -> tuple[bool, bool, float]:
    """What was chosen: mirror or not, Grad-CAM or not, and how sure a hand must be, 0-1."""
    return st.session_state.mirror, st.session_state.look, st.session_state.sure / 100


def is_near() -> bool:
    """Whether the page comes from this machine or its own network: no firewall is in between."""
    host = urlsplit(st.context.url or "//localhost").hostname or ""
    try:
        return ip_address(host).is_private
    except ValueError:  # a name
        return "." not in host or host.endswith(".local")


stage = st.container()  # above the settings: a picture is what a visitor came for
with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="settings"):
    way = st.segmented_control(
        "Read by the",
        WAYS,
        default="server" if is_near() or relay.named() else "browser",
        required=True,
        key="read",
        bind="query-params",
        help="Read by the browser, no picture leaves your device, and no connection is needed once the page is there.",
    )
    choose()

with stage:
    if way == "browser":
        read_here()
    else:
        read_on_server()
