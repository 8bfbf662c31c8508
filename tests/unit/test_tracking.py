"""Tracking: smooth, with little delay, and consistent."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handful import CLASSES, Hand, Prediction, hand_from_probabilities
from handful.tracking import MAX_MISSED_S, Tracker

# Left edges of hands, which are 100 pixels wide, in frames of 640×480.
HERE, BESIDE, FAR = 100, 190, 450
RATES = pytest.mark.parametrize("rate", [10, 24, 30])


def hand(
    label: str,
    x: float = HERE,
    y: float = 100,
    *,
    confidence: float = 0.9,
    other: str = "0L",
    fingers: Sequence[float] = (0.1, 0.9, 0.8, 0.7, 0.6),
) -> Hand:
    """Return a hand of class `label`; the rest of the probability is that of class `other`."""
    probabilities = np.zeros(len(CLASSES), np.float32)
    probabilities[CLASSES.index(label)] += confidence
    probabilities[CLASSES.index(other)] += 1 - confidence
    box, crop = (x, y, x + 100, y + 150), (x - 25, y, x + 125, y + 150)
    maps = np.zeros((len(CLASSES), 8, 8), np.float32)
    return hand_from_probabilities(box, crop, probabilities, maps, np.array(fingers, np.float32))


def prediction(*hands: Hand, width: int = 640) -> Prediction:
    return Prediction(hands, width, 480, 5.0)


class Stream:
    """A tracker and a frame rate."""

    def __init__(self, rate: float = 30):
        self.tracker, self.rate, self.seconds = Tracker(), rate, 100.0

    def __call__(self, *hands: Hand) -> Prediction:
        """Return the tracker's prediction for the next frame."""
        self.seconds += 1 / self.rate
        return self.tracker(prediction(*hands), self.seconds)

    def hold(self, seconds: float, *hands: Hand) -> list[Prediction]:
        """Return the predictions for some time of the same hands."""
        return [self(*hands) for _ in range(round(seconds * self.rate))]

    def seconds_until(self, total: int, *hands: Hand) -> float:
        """Return the time that these hands take, from the frame before, until the predicted total is `total`."""
        start = self.seconds
        while self(*hands).total != total:
            assert self.seconds < start + 2, f"the total never becomes {total}"
        return self.seconds - start


def labels(prediction: Prediction) -> list[str]:
    return [hand.label for hand in prediction.hands]


# A hand that stays


def test_constant_hand_is_unchanged():
    stream, still = Stream(), hand("3L")
    for smoothed in stream.hold(1, still):
        assert smoothed.to_dict() == prediction(still).to_dict()


def test_uncertain_count_does_not_flicker():
    """In single frames, the more probable of two counts changes 30 times a second."""
    stream = Stream()
    frames = [hand("3L", confidence=0.6, other="4L"), hand("4L", confidence=0.6, other="3L")]
    assert {stream(frames[n % 2]).total for n in range(90)} == {3}


def test_uncertain_side_does_not_flicker():
    stream = Stream()
    frames = [hand("3L", confidence=0.6, other="3R"), hand("3R", confidence=0.6, other="3L")]
    assert {stream(frames[n % 2]).hands[0].side for n in range(90)} == {"left"}


def test_single_frame_does_not_change_the_count():
    stream = Stream()
    stream.hold(1, hand("3L"))
    assert stream(hand("5L")).total == 3
    assert stream(hand("3L")).total == 3


def test_confidence_is_the_smoothed_probability_of_the_predicted_class():
    """So it falls while the count is uncertain, even if the count stays."""
    stream = Stream()
    stream.hold(1, hand("3L", confidence=1))
    (smoothed,) = stream(hand("5L", confidence=1)).hands
    assert smoothed.label == "3L"
    assert smoothed.confidence == smoothed.probabilities[CLASSES.index("3L")] < 0.8
    assert smoothed.probabilities[CLASSES.index("5L")] == pytest.approx(1 - smoothed.confidence)


def test_raised_fingers_are_smoothed_and_as_many_as_the_smoothed_count():
    """A single frame changes neither; a longer change is followed as fast as the count is."""
    index_and_middle, index_and_little = (0.1, 0.9, 0.8, 0.2, 0.1), (0.1, 0.9, 0.2, 0.1, 0.8)
    stream = Stream()
    stream.hold(1, hand("2L", fingers=index_and_middle))
    assert stream(hand("2L", fingers=index_and_little)).hands[0].raised == ("index", "middle")
    assert stream(hand("5L", fingers=(1, 1, 1, 1, 1))).hands[0].raised == ("index", "middle")
    stream.hold(1, hand("2L", fingers=index_and_middle))
    (smoothed,) = stream.hold(0.2, hand("2L", fingers=index_and_little))[-1].hands
    assert smoothed.raised == ("index", "little")
    assert smoothed.finger_probabilities[0] == pytest.approx(0.1, abs=1e-5)
    assert 0.6 < smoothed.finger_probabilities[4] < 0.8


def test_box_is_smoothed():
    stream = Stream()
    stream.hold(1, hand("3L", HERE))
    x0s = [smoothed.hands[0].box[0] for smoothed in stream.hold(0.3, hand("3L", HERE + 20))]
    crops = stream(hand("3L", HERE + 20)).hands[0].crop
    assert x0s == sorted(x0s)
    assert HERE < x0s[0] < HERE + 12
    assert x0s[-1] == pytest.approx(HERE + 20, abs=0.5)
    assert crops[0] == pytest.approx(HERE - 5, abs=0.5)


def test_gradcam_maps_are_those_of_the_last_frame():
    stream = Stream()
    for n in range(1, 4):
        newest = hand("3L")
        newest.gradcam_maps[:] = n
        assert (stream(newest).hands[0].gradcam_maps == n).all()


# A hand that changes


@RATES
def test_new_count_is_predicted_within_200_milliseconds(rate):
    stream = Stream(rate)
    stream.hold(1, hand("3L"))
    assert stream.seconds_until(5, hand("5L")) <= 0.201


def test_smoothing_does_not_depend_on_the_frame_rate():
    """At equal times, predictions are equal at 10, 30 and 120 frames per second."""
    smoothed = []
    for rate in 10, 30, 120:
        stream = Stream(rate)
        stream.hold(2, hand("3L", HERE))
        smoothed.append(stream.hold(0.1, hand("5L", HERE + 20, fingers=(0.9, 0.8, 0.9, 0.9, 0.7)))[-1].hands[0])
    for other in smoothed[1:]:
        np.testing.assert_allclose(other.probabilities, smoothed[0].probabilities, atol=1e-4)
        np.testing.assert_allclose(other.finger_probabilities, smoothed[0].finger_probabilities, atol=1e-4)
        np.testing.assert_allclose(other.box, smoothed[0].box, atol=1e-3)


def test_jump_is_not_smoothed():
    stream = Stream()
    stream.hold(1, hand("3L", HERE, confidence=1))
    (smoothed,) = stream(hand("5L", HERE + 80, confidence=1)).hands
    assert (smoothed.label, smoothed.confidence, smoothed.box[0]) == ("5L", 1, HERE + 80)


# Hands that come and go


def test_first_hand_of_a_stream_is_shown_at_once():
    assert labels(Stream()(hand("3L"))) == ["3L"]


@RATES
def test_new_hand_is_shown_after_a_short_delay(rate):
    stream = Stream(rate)
    stream.hold(1)
    start = stream.seconds
    assert stream(hand("3L")).hands == ()
    stream.seconds_until(3, hand("3L"))
    assert stream.seconds - start <= 0.201


def test_hand_of_a_single_frame_is_not_shown():
    stream = Stream()
    stream.hold(1, hand("3L"))
    assert labels(stream(hand("3L"), hand("5R", FAR))) == ["3L"]
    assert all(labels(smoothed) == ["3L"] for smoothed in stream.hold(1, hand("3L")))


@RATES
def test_hand_stays_through_short_gaps_in_detection(rate):
    stream = Stream(rate)
    stream.hold(1, hand("3L"))
    assert all(labels(smoothed) == ["3L"] for smoothed in stream.hold(0.2))
    assert labels(stream(hand("3L"))) == ["3L"]


@RATES
def test_hand_that_leaves_disappears_soon(rate):
    stream = Stream(rate)
    stream.hold(1, hand("3L"))
    assert stream.seconds_until(0) <= MAX_MISSED_S + 1.01 / rate


def test_new_hand_replaces_a_missed_one():
    """They are never shown at the same time."""
    stream = Stream()
    stream.hold(1, hand("3L", HERE))
    totals = [smoothed.total for smoothed in stream.hold(1, hand("2R", FAR))]
    assert set(totals) == {3, 2}
    assert totals == sorted(totals, reverse=True)


@pytest.mark.parametrize("change", ["gap", "size", "back"])
def test_interrupted_stream_starts_afresh(change):
    tracker = Tracker()
    for n in range(30):
        tracker(prediction(hand("3L")), n / 30)
    seconds = {"gap": 2.1, "size": 1.0, "back": 0.5}[change]
    smoothed = tracker(prediction(hand("5L"), width=320 if change == "size" else 640), seconds)
    assert labels(smoothed) == ["5L"]
    assert smoothed.hands[0].confidence == pytest.approx(0.9)


# Two hands


def test_adjacent_hands_keep_their_tracks():
    stream = Stream()
    for smoothed in stream.hold(1, hand("3L", HERE), hand("2R", BESIDE)):
        assert labels(smoothed) == ["3L", "2R"]
        assert [hand.confidence for hand in smoothed.hands] == pytest.approx([0.9, 0.9])


@RATES
def test_one_of_two_hands_leaves(rate):
    stream = Stream(rate)
    stream.hold(1, hand("3L", HERE), hand("2R", BESIDE))
    assert stream.seconds_until(2, hand("2R", BESIDE)) <= MAX_MISSED_S + 1.01 / rate
    smoothed = stream(hand("2R", BESIDE)).hands
    assert [(h.label, round(h.box[0]), round(h.confidence, 3)) for h in smoothed] == [("2R", BESIDE, 0.9)]


@RATES
def test_crossing_hands_keep_their_tracks(rate):
    """Their probabilities do not mix, even while their boxes overlap."""
    stream = Stream(rate)
    for x in np.linspace(0, 400, 2 * rate):
        smoothed = stream(*sorted([hand("3L", x), hand("2R", 400 - x)], key=lambda hand: hand.box[0]))
        assert sorted(labels(smoothed)) == ["2R", "3L"]
        assert [hand.confidence for hand in smoothed.hands] == pytest.approx([0.9, 0.9])


# Arbitrary streams

hands = st.tuples(
    st.sampled_from(["3L", "4L", "0R"]), st.sampled_from([0, 40, 120, 500]), st.sampled_from([0, 50, 300])
)
frames = st.tuples(st.sampled_from([0, 0.03, 0.1, 0.3, 2]), st.lists(hands, max_size=4))


@settings(deadline=None)
@given(st.lists(frames))
def test_any_stream_gives_consistent_predictions(frames):
    tracker, seconds, detections = Tracker(), 0.0, []
    for elapsed, hands in frames:
        seconds += elapsed
        detected = [hand(*arguments, confidence=0.6, other="5L") for arguments in hands]
        detections.append((seconds, len(detected)))
        smoothed = tracker(prediction(*detected), seconds)
        assert len(smoothed.hands) <= sum(n for when, n in detections if seconds - when <= MAX_MISSED_S)
        assert [one.box[0] for one in smoothed.hands] == sorted(one.box[0] for one in smoothed.hands)
        for one in smoothed.hands:
            assert one.probabilities.sum() == pytest.approx(1, abs=1e-5)
            assert len(one.raised) == one.fingers
            assert one.confidence == one.probabilities[CLASSES.index(one.label)]
            assert 0 <= one.box[0] < one.box[2] <= 640
