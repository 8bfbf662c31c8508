"""What more than one page shows."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from handful import CLASSES, Hand, Prediction, shared_counter
from handful.images import BadImage, decode
from handful.overlay import draw

# The folder that holds the data sets: fingers/train/… and fingers/test/…
DATA = Path(os.environ.get("HANDFUL_DATA", "data"))
BUNDLED = Path(__file__).parent.parent / "assets/samples"


def words(label: str) -> str:
    """A class in words: "3 left" for "3L"."""
    return f"{label[0]} {'left' if label[1] == 'L' else 'right'}"


def truth(picture: Path) -> str:
    """The class that a picture's name tells: "3L" for …_3L.png and for 3L_0.jpg.

    What else is in these names, hexadecimal numbers, holds neither L nor R.
    """
    found = re.search(r"[0-5][LR]", picture.stem)
    return found[0] if found else ""


def show_probabilities(hand: Hand | None) -> None:
    """Draw the 12 probabilities as bars, always in the same places and of the same scale.

    One row a count: left hands grow to the left, right hands to the right, as hands lie on a table.
    """
    probabilities = hand.probabilities if hand else np.zeros(len(CLASSES))
    rows = []
    for fingers in range(6):
        left, right = probabilities[fingers], probabilities[fingers + 6]
        told = "told" if hand and hand.fingers == fingers else ""
        # Each row is one sentence to who hears it.
        rows.append(
            f'<span aria-hidden="true" class="left">{left:.0%}</span>'
            f'<span aria-hidden="true" class="track left"><i style="width:{left:.1%}"></i></span>'
            f'<b role="img" aria-label="{fingers}: {left:.0%} left, {right:.0%} right" class="{told}">{fingers}</b>'
            f'<span aria-hidden="true" class="track right"><i style="width:{right:.1%}"></i></span>'
            f'<span aria-hidden="true">{right:.0%}</span>'
        )
    st.html(
        '<div class="bars" data-testid="probabilities"><span aria-hidden="true" class="head left">left</span>'
        '<b></b><span aria-hidden="true" class="head">right</span>' + "".join(rows) + "</div>"
    )


def show_counts(counts: Sequence[tuple], height: int, span: tuple[float, float] | None = None) -> None:
    """Draw the count over time, as steps.

    Args:
        counts: (seconds, fingers) of each frame, or (seconds, fingers, hands): the pointer tells those in words, too.
        height: pixels.
        span: first and last second of the axis; by default those of the counts.
    """
    # Only where something changes, and the end: a step needs no more. Live draws five times a second: neither pandas
    # is to find that out, nor Altair to check how it is drawn, which would take longer than all else.
    ends = (0, len(counts) - 1)
    steps = [(round(now[0], 2), *now[1:]) for i, now in enumerate(counts) if i in ends or now[1:] != counts[i - 1][1:]]
    names = ["seconds", "fingers", "hands"][: len(steps[0])]
    most = max(10, *(step[1] for step in steps))
    line = {
        "height": height,
        "mark": {"type": "line", "interpolate": "step-after", "color": "#0f8a80", "strokeWidth": 3},
        "encoding": {
            "x": {
                "field": "seconds",
                "type": "quantitative",
                "scale": {"domain": span} if span else {},
                "axis": {"tickCount": 6, "labelExpr": "datum.label + ' s'"},
                "title": None,
            },
            "y": {
                "field": "fingers",
                "type": "quantitative",
                "scale": {"domain": [0, most]},
                "axis": {"values": list(range(0, most + 1, 5))},
                "title": None,
            },
            "tooltip": [{"field": name} for name in names],
        },
    }
    st.vega_lite_chart(pd.DataFrame(steps, columns=names), line)


def show_reading(image: np.ndarray, prediction: Prediction, key: str) -> None:
    """Draw a picture with what was read in it, and why: bars and Grad-CAM of any class."""
    picture, why = st.columns([3, 2], gap="medium")
    if not prediction.hands:
        picture.image(image, width="stretch", alt="The picture")
        why.info("No hand was found in this picture.")
        return
    with why:
        for hand in prediction.hands:
            with st.container(horizontal=True, gap="medium"):
                st.metric("Fingers", hand.fingers, width="content")
                st.metric("Side", hand.side, width="content")
                st.metric("Sure", f"{hand.confidence:.0%}", width="content")
            show_probabilities(hand)
        gradcam = st.toggle("Show where the model looked", True, key=f"gradcam {key}")
        told = prediction.hands[0].label
        label = st.selectbox(
            "for the class",
            CLASSES,
            CLASSES.index(told),
            format_func=lambda label: words(label) + (" (told)" if label == told else ""),
            disabled=not gradcam,
            key=f"label {key}",
        )
    # Of several hands, each has a class told of its own.
    shown = draw(image, prediction, label=None if label == told else label, gradcam=gradcam)
    picture.image(shown, width="stretch", alt="The picture, with what was read drawn in")


def is_right(prediction: Prediction, picture: Path) -> bool:
    """Whether one hand was found, of the class that the picture's name tells."""
    return [hand.label for hand in prediction.hands] == [truth(picture)]


@st.dialog("Reading", width="medium")
def open_picture(picture: Path) -> None:
    """Read a picture of a data set and show it over the page."""
    try:
        image = decode(picture)
    except BadImage as error:
        st.error(str(error))
        return
    prediction = shared_counter()(image)
    if there := truth(picture):  # the names of other sets than Kaggle Fingers do not tell it
        right = is_right(prediction, picture)
        st.badge(f"{'Right' if right else 'Wrong'}: this is {words(there)}", color="green" if right else "red")
    show_reading(image, prediction, picture.name)


def show_gallery(pictures: Sequence[Path], captions: Sequence[str], key: str) -> Path | None:
    """Lay out pictures as buttons. Returns the one that was clicked."""
    clicked = None
    with st.grid(6, min_column_width=96, gap="xsmall"):
        for picture, caption in zip(pictures, captions, strict=True):
            # The style sheet stretches the button over the picture.
            with st.container(gap=None, key=f"thumbnail {key} {picture.stem}"):
                try:
                    st.image(decode(picture), width="stretch", alt=caption)
                except BadImage:
                    st.caption("damaged")
                if st.button(caption, key=f"{key} {picture}", type="tertiary", width="stretch"):
                    clicked = picture
    return clicked
