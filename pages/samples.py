"""The data set, page by page: what a picture shows, what the model tells, and why."""

from pathlib import Path
from typing import NamedTuple

import streamlit as st

from handful import CLASSES, SIDES, shared_counter
from handful.images import BadImage, decode
from web.widgets import BUNDLED, DATA, is_right, open_picture, show_gallery, truth, words

PAGE = 24


@st.cache_data(max_entries=8, show_spinner=False)
def list_pictures(folder: Path, changed: float) -> list[Path]:
    """The pictures of a folder that tell their class, sorted. `changed` is when the folder last did."""
    return sorted(picture for picture in folder.iterdir() if truth(picture))


class Told(NamedTuple):
    """What the model tells of a picture: whether that is right, and how far it is from it.

    `surprise` is 1 less the probability of the true class: 0 where it is sure and right, 1 where it finds no hand.
    """

    right: bool
    surprise: float


@st.cache_resource
def told() -> dict[Path, Told]:
    """Of each picture that was read so far, by whichever visitor."""
    return {}


def read(picture: Path) -> Told:
    try:
        prediction = shared_counter()(decode(picture))
    except BadImage:
        return Told(False, 1.0)
    true = CLASSES.index(truth(picture))
    return Told(
        is_right(prediction, picture),
        1 - max((float(hand.probabilities[true]) for hand in prediction.hands), default=0),
    )


st.title("Samples")
splits = {split: DATA / "fingers" / split for split in ("test", "train") if (DATA / "fingers" / split).is_dir()}
if not splits:
    st.info("The data set is not here: `make data` or `python -m training data` gets it. These are bundled samples.")
    splits = {"bundled": BUNDLED}

with st.container(horizontal=True, gap="medium"):
    split = st.segmented_control("Split", list(splits), default=next(iter(splits)), required=True)
    fingers = st.segmented_control("Fingers", range(6), selection_mode="multi")
    side = st.segmented_control("Side", SIDES)
    verdict = st.segmented_control("Model is", ["right", "wrong"])
with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
    search = st.text_input("Name", placeholder="part of a file's name", width=260)
    surprising = st.toggle("Most surprising first")

folder = splits[split]
pictures = [
    picture
    for picture in list_pictures(folder, folder.stat().st_mtime)
    if (not fingers or int(truth(picture)[0]) in fingers)
    and (not side or words(truth(picture)).endswith(side))
    and search.strip().lower() in picture.name.lower()
]

if verdict or surprising:
    # Whoever leaves in the middle finds what was read so far when back.
    known = told()
    new = [picture for picture in pictures if picture not in known]
    progress = st.empty()
    for done, picture in enumerate(new):
        if done % 50 == 0:
            progress.progress(done / len(new), f"{done:,} of {len(new):,} pictures read")
        known[picture] = read(picture)
    progress.empty()
    if verdict:
        pictures = [picture for picture in pictures if known[picture].right == (verdict == "right")]
    if surprising:
        pictures.sort(key=lambda picture: -known[picture].surprise)

pages = -(-len(pictures) // PAGE)
if pages:
    # Another filter is another list, and starts on its first page.
    page = (
        st.pagination(pages, key=f"page {split} {fingers} {side} {verdict} {search} {surprising}") if pages > 1 else 1
    )
    start = (page - 1) * PAGE
    st.caption(
        f"{start + 1:,}–{min(start + PAGE, len(pictures)):,} of {len(pictures):,} pictures. Click one to read it."
    )
    part = pictures[start : start + PAGE]
    if clicked := show_gallery(part, [words(truth(picture)) for picture in part], "samples"):
        open_picture(clicked)
else:
    st.info("No picture is like that. Take back a filter.")
