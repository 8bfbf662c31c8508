"""The webcam: how many fingers are up, while they are."""

import streamlit as st
from streamlit_webrtc import webrtc_streamer

from pages.camera import Camera
from pages.parts import show_probabilities

camera, count = st.columns([3, 2], gap="medium")
with camera:
    # The servers that help through firewalls are streamlit-webrtc's choice: a public STUN server, or
    # the TURN servers of the account that its environment variables name.
    stream = webrtc_streamer(
        "live",
        video_processor_factory=Camera,
        media_stream_constraints={
            "video": {"width": {"ideal": 640}, "height": {"ideal": 480}, "frameRate": {"ideal": 24, "max": 30}},
            "audio": False,
        },
        # A phone would otherwise play it full screen, over the count.
        video_html_attrs={"autoPlay": True, "muted": True, "playsInline": True, "style": {"width": "100%"}},
        media_toggle_controls=False,
        translations={"start": "Start", "stop": "Stop", "select_device": "Choose a camera"},
    )
    with st.container(horizontal=True):
        mirror = st.toggle("Mirror", True)
        gradcam = st.toggle("Show where the model looks")
    if stream.video_processor:
        stream.video_processor.mirror = mirror
        stream.video_processor.gradcam = gradcam


@st.fragment(run_every=0.2 if stream.state.playing else None)
def show_count() -> None:
    """Show the last reading, five times a second."""
    latest = stream.video_processor.latest if stream.video_processor else None
    if latest and latest.old:
        latest = None
    hands = latest.reading.hands if latest else ()
    with st.container(key="count"):
        st.metric("Fingers", latest.reading.total if latest and hands else "–")
    if hands:
        st.write(" and ".join(f"{hand.side} hand, {hand.confidence:.0%} sure" for hand in hands))
    elif not stream.state.playing:
        st.write("Press Start, let the browser use the camera, and hold up a hand, or two. Nothing is stored.")
    else:
        st.write("No hand in sight." if latest else "Waiting for the camera …")
    for hand in hands or (None,):
        show_probabilities(hand)
    if latest:
        st.caption(f"{latest.rate:.0f} frames a second, {latest.reading.milliseconds:.0f} ms each")
    else:
        st.caption("It reads best in even light, with the whole hand in the picture.")


with count:
    show_count()
