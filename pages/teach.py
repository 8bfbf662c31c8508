"""Pictures of the visitor's own hand, to train with: asked for in turn, taken, and handed over as a ZIP."""

import base64

import streamlit as st

from handful import CLASSES, SIDES
from handful.images import BadImage
from web import browser_camera as browser
from web import inference as metrics
from web.recording import MAX_BYTES, Ask, Recording, Shot, hand_of
from web.widgets import words

ROUNDS = 3  # each shows a hand anew; training keeps the last one to measure with
WAIT = 3  # seconds to put up the next hand
# As docs/own.md tells at length.
COMMANDS = """\
python -m training fit --config training/configs/own.yaml
python -m training export --detector model/handful.onnx --classifier runs/own/best.ckpt --output own.onnx
HANDFUL_MODEL=own.onnx python -m streamlit run app.py"""


def sentence(label: str) -> str:
    """What is asked for: "3 with your left hand"."""
    fingers, side = words(label).split()
    return f"{fingers} with your {side} hand"


def take() -> None:
    """Keep a burst that has come, if it is what is asked for now."""
    burst = st.session_state["recorder"]["burst"]
    if asked is None or burst["asked"] != str(asked):
        return
    try:
        recording.bursts[asked] = [read(picture, asked.label) for picture in burst["pictures"][:shots]]
    except BadImage as error:
        metrics.refused("teach", error.status)
        st.toast(f"{error} Press Stop, then Start.", icon=":material/error:")


def read(picture: str, label: str) -> Shot:
    """A picture as it came, a JPEG in base64, and where its hand is.

    Raises:
        BadImage: it is too large for a visit's memory, or damaged.
    """
    jpeg = base64.b64decode(picture)
    if len(jpeg) > MAX_BYTES:
        raise BadImage(f"A picture has more than {MAX_BYTES // 1_000_000} MB. Choose a smaller camera.", 413)
    return Shot(jpeg, hand_of(metrics.read_picture(jpeg, "teach"), label))


def skip() -> None:
    if asked:
        recording.bursts[asked] = []


recording: Recording = st.session_state.setdefault("recording", Recording())

st.title("Record")
st.write(
    "Teach it your own hand: it asks, you show, it takes pictures, and you train with them. They stay in this "
    "server's memory for this visit only, and are kept nowhere: download them before you leave."
)
stage = st.container()
with st.container(horizontal=True, gap="medium"):
    fingers = st.pills(
        "Fingers", range(6), default=range(6), selection_mode="multi", key="fingers asked", persist_state="session"
    )
    sides = st.pills("Hands", SIDES, default=SIDES, selection_mode="multi", key="hands asked", persist_state="session")
    each = st.segmented_control(
        "Pictures of each", [6, 9, 15], default=9, required=True, key="each", persist_state="session"
    )
shots = each // ROUNDS
labels = [label for label in CLASSES if int(label[0]) in fingers and words(label).split()[1] in sides]
plan = [Ask(when, label) for when in range(1, ROUNDS + 1) for label in sorted(labels)]
left = recording.left(plan)
asked = left[0] if left else None

with stage:
    camera, told = st.columns([3, 2], gap="medium")
with camera:
    state = browser.recorder(
        "recorder",
        asked=str(asked or ""),
        words=sentence(asked.label) if asked else "",
        shots=shots,
        wait=WAIT,
        on_burst=take,
    )
    if problem := state.get("problem"):
        st.error(browser.PROBLEMS.get(problem, browser.PROBLEMS["unknown"]))
with told:
    if asked:
        st.subheader(f"Show {sentence(asked.label)}")
        st.progress(1 - len(left) / len(plan), f"Round {asked.round} of {ROUNDS}, {len(left)} to go")
        if not state["running"]:
            st.write(
                f"Press Start and put up the hand, alone and all in view. After {WAIT} seconds it takes {shots} "
                "pictures, while you move and turn the hand a little, and asks for the next."
            )
    elif plan:
        st.subheader("That is all")
        st.progress(1.0, "Download the pictures, and train with them.")
    else:
        st.info("Choose some fingers and a hand below.")
    with st.container(horizontal=True):
        st.button("Skip", disabled=not asked, on_click=skip)
        st.button("Again", disabled=not recording.bursts, on_click=recording.take_back, help="Take the last one back")
    if recording.bursts:
        last, burst = next(reversed(recording.bursts.items()))
        if missed := sum(shot.box is None for shot in burst):
            st.warning(
                f"In {missed} of {len(burst)} pictures no hand was found. They are kept, but cannot be learned from: "
                "more light, or a hand nearer to the camera, helps.",
                icon=":material/lightbulb:",
            )
        with st.grid(6, min_column_width=72, gap="xsmall"):
            for number, shot in enumerate(burst, start=1):
                st.image(shot.jpeg, width="stretch", alt=f"{words(last.label)}, picture {number}")

if taken := recording.shots:
    missed = sum(shot.box is None for shot in taken)
    st.write(f"**{len(taken)} pictures**, " + (f"no hand found in {missed} of them." if missed else "a hand in each."))
    with st.container(horizontal=True):
        st.download_button(
            "Download own-hand.zip",
            recording.archive,
            "own-hand.zip",
            "application/zip",
            icon=":material/download:",
            type="primary",
            on_click="ignore",
        )
        st.button("Delete all", icon=":material/delete:", on_click=recording.bursts.clear)
    with st.expander("Train with them"):
        st.write("Put the ZIP into `data/own` of a copy of Handful, and run there:")
        st.code(COMMANDS, language="sh")
    first = {ask.label: burst[0] for ask, burst in reversed(recording.bursts.items()) if burst}
    with st.grid(6, min_column_width=96, gap="xsmall"):
        for label in CLASSES:
            if label in first:
                count = sum(len(burst) for ask, burst in recording.bursts.items() if ask.label == label)
                st.image(first[label].jpeg, f"{words(label)}, {count}", width="stretch", alt=words(label))
