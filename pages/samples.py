"""Browse the Kaggle Fingers dataset: labels, predictions, and the hardest pictures."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import streamlit as st

from handful import CLASSES, COUNTS, SIDES, shared_counter
from handful.images import BadImage, decode
from handful.labels import decode as decode_label
from handful.labels import describe
from web.widgets import BUNDLED, DATA, is_correct, is_readable_folder, label_from_name, show_gallery

PAGE_SIZE = 24


@st.cache_data(max_entries=8, show_spinner=False)
def list_pictures(folder: Path, modified: float) -> dict[Path, str]:
    """Return the labels of a folder's labelled pictures, sorted by name. `modified` keys the cache."""
    with os.scandir(folder) as entries:
        files = sorted(Path(entry) for entry in entries if entry.is_file())  # pipes and devices may never end
    labels = {path: label_from_name(path) for path in files}
    return {path: label for path, label in labels.items() if label}


class Outcome(NamedTuple):
    """How the model does on a picture.

    Attributes:
        correct: one hand, of the labelled class.
        difficulty: 1 - probability of the labelled class; 1 where no hand is detected.
    """

    correct: bool
    difficulty: float


@st.cache_resource
def cached_outcomes() -> dict[Path, Outcome]:
    """Return the outcomes so far, shared by all visitors."""
    return {}


def evaluate(path: Path, label: str) -> Outcome:
    try:
        prediction = shared_counter()(decode(path))
    except BadImage:
        return Outcome(False, 1.0)
    target = CLASSES.index(label)
    probability = max((float(hand.probabilities[target]) for hand in prediction.hands), default=0)
    return Outcome(is_correct(prediction, path), 1 - probability)


def evaluate_all(labels: dict[Path, str]) -> dict[Path, Outcome]:
    """Return the outcomes of all these pictures, with a progress bar for new ones."""
    outcomes = cached_outcomes()  # filled one by one: a visitor who leaves finds them when back
    new = [path for path in labels if path not in outcomes]
    progress = st.empty()
    for done, path in enumerate(new):
        if done % 50 == 0:
            progress.progress(done / len(new), f"{done:,} of {len(new):,} pictures")
        outcomes[path] = evaluate(path, labels[path])
    progress.empty()
    return outcomes


def show_first_page() -> None:
    """Go to the first page, as another list is shown from now on."""
    st.session_state["page"] = 1


st.title("Samples")
splits = {split: DATA / "fingers" / split for split in ("test", "train")}
splits = {split: folder for split, folder in splits.items() if is_readable_folder(folder)}
if not splits:
    st.info(
        "Dataset not installed; showing bundled samples. To download it, run `make data` or `python -m training data`."
    )
    splits = {"bundled": BUNDLED}

# All that is chosen is in the address, so that a list can be shared and survives a reload.
in_address: dict[str, Any] = {"bind": "query-params", "on_change": show_first_page}
with st.container(horizontal=True, gap="medium"):
    split = st.segmented_control(
        "Set", list(splits), default=next(iter(splits)), required=True, key="set", **in_address
    )
    counts = st.segmented_control("Fingers", COUNTS, selection_mode="multi", key="fingers", **in_address)
    side = st.segmented_control("Hand", SIDES, key="hand", **in_address)
    verdict = st.segmented_control("Prediction", ["correct", "incorrect"], key="prediction", **in_address)
with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
    search = st.text_input("File name", placeholder="part of a name", width=260, key="name", **in_address)
    hardest_first = st.toggle("Hardest first", key="hardest", **in_address)

folder = splits[split]
labels = {}
for path, label in list_pictures(folder, folder.stat().st_mtime).items():
    label_count, label_side = decode_label(CLASSES.index(label))
    if counts and label_count not in counts:
        continue
    if side not in (None, label_side) or search.strip().lower() not in path.name.lower():
        continue
    labels[path] = label

pictures = list(labels)
if verdict or hardest_first:
    outcomes = evaluate_all(labels)
    if verdict:
        pictures = [path for path in pictures if outcomes[path].correct == (verdict == "correct")]
    if hardest_first:
        pictures.sort(key=lambda path: -outcomes[path].difficulty)

page_count = -(-len(pictures) // PAGE_SIZE)
if page_count:
    page = st.pagination(page_count, key="page", bind="query-params") if page_count > 1 else 1
    start = (page - 1) * PAGE_SIZE
    end = min(start + PAGE_SIZE, len(pictures))
    st.caption(f"{start + 1:,}–{end:,} of {len(pictures):,} pictures. Click one for its prediction.")
    shown = pictures[start:end]
    show_gallery(shown, [describe(labels[path]) for path in shown], "samples")
else:
    st.info("No pictures match. Remove a filter.")
