"""A film: its count over time, and the film with what was read drawn in."""

import io
import time
from pathlib import Path
from threading import Event

import pandas as pd
import streamlit as st

from handful.images import BadImage
from web import inference as metrics
from web.log import LOG
from web.uploads import contents
from web.video import BadVideo, annotate, readers
from web.widgets import show_counts

EXAMPLE = Path(__file__).parent.parent / "assets/counting.mp4"


def show_example(shown: bool) -> None:
    st.session_state.example = shown


st.title("Films")
file = st.file_uploader("A film of hands", ["mp4", "mov", "m4v", "webm"])
if file:
    show_example(False)
example = st.session_state.get("example", False)
gradcam = st.toggle("Show where the model looked", disabled=bool(file) or example, help="Choose before the film comes.")
# What was read of a film stays, also of one that was stopped half-way.
done: dict = st.session_state.setdefault("films", {})
if not file and not example:
    done.clear()  # large
    st.write("Film a hand that counts, and drop it here. It is read frame by frame, and kept nowhere.")
    st.write("No film at hand? Take this one.")
    st.button("Read this film", on_click=show_example, args=(True,))
    st.video(EXAMPLE, muted=True, width=480)
    st.stop()

key = file.file_id if file else EXAMPLE.name
if key not in done:
    done.clear()  # one film at a time
    progress = st.progress(0.0, "Reading …")
    while not readers.acquire(timeout=0.5):
        progress.progress(0.0, "Others' films are read first …")
    rows: list[dict] = []
    target = io.BytesIO()
    one: dict = {"rows": rows, "film": target, "problem": "", "closed": Event()}
    frames = annotate(file or io.BytesIO(EXAMPLE.read_bytes()), target, gradcam=gradcam)
    start = told = time.monotonic()
    try:
        st.button("Stop here")  # any click stops the loop below: Streamlit runs the page anew
        # Not `done[…]` from here on: that run may empty `done` before this one has ended.
        done[key] = one
        if file:
            contents(file)  # or there was no room for it
        for frame in frames:
            prediction = frame.prediction
            sides = ", ".join(f"{hand.side} {hand.fingers}" for hand in prediction.hands)
            rows.append({"seconds": round(frame.seconds, 3), "fingers": prediction.total, "hands": sides})
            now = time.monotonic()
            if now - told >= 0.2:
                told = now
                left = (now - start) * (1 / max(frame.progress, 1e-3) - 1)
                text = f"{frame.seconds:.0f} s read" + (f", {left:.0f} s left" if frame.progress else "")
                progress.progress(frame.progress, text)
    except (BadVideo, BadImage) as error:
        metrics.refused("videos", error.status)
        one["problem"] = str(error)
    finally:
        readers.release()
        frames.close()
        one["closed"].set()
        LOG.info("film read", extra={"frames": len(rows), "seconds": round(time.monotonic() - start, 1)})
    st.rerun()

# A click starts the page anew before what it stopped has written the film's end.
done[key]["closed"].wait(10)
rows, target, problem = (done[key][name] for name in ("rows", "film", "problem"))
if problem:
    st.error(problem)
elif not rows:
    st.info("It was stopped before its first frame was read. Remove the film, and add it again to read it.")
if rows:
    table = pd.DataFrame(rows)
    picture, chart = st.columns([3, 2], gap="medium")
    picture.video(target.getvalue())
    with chart:
        show_counts([tuple(row.values()) for row in rows], 220)
        st.caption(f"{len(table):,} frame{'s' * (len(table) > 1)}, {table.seconds.iloc[-1]:.1f} seconds.")
        with st.container(horizontal=True):
            st.download_button("MP4", target.getvalue(), "fingers.mp4", "video/mp4", icon=":material/download:")
            st.download_button("CSV", table.to_csv(index=False), "fingers.csv", icon=":material/download:")
            if example:
                st.button("Close", on_click=show_example, args=(False,))
