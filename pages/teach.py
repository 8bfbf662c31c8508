"""Record pictures of the visitor's own hand, class by class, and download them as a ZIP for training."""

import base64

import streamlit as st

from handful import CLASSES, COUNTS, SIDES
from handful.images import BadImage
from handful.labels import decode as decode_label
from handful.labels import describe, encode
from web import browser_camera as browser
from web import inference, metrics
from web.recording import MAX_JPEG_BYTES, Prompt, Recording, Shot, box_of_label
from web.widgets import THUMBNAIL_COLUMNS, fingers_in_words

ROUNDS = 3  # each shows the hand anew; training validates on the last one
COUNTDOWN_S = 3
SHOTS_PER_CLASS = (6, 9, 15)
# See docs/teach.md.
COMMANDS = """\
python -m training fit --config training/configs/own.yaml
python -m training export --detector model/handful.onnx --classifier runs/own/best.ckpt --output own.onnx
HANDFUL_MODEL=own.onnx python -m streamlit run app.py"""


def instruction(label: str) -> str:
    """Return what to show: "3 fingers with your left hand"."""
    count, side = decode_label(CLASSES.index(label))
    return f"{fingers_in_words(count)} with your {side} hand"


def receive_burst() -> None:
    """Add a burst to the recording, if it is of the current prompt."""
    burst = st.session_state["recorder"]["burst"]
    if prompt is None or burst["prompt"] != str(prompt):
        return
    try:
        shots = [parse_shot(picture, prompt.label) for picture in burst["pictures"][:burst_size]]
    except BadImage as error:
        metrics.record_refusal("teach", error.status)
        st.toast(f"{error} Press Stop, then Start.", icon=":material/error:")
    else:
        recording.bursts[prompt] = shots


def parse_shot(picture: str, label: str) -> Shot:
    """Decode a picture of a burst, a JPEG in base64, and detect its hand.

    Raises:
        BadImage: it is larger than `MAX_JPEG_BYTES`, or damaged.
    """
    jpeg = base64.b64decode(picture)
    if len(jpeg) > MAX_JPEG_BYTES:
        limit = MAX_JPEG_BYTES // 1_000_000
        raise BadImage(f"The picture is larger than {limit} MB. Choose a camera with a lower resolution.", 413)
    return Shot(jpeg, box_of_label(inference.predict_file(jpeg, "teach"), label))


def skip() -> None:
    if prompt:
        recording.bursts[prompt] = []


def show_progress(running: bool) -> None:
    """Show the current prompt, and how many are left."""
    if prompt:
        st.subheader(f"Show {instruction(prompt.label)}")
        done = 1 - len(remaining) / len(plan)
        st.progress(done, f"Round {prompt.round} of {ROUNDS}, {len(remaining)} to go")
        if not running:
            st.write(
                f"Press Start and hold up only this hand, fully in view. After {COUNTDOWN_S} seconds, {burst_size} "
                "pictures are taken while you move and turn the hand a little; then the next prompt follows."
            )
    elif plan:
        st.subheader("Recording complete")
        st.progress(1.0, "Download the pictures and train on them.")
    else:
        st.info("Choose at least one count and one hand below.")


def show_last_burst() -> None:
    last, burst = next(reversed(recording.bursts.items()))
    if missed := sum(shot.box is None for shot in burst):
        st.warning(
            f"No hand was detected in {missed} of {len(burst)} pictures. They are kept, but training skips them. More "
            "light, or a hand nearer to the camera, helps.",
            icon=":material/lightbulb:",
        )
    with st.grid(THUMBNAIL_COLUMNS, min_column_width=72, gap="xsmall"):
        for number, shot in enumerate(burst, start=1):
            st.image(shot.jpeg, width="stretch", alt=f"{describe(last.label)}, picture {number}")


def show_recording() -> None:
    """Show all that was recorded, with its download and the commands to train on it."""
    shots = recording.shots
    missed = sum(shot.box is None for shot in shots)
    st.write(f"**{len(shots)} pictures**, " + (f"{missed} without a detected hand." if missed else "a hand in each."))
    with st.container(horizontal=True):
        st.download_button(
            "Download own-hand.zip",
            recording.to_zip,
            "own-hand.zip",
            "application/zip",
            icon=":material/download:",
            type="primary",
            on_click="ignore",
        )
        st.button("Delete all", icon=":material/delete:", on_click=recording.bursts.clear)
    with st.expander("Train on them"):
        st.write("Put the ZIP into `data/own` of a clone of Handful, and run there:")
        st.code(COMMANDS, language="sh")
    with st.grid(THUMBNAIL_COLUMNS, min_column_width=96, gap="xsmall"):
        for label in CLASSES:
            of_label = [shot for prompt, burst in recording.bursts.items() if prompt.label == label for shot in burst]
            if of_label:
                caption = f"{describe(label)}, {len(of_label)}"
                st.image(of_label[0].jpeg, caption, width="stretch", alt=describe(label))


recording: Recording = st.session_state.setdefault("recording", Recording())

st.title("Teach")
st.write(
    "Teach the model your own hand: follow the prompts, download the pictures, and train on them. They stay in the "
    "server's memory for this session only and are never stored; download them before you leave."
)
stage = st.container()  # above the settings
with st.container(horizontal=True, gap="medium"):
    counts = st.pills(
        "Fingers", COUNTS, default=COUNTS, selection_mode="multi", key="fingers asked", persist_state="session"
    )
    sides = st.pills("Hands", SIDES, default=SIDES, selection_mode="multi", key="hands asked", persist_state="session")
    shots_per_class = st.segmented_control(
        "Pictures per class", SHOTS_PER_CLASS, default=9, required=True, key="each", persist_state="session"
    )
burst_size = shots_per_class // ROUNDS
labels = [CLASSES[encode(count, side)] for count in COUNTS for side in SIDES if count in counts and side in sides]
plan = [Prompt(number, label) for number in range(1, ROUNDS + 1) for label in labels]
remaining = recording.remaining(plan)
prompt = remaining[0] if remaining else None

with stage:
    left, right = st.columns([3, 2], gap="medium")
with left:
    state = browser.recorder(
        "recorder",
        prompt=str(prompt or ""),
        instruction=instruction(prompt.label) if prompt else "",
        burst_size=burst_size,
        countdown_s=COUNTDOWN_S,
        on_burst=receive_burst,
    )
    if problem := state.get("problem"):
        st.error(browser.PROBLEMS.get(problem, browser.PROBLEMS["unknown"]))
with right:
    show_progress(state["running"])
    with st.container(horizontal=True):
        st.button("Skip", disabled=not prompt, on_click=skip)
        st.button("Undo", disabled=not recording.bursts, on_click=recording.undo, help="Remove the last burst")
    if recording.bursts:
        show_last_burst()

if recording.shots:
    show_recording()
