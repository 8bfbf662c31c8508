"""A few of the damaged files that `python -m tests.fuzz` hands in by the thousand."""

import numpy as np
import pytest

from tests.fuzz import damage, originals, run


@pytest.mark.usefixtures("quiet")  # whose files would lie among those left behind
def test_damaged_files_are_read_or_refused_in_words():
    results = run(200, ("decoder", "films", "cli", "api"), seed=1)
    assert list(results) == ["decoder", "films", "cli", "api"]
    for way, outcome in results.items():
        assert outcome["read"] + outcome["refused"] == (10 if way == "films" else 200)
    assert results["decoder"]["read"] == results["cli"]["read"] == results["api"]["read"], "all tell the same"


def test_files_are_damaged_in_many_ways():
    sound = originals()
    files = [damage(sound, np.random.default_rng(seed)) for seed in range(100)]
    assert len({data for data in files if data not in sound}) > 90
