"""The classes: how many fingers are raised, on which hand.

>>> CLASSES[encode(3, "right")], decode(9)
('3R', (3, 'right'))
"""

from typing import Any

import numpy as np

COUNTS = tuple(range(6))
"""How many fingers a hand can raise."""
SIDES = ("left", "right")
"""The person's own hand, in a picture that is not mirrored."""
CLASSES = tuple(f"{count}{side[0].upper()}" for side in SIDES for count in COUNTS)
"""The 12 classes in the order of the model's outputs: 0L … 5L, 0R … 5R."""

# Targets of a data set go on where the classes end: a hand of which only the count is labelled, then no hand at all.
SIDE_UNKNOWN = len(CLASSES)
NO_HAND = SIDE_UNKNOWN + len(COUNTS)


def encode(count: int, side: str | None = None) -> int:
    """Return the target of a label: an index of `CLASSES`, or `SIDE_UNKNOWN` + count without a side."""
    return (SIDE_UNKNOWN if side is None else SIDES.index(side) * len(COUNTS)) + COUNTS.index(count)


def decode(target: int) -> tuple[int, str | None]:
    """Return count and side of a target; the side is None where it is not labelled."""
    return int(count_of(target)), SIDES[target // len(COUNTS)] if target < SIDE_UNKNOWN else None


def count_of(targets: Any) -> Any:
    """Return the counts of targets: an int, an array or a tensor of them."""
    return targets % len(COUNTS)


def mirror(target: int) -> int:
    """Return the target of the same hand in a mirror: as many fingers, the other side where it is labelled."""
    return (target + len(COUNTS)) % len(CLASSES) if target < SIDE_UNKNOWN else target


MIRRORED = tuple(mirror(target) for target in range(len(CLASSES)))
"""For each class, the index of its mirror image."""


def marginal_over_sides(probabilities: Any) -> Any:
    """Sum class probabilities over the sides: (…, 12) to (…, 6), NumPy arrays and torch tensors alike."""
    return probabilities.reshape(*probabilities.shape[:-1], len(SIDES), len(COUNTS)).sum(-2)


def decode_probabilities(probabilities: np.ndarray) -> int:
    """Return the predicted class, an index of `CLASSES`, of (12,) probabilities.

    The most likely count comes first, over both sides, then its side: a hand whose side is in doubt still has a
    certain count.
    """
    count = int(marginal_over_sides(probabilities).argmax())
    side = int(probabilities.reshape(len(SIDES), len(COUNTS))[:, count].argmax())
    return side * len(COUNTS) + count


def describe(label: str) -> str:
    """Return a class in words.

    >>> describe("3L")
    '3 left'
    """
    return f"{label[0]} {dict(zip('LR', SIDES, strict=True))[label[1]]}"
