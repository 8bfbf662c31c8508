"""Track hands from frame to frame of a stream, and smooth their predictions.

>>> from handful import shared_counter
>>> from handful.images import decode
>>> tracker, prediction = Tracker(), shared_counter()(decode("assets/samples/3L_0.jpg"))
>>> [tracker(prediction, seconds).total for seconds in (0.0, 0.04, 0.08)]
[3, 3, 3]
"""

import math
from dataclasses import replace

import numpy as np

from handful.counter import Box, Hand, Prediction, hand_from_probabilities
from handful.labels import CLASSES

# Times are in seconds, so that results do not depend on the frame rate. Measured by `python -m benchmarks steady`.
PROBABILITY_TIME_CONSTANT_S = 0.08
BOX_TIME_CONSTANT_S = 0.05  # shorter: a box must not lag behind a moving hand
MIN_AGE_S = 0.08  # of a hand before it is shown, except at the start of a stream
MAX_MISSED_S = 0.25  # how long a hand is shown after its last detection
MAX_GAP_S = 1.0  # between frames; after a longer gap, tracking starts afresh
FIRST_FRAME_WEIGHT = 0.2  # compared to 1 for all frames of a long track: an appearing hand is blurred by motion
HYSTERESIS = 2.5  # how many times more probable a class must be than the shown one to replace it
JUMP_IOU = 0.2  # between a hand's boxes in successive frames; below, the hand has jumped and is not smoothed


class Track:
    """One hand of a stream.

    Attributes:
        last_hand: the hand as predicted in the last frame that it was detected in.
        smoothed: the hand with smoothed probabilities, box and crop.
        evidence: (17,) float, the sum of the frames' probabilities, of classes and then of fingers, weighted by their
            duration and age.
        first_seen, last_seen: times of detections, in seconds.
        shown: whether the hand is part of the tracker's predictions.
    """

    def __init__(self, hand: Hand, seconds: float, shown: bool):
        self.last_hand = self.smoothed = hand
        self.evidence = FIRST_FRAME_WEIGHT * all_probabilities(hand)
        self.first_seen = self.last_seen = seconds
        self.shown = shown

    def update(self, hand: Hand, seconds: float) -> None:
        """Add the hand of a newer frame."""
        elapsed = seconds - self.last_seen
        self.last_hand, self.last_seen = hand, seconds
        decay = math.exp(-elapsed / PROBABILITY_TIME_CONSTANT_S)
        self.evidence = decay * self.evidence + (1 - decay) * all_probabilities(hand)
        weight = self.evidence[: len(CLASSES)].sum()  # those of the classes add up to 1 in each frame
        probabilities, fingers = np.split((self.evidence / weight).astype(np.float32), [len(CLASSES)])
        biased = probabilities.copy()
        if self.shown:
            biased[CLASSES.index(self.smoothed.label)] *= HYSTERESIS
        decay = math.exp(-elapsed / BOX_TIME_CONSTANT_S)
        box = interpolate(hand.box, self.smoothed.box, decay)
        crop = interpolate(hand.crop, self.smoothed.crop, decay)
        smoothed = hand_from_probabilities(box, crop, biased, hand.gradcam_maps, fingers)
        confidence = float(probabilities[CLASSES.index(smoothed.label)])
        self.smoothed = replace(smoothed, confidence=confidence, probabilities=probabilities)


class Tracker:
    """Smooth the predictions for one stream.

    Probabilities, box and crop of a hand are smoothed exponentially. Its predicted class changes when another one is
    clearly more probable (hysteresis); its confidence is the smoothed probability of that class, and as many fingers
    are raised as it says. Hands stay through short gaps in their detection, and a hand that appears in a running stream
    is shown after a short delay. Grad-CAM maps are those of a hand's last frame.
    """

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self.size = (0, 0)
        self.seconds = -math.inf

    def __call__(self, prediction: Prediction, seconds: float) -> Prediction:
        """Add a frame and return the smoothed prediction for it.

        Args:
            prediction: for the newest frame.
            seconds: when that frame was taken, on a monotonic clock.
        """
        size = (prediction.width, prediction.height)
        restarted = size != self.size or not 0 <= seconds - self.seconds <= MAX_GAP_S
        if restarted:
            self.tracks = []
        self.size, self.seconds = size, seconds

        missed, new = self._match(prediction.hands, seconds)
        missed = [track for track in missed if track.shown and seconds - track.last_seen <= MAX_MISSED_S]
        for track in self.tracks:
            if not track.shown and seconds - track.first_seen >= MIN_AGE_S:
                track.shown = True
                # A newly shown hand replaces a missed one: it may be the same hand, elsewhere.
                del missed[:1]
        self.tracks += missed + [Track(hand, seconds, shown=restarted) for hand in new]
        hands = sorted((track.smoothed for track in self.tracks if track.shown), key=lambda hand: hand.box[0])
        return replace(prediction, hands=tuple(hands))

    def _match(self, hands: tuple[Hand, ...], seconds: float) -> tuple[list[Track], list[Hand]]:
        """Update tracks with the hands that continue them, the most similar pairs first.

        Removes tracks without a hand from `self.tracks`; returns these, and the hands without a track.
        """
        pairs = [(affinity(track, hand), i, j) for i, track in enumerate(self.tracks) for j, hand in enumerate(hands)]
        tracks, new = dict(enumerate(self.tracks)), dict(enumerate(hands))
        matched: dict[int, Track] = {}
        for score, i, j in sorted(pairs, reverse=True):
            if score and i in tracks and j in new:
                track, hand = tracks.pop(i), new.pop(j)
                if iou(track.last_hand.box, hand.box) < JUMP_IOU:
                    track = Track(hand, seconds, track.shown)
                else:
                    track.update(hand, seconds)
                matched[i] = track
        self.tracks = [matched[i] for i in sorted(matched)]
        return list(tracks.values()), list(new.values())


def all_probabilities(hand: Hand) -> np.ndarray:
    """Return the probabilities of a hand's classes, then those of its fingers: (17,)."""
    return np.concatenate([hand.probabilities, hand.finger_probabilities])


def affinity(track: Track, hand: Hand) -> float:
    """Return how well a hand continues a track: the IoU of their boxes, times 1 to 2 for similar probabilities.

    So hands that cross keep their tracks, unless they show the same, where it makes no difference.
    """
    similarity = np.minimum(track.smoothed.probabilities, hand.probabilities).sum()
    return iou(track.last_hand.box, hand.box) * (1 + float(similarity))


def iou(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes, 0-1."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    intersection = max(width, 0) * max(height, 0)
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return intersection / max(area - intersection, 1e-12)


def interpolate(a: Box, b: Box, t: float) -> Box:
    """Return a box between `a` (t = 0) and `b` (t = 1)."""
    x0, y0, x1, y1 = ((1 - t) * p + t * q for p, q in zip(a, b, strict=True))
    return x0, y0, x1, y1
