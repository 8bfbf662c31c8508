"""Measures the exported model, through onnxruntime, and writes what the Evaluation page shows."""

import hashlib
import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from model import CLASSES, MODEL, FingerCounter
from training.data.fingers import Fingers

BINS = 15


def evaluate(folder: Path = Path("data/fingers"), model: Path = MODEL, output: Path = MODEL.parent / "metrics") -> None:
    """Read every picture of the Fingers test split with the exported model.

    Args:
        folder: the data set, as `python -m training data` leaves it.
        model: the ONNX file.
        output: folder for the measures, one JSON file a set.
    """
    pictures = Fingers(folder, "test")
    counter = FingerCounter(model)
    hands = []
    for i in tqdm(range(len(pictures)), "Reading", unit=" pictures"):
        grey = pictures[i][0][0].numpy()
        hands.append(counter(np.repeat(grey[:, :, None], 3, axis=2)).hands[0])
    told = np.array([CLASSES.index(hand.label) for hand in hands])
    probabilities = np.stack([hand.probabilities for hand in hands])
    files = [f"fingers/test/{file.name}" for file in pictures.files]
    measured = {
        "set": "fingers-test",
        "title": "Fingers test split",
        "command": "python -m training evaluate",
        "model": {
            "file": model.name,
            "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
            **counter.metadata,
        },
        **measure(pictures.targets.numpy(), told, probabilities, files),
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / "fingers-test.json").write_text(json.dumps(measured, indent=1) + "\n")
    right = round(measured["accuracy"] * len(files))
    print(f"{right:,} of {len(files):,} right in 12 classes ({measured['accuracy']:.2%})")
    print(
        f"fingers {measured['fingers_accuracy']:.2%}, side {measured['side_accuracy']:.2%}, ECE {measured['ece']:.4f}"
    )


def measure(truth: np.ndarray, told: np.ndarray, probabilities: np.ndarray, files: list[str]) -> dict:
    """Accuracy, confusion and calibration of classes told (N,), with (N, 12) probabilities, against the truth (N,).

    `wrong` lists every picture whose class is not right, the surest mistake first.
    """
    right = told == truth
    confidence = probabilities[np.arange(len(told)), told]
    confusion = np.zeros((12, 12), int)
    np.add.at(confusion, (truth, told), 1)
    by_side = confusion.reshape(2, 6, 2, 6)
    fingers, side = by_side.sum((0, 2)), by_side.sum((1, 3))
    ece, bins = reliability(confidence, right)
    wrong = sorted(np.flatnonzero(~right), key=lambda i: -confidence[i])
    return {
        "pictures": len(truth),
        "accuracy": right.mean().item(),
        "fingers_accuracy": (np.trace(fingers) / len(truth)).item(),
        "side_accuracy": (np.trace(side) / len(truth)).item(),
        "ece": ece,
        "reliability": bins,
        "classes": CLASSES,
        "per_class": per_class(confusion),
        "confusion": confusion.tolist(),
        "fingers_confusion": fingers.tolist(),
        "side_confusion": side.tolist(),
        "wrong": [
            {
                "file": files[i],
                "truth": CLASSES[truth[i]],
                "predicted": CLASSES[told[i]],
                "probabilities": {c: round(p.item(), 4) for c, p in zip(CLASSES, probabilities[i], strict=True)},
            }
            for i in wrong
        ],
    }


def per_class(confusion: np.ndarray) -> list[dict]:
    """Precision, recall, F1 and support of each class, from counts [truth, predicted]."""
    hits, told, there = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    precision, recall = hits / np.maximum(told, 1), hits / np.maximum(there, 1)
    f1 = 2 * hits / np.maximum(told + there, 1)
    rows = zip(CLASSES, precision.tolist(), recall.tolist(), f1.tolist(), there.tolist(), strict=True)
    return [dict(zip(("class", "precision", "recall", "f1", "support"), row, strict=True)) for row in rows]


def reliability(confidence: np.ndarray, right: np.ndarray) -> tuple[float, list[dict]]:
    """Expected calibration error with equal bins, and the bins (Guo et al., 2017, arXiv:1706.04599)."""
    index = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins: list[dict] = []
    ece = 0.0
    for i in range(BINS):
        inside = index == i
        bins.append({"low": i / BINS, "high": (i + 1) / BINS, "count": int(inside.sum())})
        if inside.any():
            told, share = confidence[inside].mean().item(), right[inside].mean().item()
            bins[-1] |= {"confidence": told, "accuracy": share}
            ece += inside.mean().item() * abs(share - told)
    return ece, bins
