"""95% intervals of accuracies: what might have been measured on other people, rooms or sessions of the same kind.

Pictures of one person or session are alike: what is drawn at random are people and sessions, not pictures.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

RESAMPLES = 2000
PERCENTILES = (2.5, 97.5)


def accuracy(correct: Sequence[bool], groups: Sequence[str]) -> dict:
    """Return how many pictures are correct, and the 95% interval of their share.

    Args:
        correct: of each picture.
        groups: the person or session of each picture; "" for a picture that is alone.

    Returns:
        {"correct": pictures, "units": people, sessions and pictures that are alone, "interval": [low, high]}. The
        interval is Wilson's where all pictures are alone, else that of a bootstrap over groups; None for one group, or
        no picture. A bootstrap knows no doubt where all are correct, or none: Wilson's, with a group as one picture.
    """
    sizes, hits = sums_by_group([np.ones(len(correct)), correct], groups)
    total, units = int(hits.sum()), len(sizes)
    alone = units == len(correct)
    interval = None
    if units > 1 or (units and alone and groups[0] == ""):
        if alone or total in (0, len(correct)):
            wilson = binomtest(total * units // len(correct), units).proportion_ci(method="wilson")
            interval = [wilson.low, wilson.high]
        else:
            drawn = draw(units)
            interval = np.percentile(drawn @ hits / (drawn @ sizes), PERCENTILES)
    return {"correct": total, "units": units, "interval": rounded(interval)}


def lead(correct: Sequence[bool], other: Sequence[bool], groups: Sequence[str]) -> list[float] | None:
    """Return the 95% interval of how far one is ahead of another on the same pictures, as a share; see `accuracy`."""
    sizes, hits, misses = sums_by_group([np.ones(len(correct)), correct, other], groups)
    if len(sizes) < 2:
        return None
    drawn = draw(len(sizes))
    return rounded(np.percentile(drawn @ (hits - misses) / (drawn @ sizes), PERCENTILES))


def sums_by_group(values: Sequence[Sequence[float] | np.ndarray], groups: Sequence[str]) -> list[np.ndarray]:
    """Return the sums of each list of values in each group, (units,); pictures without a group are their own."""
    names = [group or f"\0{i}" for i, group in enumerate(groups)]
    index = np.unique(names, return_inverse=True)[1] if names else np.zeros(0, int)
    return [np.bincount(index, np.asarray(one, float)) for one in values]


def draw(units: int) -> np.ndarray:
    """Return how often each unit is drawn in each resample, (RESAMPLES, units): the same every time."""
    return np.random.default_rng(0).multinomial(units, np.full(units, 1 / units), RESAMPLES)


def rounded(interval: Sequence[float] | np.ndarray | None) -> list[float] | None:
    return None if interval is None else [round(float(value), 4) for value in interval]
