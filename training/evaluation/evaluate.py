"""Measures the exported model, through onnxruntime, and writes what the Evaluation page shows.

Everything goes the way of a user's picture: a whole frame in, hands out.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torchvision.ops import box_iou
from tqdm import tqdm

from handful import CLASSES, MODEL, FingerCounter, Hand
from handful.labels import SIDE_UNKNOWN
from training.data import open_source
from training.data.backgrounds import places
from training.data.corruptions import CorruptedFrames
from training.data.frames import Frame, FrameDataset
from training.data.sources.fingers import Fingers
from training.data.sources.rendered import Rendered
from training.errors import BadData
from training.files import atomic_write

BINS = 15
METRICS = MODEL.parent / "metrics"
COMMAND = "python -m training evaluate"
TITLES = {
    "webcam": "Webcam frames: rooms and sessions never trained on (HandsDataset)",
    "digits": "Close crops of people never trained on (Sign-Language-Digits)",
    "rendered": "Rendered hands in places never trained on",
    "fingers-test": "Kaggle Fingers, test split",
}
FramePrediction = tuple[str, Frame, tuple[Hand, ...]]


def held_out(name: str, folder: Path) -> tuple[FrameDataset, np.ndarray]:
    """A set, and which of its frames no training sees."""
    match name:
        case "fingers-test":
            fingers = Fingers(folder / "fingers", "test")
            return fingers, np.arange(len(fingers))
        case "rendered":
            rendered = Rendered(folder / "render/val", places(folder, validation=True))
            return rendered, np.arange(len(rendered))
        case _:
            source = open_source(name, folder)
    return source, np.flatnonzero(source.validation)


def read(counter: FingerCounter, source: FrameDataset, index: np.ndarray, folder: Path) -> list[FramePrediction]:
    """Read frames of a set: file relative to the data folder, truth and hands told of each."""
    predictions = []
    for i in tqdm(index, f"Reading {type(source).__name__}", unit=" pictures"):
        frame = source.frame(i)
        # Many rendered hands share a file.
        file = source.root / str(i) if isinstance(source, Rendered) else source.files[i]
        truth = Frame(np.empty((0, 0, 3), np.uint8), frame.boxes, frame.targets)  # thousands of pictures need not stay
        predictions.append((Path(file).relative_to(folder).as_posix(), truth, counter(frame.image).hands))
    return predictions


def evaluate(
    folder: Path = Path("data"), model: Path = MODEL, output: Path = METRICS, counts: Path | None = None
) -> None:
    """Read the held-out pictures of every set that is there with the exported model.

    Of a set that is not there, what was measured of this very model before stays; of another, it goes.

    Args:
        folder: the data sets, as `python -m training data` leaves them.
        model: the ONNX file.
        output: folder for the measures: one JSON file a set, and the shares of all sets in summary.json.
        counts: a CSV for `dvc plots`: of each hand found, how many fingers are up, and how many were told.

    Raises:
        BadModel: `model` is none of Handful's.
        BadData: no set is there, or one is damaged.
    """
    counter = FingerCounter(model)
    about = {"file": model.name, "sha256": counter.sha256, **counter.metadata}
    sets = {}
    for name in TITLES:
        try:
            sets[name] = held_out(name, folder)
        except BadData as error:
            print(f"{name}: not measured. {error}")
    empty = places(folder, validation=True)
    if not sets and not empty:
        raise BadData(f"{folder}: there is nothing here to measure with. Fetch the data sets: python -m training data")
    output.mkdir(parents=True, exist_ok=True)
    for name in (*TITLES, "empty"):
        before = output / f"{name}.json"
        if before.exists() and written(before)["model"]["sha256"] != counter.sha256:
            before.unlink()
    for name, (source, index) in sets.items():
        predictions = read(counter, source, index, folder)
        measured = {"set": name, "title": TITLES[name], "command": COMMAND, "model": about, **measure(predictions)}
        if isinstance(source, Rendered):
            measured["groups"] = by_tone(counter, folder, source) | by_group(predictions, source.traits())
        if name == "webcam":
            harder = CorruptedFrames(source, index, empty)
            measured |= by_group(read(counter, harder, np.arange(len(harder)), folder), harder.traits())
        write(output / f"{name}.json", measured)
    if empty:
        alarms = [
            {"place": i, "hands": [{"told": h.label, **h.to_dict()} for h in hands]}
            for i, image in enumerate(empty)
            if (hands := counter(image).hands)
        ]
        title = "Places without hands"
        write(
            output / "empty.json",
            {"set": "empty", "title": title, "command": COMMAND, "model": about}
            | {"pictures": len(empty), "with_hands": len(alarms), "alarms": alarms},
        )
        print(f"without hands: a hand is seen in {len(alarms)} of {len(empty)} pictures")
    summary: dict[str, dict] = {}
    rows = ["label,predicted"]
    for name in TITLES:
        if not (output / f"{name}.json").exists():
            continue
        measured = written(output / f"{name}.json")
        shares = ("total_accuracy", "fingers_accuracy", "side_accuracy", "recall", "precision", "ece")
        summary[name] = {key: round(measured[key], 4) for key in shares if measured[key] is not None}
        told = ", ".join(f"{key.replace('_', ' ')} {share:.4f}" for key, share in summary[name].items())
        print(f"{name}: {measured['right']:,} of {measured['pictures']:,} right; {told}")
        for (truth, count), hands in np.ndenumerate(np.array(measured["fingers_confusion"])):
            rows += [f"{truth},{count}"] * hands
    write(output / "summary.json", summary)
    if counts:
        counts.write_text("\n".join(rows) + "\n", encoding="utf-8")


def write(file: Path, measured: dict) -> None:
    with atomic_write(file) as part:
        part.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def written(file: Path) -> dict:
    """What `write` wrote.

    Raises:
        BadData: the file is damaged.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadData(f"{file}: damaged ({error}). Delete it, and measure again.") from None


def by_tone(counter: FingerCounter, folder: Path, others: Rendered) -> dict[str, list[dict]]:
    """How well the same rendered hands are read in each skin tone, as `by_group` tells it; empty without such hands.

    They are put into the places of `others`. Those tell nothing of tones: each of theirs has other hands, and which
    ones makes more of a difference.
    """
    try:
        hands = Rendered(folder / "render/tones", others.places)
    except BadData as error:
        print(f"skin tones: not measured. {error}")
        return {}
    return by_group(read(counter, hands, np.arange(len(hands)), folder), hands.traits())


def by_group(
    predictions: list[FramePrediction], traits: dict[str, tuple[list[str], list[str]]]
) -> dict[str, list[dict]]:
    """For each trait, how well the hands of each group are read: totals, and found, count and side, as shares.

    Args:
        readings: as of `measure`.
        traits: the groups of each trait, in order, and the group of each reading.
    """

    def row(group: str, labels: list[str]) -> dict:
        part = measure([prediction for prediction, label in zip(predictions, labels, strict=True) if label == group])
        shares = {"found": part["recall"], "count": part["fingers_accuracy"], "side": part["side_accuracy"]}
        return {"group": group, "pictures": part["pictures"], "total": part["total_accuracy"], **shares}

    return {name: [row(group, labels) for group in groups] for name, (groups, labels) in traits.items()}


def measure(predictions: list[FramePrediction]) -> dict:
    """How well hands were read: (file, truth, hands told) for each picture.

    A hand told is a hand there when their boxes overlap by half (IoU ≥ 0.5), each once. A picture
    is right when its hands are all found, nothing else is, and every class is right (the count, where
    no side is known). Its total is right when the fingers told add up to those there: nothing found
    tells 0, which is right for fists; `recall` tells of those that were missed.
    """
    pairs: list[tuple[int, Hand]] = []  # (target, hand told)
    there = told = right = totals = 0
    wrong = []
    for file, frame, hands in predictions:
        matched = match(frame.boxes, hands)
        found = [(int(frame.targets[k]), hands[h]) for k, h in matched]
        pairs += found
        there, told = there + len(frame.boxes), told + len(hands)
        totals += int((frame.targets % 6).sum() == sum(hand.fingers for hand in hands))
        if len(found) == len(frame.boxes) == len(hands) and all(is_right(*pair) for pair in found):
            right += 1
        else:
            wrong.append(mistake(file, frame, hands, found))
    targets = np.array([target for target, _ in pairs], int)
    labels = np.array([CLASSES.index(hand.label) for _, hand in pairs], int)
    probabilities = np.stack([hand.probabilities for _, hand in pairs]) if pairs else np.zeros((0, 12))
    sided = targets < SIDE_UNKNOWN
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
        "pictures": len(predictions),
        "right": right,
        "total_accuracy": totals / max(len(predictions), 1),
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
    return hand.fingers == target % 6 if target >= SIDE_UNKNOWN else hand.label == CLASSES[target]


def name_of(target: int) -> str:
    """A target in letters: "3L", or "3" where the side is not known."""
    return CLASSES[target] if target < SIDE_UNKNOWN else str(target % 6)


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
