"""Measures the exported model, through onnxruntime, and writes what the Evaluation page shows."""

import hashlib
import json
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader
from tqdm import tqdm

from model import CLASSES, MODEL, FingerCounter
from training.data.fingers import Fingers

BINS = 15


def evaluate(
    folder: Path = Path("data/fingers"), model: Path = MODEL, output: Path = MODEL.parent / "metrics"
) -> None:
    """Read every picture of the Fingers test split with the exported model.

    Args:
        folder: the data set, as `python -m training data` leaves it.
        model: the ONNX file.
        output: folder for the measures, one JSON file a set.
    """
    pictures = Fingers(folder, "test")
    counter = FingerCounter(model)
    batches = DataLoader(pictures, 64, collate_fn=lambda batch: batch)
    probabilities = np.concatenate(
        [
            counter.classify(images[:, :1].permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy().copy())[0]
            for images, _ in tqdm(batches, "Reading", unit=" batches")
        ]
    )
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
        **measure(pictures.targets.numpy(), probabilities, files),
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / "fingers-test.json").write_text(json.dumps(measured, indent=1) + "\n")
    right = round(measured["accuracy"] * len(files))
    print(f"{right:,} of {len(files):,} right in 12 classes ({measured['accuracy']:.2%})")
    print(f"fingers {measured['fingers_accuracy']:.2%}, side {measured['side_accuracy']:.2%}, ECE {measured['ece']:.4f}")


def measure(truth: np.ndarray, probabilities: np.ndarray, files: list[str]) -> dict:
    """Accuracy, confusion and calibration of (N, 12) probabilities against (N,) class indices.

    `wrong` lists every picture whose class is not right, the surest mistake first.
    """
    predicted = probabilities.argmax(1)
    right = predicted == truth
    confusion = np.zeros((12, 12), int)
    np.add.at(confusion, (truth, predicted), 1)
    by_side = confusion.reshape(2, 6, 2, 6)
    fingers, side = by_side.sum((0, 2)), by_side.sum((1, 3))
    ece, bins = reliability(probabilities.max(1), right)
    wrong = sorted(np.flatnonzero(~right), key=lambda i: -probabilities[i].max())
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
                "predicted": CLASSES[predicted[i]],
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
    bins = []
    for i in range(BINS):
        inside = index == i
        bins.append(
            {
                "low": i / BINS,
                "high": (i + 1) / BINS,
                "count": int(inside.sum()),
                "confidence": confidence[inside].mean().item() if inside.any() else None,
                "accuracy": right[inside].mean().item() if inside.any() else None,
            }
        )
    ece = sum(b["count"] * abs(b["accuracy"] - b["confidence"]) for b in bins if b["count"]) / len(right)
    return ece, bins
