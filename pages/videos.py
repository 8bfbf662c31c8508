"""Videos: the count over time, and the annotated video."""

import io
import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import pandas as pd
import streamlit as st
from streamlit.typing import UploadedFile

from handful.images import BadImage
from web import metrics
from web.log import LOG
from web.uploads import file_contents
from web.video import AnnotatedFrame, BadVideo, annotate, video_slots
from web.widgets import show_count_chart

EXAMPLE = Path(__file__).parents[1] / "assets/counting.mp4"
PROGRESS_INTERVAL_S = 0.2
FINISH_TIMEOUT_S = 10


@dataclass
class Result:
    """What has been annotated of a video, also of one that was stopped half-way."""

    rows: list[dict] = field(default_factory=list)
    video: io.BytesIO = field(default_factory=io.BytesIO)
    error: str = ""
    finished: Event = field(default_factory=Event)


def show_example(shown: bool) -> None:
    st.session_state.example = shown


def to_row(frame: AnnotatedFrame) -> dict:
    return {
        "seconds": round(frame.seconds, 3),
        "fingers": frame.prediction.total,
        "hands": ", ".join(f"{hand.side} {hand.fingers}" for hand in frame.prediction.hands),
        "raised": ", ".join("+".join(hand.raised) for hand in frame.prediction.hands),
    }


def process(file: UploadedFile | None, gradcam: bool, key: str) -> None:
    """Annotate a video, or the example, with a progress bar."""
    results.clear()  # one video at a time
    progress = st.progress(0.0, "Starting …")
    while not video_slots.acquire(timeout=0.5):
        progress.progress(0.0, "Waiting for other visitors' videos …")
    result = Result()
    frames = annotate(file or io.BytesIO(EXAMPLE.read_bytes()), result.video, gradcam=gradcam)
    start = last_update = time.monotonic()
    try:
        st.button("Stop here")  # any click ends the loop below: Streamlit reruns the page
        # Not through `results` from here on: the next run may clear it before this one has ended.
        results[key] = result
        if file:
            file_contents(file)  # raises where the server had no memory for it
        for frame in frames:
            result.rows.append(to_row(frame))
            now = time.monotonic()
            if now - last_update >= PROGRESS_INTERVAL_S:
                last_update = now
                left = (now - start) * (1 / max(frame.progress, 1e-3) - 1)
                text = f"{frame.seconds:.0f} s processed" + (f", {left:.0f} s left" if frame.progress else "")
                progress.progress(frame.progress, text)
    except (BadVideo, BadImage) as error:
        metrics.record_refusal("videos", error.status)
        result.error = str(error)
    finally:
        video_slots.release()
        frames.close()
        result.finished.set()
        seconds = round(time.monotonic() - start, 1)
        LOG.info("video annotated", extra={"frames": len(result.rows), "seconds": seconds})


def show_result(result: Result) -> None:
    table = pd.DataFrame(result.rows)
    left, right = st.columns([3, 2], gap="medium")
    left.video(result.video.getvalue())
    with right:
        show_count_chart([tuple(row.values()) for row in result.rows], 220)
        st.caption(f"{len(table):,} frame{'s' * (len(table) > 1)}, {table.seconds.iloc[-1]:.1f} seconds.")
        with st.container(horizontal=True):
            st.download_button("MP4", result.video.getvalue(), "fingers.mp4", "video/mp4", icon=":material/download:")
            st.download_button("CSV", table.to_csv(index=False), "fingers.csv", icon=":material/download:")
            if example:
                st.button("Close", on_click=show_example, args=(False,))


st.title("Videos")
file = st.file_uploader("A video of hands", ["mp4", "mov", "m4v", "webm"])
if file:
    show_example(False)
example = st.session_state.get("example", False)
gradcam = st.toggle(
    "Heatmap",
    disabled=bool(file) or example,
    help="Grad-CAM: where the model looked. Choose before you add the video.",
)
results: dict[str, Result] = st.session_state.setdefault("videos", {})
if not file and not example:
    results.clear()  # large
    st.write("Record a hand that counts, and drop the video here. It is processed frame by frame and never stored.")
    st.write("No video at hand? Try this one.")
    st.button("Use this video", on_click=show_example, args=(True,))
    st.video(EXAMPLE, muted=True, width=480)
    st.stop()

key = file.file_id if file else EXAMPLE.name
if key not in results:
    process(file, gradcam, key)
    st.rerun()

# After a click, this run may start before the stopped one has finished the file.
results[key].finished.wait(FINISH_TIMEOUT_S)
if results[key].error:
    st.error(results[key].error)
elif not results[key].rows:
    st.info("Stopped before the first frame. Remove the video and add it again to process it.")
if results[key].rows:
    show_result(results[key])
