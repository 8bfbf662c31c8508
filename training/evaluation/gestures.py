"""HaGRID: hundreds of people at home, by gesture. Pictures without boxes, never trained on and used for no choice."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from handful import FingerCounter, Hand, Prediction
from handful.labels import marginal_over_sides
from training.data.frames import read_rgb
from training.data.registry import ALL_FINGERS, Label, fingers_as_bits
from training.errors import BadData
from training.evaluation.intervals import accuracy
from training.evaluation.metrics import reliability

TITLE = "People at home, by gesture (HaGRID)"
# arXiv:2206.08219. Some pictures of each gesture, a folder each.
REPOSITORY, COMMIT = "andrewchen3019/vlm-edge-hagrid", "7f160f46cb84bb88fb1fd4063aad3bd5d69150ed"
LICENCE = "CC BY-SA 4.0"
CREDIT = f"HaGRID by Kapitanov et al., github.com/{REPOSITORY} ({LICENCE})"
FOLDER, IMAGES = "people/vlm-edge-hagrid", "data/hagrid_380_resize336/images"
PATH = f"{FOLDER}/{IMAGES}"
GESTURES = {
    "fist": Label(0, ""),
    "one": Label(1, "index"),
    "peace": Label(2, "index middle"),
    "peace_inverted": Label(2, "index middle"),
    "two_up": Label(2, "index middle"),
    "two_up_inverted": Label(2, "index middle"),
    "three": Label(3, "index middle ring"),
    "three2": Label(3, "thumb index middle"),
    "four": Label(4, "index middle ring little"),
    "palm": Label(5, ALL_FINGERS),
    "stop": Label(5, ALL_FINGERS),
    "stop_inverted": Label(5, ALL_FINGERS),
    "like": Label(1, "thumb"),
    "dislike": Label(1, "thumb"),
    "call": Label(2, "thumb little"),
    "rock": Label(2, "index little"),
    "mute": Label(1, "index"),
    "ok": Label(3, "middle ring little"),
}
# What a picture of each shows, for those who cannot see it.
SHOWS = {
    "fist": "a fist",
    "one": "the index finger",
    "peace": "two fingers apart, palm to the camera",
    "peace_inverted": "two fingers apart, back of the hand to the camera",
    "two_up": "two fingers held together, palm to the camera",
    "two_up_inverted": "two fingers held together, back of the hand to the camera",
    "three": "index, middle and ring finger",
    "three2": "thumb, index and middle finger",
    "four": "all fingers but the thumb",
    "palm": "an open hand, fingers apart",
    "stop": "an open hand, fingers held together, palm to the camera",
    "stop_inverted": "an open hand, fingers held together, back to the camera",
    "like": "a thumb that points up",
    "dislike": "a thumb that points down",
    "call": "thumb and little finger, as a telephone",
    "rock": "index and little finger, as horns",
    "mute": "an index finger before the lips",
    "ok": "a ring of thumb and index finger, three fingers raised",
}
COUNTING = tuple(GESTURES)[:12]  # how people count; the others are other signs
GROUPS = {
    "counting": COUNTING,
    "fingers spread": ("fist", "one", "peace", "peace_inverted", "three", "three2", "four", "palm"),
    "fingers together": ("two_up", "two_up_inverted", "stop", "stop_inverted"),
    "other signs": tuple(GESTURES)[12:],
    **{gesture: (gesture,) for gesture in GESTURES},
}


def evaluate_gestures(counter: FingerCounter, folder: Path) -> dict:
    """Return the accuracy of a model on HaGRID: totals, which fingers, and the pictures that are wrong.

    People have no names in it: each picture counts as a person of its own.

    Args:
        counter: the model.
        folder: the data folder.

    Raises:
        BadData: the pictures are not there, or one cannot be read.
    """
    files = [file for gesture in GESTURES for file in sorted((folder / PATH / gesture).glob("*.jpg"))]
    if not files:
        raise BadData(f"{folder / PATH}: no pictures here. Fetch them: python -m training data")
    rows = []
    hands: list[tuple[float, bool]] = []  # predicted ones: the probability of the count, and whether it is as labelled
    for file in tqdm(files, "HaGRID", unit=" pictures"):
        label, prediction = GESTURES[file.parent.name], counter(read_rgb(file))
        rows.append(
            {
                "gesture": file.parent.name,
                "file": file.relative_to(folder).as_posix(),
                "label": label.count,
                "predicted": prediction.total,
                "total": prediction.total == label.count,
                "fingers": raises(prediction, label.fingers),
            }
        )
        if file.parent.name in COUNTING:
            hands += [(count_probability(hand), hand.fingers == label.count) for hand in prediction.hands]

    def metrics(gestures: tuple[str, ...]) -> dict:
        own = [row for row in rows if row["gesture"] in gestures]
        total = accuracy([bool(row["total"]) for row in own], [""] * len(own))
        fingers = sum(bool(row["fingers"]) for row in own)
        number = max(len(own), 1)
        return {
            "pictures": len(own),
            "total_accuracy": total["correct"] / number,
            "total": total,
            "finger_accuracy": fingers / number,
        }

    def row(name: str, gestures: tuple[str, ...]) -> dict:
        return {"group": name, **({"shows": SHOWS[name]} if name in SHOWS else {}), **metrics(gestures)}

    probabilities, correct = np.array(hands, float).reshape(-1, 2).T
    return {
        "title": TITLE,
        "short_title": "HaGRID",
        "credit": CREDIT,
        "licence": LICENCE,
        **metrics(COUNTING),
        "ece": reliability(probabilities, correct)[0],  # of fewer pictures, it would be mostly noise
        "groups": {"gesture": [row(name, gestures) for name, gestures in GROUPS.items()]},
        "errors": [
            {key: one[key] for key in ("file", "gesture", "label", "predicted")} for one in rows if not one["total"]
        ],
    }


def count_probability(hand: Hand) -> float:
    """Return the probability of a hand's count, whatever its side: sides are not labelled here."""
    return float(marginal_over_sides(np.array(hand.probabilities)).max())


def raises(prediction: Prediction, fingers: int) -> bool:
    """Return whether exactly these fingers are raised, all of one hand; as bits, see `fingers_as_bits`."""
    raised = [fingers_as_bits(hand.raised) for hand in prediction.hands if hand.fingers]
    return raised == [fingers] * bool(fingers)
