"""Measures the exported model, through onnxruntime, and writes what the Evaluation page shows.

Everything goes the way of a user's picture: a whole frame in, hands out.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torchvision.ops import box_iou
from tqdm import tqdm

from model import CLASSES, MODEL, FingerCounter, Hand
from training.data.digits import SignLanguageDigits
from training.data.fingers import Fingers
from training.data.frames import SIDELESS, Frame, Frames
from training.data.places import places
from training.data.webcam import HandsDataset

BINS = 15
TITLES = {
    "fingers-test": "Kaggle Fingers, test split",
    "webcam": "Webcam frames: rooms and sessions never trained on (HandsDataset)",
    "digits": "Close crops of people never trained on (Sign-Language-Digits)",
}


def held_out(name: str, folder: Path) -> Iterator[tuple[str, Frame]]:
    """The frames of a set that no training sees, and their files relative to the data folder."""
    source: Frames | Fingers
    if name == "fingers-test":
        source = Fingers(folder / "fingers", "test")
        index = np.arange(len(source))
    else:
        place, kind = {
            "webcam": ("people/HandsDataset", HandsDataset),
            "digits": ("people/Sign-Language-Digits-Dataset", SignLanguageDigits),
        }[name]
        source = kind(folder / place)
        index = np.flatnonzero(source.validation)
    for i in tqdm(index, f"Reading {name}", unit=" pictures"):
        yield source.files[i].relative_to(folder).as_posix(), source.frame(i)


def evaluate(folder: Path = Path("data"), model: Path = MODEL, output: Path = MODEL.parent / "metrics") -> None:
    """Read the held-out pictures of every set that is there with the exported model.

    Args:
        folder: the data sets, as `python -m training data` leaves them.
        model: the ONNX file.
        output: folder for the measures, one JSON file a set.
    """
    counter = FingerCounter(model)
    about = {"file": model.name, "sha256": hashlib.sha256(model.read_bytes()).hexdigest(), **counter.metadata}
    output.mkdir(parents=True, exist_ok=True)
    for name, title in TITLES.items():
        try:
            frames = list(held_out(name, folder))
        except ValueError as error:
            print(f"{name}: not measured. {error}")
            continue
        measured = {
            "set": name,
            "title": title,
            "command": "python -m training evaluate",
            "model": about,
            **measure([(file, frame, counter(frame.image).hands) for file, frame in frames]),
        }
        (output / f"{name}.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
        shares = ("total_accuracy", "fingers_accuracy", "side_accuracy", "recall", "precision")
        told = ", ".join(f"{key.replace('_', ' ')} {measured[key]:.2%}" for key in shares if measured[key] is not None)
        print(f"{name}: {measured['right']:,} of {measured['pictures']:,} right; {told}, ECE {measured['ece']:.4f}")
    empty = places(folder, validation=True)
    if empty:
        seen = sum(bool(counter(image).hands) for image in empty)
        print(f"without hands: a hand is seen in {seen} of {len(empty)} pictures")


def measure(readings: list[tuple[str, Frame, tuple[Hand, ...]]]) -> dict:
    """How well hands were read: (file, truth, hands told) for each picture.

    A hand told is a hand there when their boxes overlap by half (IoU ≥ 0.5), each once. A picture
    is right when its hands are all found, nothing else is, and every class is right (the count, where
    no side is known).
    """
    pairs: list[tuple[int, Hand]] = []  # (target, hand told)
    there = told = right = totals = 0
    wrong = []
    for file, frame, hands in readings:
        matched = match(frame.boxes, hands)
        found = [(int(frame.targets[k]), hands[h]) for k, h in matched]
        pairs += found
        there, told = there + len(frame.boxes), told + len(hands)
        # Not finding a fist is not the same as counting none.
        totals += bool(hands) and (frame.targets % 6).sum() == sum(hand.fingers for hand in hands)
        if len(found) == len(frame.boxes) == len(hands) and all(is_right(*pair) for pair in found):
            right += 1
        else:
            wrong.append(mistake(file, frame, hands, found))
    targets = np.array([target for target, _ in pairs], int)
    labels = np.array([CLASSES.index(hand.label) for _, hand in pairs], int)
    probabilities = np.stack([hand.probabilities for _, hand in pairs]) if pairs else np.zeros((0, 12))
    sided = targets < SIDELESS
    confusion = np.zeros((12, 12), int)
    np.add.at(confusion, (targets[sided], labels[sided]), 1)
    fingers = np.zeros((6, 6), int)
    np.add.at(fingers, (targets % 6, labels % 6), 1)
    side = confusion.reshape(2, 6, 2, 6).sum((1, 3))
    # What is promised: the class where the side is known, else the count.
    count = probabilities.reshape(-1, 2, 6).sum(1)
    sure = np.where(sided, probabilities[np.arange(len(labels)), labels], count[np.arange(len(labels)), labels % 6])
    good = np.array([is_right(*pair) for pair in pairs], bool)
    ece, bins = reliability(sure, good)
    wrong.sort(key=lambda row: -row["confidence"])
    return {
        "pictures": len(readings),
        "right": right,
        "total_accuracy": totals / max(len(readings), 1),
        "accuracy": good.sum().item() / max(there, 1),
        "fingers_accuracy": (targets % 6 == labels % 6).sum().item() / max(there, 1),
        "side_accuracy": (np.trace(side) / side.sum()).item() if sided.any() else None,
        "recall": len(pairs) / max(there, 1),
        "precision": len(pairs) / max(told, 1),
        "ece": ece,
        "reliability": bins,
        "classes": CLASSES,
        "per_class": per_class(confusion, CLASSES) if sided.any() else per_class(fingers, "012345"),
        "confusion": confusion.tolist() if sided.any() else None,
        "fingers_confusion": fingers.tolist(),
        "side_confusion": side.tolist() if sided.any() else None,
        "wrong": wrong,
    }


def match(boxes: np.ndarray, hands: tuple[Hand, ...]) -> list[tuple[int, int]]:
    """Which box (K, 4) is which hand told: pairs of indices, those that overlap most first, IoU ≥ 0.5."""
    if not len(boxes) or not hands:
        return []
    iou = box_iou(torch.from_numpy(boxes).float(), torch.tensor([hand.box for hand in hands])).numpy()
    pairs = []
    while iou.max() >= 0.5:
        k, h = np.unravel_index(iou.argmax(), iou.shape)
        pairs.append((int(k), int(h)))
        iou[k], iou[:, h] = 0, 0
    return pairs


def is_right(target: int, hand: Hand) -> bool:
    """Whether a hand told is what `target` says: the class, or the count where it has no side."""
    return hand.fingers == target % 6 if target >= SIDELESS else hand.label == CLASSES[target]


def name_of(target: int) -> str:
    """A target in letters: "3L", or "3" where the side is not known."""
    return CLASSES[target] if target < SIDELESS else str(target % 6)


def mistake(file: str, frame: Frame, hands: tuple[Hand, ...], found: list[tuple[int, Hand]]) -> dict:
    """A wrong picture, by its worst hand: the surest one that is misread, else what was missed or made up."""
    misread = max((pair for pair in found if not is_right(*pair)), key=lambda pair: pair[1].confidence, default=None)
    if misread is None:
        truth = "+".join(name_of(int(target)) for target in frame.targets)
        told = "+".join(hand.label for hand in hands) or "no hand"
        return {"file": file, "truth": truth, "predicted": told, "confidence": 0.0, "probabilities": {}}
    target, hand = misread
    return {
        "file": file,
        "truth": name_of(target),
        "predicted": hand.label,
        "confidence": round(hand.confidence, 4),
        "probabilities": hand.to_dict()["probabilities"],
    }


def per_class(confusion: np.ndarray, labels: Sequence[str]) -> list[dict]:
    """Precision, recall, F1 and support of each class, from counts [truth, predicted]."""
    hits, told, there = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    precision, recall = hits / np.maximum(told, 1), hits / np.maximum(there, 1)
    f1 = 2 * hits / np.maximum(told + there, 1)
    rows = zip(labels, precision.tolist(), recall.tolist(), f1.tolist(), there.tolist(), strict=True)
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
