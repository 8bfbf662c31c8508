"""Pictures of the visitor's own hand, to train with: asked for in turn, taken, and handed over as a ZIP."""

import base64
import binascii

import streamlit as st

from model import CLASSES, SIDES
from model.images import BadImage, decode
from pages import browser, metrics
from pages.parts import PROBLEMS, words
from pages.recording import MAX_BYTES, Ask, Recording, Shot, hand_of

ROUNDS = 3  # each shows the hand anew; the last one is kept to measure with
WAIT = 3  # seconds to show the next hand
ALL = range(6)

recording: Recording = st.session_state.setdefault("recording", Recording())


def sentence(label: str) -> str:
    """What a class asks for: "Show 3 with your left hand"."""
    fingers, side = words(label).split()
    return f"Show {fingers} with your {side} hand"


def take() -> None:
    """Keep a burst that has come, if it is still what is asked for."""
    burst = st.session_state["recorder"]["burst"]
    if asked is None or burst["asked"] != str(asked):
        return
    try:
        recording.bursts[asked] = [read(picture, asked) for picture in burst["pictures"][:shots]]
    except (BadImage, binascii.Error) as error:
        st.session_state["refused"] = str(error)


def read(picture: str, asked: Ask) -> Shot:
    """A picture as it came, and where its hand is."""
    jpeg = base64.b64decode(picture[: 2 * MAX_BYTES])
    return Shot(jpeg, hand_of(metrics.read(decode(jpeg), "record"), asked.label))


st.title("Record your own hand")
