"""Pictures of a visitor's own hand: what is asked for next, what was taken, and the ZIP to take home.

All of it lives in the memory of one visit.
"""

import csv
import io
import zipfile
from dataclasses import dataclass
from typing import NamedTuple

from handful import CLASSES, Box, Prediction

MAX_BYTES = 2_000_000  # of a picture; one of 640×480, as the camera is asked for, has a twentieth of it
README = """Pictures of one hand, as the camera saw them, not mirrored, in a folder for each class: 3L is three
fingers of the left hand. hands.csv has the box where the model found the hand (x0,y0,x1,y1 in pixels; none where it
found no hand), and the round in which the picture was taken.

To train with them, put this ZIP into data/own and go on as docs/own.md tells.
"""


@dataclass(frozen=True)
class Shot:
    """A picture, as a JPEG, and where the hand is in it; None where none was found."""

    jpeg: bytes
    box: Box | None


class Ask(NamedTuple):
    """A class that is asked for, in a round: each round shows the hand anew."""

    round: int
    label: str

    def __str__(self) -> str:
        return f"{self.round} {self.label}"


class Recording:
    """What was taken of each class in each round; nothing, where it was skipped.

    >>> recording = Recording()
    >>> recording.bursts[Ask(1, "3L")] = [Shot(jpeg, box)]
    >>> recording.left([Ask(1, "3L"), Ask(1, "3R")])
    [Ask(round=1, label='3R')]
    """

    def __init__(self) -> None:
        self.bursts: dict[Ask, list[Shot]] = {}

    def left(self, plan: list[Ask]) -> list[Ask]:
        """What of a plan is still to be asked for."""
        return [ask for ask in plan if ask not in self.bursts]

    def take_back(self) -> None:
        """Forget what was taken or skipped last."""
        self.bursts.popitem()

    @property
    def shots(self) -> list[Shot]:
        return [shot for burst in self.bursts.values() for shot in burst]

    def archive(self) -> bytes:
        """The ZIP that `training.data.sources.own_hand` reads."""
        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["file", "round", "x0", "y0", "x1", "y1"])
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for label in CLASSES:
                bursts = sorted(ask for ask in self.bursts if ask.label == label)
                taken = [(ask.round, shot) for ask in bursts for shot in self.bursts[ask]]
                for number, (when, shot) in enumerate(taken, start=1):
                    name = f"{label}/{number:04}.jpg"
                    archive.writestr(name, shot.jpeg)
                    rows.writerow([name, when, *([f"{x:.1f}" for x in shot.box] if shot.box else [""] * 4)])
            archive.writestr("hands.csv", table.getvalue())
            archive.writestr("README.txt", README)
        return file.getvalue()


def hand_of(prediction: Prediction, label: str) -> Box | None:
    """The box of the hand that is most like the class asked for, where any hand was found."""
    index = CLASSES.index(label)
    return max(prediction.hands, key=lambda hand: hand.probabilities[index]).box if prediction.hands else None
