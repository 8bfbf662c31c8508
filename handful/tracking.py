"""Readings over time: the hands of a stream, told calmly from frame to frame.

>>> from model import shared_counter
>>> from handful.images import decode
>>> track, reading = Tracker(), shared_counter()(decode("assets/samples/3L_0.jpg"))
>>> [track(reading, seconds).total for seconds in (0.0, 0.04, 0.08)]
[3, 3, 3]
"""

import math
from dataclasses import replace

import numpy as np

from handful.counter import Box, Hand, Prediction, hand_from_probabilities
from handful.labels import CLASSES

# In seconds, not in frames: 10 frames a second are told like 30. `python -m benchmarks steady` shows what they do.
SMOOTH = 0.08  # time constant of probabilities
FOLLOW = 0.05  # time constant of boxes and crops, which must not lag behind a hand that moves
APPEAR = 0.08  # a hand that comes into a running stream is told after so long
KEEP = 0.25  # a hand that is missed is told for so long
GAP = 1.0  # a stream that stood still for so long starts afresh
# What a hand's first frame weighs, beside 1 for all frames of long ago: while it comes, a hand is blurred.
FIRST = 0.2
# How many times likelier than the class told another must be.
AHEAD = 2.5
# Intersection over union, under which a box has jumped.
JUMP = 0.2


class Track:
    """One hand of a stream: `read`, as in its last frame, and `told`, smoothed.

    `evidence`, (12,) float, sums the probabilities of its frames, each weighed by the time that it stands
    for and by its age.
    """

    def __init__(self, hand: Hand, seconds: float, shown: bool):
        self.read = self.told = hand
        self.evidence = FIRST * hand.probabilities
        self.first = self.last = seconds
        self.shown = shown

    def follow(self, hand: Hand, seconds: float) -> None:
        """Go on with the hand as read in the next frame that it is in."""
        passed = seconds - self.last
        self.read, self.last = hand, seconds
        fade = math.exp(-passed / SMOOTH)
        self.evidence = fade * self.evidence + (1 - fade) * hand.probabilities
        probabilities = (self.evidence / self.evidence.sum()).astype(np.float32)
        favoured = probabilities.copy()
        if self.shown:
            favoured[CLASSES.index(self.told.label)] *= AHEAD
        fade = math.exp(-passed / FOLLOW)
        box, crop = blend(self.told.box, hand.box, fade), blend(self.told.crop, hand.crop, fade)
        told = hand_from_probabilities(box, crop, favoured, hand.gradcam_maps)
        confidence = float(probabilities[CLASSES.index(told.label)])
        self.told = replace(told, confidence=confidence, probabilities=probabilities)


class Tracker:
    """Tells the hands of one stream from all its frames, not from the newest alone.

    Probabilities, box and crop of a hand are smoothed exponentially. What is told of it changes once another
    class is clearly ahead (hysteresis); its confidence is the smoothed probability of the class told. A hand
    that is missed for a moment stays, and one that comes into a running stream is told once it has stayed for a
    moment. Grad-CAM maps are those of a hand's last frame.
    """

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self.size = (0, 0)
        self.seconds = -math.inf

    def __call__(self, prediction: Prediction, seconds: float) -> Prediction:
        """Tell what is in the stream now.

        Args:
            reading: what was read in the newest frame.
            seconds: when that frame came, on a clock of the stream's own.
        """
        size = (prediction.width, prediction.height)
        starts = size != self.size or not 0 <= seconds - self.seconds <= GAP
        if starts:
            self.tracks = []
        self.size, self.seconds = size, seconds

        pairs = [
            (affinity(t, hand), i, j) for i, t in enumerate(self.tracks) for j, hand in enumerate(prediction.hands)
        ]
        missed, new = dict(enumerate(self.tracks)), dict(enumerate(prediction.hands))
        for likely, i, j in sorted(pairs, reverse=True):
            if likely and i in missed and j in new:
                track, hand = missed.pop(i), new.pop(j)
                if iou(track.read.box, hand.box) < JUMP:
                    self.tracks[i] = Track(hand, seconds, track.shown)
                else:
                    track.follow(hand, seconds)

        # A missed hand makes place for one that is told from now on: it may be this one, elsewhere.
        kept = [t for t in missed.values() if t.shown and seconds - t.last <= KEEP]
        found = [t for t in self.tracks if t not in missed.values()]
        for track in found:
            if not track.shown and seconds - track.first >= APPEAR:
                track.shown = True
                del kept[:1]
        self.tracks = [*found, *kept, *(Track(hand, seconds, starts) for hand in new.values())]
        hands = sorted((t.told for t in self.tracks if t.shown), key=lambda hand: hand.box[0])
        return replace(prediction, hands=tuple(hands))


def affinity(track: Track, hand: Hand) -> float:
    """How much a hand is like that of a track: IoU of their boxes, twice that where they read alike.

    So hands that cross go on as themselves, unless they read alike: then it does not matter.
    """
    alike = np.minimum(track.told.probabilities, hand.probabilities).sum()
    return iou(track.read.box, hand.box) * (1 + float(alike))


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0-1."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / max(area - shared, 1e-12)


def blend(a: Box, b: Box, share: float) -> Box:
    """A box between two, with `share` of the first."""
    x0, y0, x1, y1 = (share * p + (1 - share) * q for p, q in zip(a, b, strict=True))
    return x0, y0, x1, y1
