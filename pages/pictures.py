"""Pictures from files, the camera or the examples: their predictions, and why."""

import json
from dataclasses import replace
from html import escape

import cv2
import numpy as np
import pandas as pd
import streamlit as st
from streamlit.typing import UploadedFile

from handful import CLASSES, Box, Prediction
from handful.images import MAX_BYTES, BadImage
from handful.labels import describe
from web import inference, metrics
from web.uploads import file_contents
from web.widgets import BUNDLED, open_prediction, show_gallery, show_prediction

DISPLAY_SIDE = 1460  # pixels of the longer side; `st.image` sends none wider

Result = Prediction | str  # a string is the message of a BadImage


def shrink_for_display(image: np.ndarray, prediction: Prediction) -> tuple[np.ndarray, Prediction]:
    """Scale an image, (H, W, 3) uint8 RGB, and its prediction to `DISPLAY_SIDE`: drawing on 50 megapixels is slow."""
    scale = DISPLAY_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image, prediction

    def scaled(box: Box) -> Box:
        x0, y0, x1, y1 = (scale * x for x in box)
        return x0, y0, x1, y1

    hands = (replace(hand, box=scaled(hand.box), crop=scaled(hand.crop)) for hand in prediction.hands)
    size = max(1, round(scale * image.shape[1])), max(1, round(scale * image.shape[0]))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), replace(prediction, hands=tuple(hands))


def predict(file: UploadedFile) -> Result:
    """Return the prediction for a file, or why it is refused."""
    try:
        return inference.predict_file(file_contents(file), "pictures")
    except BadImage as error:
        metrics.record_refusal("pictures", error.status)
        return str(error)


def predict_new(files: list[UploadedFile], results: dict[str, Result]) -> None:
    """Predict the files that have no result yet, with a progress bar."""
    new = [file for file in files if file.file_id not in results]
    progress = st.empty()
    for done, file in enumerate(new, start=1):
        results[file.file_id] = predict(file)
        if len(new) > 1:
            progress.progress(done / len(new), f"{done} of {len(new)} pictures")
    progress.empty()


def show_table(files: list[UploadedFile], results: dict[str, Result]) -> int:
    """Show the results as a table with downloads, and return which row is selected."""
    rows, lines = [], []
    for file in files:
        result = results[file.file_id]
        if isinstance(result, str):
            rows.append({"file": file.name, "error": result})
            lines.append({"file": file.name, "error": result})
            continue
        row = {
            "file": file.name,
            "fingers": result.total,
            "raised": ", ".join("+".join(hand.raised) for hand in result.hands),
            "side": ", ".join(hand.side for hand in result.hands),
            "confidence": min((hand.confidence for hand in result.hands), default=None),
            "ms": round(result.milliseconds, 2),
        }
        rows.append(row)
        lines.append({"file": file.name, **result.to_dict()})
    table = pd.DataFrame(rows, columns=["file", "fingers", "raised", "side", "confidence", "ms", "error"])
    table = table.astype({"fingers": "Int64"})  # nullable: a refused picture has no count
    # Errors come second, where a phone shows them too, and only if there are any; raised fingers are in the CSV only.
    columns = ["file", *(["error"] if table["error"].any() else []), "fingers", "side", "confidence", "ms"]
    selection = st.dataframe(
        table,
        column_order=columns,
        column_config={
            "confidence": st.column_config.NumberColumn(format="percent"),
            "error": st.column_config.TextColumn(width="small"),  # leaves room for the counts on a phone
        },
        hide_index=True,
        placeholder="",
        on_select="rerun",
        selection_mode="single-row-required",
        key="table",
    ).selection
    with st.container(horizontal=True):
        st.download_button("CSV", table.to_csv(index=False), "fingers.csv", icon=":material/download:")
        st.download_button("JSON", json.dumps(lines, indent=1), "fingers.json", icon=":material/download:")
    return min(selection.rows[0], len(files) - 1)  # the list may have become shorter


def show_file(file: UploadedFile, result: Result, displayed: dict[str, tuple[np.ndarray, Prediction]]) -> None:
    """Show one file with its result; `displayed` caches what was decoded for it last."""
    # Not as Markdown, in which a file name may be an image or a formula.
    st.html(f'<h3 style="overflow-wrap: anywhere">{escape(file.name)}</h3>')
    if isinstance(result, str):
        st.error(result)
        return
    if file.file_id not in displayed:
        with inference.decoder_turn() as decoder:
            image, prediction = shrink_for_display(decoder.decode(file.getvalue()), result)
        displayed.clear()
        displayed[file.file_id] = image, prediction
    show_prediction(*displayed[file.file_id], file.file_id)


st.title("Pictures")
upload_tab, camera_tab = st.tabs(["Files", "Camera"], on_change="rerun")
with upload_tab:
    # Not every browser counts HEIC as an image. Files that are none are refused with a message.
    types = ["image", "heic", "heif", "hif"]
    uploads = st.file_uploader(
        "Pictures of hands", types, accept_multiple_files=True, max_upload_size=MAX_BYTES // 1_000_000
    )
files = uploads
if camera_tab.open:  # the browser asks for the camera only then
    with camera_tab:
        picture = st.camera_input("Hold up one or two hands")
    files = [picture] if picture else []

# A rerun must not run the model again, nor decode what is shown.
results: dict[str, Result] = st.session_state.setdefault("predictions", {})
displayed: dict[str, tuple[np.ndarray, Prediction]] = st.session_state.setdefault("displayed", {})
for removed in results.keys() - {file.file_id for file in (*uploads, *files)}:
    del results[removed]
    displayed.pop(removed, None)
predict_new(files, results)

if files:
    selected = files[show_table(files, results) if len(files) > 1 else 0]
    show_file(selected, results[selected.file_id], displayed)
elif not camera_tab.open:
    st.write("No picture at hand? Try one of these.")
    examples = [BUNDLED / f"{label}_0.jpg" for label in CLASSES]
    if clicked := show_gallery(examples, [describe(label) for label in CLASSES], "examples"):
        open_prediction(clicked)
