"""The camera components, which run in the visitor's browser: Live and Teach."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import streamlit as st

from handful import COUNTS, FINGERS, SIDES, FingerCounter, shared_counter
from handful.labels import MAX_HANDS
from handful.overlay import browser_colors
from handful.personal import FITTED, with_heads
from web import metrics

ASSETS = Path(__file__).parents[1] / "assets/browser"
# Version and checksums of onnxruntime-web: wherever a browser loads it from, it must be these bytes.
RUNTIME = json.loads((ASSETS / "runtime.json").read_text(encoding="utf-8"))
RUNTIME_DIR = ASSETS / "onnxruntime"  # `make browser` puts it there; it is not in the repository
CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{RUNTIME['version']}/dist/"
PROBLEMS = {
    "missing": "No camera was found. Connect one, then try again.",
    "refused": "Camera access is blocked. Allow it from the icon in the address bar, then try again.",
    "busy": "Another program is using the camera. Close it, then try again.",
    "insecure": "Cameras work only over HTTPS (or on localhost). Open this page with https://.",
    "lost": "The camera was disconnected. Connect it again, then try again.",
    "runtime": "The model cannot be loaded or run on this device. Run it on the server, or use a picture.",
    "unknown": "The camera could not be opened. Try again, or use another browser.",
}
READ = ("browser", "server")  # who predicts
MAX_REPORTED = 1000  # predictions in a report: ten seconds' worth
MAX_MILLISECONDS = 10_000.0


@st.cache_resource
def component(name: str, css: tuple[str, ...]) -> Callable[..., Any]:
    """Register the component `name` with Streamlit, once: its HTML, its style sheets, and the code that loads it."""
    js, *styles = ((ASSETS / file).read_text(encoding="utf-8") for file in ("component.js", *css))
    return st.components.v2.component(f"handful_{name}", html=read_html(name), css="\n".join(styles), js=js)


def read_html(name: str) -> str:
    """Return the HTML of a component, with the choice where the model runs if it has that."""
    html, run_on = ((ASSETS / f"{part}.html").read_text(encoding="utf-8") for part in (name, "run_on"))
    return html.replace("<!-- run_on.html -->", run_on)


def live(key: str) -> None:
    """Show Live, and keep its settings in the page's address.

    Predictions that the browser makes itself are counted in the metrics. It reports no images.
    """
    component("live", ("live.css", "bars.css", "history.css", "show_me.css", "personal_chip.css"))(
        key=key,
        data=live_data(settings_of_address(st.query_params)),
        on_settings_change=partial(update_address, key),
        on_report_change=partial(record_report, key),
    )


def live_data(settings: dict) -> dict:
    """Return what the component needs."""
    return model_data() | {
        "module": "live.js",
        "settings": settings,
        "colors": browser_colors(),
        "problems": PROBLEMS,
    }


def model_data() -> dict:
    """Return what runs the model in a browser; addresses are relative to the code in `ASSETS`."""
    is_local = all((RUNTIME_DIR / name).is_file() for name in RUNTIME["files"])
    return {
        "model": f"handful.onnx?{browser_model(shared_counter())[1]}",
        "heads": heads_data(),
        "runtime": {"urls": [*(["onnxruntime/"] if is_local else []), CDN], "files": RUNTIME["files"]},
        "labels": {"counts": COUNTS, "sides": SIDES, "fingers": FINGERS, "max_hands": MAX_HANDS},
    }


def preload_tags() -> str:
    """Return HTML that starts to load the model before the page's component is there."""
    data = json.dumps(model_data()).replace("<", r"\u003c")
    return (
        f'<script type="application/json" id="handful-model">{data}</script>'
        '<script type="module" async src="browser/preload.js"></script>'
    )


@lru_cache(1)
def browser_model(counter: FingerCounter) -> tuple[bytes, str]:
    """Return the model file that browsers run, and its SHA-256. Its heads are those of the counter's personal head."""
    model = with_heads(counter.path.read_bytes(), counter.personal.weights if counter.personal else {})
    return model, hashlib.sha256(model).hexdigest()


def heads_data() -> dict:
    """Return what `connect` of assets/browser/personal.js takes: which personal heads are for this model."""
    counter = shared_counter()
    return {"model": counter.sha256, "shapes": {name: counter.heads[name].shape for name in FITTED}}


def settings_of_address(parameters: Mapping[str, str]) -> dict:
    """Return the settings in the address parameters: what is missing or invalid is as by default.

    Returns:
        {"read": one of `READ`; None lets the browser choose, "mirror": bool, "look": show the heatmap,
        "sure": minimum confidence in percent, 0-95, "camera": id of the camera, or None}
    """
    read, sure = parameters.get("read"), parameters.get("sure", "")
    return {
        "read": read if read in READ else None,
        "mirror": parameters.get("mirror") != "false",
        "look": parameters.get("look") == "true",
        "sure": min(int(sure[:9]), 95) if sure.isascii() and sure.isdigit() else 0,
        "camera": parameters.get("camera"),
    }


def update_address(key: str) -> None:
    """Write the settings that the visitor has changed into the address."""
    settings = st.session_state[key]["settings"]
    if not isinstance(settings, dict):  # forged
        return
    defaults = settings_of_address({})
    changed = {name: settings.get(name) for name in defaults if settings.get(name) not in (None, defaults[name])}
    texts = {name: str(value).lower() if name != "camera" else str(value) for name, value in changed.items()}
    # What is forged may have no encoding.
    st.query_params.from_dict({name: text for name, text in texts.items() if text.isprintable()})


def record_report(key: str) -> None:
    """Count the predictions that the browser has made: [{"milliseconds": …, "fingers": of each hand}]."""
    report = st.session_state[key]["report"]
    for one in report[:MAX_REPORTED] if isinstance(report, list) else ():
        match one:
            case {"milliseconds": int() | float() as milliseconds, "fingers": list() as fingers}:
                # Bounded and never NaN: a forged message must not spoil the server's metrics.
                milliseconds = float(min(max(0.0, milliseconds), MAX_MILLISECONDS))
                counts = [count for count in fingers[:MAX_HANDS] if type(count) is int and count in COUNTS]
                metrics.record(milliseconds, counts, "browser")


def teach(key: str) -> bool:
    """Show Teach, and keep its settings in the page's address. Pictures, and what is learned, stay in the browser.

    Returns whether the visitor wants to go to Live.
    """
    result = component("teach", ("live.css", "teach.css"))(
        key=key,
        data=live_data(settings_of_address(st.query_params)) | {"module": "teach.js"},
        on_settings_change=partial(update_address, key),
        on_use_change=lambda: None,
    )
    return bool(result.use)
