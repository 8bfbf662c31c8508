"""Pictures of a visitor's own hand, in the memory of one session, and their ZIP."""

import csv
import io
import zipfile
from dataclasses import dataclass
from typing import NamedTuple

from handful import CLASSES, Box, Prediction

MAX_JPEG_BYTES = 2_000_000  # a picture of 640×480, which the camera is asked for, has about 100 KB
README = """Pictures of one hand, as the camera took them, not mirrored; one folder per class: 3L is three
fingers of the left hand. hands.csv has the box where the model detected the hand (x0,y0,x1,y1 in pixels; empty where it
detected none), and the round in which the picture was taken.

To train on them, put this ZIP into data/own and follow docs/teach.md.
"""


@dataclass(frozen=True)
class Shot:
    """A JPEG, and the box of the hand in it; None where none was detected."""

    jpeg: bytes
    box: Box | None


class Prompt(NamedTuple):
    """A class to show, in one round: each round shows the hand anew."""

    round: int
    label: str

    def __str__(self) -> str:
        return f"{self.round} {self.label}"


class Recording:
    """One burst of shots per prompt; an empty one where it was skipped.

    >>> recording = Recording()
    >>> recording.bursts[Prompt(1, "3L")] = [Shot(jpeg, box)]
    >>> recording.remaining([Prompt(1, "3L"), Prompt(1, "3R")])
    [Prompt(round=1, label='3R')]
    """

    def __init__(self) -> None:
        self.bursts: dict[Prompt, list[Shot]] = {}

    def remaining(self, plan: list[Prompt]) -> list[Prompt]:
        """Return the prompts of a plan that are neither recorded nor skipped."""
        return [prompt for prompt in plan if prompt not in self.bursts]

    def undo(self) -> None:
        """Remove the last burst."""
        self.bursts.popitem()

    @property
    def shots(self) -> list[Shot]:
        return [shot for burst in self.bursts.values() for shot in burst]

    def to_zip(self) -> bytes:
        """Return the ZIP that `training.data.sources.own_hand` reads."""
        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["file", "round", "x0", "y0", "x1", "y1"])
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for label in CLASSES:
                prompts = sorted(prompt for prompt in self.bursts if prompt.label == label)
                shots = [(prompt.round, shot) for prompt in prompts for shot in self.bursts[prompt]]
                for number, (round_, shot) in enumerate(shots, start=1):
                    name = f"{label}/{number:04}.jpg"
                    archive.writestr(name, shot.jpeg)
                    rows.writerow([name, round_, *([f"{x:.1f}" for x in shot.box] if shot.box else [""] * 4)])
            archive.writestr("hands.csv", table.getvalue())
            archive.writestr("README.txt", README)
        return file.getvalue()


def box_of_label(prediction: Prediction, label: str) -> Box | None:
    """Return the box of the hand with the highest probability of a class, or None without a hand."""
    index = CLASSES.index(label)
    return max(prediction.hands, key=lambda hand: hand.probabilities[index]).box if prediction.hands else None
