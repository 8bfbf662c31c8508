"""Classes, targets and the decoding of probabilities."""

import numpy as np
import pytest
import torch

from handful.labels import (
    CLASSES,
    COUNTS,
    FINGERS,
    MIRRORED,
    NO_HAND,
    SIDE_UNKNOWN,
    SIDES,
    count_of,
    decode,
    decode_probabilities,
    describe,
    encode,
    marginal_over_sides,
    mirror,
    raised_fingers,
)

ALL = [(count, side) for side in (*SIDES, None) for count in COUNTS]


def test_classes_are_followed_by_counts_of_unknown_side_and_no_hand():
    assert [encode(*label) for label in ALL] == list(range(NO_HAND))
    assert [CLASSES[encode(count, side)] for count, side in ALL if side] == list(CLASSES)
    assert encode(0) == SIDE_UNKNOWN


@pytest.mark.parametrize(("count", "side"), ALL)
def test_decode_inverts_encode(count, side):
    assert decode(encode(count, side)) == (count, side)
    assert count_of(encode(count, side)) == count


@pytest.mark.parametrize(("count", "side"), [(6, "left"), (-1, "left"), (0, "middle")])
def test_encode_rejects_other_labels(count, side):
    with pytest.raises(ValueError, match="not in tuple"):
        encode(count, side)


@pytest.mark.parametrize("convert", [np.array, torch.tensor])
def test_count_of_arrays_and_tensors(convert):
    targets = convert([encode(3, "left"), encode(3, "right"), encode(5)])
    assert count_of(targets).tolist() == [3, 3, 5]


def test_mirror_changes_the_side_only():
    for count in COUNTS:
        assert mirror(encode(count, "left")) == encode(count, "right")
        assert mirror(encode(count, "right")) == encode(count, "left")
        assert mirror(encode(count)) == encode(count)
    assert mirror(NO_HAND) == NO_HAND
    assert [MIRRORED[i] for i in MIRRORED] == list(range(len(CLASSES)))


@pytest.mark.parametrize("convert", [np.array, torch.tensor])
def test_marginal_over_sides_sums_left_and_right(convert):
    probabilities = np.random.default_rng(0).dirichlet(np.ones(len(CLASSES)), (2, 3))
    expected = [probabilities[..., encode(n, "left")] + probabilities[..., encode(n, "right")] for n in COUNTS]
    np.testing.assert_allclose(marginal_over_sides(convert(probabilities)), np.stack(expected, -1))


def test_decode_probabilities_chooses_the_count_before_the_side():
    probabilities = np.zeros(len(CLASSES))
    probabilities[[encode(3, "left"), encode(3, "right"), encode(4, "left")]] = 0.29, 0.31, 0.4
    assert decode_probabilities(probabilities) == encode(3, "right")


@pytest.mark.parametrize("count", COUNTS)
def test_the_raised_fingers_are_the_most_likely_ones_thumb_first(count):
    probabilities = np.array([0.2, 0.9, 0.6, 0.4, 0.7])
    likely = ("index", "little", "middle", "ring", "thumb")[:count]
    assert raised_fingers(probabilities, count) == tuple(finger for finger in FINGERS if finger in likely)


def test_of_equally_likely_fingers_the_first_ones_are_raised():
    assert raised_fingers(np.full(len(FINGERS), 0.5), 2) == ("thumb", "index")


def test_describe_names_count_and_side():
    assert [describe(label) for label in ("3L", "0R")] == ["3 left", "0 right"]
