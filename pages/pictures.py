"""Pictures from files, the camera or the examples: their predictions, and why."""

import csv
import io
import json
from html import escape

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.typing import UploadedFile

from handful import CLASSES, Prediction
from handful.cli import COLUMNS, table_rows
from handful.images import MAX_BYTES, BadImage
from handful.labels import describe
from handful.overlay import resize
from web import inference, metrics
from web.personal import show_title
from web.uploads import file_contents
from web.widgets import BUNDLED, DISPLAY_SIDE, show_gallery, show_prediction

Result = Prediction | str  # a string is the message of a BadImage


def predict(file: UploadedFile) -> Result:
    """Return the prediction for a file, or why it is refused."""
    try:
        return inference.predict_file(file_contents(file), "pictures", personal.head)
    except BadImage as error:
        metrics.record_refusal("pictures", error.status)
        return str(error)


def predict_new(files: list[UploadedFile], results: dict[str, Result]) -> None:
    """Predict the files that have no result yet, with a progress bar."""
    new = [file for file in files if file.file_id not in results]
    progress = st.empty()
    for done, file in enumerate(new):
        progress.progress(done / len(new), f"Picture {done + 1} of {len(new)} …" if len(new) > 1 else "Counting …")
        results[file.file_id] = predict(file)
    progress.empty()


def show_refused(files: list[UploadedFile], results: dict[str, Result]) -> None:
    """Show the names of the files that were refused, and why."""
    for file in files:
        if isinstance(reason := results[file.file_id], str):
            # Not as Markdown, in which a file name may be an image or a formula.
            st.html(f'<p class="refused" role="alert"><b>{escape(file.name)}</b> {escape(reason)}</p>')


def select_picture(pictures: dict[str, tuple[UploadedFile, Prediction]]) -> str:
    """Show the pictures with their predictions as a table, and return the identifier of the selected one."""
    rows = [
        {
            "file": file.name,
            "fingers": prediction.total,
            "hands": ", ".join(f"{hand.side} {hand.fingers}" for hand in prediction.hands) or "none",
            "confidence": min((round(100 * hand.confidence) for hand in prediction.hands), default=None),
        }
        for file, prediction in pictures.values()
    ]
    selection = st.dataframe(
        pd.DataFrame(rows),
        column_config={
            "file": st.column_config.TextColumn("File"),
            "fingers": st.column_config.NumberColumn("Fingers", width="small"),
            "hands": st.column_config.TextColumn("Hands"),
            "confidence": st.column_config.NumberColumn("Confidence", format="%d%%", help="of the least certain hand"),
        },
        hide_index=True,
        placeholder="",
        on_select="rerun",
        selection_mode="single-row-required",
        key="table",
    ).selection
    # The list may have become shorter; and a forged row is none of it.
    return next((file for row, file in enumerate(pictures) if [row] == selection.rows[:1]), list(pictures)[-1])


def show_downloads(files: list[UploadedFile], results: dict[str, Result], row: DeltaGenerator) -> None:
    """Add buttons to a row: all results as the command line writes them, a table with one row per hand, and JSON."""
    lines = []
    for file in files:
        result = results[file.file_id]
        lines.append({"file": file.name} | ({"error": result} if isinstance(result, str) else result.to_dict()))
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, COLUMNS, extrasaction="ignore")
    writer.writeheader()
    for line in lines:
        writer.writerows(table_rows(line))
    with row:
        st.download_button("CSV", table.getvalue(), "fingers.csv", icon=":material/download:")
        st.download_button("JSON", json.dumps(lines, indent=1), "fingers.json", icon=":material/download:")


def show_file(
    file: UploadedFile, prediction: Prediction, displayed: dict[str, tuple[np.ndarray, Prediction]]
) -> DeltaGenerator:
    """Show one file with its prediction, and return its row of download buttons.

    `displayed` caches what was decoded for it last.
    """
    if file.file_id not in displayed:
        with st.spinner("Decoding …"), inference.decoder_turn() as decoder:
            # Drawing on 50 megapixels is slow.
            shown = resize(decoder.decode(file.getvalue()), prediction, DISPLAY_SIDE)
        displayed.clear()
        displayed[file.file_id] = shown
    return show_prediction(*displayed[file.file_id], file.file_id, file.name)


personal = show_title("Pictures")
upload_tab, camera_tab = st.tabs(["Files", "Camera"], key="source", on_change="rerun")
with upload_tab:
    # Not every browser counts HEIC as an image. Files that are none are refused with a message.
    types = ["image", "heic", "heif", "hif"]
    uploads = st.file_uploader(
        "Pictures of hands", types, accept_multiple_files=True, max_upload_size=MAX_BYTES // 1_000_000
    )
files = uploads
if camera_tab.open:  # the browser asks for the camera only then
    with camera_tab:
        picture = st.camera_input("Hold up one or two hands", width=560)  # its result is in sight below
    if picture:
        picture.name = "Camera picture"
    files = [picture] if picture else []

# A rerun must not run the model again, nor decode what is shown, unless another head predicts.
if st.session_state.setdefault("predicted by", "") != personal.id:
    st.session_state.update({"predicted by": personal.id, "predictions": {}, "displayed": {}})
results: dict[str, Result] = st.session_state.setdefault("predictions", {})
displayed: dict[str, tuple[np.ndarray, Prediction]] = st.session_state.setdefault("displayed", {})
for removed in results.keys() - {file.file_id for file in (*uploads, *files)}:
    del results[removed]
    displayed.pop(removed, None)
predict_new(files, results)

show_refused(files, results)
pictures = {file.file_id: (file, result) for file in files if isinstance(result := results[file.file_id], Prediction)}
selected = next(iter(pictures), None)
if len(pictures) > 1:
    selected = select_picture(pictures)
if len(files) > 1:
    show_downloads(files, results, st.container(horizontal=True))
if selected:
    downloads = show_file(*pictures[selected], displayed)
    if len(files) == 1:
        show_downloads(files, results, downloads)
if not files and not camera_tab.open:
    st.write("No picture at hand? Try one of these.")
    examples = [BUNDLED / f"{label}_0.jpg" for label in CLASSES]
    show_gallery(examples, [describe(label) for label in CLASSES], "examples", personal.head)
