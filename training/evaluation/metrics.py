"""Metrics of predictions on labelled frames."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torchvision.ops import box_iou

from handful import Hand
from handful.labels import CLASSES, COUNTS, SIDE_UNKNOWN, SIDES, count_of, marginal_over_sides
from training.data.frames import Frame
from training.data.registry import FINGERS_UNKNOWN, fingers_as_bits
from training.evaluation.intervals import accuracy

IOU_THRESHOLD = 0.5
CALIBRATION_BINS = 15


class FramePrediction(NamedTuple):
    """A labelled frame and the hands predicted in it; of the frame's image, only the shape is needed.

    `group` is its person or recording session, "" if it is alone.
    """

    file: str
    frame: Frame
    hands: tuple[Hand, ...]
    group: str = ""


def compute_metrics(predictions: Sequence[FramePrediction]) -> dict:
    """Return the metrics of the hands in some frames, as `evaluate` writes them.

    A prediction matches a label if their boxes have an IoU of 0.5 or more, each at most once. A frame is correct if
    every hand is matched, every match is correct (see `is_correct`), and nothing else is predicted. Its total is
    correct if the predicted counts add up to the labelled ones; with no hand predicted it is 0, which is correct for
    fists: `recall` shows those that were missed. `total` is the number of correct totals and its 95% interval, see
    `intervals.accuracy`. `finger_accuracy` is the share of matches with exactly the labelled fingers raised, where
    these are labelled.
    """
    matches: list[tuple[int, Hand]] = []  # (target, prediction)
    raised: list[tuple[int, Hand]] = []  # (labelled fingers as bits, prediction)
    labelled = predicted = 0
    totals, errors = [], []
    for file, frame, hands, group in predictions:
        pairs = match_boxes(frame.boxes, hands)
        matched = [(int(frame.targets[k]), hands[h]) for k, h in pairs]
        matches += matched
        if frame.fingers is not None:
            raised += [(int(frame.fingers[k]), hands[h]) for k, h in pairs]
        labelled, predicted = labelled + len(frame.boxes), predicted + len(hands)
        totals.append(bool(count_of(frame.targets).sum() == sum(hand.fingers for hand in hands)))
        if not (len(matched) == len(frame.boxes) == len(hands) and all(is_correct(*match) for match in matched)):
            errors.append(describe_error(file, frame, hands, matched) | {"group": group})
    errors.sort(key=lambda error: -error["confidence"])

    targets = np.array([target for target, _ in matches], int)
    classes = np.array([CLASSES.index(hand.label) for _, hand in matches], int)
    probabilities = np.array([hand.probabilities for _, hand in matches]).reshape(-1, len(CLASSES))
    correct = np.array([is_correct(*match) for match in matches], bool)
    side_known = targets < SIDE_UNKNOWN
    confusion = confusion_matrix(targets[side_known], classes[side_known], len(CLASSES))
    count_confusion = confusion_matrix(count_of(targets), count_of(classes), len(COUNTS))
    side_confusion = confusion.reshape(len(SIDES), len(COUNTS), len(SIDES), len(COUNTS)).sum((1, 3))
    # Confidence is the probability of what is compared: the class, or the count where no side is labelled.
    rows = np.arange(len(matches))
    of_count = marginal_over_sides(probabilities)[rows, count_of(classes)]
    ece, bins = reliability(np.where(side_known, probabilities[rows, classes], of_count), correct)
    sided = bool(side_known.any())
    named = [(bits, hand) for bits, hand in raised if bits != FINGERS_UNKNOWN]
    exact = sum(bits == fingers_as_bits(hand.raised) for bits, hand in named)
    finger_accuracy = exact / len(named) if named else None
    return {
        "pictures": len(predictions),
        "correct": len(predictions) - len(errors),
        "total_accuracy": sum(totals) / max(len(predictions), 1),
        "total": accuracy(totals, [prediction.group for prediction in predictions]),
        "class_accuracy": correct.sum().item() / max(labelled, 1),
        "count_accuracy": np.trace(count_confusion).item() / max(labelled, 1),
        "side_accuracy": (np.trace(side_confusion) / side_confusion.sum()).item() if sided else None,
        "finger_accuracy": finger_accuracy,
        "recall": len(matches) / max(labelled, 1),
        "precision": len(matches) / max(predicted, 1),
        "ece": ece,
        "reliability": bins,
        "classes": CLASSES,
        "per_class": per_class(confusion, CLASSES) if sided else per_class(count_confusion, [str(n) for n in COUNTS]),
        "confusion": confusion.tolist() if sided else None,
        "count_confusion": count_confusion.tolist(),
        "side_confusion": side_confusion.tolist() if sided else None,
        "errors": errors,
    }


def metrics_by_group(
    predictions: Sequence[FramePrediction], traits: dict[str, tuple[list[str], list[str]]]
) -> dict[str, list[dict]]:
    """Return, for each trait, the accuracies of each of its groups.

    Args:
        predictions: as for `compute_metrics`.
        traits: for each trait, its groups in order, and the group of each prediction.
    """

    def row(group: str, membership: list[str]) -> dict:
        members = [prediction for prediction, own in zip(predictions, membership, strict=True) if own == group]
        metrics = compute_metrics(members)
        keys = ("pictures", "total_accuracy", "total", "recall", "count_accuracy", "side_accuracy")
        return {"group": group, **{key: metrics[key] for key in keys}}

    return {trait: [row(group, membership) for group in groups] for trait, (groups, membership) in traits.items()}


def match_boxes(boxes: np.ndarray, hands: Sequence[Hand]) -> list[tuple[int, int]]:
    """Match labelled boxes (K, 4) with predictions, highest IoU first: pairs of indices."""
    if not len(boxes) or not hands:
        return []
    iou = box_iou(torch.from_numpy(boxes).float(), torch.tensor([hand.box for hand in hands])).numpy()
    pairs = []
    while iou.max() >= IOU_THRESHOLD:
        k, h = np.unravel_index(iou.argmax(), iou.shape)
        pairs.append((int(k), int(h)))
        iou[k], iou[:, h] = 0, 0
    return pairs


def is_correct(target: int, hand: Hand) -> bool:
    """Return whether a matched prediction has the labelled class, or the labelled count where no side is labelled."""
    return hand.fingers == count_of(target) if target >= SIDE_UNKNOWN else hand.label == CLASSES[target]


def label_of(target: int) -> str:
    """Return a target as text: "3L", or "3" where no side is labelled."""
    return CLASSES[target] if target < SIDE_UNKNOWN else str(count_of(target))


def describe_error(file: str, frame: Frame, hands: Sequence[Hand], matched: list[tuple[int, Hand]]) -> dict:
    """Return an incorrect frame's most confident misclassification, else all its labels and predictions."""
    wrong = [match for match in matched if not is_correct(*match)]
    if not wrong:  # hands were missed, or predicted where there are none
        label = "+".join(label_of(int(target)) for target in frame.targets)
        predicted = "+".join(hand.label for hand in hands) or "no hand"
        return {"file": file, "label": label, "predicted": predicted, "confidence": 0.0, "probabilities": {}}
    target, hand = max(wrong, key=lambda match: match[1].confidence)
    return {
        "file": file,
        "label": label_of(target),
        "predicted": hand.label,
        "confidence": round(hand.confidence, 4),
        "probabilities": hand.to_dict()["probabilities"],
    }


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, n: int) -> np.ndarray:
    """Return counts (n, n) int: a row for each label, a column for each prediction."""
    matrix = np.zeros((n, n), int)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def per_class(confusion: np.ndarray, labels: Sequence[str]) -> list[dict]:
    """Return precision, recall, F1 and support of each class of a confusion matrix."""
    hits, predicted, support = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    columns = {
        "class": np.array(labels),
        "precision": hits / np.maximum(predicted, 1),
        "recall": hits / np.maximum(support, 1),
        "f1": 2 * hits / np.maximum(predicted + support, 1),
        "support": support,
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def reliability(confidence: np.ndarray, correct: np.ndarray) -> tuple[float, list[dict]]:
    """Return the expected calibration error and its bins, of equal width (Guo et al., 2017, arXiv:1706.04599)."""
    index = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    bins: list[dict] = []
    ece = 0.0
    for i in range(CALIBRATION_BINS):
        inside = index == i
        bins.append({"low": i / CALIBRATION_BINS, "high": (i + 1) / CALIBRATION_BINS, "count": int(inside.sum())})
        if inside.any():
            mean_confidence, accuracy = confidence[inside].mean().item(), correct[inside].mean().item()
            bins[-1] |= {"confidence": mean_confidence, "accuracy": accuracy}
            ece += inside.mean().item() * abs(accuracy - mean_confidence)
    return ece, bins
