"""Videos: the count over time, and the annotated video."""

import io
import time
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import cv2
import numpy as np
import pandas as pd
import streamlit as st
from streamlit.typing import UploadedFile

from handful.images import BadImage
from web import metrics
from web.log import LOG
from web.personal import show_title
from web.uploads import file_contents
from web.video import AnnotatedFrame, BadVideo, annotate, video_slots
from web.video_chart import show_video_chart
from web.widgets import fingers_in_words

EXAMPLE = Path(__file__).parents[1] / "assets/counting.mp4"
PROGRESS_INTERVAL_S = 0.3
PREVIEW_WIDTH = 640  # pixels
FINISH_TIMEOUT_S = 10


@dataclass
class Result:
    """What has been annotated of a video, also of one that was stopped half-way.

    Attributes:
        rows: of the table to download, one per frame.
        video: the annotated MP4.
        duration: of the whole video, in seconds; 0 if its file does not say.
        error: why the video is refused, or where it ends.
        is_complete: it was annotated to its end.
        is_sound_lost: the annotated video lacks sound that the file has.
        finished: set once nothing is added any more.
    """

    rows: list[dict] = field(default_factory=list)
    video: io.BytesIO = field(default_factory=io.BytesIO)
    duration: float = 0.0
    error: str = ""
    is_complete: bool = False
    is_sound_lost: bool = False
    finished: Event = field(default_factory=Event)


def show_example(shown: bool) -> None:
    st.session_state.example = shown


def to_row(frame: AnnotatedFrame) -> dict:
    hands = frame.prediction.hands
    return {
        "seconds": round(frame.seconds, 3),
        "fingers": frame.prediction.total if hands else None,  # no hand is not a count of 0
        "hands": ", ".join(f"{hand.side} {hand.fingers}" for hand in hands),
        "raised": ", ".join("+".join(hand.raised) for hand in hands),
    }


def preview(image: np.ndarray) -> str:
    """Return HTML that holds and shows an image, (H, W, 3) uint8 RGB: the server keeps no file of it."""
    height, width = image.shape[:2]
    small = cv2.resize(image, (PREVIEW_WIDTH, max(1, round(height * PREVIEW_WIDTH / width))))
    jpeg = b64encode(cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 75])[1].tobytes()).decode()
    style = f"display: block; width: 100%; aspect-ratio: {width} / {height}; border-radius: 0.6rem"
    return f'<img style="{style}" alt="The frame that was just annotated" src="data:image/jpeg;base64,{jpeg}">'


def process(file: UploadedFile | None, gradcam: bool, key: str) -> None:
    """Annotate a video, or the example, and show how far it is."""
    results.clear()  # one video at a time
    left, right = st.columns([3, 2], gap="medium")
    picture = left.empty()
    progress = right.progress(0.0, "Starting …")
    while not video_slots.acquire(timeout=0.5):
        progress.progress(0.0, "Waiting for other visitors' videos …")
    result = Result()
    frames = annotate(file or io.BytesIO(EXAMPLE.read_bytes()), result.video, gradcam=gradcam, personal=personal.head)
    begun = last_update = time.monotonic()
    try:
        right.button("Stop here")  # any click ends the loop below: Streamlit reruns the page
        # Not through `results` from here on: the next run may clear it before this one has ended.
        results[key] = result
        if file:
            file_contents(file)  # raises where the server had no memory for it
        for frame in frames:
            result.rows.append(to_row(frame))
            result.duration, result.is_sound_lost = frame.duration, frame.is_sound_lost
            now = time.monotonic()
            if now - last_update >= PROGRESS_INTERVAL_S or len(result.rows) == 1:
                last_update = now
                share = min(frame.seconds / frame.duration, 1.0) if frame.duration else 0.0
                text = f"{frame.seconds:.1f} s processed"
                if share:
                    left_s = (now - begun) * (1 / max(share, 1e-3) - 1)
                    text = f"{frame.seconds:.1f} of {in_seconds(frame.duration)} processed, {left_s:.0f} s left"
                picture.html(preview(frame.image))
                progress.progress(share, text)
        result.is_complete = True
    except (BadVideo, BadImage) as error:
        metrics.record_refusal("videos", error.status)
        result.error = str(error)
    finally:
        video_slots.release()
        frames.close()
        result.finished.set()
        seconds = round(time.monotonic() - begun, 1)
        LOG.info("video annotated", extra={"frames": len(result.rows), "seconds": seconds})


def in_seconds(duration: float) -> str:
    return f"{duration:.0f} s" if duration >= 10 else f"{duration:.1f} s"


def show_result(result: Result) -> None:
    table = pd.DataFrame(result.rows).astype({"fingers": "Int64"})  # nullable: no hand is an empty cell
    seconds = table.seconds.iloc[-1]
    if not result.is_complete:
        of_all = f" of {in_seconds(result.duration)}" if result.duration else " s"
        st.warning(f"Stopped at {seconds:.1f}{of_all}. {result.error}", icon=":material/content_cut:")
    left, right = st.columns([3, 2], gap="medium")
    with left.container(key="annotated"):
        st.video(result.video.getvalue())
    with right:
        counts = [(row["seconds"], row["fingers"], row["hands"]) for row in result.rows]
        show_video_chart(counts, seconds, "annotated")
        largest = table.fingers.max()
        summary = f"{len(table):,} frame{'s' * (len(table) > 1)}, {seconds:.1f} seconds"
        most = "no hand" if pd.isna(largest) else f"at most {fingers_in_words(largest)}"
        st.caption(f"{summary}, {most}.{' Its sound could not be kept.' if result.is_sound_lost else ''}")
        with st.container(horizontal=True):
            st.download_button("MP4", result.video.getvalue(), "fingers.mp4", "video/mp4", icon=":material/download:")
            st.download_button("CSV", table.to_csv(index=False), "fingers.csv", icon=":material/download:")
            if example:
                st.button("Close", on_click=show_example, args=(False,))


def show_start() -> None:
    """Say what the page is for, and offer the example."""
    results.clear()  # large
    st.write("Record a hand that counts, and upload the video. It is processed frame by frame and never stored.")
    st.write("No video at hand? Try this one.")
    st.button("Use this video", on_click=show_example, args=(True,))
    st.video(EXAMPLE, muted=True, width=480)


def show_video() -> None:
    """Annotate the video, unless this is done, and show the result."""
    key = f"{file.file_id if file else EXAMPLE.name} {gradcam} {personal.id}"
    if key not in results:
        with at_work.container():
            process(file, gradcam, key)
        st.rerun()
    result = results[key]
    # After a click, this run may start before the stopped one has finished the file.
    result.finished.wait(FINISH_TIMEOUT_S)
    with done.container():
        if result.rows:
            show_result(result)
        elif result.error:
            st.error(result.error)
        else:
            st.info("Stopped before the first frame. Remove the video and add it again to process it.")


personal = show_title("Videos")
file = st.file_uploader("A video of hands", ["mp4", "mov", "m4v", "webm"])
if file:
    show_example(False)
example = st.session_state.get("example", False)
gradcam = st.toggle("Heatmap", help="Grad-CAM: where the model looked. The video is processed again for it.")
results: dict[str, Result] = st.session_state.setdefault("videos", {})
# A place for each stage, emptied as soon as another one starts: otherwise Streamlit would leave what the last run
# showed, such as the example, until this one ends.
start, at_work, done = st.empty(), st.empty(), st.empty()
if file or example:
    show_video()
else:
    with start.container():
        show_start()
