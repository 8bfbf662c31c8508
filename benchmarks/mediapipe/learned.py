"""A learned rule: a support vector machine (SVM) that counts raised fingers from MediaPipe's landmarks.

This is what one would build with MediaPipe today. It learns from the hands that MediaPipe finds in pictures that
Handful is trained on, as many of each source at most, and not from pictures that are held out.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks.frames import spread
from handful.labels import NO_HAND, count_of
from handful.tracking import iou
from training.data.registry import SOURCES, open_source
from training.errors import BadData

MAX_FRAMES = 250  # of each source, evenly spread
MIN_IOU = 0.3  # of landmarks and a labelled hand: they end at the tips' centres, boxes at the skin
SETTINGS = {"svc__C": [1, 10, 100], "svc__gamma": [0.001, 0.003, 0.01, 0.03]}
CLOSE_CROPS = {"digits": "edges", "fingers": "black"}  # borders, as in `FRAME_SETS`
# Landmarks: wrist, knuckle of the middle finger, knuckles of index and little finger, and each finger from the wrist.
WRIST, MIDDLE, INDEX, LITTLE = 0, 9, 5, 17
FINGERS = np.array([[0, *range(first, first + 4)] for first in (1, 5, 9, 13, 17)])

Hand = dict[str, Any]  # "points", "world" and "side", as the worker returns them
Detect = Callable[[np.ndarray, str], list[Hand]]  # from a picture (H, W, 3) uint8 RGB, and its border or ""


class Samples(NamedTuple):
    """Hands to learn from, an entry each."""

    features: np.ndarray  # (N, 75)
    counts: np.ndarray  # (N,) int
    sources: np.ndarray  # (N,) str
    groups: np.ndarray  # (N,) str: person or recording session


def to_features(hand: Hand) -> np.ndarray:
    """Return what the machine sees of a hand, (75,): its landmarks in a canonical pose, and the angles of its joints.

    The wrist is at the origin and the knuckle of the middle finger one unit above it. The little finger is to the right
    of the index finger: neither side nor palm or back make a difference.
    """
    points = np.array(hand["points"]) - hand["points"][WRIST]
    x, y = points[MIDDLE, :2] / (np.linalg.norm(points[MIDDLE, :2]) + 1e-9)
    points[:, :2] = points[:, :2] @ np.array([[-y, -x], [x, -y]])  # (x, y) becomes (0, -1): up
    points /= np.linalg.norm(points[MIDDLE]) + 1e-9
    if points[LITTLE, 0] < points[INDEX, 0]:
        points[:, 0] *= -1
    bones = np.diff(np.array(hand["world"])[FINGERS], axis=1)
    bones /= np.linalg.norm(bones, axis=-1, keepdims=True) + 1e-9
    angles = np.arccos(np.clip((bones[:, 1:] * bones[:, :-1]).sum(-1), -1, 1))
    return np.concatenate([points[1:].ravel(), angles.ravel()])


def collect(detect: Detect, data: Path) -> Samples | None:
    """Return the hands with a labelled count that are detected in training pictures; None if there are none.

    Args:
        detect: returns the hands in a picture.
        data: the data folder, of which sources that are missing are skipped.
    """
    rows: list[tuple] = []
    for name, source in SOURCES.items():
        if not source.whole_frames or source.without_hands or name == "own":
            continue
        try:
            frames = open_source(name, data)
        except BadData as error:
            print(f"{source.short_title}: nothing learned from it. {error}", file=sys.stderr)
            continue
        before, labelled = len(rows), 0
        for i in spread(np.flatnonzero(~frames.validation).tolist(), MAX_FRAMES):
            frame = frames.frame(i)
            known = frame.targets < NO_HAND
            if not known.any():
                continue
            labelled += int(known.sum())
            hands = detect(frame.image, CLOSE_CROPS.get(name, ""))
            for hand, target in match(hands, frame.boxes, frame.targets):
                if target < NO_HAND:
                    rows.append((to_features(hand), int(count_of(target)), name, f"{name}/{frames.groups[i]}"))
        learned = f"learned from {len(rows) - before} of {labelled} hands"
        print(f"{source.short_title}: {learned}", file=sys.stderr, flush=True)
    return Samples(*map(np.array, zip(*rows, strict=True))) if rows else None


def match(hands: Sequence[Hand], boxes: np.ndarray, targets: np.ndarray) -> list[tuple[Hand, int]]:
    """Return the hands that are labelled, each with the target of the box (K, 4) that it is most like."""
    matched = []
    for hand in hands:
        points = np.array(hand["points"])[:, :2]
        ious = [iou((*points.min(0), *points.max(0)), tuple(box)) for box in boxes]
        if max(ious, default=0) >= MIN_IOU:
            matched.append((hand, int(targets[np.argmax(ious)])))
    return matched


def fit(samples: Samples, without: str = "") -> Any:
    """Train on all samples but those of a fold of sources, with the settings that are best on groups left out.

    Returns:
        A fitted `GridSearchCV`; None if there are too few people and sessions to leave some out.
    """
    own = np.array([not without or SOURCES[name].fold != without for name in samples.sources])
    groups = samples.groups[own]
    folds = min(5, len(np.unique(groups)))
    if folds < 2:
        return None
    search = GridSearchCV(make_pipeline(StandardScaler(), SVC()), SETTINGS, cv=GroupKFold(folds))
    return search.fit(samples.features[own], samples.counts[own], groups=groups)


def describe(rule: Any, samples: Samples) -> dict:
    """Return what a rule was trained on, its settings, and its accuracy on people and sessions left out."""
    sources, hands = np.unique(samples.sources, return_counts=True)
    return {
        "hands": dict(zip(sources.tolist(), hands.tolist(), strict=True)),
        "settings": rule.best_params_,
        "cross_validation": round(float(rule.best_score_), 4),
    }


def total(rule: Any, hands: Sequence[Hand]) -> int:
    """Return the sum of the counts of hands."""
    return int(rule.predict(np.array([to_features(hand) for hand in hands])).sum()) if hands else 0
