"""Widgets that more than one page shows."""

import hashlib
import os
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from handful import CLASSES, COUNTS, FINGERS, SIDES, Hand, Prediction, shared_counter
from handful.images import BadImage, decode
from handful.labels import MAX_HANDS, describe
from handful.labels import decode as decode_label
from handful.overlay import draw, resize
from handful.personal import PersonalHead

# The folder of the datasets: fingers/train/… and fingers/test/…
DATA = Path(os.environ.get("HANDFUL_DATA") or "data")
BUNDLED = Path(__file__).parents[1] / "assets/samples"
PRIMARY_COLOR = "#0f8a80"
THUMBNAIL_COLUMNS = 6
DISPLAY_SIDE = 1460  # pixels of the longer side of a picture that is shown; `st.image` sends none wider


def is_readable_folder(path: Path) -> bool:
    """Return whether the files in a folder can be listed and opened."""
    return os.path.isdir(path) and os.access(path, os.R_OK | os.X_OK)


def label_from_name(path: Path) -> str:
    """Return the class in a file's name, "3L" for …_3L.png and for 3L_0.jpg, or "".

    Whatever else is in the names of Kaggle Fingers is hexadecimal, which has neither L nor R.
    """
    match = re.search(r"[0-5][LR]", path.stem)
    return match[0] if match else ""


def is_correct(prediction: Prediction, path: Path) -> bool:
    """Return whether exactly one hand was predicted, of the class in the file's name."""
    return [hand.label for hand in prediction.hands] == [label_from_name(path)]


def fingers_in_words(count: int) -> str:
    """Return a count in words: "1 finger"."""
    return f"{count} finger{'' if count == 1 else 's'}"


def headline(prediction: Prediction) -> str:
    """Return what a picture shows: "10 fingers · 2 hands"."""
    hands = len(prediction.hands)
    if not hands:
        return "No hand found"
    return f"{fingers_in_words(prediction.total)} · {hands} hand{'' if hands == 1 else 's'}"


def finger_marks(hand: Hand) -> str:
    """Return the HTML of five small marks, thumb to little finger, of which those of raised fingers are lit."""
    marks = "".join(f'<i class="{"raised" if finger in hand.raised else ""}"></i>' for finger in FINGERS)
    label = f"raised: {', '.join(hand.raised) or 'none'}"
    return f'<span role="img" aria-label="{label}" title="{label}" class="fingers {hand.side}">{marks}</span>'


def probability_bars(hand: Hand) -> str:
    """Return the HTML of the probability of every class as a bar, always at the same place and scale.

    One row per count: left hands grow to the left, right hands to the right, as hands lie on a table.
    """
    rows = []
    for count, (left, right) in enumerate(hand.probabilities.reshape(len(SIDES), len(COUNTS)).T):
        predicted = "predicted" if hand.fingers == count else ""
        # A screen reader gets each row as one sentence.
        rows.append(
            f'<span aria-hidden="true" class="left">{left:.0%}</span>'
            f'<span aria-hidden="true" class="track left"><i style="width:{left:.1%}"></i></span>'
            f'<b role="img" aria-label="{count}: {left:.0%} left, {right:.0%} right" class="{predicted}">{count}</b>'
            f'<span aria-hidden="true" class="track right"><i style="width:{right:.1%}"></i></span>'
            f'<span aria-hidden="true">{right:.0%}</span>'
        )
    left, right = (f'<span aria-hidden="true" class="head {side}">{side}</span>' for side in SIDES)
    return f'<div class="bars" data-testid="probabilities">{left}<b></b>{right}{"".join(rows)}</div>'


def show_hand(hand: Hand, details: bool) -> None:
    """Show a card in the colour of the hand's side: its count, raised fingers and confidence, and the `details`."""
    raised = ", ".join(hand.raised) or "none"
    st.html(
        f'<section class="hand {hand.side}" aria-label="{hand.side} hand">'
        f"<p><b>{fingers_in_words(hand.fingers)}</b> {hand.side} hand <span>{hand.confidence:.0%} confidence</span></p>"
        f"<p>{finger_marks(hand)} <span>raised: {raised}</span></p>"
        f"<details {'open' if details else ''}><summary>Probabilities</summary>{probability_bars(hand)}</details>"
        "</section>"
    )


def show_prediction(image: np.ndarray, prediction: Prediction, key: str, name: str) -> DeltaGenerator:
    """Show an image with its prediction: boxes, a card for each hand, and the Grad-CAM heatmap of any class.

    Returns the row of download buttons, for further ones.

    Args:
        image: (H, W, 3) uint8 RGB.
        prediction: of that image.
        key: of the widgets.
        name: of the picture.
    """
    image, prediction = resize(image, prediction, DISPLAY_SIDE)
    with st.container(key=f"headline {key}", gap=None):
        st.header(headline(prediction), anchor=False)
        # Not as Markdown, in which a file name may be an image or a formula.
        st.html(f'<p class="file">{escape(name)}</p>')
    left, right = st.columns([3, 2], gap="medium")
    if not prediction.hands:
        left.image(image, width="stretch", alt="The picture")
        downloads = left.container(horizontal=True)
        right.info("Show the whole hand in even light, large enough: at least a tenth of the picture's height.")
        return downloads
    with right:
        for hand in prediction.hands:
            show_hand(hand, details=len(prediction.hands) == 1)
        if len(prediction.hands) == MAX_HANDS:
            st.caption(f"At most {MAX_HANDS} hands are counted. If there are more, crop the picture.")
        gradcam = st.toggle("Heatmap", True, key=f"gradcam {key}", help="Grad-CAM: where the model looked.")
        label = st.selectbox(
            "Explain class",
            ("", *CLASSES),
            format_func=lambda label: describe(label) if label else "As predicted",
            disabled=not gradcam,
            key=f"label {key}",
            help="What speaks for this class: bright where it counts most.",
        )
    annotated = draw(image, prediction, label=label or None, gradcam=gradcam)
    with left:
        st.image(annotated, width="stretch", alt="The picture with the prediction drawn in")
        downloads = st.container(horizontal=True)
    downloads.download_button(
        "Annotated picture",
        lambda: cv2.imencode(".jpg", annotated[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes(),
        f"{Path(name).stem}-annotated.jpg",
        "image/jpeg",
        icon=":material/download:",
        key=f"annotated {key}",
    )
    return downloads


@st.dialog("Prediction", width="medium")
def open_prediction(path: Path, personal: PersonalHead | None) -> None:
    """Run the model on a picture and show the prediction in a dialog."""
    name = os.fsencode(path.name).decode(errors="replace")  # it may be no UTF-8
    try:
        image = decode(path)
    except BadImage as error:
        st.error(str(error).replace(str(path), name))
        return
    prediction = shared_counter()(image, personal)
    if label := label_from_name(path):  # only names of Kaggle Fingers have one
        count, side = decode_label(CLASSES.index(label))
        correct = is_correct(prediction, path)
        text = f"{fingers_in_words(count)}, {side} hand"
        st.badge(
            f"Correct: {text}" if correct else f"Incorrect: the label is {text}", color="green" if correct else "red"
        )
    show_prediction(image, prediction, path_key(path), name)


def path_key(path: Path) -> str:
    """Return a key of widgets for a file, which does not tell browsers where it is."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def show_gallery(
    paths: Sequence[Path], captions: Sequence[str], key: str, personal: PersonalHead | None = None
) -> None:
    """Show pictures as a grid of buttons that open their predictions, by a personal head if there is one."""
    with st.grid(THUMBNAIL_COLUMNS, min_column_width=96, gap="xsmall"):
        for path, caption in zip(paths, captions, strict=True):
            # The style sheet stretches the button over the picture.
            with st.container(gap=None, key=f"thumbnail {key} {path_key(path)}"):
                try:
                    st.image(decode(path), width="stretch", alt=caption)
                except BadImage:
                    st.caption("damaged")
                if st.button(caption, key=f"{key} {path_key(path)}", type="tertiary", width="stretch"):
                    open_prediction(path, personal)
