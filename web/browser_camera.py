"""The camera component: the visitor's browser runs the model itself and sends predictions, or takes pictures."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from handful import CLASSES, COUNTS, SIDES, Hand, Prediction, hand_from_probabilities, shared_counter
from handful.overlay import browser_colors

ASSETS = Path(__file__).parents[1] / "assets/browser"
# Version and checksums of onnxruntime-web: wherever a browser loads it from, it must be these bytes.
RUNTIME = json.loads((ASSETS / "runtime.json").read_text(encoding="utf-8"))
RUNTIME_DIR = ASSETS / "onnxruntime"  # `make browser` puts it there; it is not in the repository
CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{RUNTIME['version']}/dist/"
PROBLEMS = {
    "missing": "No camera was found. Connect one and press Start again, or upload [pictures](pictures).",
    "refused": "Camera access is blocked. Allow it from the icon in the address bar, then press Start again.",
    "busy": "Another program is using the camera. Close it, then press Start again.",
    "insecure": "Cameras work only over HTTPS (or on localhost). Open this page with https://.",
    "lost": "The camera was disconnected. Connect it again, then press Start.",
    "runtime": "This browser cannot run the model. Run it on the server, or take single pictures here.",
    "unknown": "The camera could not be opened. Press Start again, or try another browser.",
}
NO_GRADCAM = np.zeros((len(CLASSES), 1, 1), np.float32)  # heatmaps are drawn in the browser, and stay there
MAX_MILLISECONDS = 10_000.0


@st.cache_resource
def component() -> Callable[..., Any]:
    """Register the component with Streamlit, once."""
    names = ("camera.html", "camera.css", "component.js")
    html, css, js = ((ASSETS / name).read_text(encoding="utf-8") for name in names)
    return st.components.v2.component("handful_camera", html=html, css=css, js=js)


def component_data(**settings: Any) -> dict:
    """Return the settings, and what the browser runs the model with; addresses are relative to camera.js."""
    is_local = all((RUNTIME_DIR / name).is_file() for name in RUNTIME["files"])
    return settings | {
        "worker": "worker.js",
        "model": f"handful.onnx?{shared_counter().sha256}",
        "runtime": {"urls": [*(["onnxruntime/"] if is_local else []), CDN], "files": RUNTIME["files"]},
        "labels": {"counts": COUNTS, "sides": SIDES},
        "colors": browser_colors(),
    }


def camera(
    key: str,
    *,
    mirror: bool,
    gradcam: bool,
    min_confidence: float,
    tracked: Sequence[Hand],
    on_predictions: Callable[[], None],
) -> dict:
    """Show the camera, with the model running in the browser.

    Predictions arrive in batches in `st.session_state[key]["predictions"]`, and `on_predictions` is called. The camera
    that the visitor picked, of several, is kept in the page's address.

    Args:
        key: of the component.
        mirror: flip the picture.
        gradcam: draw Grad-CAM heatmaps.
        min_confidence: hands below it, 0-1, are not drawn.
        tracked: the smoothed hands, whose captions the browser draws.
        on_predictions: called for each batch.

    Returns:
        {"running": bool, "starting": True until it runs, "problem": a key of `PROBLEMS`}
    """
    hands = [
        {"box": hand.box, "fingers": hand.fingers, "side": hand.side, "confidence": hand.confidence} for hand in tracked
    ]
    camera_id = st.query_params.get("camera")
    result = component()(
        key=key,
        data=component_data(
            mirror=mirror, gradcam=gradcam, min_confidence=min_confidence, tracked=hands, camera_id=camera_id
        ),
        on_predictions_change=on_predictions,
        on_state_change=lambda: None,
    )
    state = result.state or {"running": False}
    picked = state.get("camera")
    if picked and picked != camera_id:
        st.query_params["camera"] = picked
    return state


def recorder(
    key: str, *, prompt: str, instruction: str, burst_size: int, countdown_s: int, on_burst: Callable[[], None]
) -> dict:
    """Show the camera, which counts down and takes a burst of pictures of the hand asked for.

    A burst arrives in `st.session_state[key]["burst"]`: {"prompt": …, "pictures": JPEGs in base64}.

    Args:
        key: of the component.
        prompt: what is asked for; a new value starts a new burst, "" stops the camera.
        instruction: the same, for the visitor.
        burst_size: pictures per burst.
        countdown_s: seconds before a burst.
        on_burst: called for each burst.

    Returns:
        The state, as of `camera`.
    """
    result = component()(
        key=key,
        data={
            "prompt": prompt,
            "instruction": instruction,
            "burst_size": burst_size,
            "countdown_s": countdown_s,
            "mirror": True,
        },
        on_burst_change=on_burst,
        on_state_change=lambda: None,
    )
    return result.state or {"running": False}


def parse_prediction(message: dict) -> Prediction:
    """Convert a prediction from the browser."""
    hands = [
        hand_from_probabilities(
            tuple(hand["box"]),
            tuple(hand["crop"]),
            np.array(hand["probabilities"], np.float32),
            NO_GRADCAM,
            np.array(hand["finger_probabilities"], np.float32),
        )
        for hand in message["hands"]
    ]
    # Bounded and never NaN: a forged message must not spoil the server's metrics.
    milliseconds = min(max(0.0, float(message["milliseconds"])), MAX_MILLISECONDS)
    return Prediction(tuple(hands), int(message["width"]), int(message["height"]), milliseconds)
