"""Pictures from files, from the camera or from the examples: what is in them, and why."""

import json
from dataclasses import replace
from html import escape

import cv2
import numpy as np
import pandas as pd
import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from handful import CLASSES, Box, Prediction
from handful.images import MAX_BYTES, BadImage, decode
from web import inference as metrics
from web.uploads import contents
from web.widgets import BUNDLED, open_picture, show_gallery, show_reading, words

SHOWN = 1460  # pixels of the longer side, as wide as `st.image` sends pictures at most

st.title("Pictures")
upload, camera = st.tabs(["Files", "Camera"], on_change="rerun")
with upload:
    # Not every browser knows that HEIC is a picture. What is none after all is told with the readings.
    kinds = ["image", "heic", "heif", "hif"]
    files = st.file_uploader(
        "Pictures of hands", kinds, accept_multiple_files=True, max_upload_size=MAX_BYTES // 1_000_000
    )
if camera.open:  # only then does the browser ask for the camera
    with camera:
        shot = st.camera_input("Hold up a hand, or two")
    shown = [shot] if shot else []
else:
    shown = files


def smaller(image: np.ndarray, prediction: Prediction) -> tuple[np.ndarray, Prediction]:
    """A picture and its reading, at the size in which the page shows them: drawing upon 50 megapixels takes seconds."""
    scale = SHOWN / max(image.shape[:2])
    if scale >= 1:
        return image, prediction

    def scaled(box: Box) -> Box:
        x0, y0, x1, y1 = (scale * x for x in box)
        return x0, y0, x1, y1

    hands = (replace(hand, box=scaled(hand.box), crop=scaled(hand.crop)) for hand in prediction.hands)
    size = max(1, round(scale * image.shape[1])), max(1, round(scale * image.shape[0]))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), replace(prediction, hands=tuple(hands))


def read(file: UploadedFile) -> Prediction | str:
    """Read a picture, or tell what is wrong with it."""
    try:
        return metrics.read_picture(contents(file), "pictures")
    except BadImage as error:
        metrics.refused("pictures", error.status)
        return str(error)


# What was read stays read, and what is shown decoded: a click elsewhere on the page does nothing anew.
known: dict[str, Prediction | str] = st.session_state.setdefault("predictions", {})
drawn: dict[str, tuple[np.ndarray, Prediction]] = st.session_state.setdefault("drawn", {})
for gone in known.keys() - {file.file_id for file in (*files, *shown)}:
    del known[gone]
    drawn.pop(gone, None)
new = [file for file in shown if file.file_id not in known]
progress = st.empty()
for done, file in enumerate(new, start=1):
    known[file.file_id] = read(file)
    if len(new) > 1:
        progress.progress(done / len(new), f"{done} of {len(new)} pictures read")
progress.empty()

chosen = 0
if len(shown) > 1:
    table, lines = [], []
    for file in shown:
        prediction = known[file.file_id]
        if isinstance(prediction, str):
            table.append({"file": file.name, "error": prediction})
            lines.append({"file": file.name, "error": prediction})
            continue
        row = {
            "file": file.name,
            "fingers": prediction.total,
            "side": ", ".join(hand.side for hand in prediction.hands),
            "confidence": min((hand.confidence for hand in prediction.hands), default=None),
            "ms": round(prediction.milliseconds, 2),
        }
        table.append(row)
        lines.append({"file": file.name, **prediction.to_dict()})
    frame = pd.DataFrame(table, columns=["file", "fingers", "side", "confidence", "ms", "error"])
    frame = frame.astype({"fingers": "Int64"})  # a picture that was not read has no count
    # Errors stand beside the name, where a phone shows them too, and only if there are any.
    told = ["file", *(["error"] if frame["error"].any() else []), "fingers", "side", "confidence", "ms"]
    selection = st.dataframe(
        frame,
        column_order=told,
        column_config={
            "confidence": st.column_config.NumberColumn(format="percent"),
            "error": st.column_config.TextColumn(width="small"),  # counts have room on a phone, too
        },
        hide_index=True,
        placeholder="",
        on_select="rerun",
        selection_mode="single-row-required",
        key="table",
    ).selection
    chosen = min(selection.rows[0], len(shown) - 1)  # the list may have become shorter
    with st.container(horizontal=True):
        st.download_button("CSV", frame.to_csv(index=False), "fingers.csv", icon=":material/download:")
        st.download_button("JSON", json.dumps(lines, indent=1), "fingers.json", icon=":material/download:")

if shown:
    file = shown[chosen]
    prediction = known[file.file_id]
    # Not as Markdown: names may hold whatever that would take for pictures or formulas.
    st.html(f'<h3 style="overflow-wrap: anywhere">{escape(file.name)}</h3>')
    if isinstance(prediction, str):
        st.error(prediction)
    else:
        small = drawn.get(file.file_id)
        if not small:
            with metrics.turns:
                small = smaller(decode(file.getvalue()), prediction)
            drawn.clear()  # one at a time
            drawn[file.file_id] = small
        show_reading(*small, file.file_id)
elif not camera.open:
    st.write("No picture at hand? Take one of these.")
    examples = [BUNDLED / f"{label}_0.jpg" for label in CLASSES]
    if clicked := show_gallery(examples, [words(label) for label in CLASSES], "examples"):
        open_picture(clicked)
