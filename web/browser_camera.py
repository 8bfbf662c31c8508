"""The camera in the visitor's own browser: read there, so that only what was read comes here; or recorded."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from handful import CLASSES, Hand, Prediction, hand_from_probabilities, shared_counter

ASSETS = Path(__file__).parent.parent / "assets/browser"
# Version and checksums of the runtime: wherever a browser gets it from, it must be these bytes.
RUNTIME = json.loads((ASSETS / "runtime.json").read_text(encoding="utf-8"))
HOME = ASSETS / "onnxruntime"  # `make browser` puts it there; it is not part of the repository
CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{RUNTIME['version']}/dist/"
PROBLEMS = {
    "missing": "No camera was found. Plug one in and press Start again, or read [pictures](pictures).",
    "refused": "The browser may not use the camera. Allow it beside the address of this page, then press Start again.",
    "busy": "Another program uses the camera. Close it, then press Start again.",
    "insecure": "Browsers give the camera only to pages with https:// (or on localhost). Open this page by https.",
    "lost": "The camera is gone. Plug it in again, then press Start.",
    "runtime": "This browser cannot run the model. Let the server read, or take single pictures here.",
    "unknown": "The camera could not be opened. Press Start again, or try another browser.",
}
NO_MAP = np.zeros((len(CLASSES), 1, 1), np.float32)  # Grad-CAM is drawn in the browser, and stays there


@st.cache_resource
def component() -> Callable[..., Any]:
    """The component, known to Streamlit under its name from now on."""
    names = ("camera.html", "camera.css", "component.js")
    html, css, js = ((ASSETS / name).read_text(encoding="utf-8") for name in names)
    return st.components.v2.component("handful_camera", html=html, css=css, js=js)


def component_data(**settings: Any) -> dict:
    """The visitor's settings, and where the browser finds what it reads with, as seen from camera.js."""
    own = ["onnxruntime/"] if all((HOME / name).is_file() for name in RUNTIME["files"]) else []
    places = {"places": [*own, CDN], "files": RUNTIME["files"]}
    model = f"handful.onnx?{shared_counter().sha256}"
    return settings | {"worker": "worker.js", "model": model, "runtime": places}


def camera(
    key: str, *, mirror: bool, gradcam: bool, sure: float, told: Sequence[Hand], on_readings: Callable[[], None]
) -> dict:
    """Show the camera. Returns its state: {"running": bool, "starting": True until it runs, "problem": of `PROBLEMS`}.

    Readings come to `st.session_state[key]["readings"]`, several at once: `on_readings` is called then. `told` is what
    the page tells of them: boxes in the picture are named alike. Which camera the visitor picked of several, is kept in
    the page's address.
    """
    names = [
        {"box": hand.box, "fingers": hand.fingers, "side": hand.side, "confidence": hand.confidence} for hand in told
    ]
    shown = component()(
        key=key,
        data=component_data(
            mirror=mirror, gradcam=gradcam, sure=sure, told=names, camera=st.query_params.get("camera")
        ),
        on_readings_change=on_readings,
        on_state_change=lambda: None,
    )
    state = shown.state or {"running": False}
    picked = state.get("camera")
    if picked and picked != st.query_params.get("camera"):
        st.query_params["camera"] = picked
    return state


def recorder(key: str, *, asked: str, words: str, shots: int, wait: int, on_burst: Callable[[], None]) -> dict:
    """Show the camera, which counts down and takes pictures of what is asked for. Returns its state, as `camera` does.

    A burst comes to `st.session_state[key]["burst"]`: {"asked": …, "pictures": JPEGs in base64}. `on_burst` is called
    then, and says what to ask for next.

    Args:
        key: of the component.
        asked: what is asked for; another one starts another burst, "" stops the camera.
        words: the same, for the visitor.
        shots: pictures a burst.
        wait: seconds to count down.
        on_burst: called when a burst has come.
    """
    told = component()(
        key=key,
        data={"asked": asked, "words": words, "shots": shots, "wait": wait, "mirror": True},
        on_burst_change=on_burst,
        on_state_change=lambda: None,
    )
    return told.state or {"running": False}


def to_reading(one: dict) -> Prediction:
    """A reading as the browser tells it."""
    hands = [
        hand_from_probabilities(
            tuple(hand["box"]), tuple(hand["crop"]), np.array(hand["probabilities"], np.float32), NO_MAP
        )
        for hand in one["hands"]
    ]
    # Whatever it tells, it adds little to the server's own numbers, and never NaN.
    milliseconds = min(max(0.0, float(one["milliseconds"])), 10_000.0)
    return Prediction(tuple(hands), int(one["width"]), int(one["height"]), milliseconds)
