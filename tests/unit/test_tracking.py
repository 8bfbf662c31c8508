"""What is told of a stream: calm, soon, and honest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handful import CLASSES, Hand, Prediction, hand_from_probabilities
from handful.tracking import KEEP, Tracker

# A frame is 640×480; hands are 100 pixels wide, left to right.
HERE, BESIDE, FAR = 100, 190, 450
RATES = pytest.mark.parametrize("rate", [10, 24, 30])


def hand(label: str, x: float = HERE, y: float = 100, *, sure: float = 0.9, instead: str = "0L") -> Hand:
    """A hand that reads as `label`; what it is not sure of, it gives to `instead`."""
    probabilities = np.zeros(12, np.float32)
    probabilities[CLASSES.index(label)] += sure
    probabilities[CLASSES.index(instead)] += 1 - sure
    box = (x, y, x + 100, y + 150)
    return hand_from_probabilities(box, (x - 25, y, x + 125, y + 150), probabilities, np.zeros((12, 8, 8), np.float32))


def prediction(*hands: Hand, width: int = 640) -> Prediction:
    return Prediction(hands, width, 480, 5.0)


class Stream:
    """Frames at a rate, through a tracker."""

    def __init__(self, rate: float = 30):
        self.tracker, self.rate, self.seconds = Tracker(), rate, 100.0

    def __call__(self, *hands: Hand) -> Prediction:
        """The next frame."""
        self.seconds += 1 / self.rate
        return self.tracker(prediction(*hands), self.seconds)

    def hold(self, seconds: float, *hands: Hand) -> list[Prediction]:
        """The same hands for some time."""
        return [self(*hands) for _ in range(round(seconds * self.rate))]

    def until(self, total: int, *hands: Hand) -> float:
        """Seconds of these hands, from the frame before, until the total is told."""
        start = self.seconds
        while self(*hands).total != total:
            assert self.seconds < start + 2, f"{total} is never told"
        return self.seconds - start


def labels(told: Prediction) -> list[str]:
    return [hand.label for hand in told.hands]


# A hand that stays


def test_a_still_hand_is_told_as_it_was_read():
    stream, still = Stream(), hand("3L")
    for told in stream.hold(1, still):
        assert told.to_dict() == prediction(still).to_dict()


def test_a_doubtful_hand_does_not_flicker():
    """Frame by frame, the likelier of two counts changes 15 times a second."""
    stream = Stream()
    frames = [hand("3L", sure=0.6, instead="4L"), hand("4L", sure=0.6, instead="3L")]
    assert {stream(frames[n % 2]).total for n in range(90)} == {3}


def test_the_side_does_not_flicker_either():
    stream = Stream()
    frames = [hand("3L", sure=0.6, instead="3R"), hand("3R", sure=0.6, instead="3L")]
    assert {stream(frames[n % 2]).hands[0].side for n in range(90)} == {"left"}


def test_one_frame_does_not_change_the_count():
    stream = Stream()
    stream.hold(1, hand("3L"))
    assert stream(hand("5L")).total == 3
    assert stream(hand("3L")).total == 3


def test_confidence_is_the_smoothed_probability_of_the_class_told():
    """So it falls while the count is in doubt, though the count stays."""
    stream = Stream()
    stream.hold(1, hand("3L", sure=1))
    (told,) = stream(hand("5L", sure=1)).hands
    assert told.label == "3L"
    assert told.confidence == told.probabilities[CLASSES.index("3L")] < 0.8
    assert told.probabilities[CLASSES.index("5L")] == pytest.approx(1 - told.confidence)


def test_the_box_follows_calmly():
    stream = Stream()
    stream.hold(1, hand("3L", HERE))
    x0s = [told.hands[0].box[0] for told in stream.hold(0.3, hand("3L", HERE + 20))]
    crops = stream(hand("3L", HERE + 20)).hands[0].crop
    assert x0s == sorted(x0s)
    assert HERE < x0s[0] < HERE + 12
    assert x0s[-1] == pytest.approx(HERE + 20, abs=0.5)
    assert crops[0] == pytest.approx(HERE - 5, abs=0.5)


def test_gradcam_maps_are_those_of_the_newest_frame():
    stream = Stream()
    for n in range(1, 4):
        newest = hand("3L")
        newest.gradcam_maps[:] = n
        assert (stream(newest).hands[0].gradcam_maps == n).all()


# A hand that changes


@RATES
def test_a_new_pose_is_told_within_200_milliseconds(rate):
    stream = Stream(rate)
    stream.hold(1, hand("3L"))
    assert stream.until(5, hand("5L")) <= 0.201


def test_smoothing_does_not_depend_on_the_rate():
    """Where frames fall on the same times, they tell the same, at 10 frames a second as at 30."""
    told = []
    for rate in 10, 30, 120:
        stream = Stream(rate)
        stream.hold(2, hand("3L", HERE))
        told.append(stream.hold(0.1, hand("5L", HERE + 20))[-1].hands[0])
    for other in told[1:]:
        np.testing.assert_allclose(other.probabilities, told[0].probabilities, atol=1e-4)
        np.testing.assert_allclose(other.box, told[0].box, atol=1e-3)


def test_nothing_is_smoothed_across_a_jump():
    stream = Stream()
    stream.hold(1, hand("3L", HERE, sure=1))
    (told,) = stream(hand("5L", HERE + 80, sure=1)).hands
    assert (told.label, told.confidence, told.box[0]) == ("5L", 1, HERE + 80)


# Hands that come and go


def test_the_first_hand_of_a_stream_is_told_at_once():
    assert labels(Stream()(hand("3L"))) == ["3L"]


@RATES
def test_a_hand_that_comes_is_told_soon(rate):
    stream = Stream(rate)
    stream.hold(1)
    start = stream.seconds
    assert stream(hand("3L")).hands == ()
    stream.until(3, hand("3L"))
    assert stream.seconds - start <= 0.201


def test_what_is_seen_in_one_frame_only_is_not_told():
    stream = Stream()
    stream.hold(1, hand("3L"))
    assert labels(stream(hand("3L"), hand("5R", FAR))) == ["3L"]
    assert all(labels(told) == ["3L"] for told in stream.hold(1, hand("3L")))


@RATES
def test_a_hand_that_is_missed_for_a_moment_stays(rate):
    stream = Stream(rate)
    stream.hold(1, hand("3L"))
    assert all(labels(told) == ["3L"] for told in stream.hold(0.2))
    assert labels(stream(hand("3L"))) == ["3L"]


@RATES
def test_a_hand_that_left_is_gone_soon(rate):
    stream = Stream(rate)
    stream.hold(1, hand("3L"))
    assert stream.until(0) <= KEEP + 1.01 / rate


def test_a_hand_that_is_elsewhere_takes_the_place_of_the_old_one():
    """Never are both told."""
    stream = Stream()
    stream.hold(1, hand("3L", HERE))
    totals = [told.total for told in stream.hold(1, hand("2R", FAR))]
    assert set(totals) == {3, 2}
    assert totals == sorted(totals, reverse=True)


@pytest.mark.parametrize("change", ["gap", "size", "back"])
def test_a_stream_that_was_broken_starts_afresh(change):
    tracker = Tracker()
    for n in range(30):
        tracker(prediction(hand("3L")), n / 30)
    seconds = {"gap": 2.1, "size": 1.0, "back": 0.5}[change]
    told = tracker(prediction(hand("5L"), width=320 if change == "size" else 640), seconds)
    assert labels(told) == ["5L"]
    assert told.hands[0].confidence == pytest.approx(0.9)


# Two hands


def test_hands_side_by_side_stay_themselves():
    stream = Stream()
    for told in stream.hold(1, hand("3L", HERE), hand("2R", BESIDE)):
        assert labels(told) == ["3L", "2R"]
        assert [hand.confidence for hand in told.hands] == pytest.approx([0.9, 0.9])


@RATES
def test_of_two_hands_one_leaves(rate):
    stream = Stream(rate)
    stream.hold(1, hand("3L", HERE), hand("2R", BESIDE))
    assert stream.until(2, hand("2R", BESIDE)) <= KEEP + 1.01 / rate
    told = stream(hand("2R", BESIDE)).hands
    assert [(h.label, round(h.box[0]), round(h.confidence, 3)) for h in told] == [("2R", BESIDE, 0.9)]


@RATES
def test_hands_that_cross_go_on_as_themselves(rate):
    """Neither takes anything of the other's probabilities, though their boxes lie on each other."""
    stream = Stream(rate)
    for x in np.linspace(0, 400, 2 * rate):
        told = stream(*sorted([hand("3L", x), hand("2R", 400 - x)], key=lambda hand: hand.box[0]))
        assert sorted(labels(told)) == ["2R", "3L"]
        assert [hand.confidence for hand in told.hands] == pytest.approx([0.9, 0.9])


# Whatever comes

places = st.tuples(
    st.sampled_from(["3L", "4L", "0R"]), st.sampled_from([0, 40, 120, 500]), st.sampled_from([0, 50, 300])
)
frames = st.tuples(st.sampled_from([0, 0.03, 0.1, 0.3, 2]), st.lists(places, max_size=4))


@settings(deadline=None)
@given(st.lists(frames))
def test_whatever_is_seen_is_told_consistently(frames):
    tracker, seconds, seen = Tracker(), 0.0, []
    for passed, found in frames:
        seconds += passed
        found = [hand(*place, sure=0.6, instead="5L") for place in found]
        seen.append((seconds, len(found)))
        told = tracker(prediction(*found), seconds)
        assert len(told.hands) <= sum(n for when, n in seen if seconds - when <= KEEP)
        assert [hand.box[0] for hand in told.hands] == sorted(hand.box[0] for hand in told.hands)
        for one in told.hands:
            assert one.probabilities.sum() == pytest.approx(1, abs=1e-5)
            assert one.confidence == one.probabilities[CLASSES.index(one.label)]
            assert 0 <= one.box[0] < one.box[2] <= 640
