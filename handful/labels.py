"""Classes (how many fingers are raised, on which hand) and the targets that label them in data sets.

>>> CLASSES[encode(3, "right")], decode(9)
('3R', (3, 'right'))
"""

from typing import Any

import numpy as np

COUNTS = tuple(range(6))
SIDES = ("left", "right")  # the person's own hand, in a picture that is not mirrored
# In the order of the model's outputs: 0L … 5L, 0R … 5R.
CLASSES = tuple(f"{count}{side[0].upper()}" for side in SIDES for count in COUNTS)

FINGERS = ("thumb", "index", "middle", "ring", "little")  # in the order of the model's output `fingers`

MAX_HANDS = 4  # that the detector finds in a picture

# Targets beyond the classes: six for hands with only the count labelled, one for no hand, one for a hand in a pose that
# is no count.
SIDE_UNKNOWN = len(CLASSES)
NO_HAND = SIDE_UNKNOWN + len(COUNTS)
COUNT_UNKNOWN = NO_HAND + 1


def encode(count: int | None, side: str | None = None) -> int:
    """Return the target of a hand: its index in `CLASSES`, or `SIDE_UNKNOWN` + count if `side` is None.

    It is `COUNT_UNKNOWN` if `count` is None.
    """
    if count is None:
        return COUNT_UNKNOWN
    return (SIDE_UNKNOWN if side is None else SIDES.index(side) * len(COUNTS)) + COUNTS.index(count)


def decode(target: int) -> tuple[int, str | None]:
    """Return the count and side of a hand's target; the side is None if it is not labelled."""
    return int(count_of(target)), SIDES[target // len(COUNTS)] if target < SIDE_UNKNOWN else None


def count_of(targets: Any) -> Any:
    """Return the counts of hands' targets: an int, a NumPy array or a torch tensor."""
    return targets % len(COUNTS)


def mirror(target: int) -> int:
    """Return the target of the mirrored picture: the other side if one is labelled, otherwise the same target."""
    return (target + len(COUNTS)) % len(CLASSES) if target < SIDE_UNKNOWN else target


MIRRORED = tuple(mirror(target) for target in range(len(CLASSES)))  # for each class, the index of its mirror image


def marginal_over_sides(probabilities: Any) -> Any:
    """Sum class probabilities over the sides: (…, 12) to (…, 6), a NumPy array or a torch tensor."""
    return probabilities.reshape(*probabilities.shape[:-1], len(SIDES), len(COUNTS)).sum(-2)


def decode_probabilities(probabilities: np.ndarray) -> int:
    """Return the class that (12,) probabilities predict, as an index of `CLASSES`.

    First the most probable count over both sides, then its more probable side: if the side is uncertain, the most
    probable single class may have another count.
    """
    count = int(marginal_over_sides(probabilities).argmax())
    side = int(probabilities.reshape(len(SIDES), len(COUNTS))[:, count].argmax())
    return side * len(COUNTS) + count


def raised_fingers(probabilities: np.ndarray, count: int) -> tuple[str, ...]:
    """Return the `count` fingers that are most likely raised, thumb first, of their probabilities (5,).

    >>> raised_fingers(np.array([0.1, 0.9, 0.6, 0.2, 0.7]), 2)
    ('index', 'little')
    """
    likely = np.argsort(-probabilities, kind="stable")[:count]
    return tuple(FINGERS[finger] for finger in sorted(likely))


def describe(label: str) -> str:
    """Return a class in words.

    >>> describe("3L")
    '3 left'
    """
    count, side = decode(CLASSES.index(label))
    return f"{count} {side}"
