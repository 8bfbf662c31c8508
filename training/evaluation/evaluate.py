"""Evaluate the exported model on held-out data, with onnxruntime, as the app runs it: whole frames in, hands out.

The metrics go to JSON files, which the Evaluation page and `python -m training report` show. So do pictures of the
rendered hands that were predicted worst.
"""

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from handful import MODEL, FingerCounter
from training.data.backgrounds import load_backgrounds
from training.data.corruptions import CorruptedFrames
from training.data.frames import FrameDataset, counted
from training.data.registry import HELD_OUT, SOURCES, Source, open_held_out, open_without_hands
from training.data.sources.rendered import Rendered
from training.errors import BadData
from training.evaluation.gestures import evaluate_gestures
from training.evaluation.metrics import FramePrediction, compute_metrics, metrics_by_group
from training.files import atomic_write

METRICS = MODEL.parent / "metrics"
COMMAND = "python -m training evaluate"
PICTURES = "pictures"  # folder of pictures of errors, below the metrics
MAX_PICTURES = 12
BACKDROP = (200, 203, 200)  # RGB
MAX_SESSIONS = 40
# Longer side of the largest hand over the shorter side of the frame: how far away it is.
HAND_SIZES = {"over a half": 0.5, "a third to a half": 1 / 3, "a fifth to a third": 0.2, "under a fifth": 0.0}
SUMMARY_KEYS = ("total_accuracy", "count_accuracy", "side_accuracy", "recall", "precision", "ece")


def evaluate(
    folder: Path = Path("data"), model: Path = MODEL, output: Path = METRICS, counts: Path | None = None
) -> None:
    """Evaluate the exported model on every held-out set in the data folder, and on places without hands.

    Of sets that are not there, metrics of this very model are kept, those of another model are deleted.

    Args:
        folder: the data sets, as `python -m training data` fetches them.
        model: the ONNX file.
        output: folder for the metrics: one JSON file a set, and the accuracies of all sets in summary.json.
        counts: CSV file for `dvc plots`: labelled and predicted count of each hand.

    Raises:
        BadModel: `model` is not a model of Handful.
        BadData: no set is there, or one is damaged.
    """
    counter = FingerCounter(model)
    sets = {}
    for name in HELD_OUT:
        try:
            sets[name] = open_held_out(name, folder)
        except BadData as error:
            print(f"{name}: skipped. {error}")
    backgrounds = load_backgrounds(folder, validation=True)
    empty = pictures_without_hands(folder, backgrounds)
    if not sets and not empty:
        raise BadData(f"{folder}: no data to evaluate on. Fetch the data sets: python -m training data")
    output.mkdir(parents=True, exist_ok=True)
    delete_stale_metrics(output, counter)
    header = {"command": COMMAND, "model": {"file": model.name, "sha256": counter.sha256, **counter.metadata}}
    for name, (frames, indices) in sets.items():
        source = HELD_OUT[name]
        titles = {"title": source.held_out_title, "short_title": source.short_title} | credit(source)
        predictions = predict_frames(counter, frames, indices, folder)
        metrics: dict = {"set": name, **titles, **header, **compute_metrics(predictions)}
        groups = metrics_by_group(predictions, session_and_size(predictions))
        if traits := frames.traits():  # rendered hands
            groups |= metrics_by_tone(counter, folder, backgrounds) | metrics_by_group(predictions, traits)
            write_pictures(folder, metrics["errors"], output)
        if groups:
            metrics["groups"] = groups
        if name == "webcam":
            corrupted = CorruptedFrames(frames, indices, backgrounds)
            predictions = predict_frames(counter, corrupted, range(len(corrupted)), folder)
            metrics |= metrics_by_group(predictions, corrupted.traits())
        write_json(output / f"{name}.json", metrics)
    if empty:
        write_json(output / "empty.json", {"set": "empty", **header, **false_alarms(counter, empty)})
    try:
        write_json(output / "hagrid.json", {"set": "hagrid", **header, **evaluate_gestures(counter, folder)})
    except BadData as error:
        print(f"hagrid: skipped. {error}")
    write_summary(output, counts)


def delete_stale_metrics(output: Path, counter: FingerCounter) -> None:
    """Delete the metrics of other models."""
    for name in (*HELD_OUT, "empty", "hagrid"):
        file = output / f"{name}.json"
        if file.exists() and read_json(file)["model"]["sha256"] != counter.sha256:
            file.unlink()


def predict_frames(
    counter: FingerCounter, frames: FrameDataset, indices: Iterable[int], folder: Path
) -> list[FramePrediction]:
    """Run the model on frames of a set; files are relative to the data folder, and images are dropped but their shape.

    Frames with a hand in a pose that is no count are left out.
    """
    predictions = []
    for i in tqdm(indices, type(frames).__name__, unit=" pictures"):
        frame = counted(frames.frame(i))
        if frame is None:
            continue
        file = frames.path(i).relative_to(folder).as_posix()
        labels = replace(frame, image=np.broadcast_to(np.uint8(0), frame.image.shape), mask=None)  # takes a byte
        predictions.append(FramePrediction(file, labels, counter(frame.image).hands, frames.groups[i]))
    return predictions


def session_and_size(predictions: list[FramePrediction]) -> dict[str, tuple[list[str], list[str]]]:
    """Return the traits that frames of every source have, as `metrics_by_group` takes them, where they differ in them.

    These are the person or session, and how large the largest hand is in the frame.
    """

    def size(prediction: FramePrediction) -> str:
        frame = prediction.frame
        sides = (frame.boxes[:, 2:] - frame.boxes[:, :2]).max(initial=0) / min(frame.image.shape[:2])
        return next(name for name, least in HAND_SIZES.items() if sides >= least)

    sessions, sizes = [prediction.group for prediction in predictions], [size(prediction) for prediction in predictions]
    names = sorted(set(sessions), key=lambda name: (len(name), name))
    traits = {"session": (names, sessions), "hand in the picture": ([s for s in HAND_SIZES if s in sizes], sizes)}
    return {name: trait for name, trait in traits.items() if 1 < len(trait[0]) <= MAX_SESSIONS}


def write_pictures(folder: Path, errors: list[dict], output: Path) -> None:
    """Write small pictures of the rendered hands in the first errors, cut out, and name each file in its error.

    Their backgrounds are left out: these are pictures of other data sets.
    """
    hands = Rendered(folder / "render/val")
    shutil.rmtree(output / PICTURES, ignore_errors=True)
    (output / PICTURES).mkdir()
    for error in errors[:MAX_PICTURES]:
        hand = hands.frame(int(Path(error["file"]).name))
        assert hand.mask is not None
        alpha = hand.mask[..., None] / 255
        image = (alpha * hand.image + (1 - alpha) * BACKDROP).round().astype(np.uint8)
        error["picture"] = f"{PICTURES}/{Path(error['file']).name}.jpg"
        with atomic_write(output / error["picture"]) as part:
            part.write_bytes(cv2.imencode(".jpg", image[..., ::-1])[1].tobytes())


def metrics_by_tone(counter: FingerCounter, folder: Path, backgrounds: list[np.ndarray]) -> dict[str, list[dict]]:
    """Return the metrics of the same rendered hands in each skin tone; empty without such a set.

    Other rendered hands cannot show them: each tone has other hands, and which ones makes more of a difference.
    """
    try:
        hands = Rendered(folder / "render/tones", backgrounds)
    except BadData as error:
        print(f"skin tones: skipped. {error}")
        return {}
    return metrics_by_group(predict_frames(counter, hands, range(len(hands)), folder), hands.traits())


def pictures_without_hands(folder: Path, backgrounds: list[np.ndarray]) -> dict[str, Iterable[tuple[str, np.ndarray]]]:
    """Return all pictures held out that show no hand, (H, W, 3) uint8 RGB, by set, each with its name."""
    sets: dict[str, Iterable[tuple[str, np.ndarray]]] = {}
    if backgrounds:
        sets["places"] = [(f"background {i}", image) for i, image in enumerate(backgrounds)]
    for name, frames in open_without_hands(folder).items():
        sets[name] = held_out_pictures(frames, folder)
    return sets


def held_out_pictures(frames: FrameDataset, folder: Path) -> Iterable[tuple[str, np.ndarray]]:
    """Yield the frames of a set that are held out, one at a time, each with its path in the data folder."""
    for i in np.flatnonzero(frames.validation).tolist():
        yield frames.path(i).relative_to(folder).as_posix(), frames.frame(i).image


def false_alarms(counter: FingerCounter, sets: dict[str, Iterable[tuple[str, np.ndarray]]]) -> dict:
    """Return how many pictures without hands the model predicts hands in, and which."""
    groups, alarms = [], []
    for set_name, pictures in sets.items():
        source, total, before = SOURCES.get(set_name), 0, len(alarms)
        title = source.title if source else "Places"
        for name, image in pictures:
            total += 1
            if hands := counter(image).hands:
                predicted = [{"predicted": hand.label, **hand.to_dict()} for hand in hands]
                alarms.append({"file": name, "set": set_name, "hands": predicted})
        row = {"group": title, "set": set_name, "pictures": total, "false_alarms": len(alarms) - before}
        groups.append(row | (credit(source) if source else {}))
        print(f"{title}: false alarms in {len(alarms) - before} of {total} pictures without hands")
    return {
        "title": "Pictures without hands",
        "short_title": "Without hands",
        "pictures": sum(group["pictures"] for group in groups),
        "false_alarms": len(alarms),
        "groups": groups,
        "alarms": alarms,
    }


def credit(source: Source) -> dict[str, str]:
    """Return whose pictures those of a source are, and their licence: the Evaluation page may show some."""
    return {"credit": source.credit, "licence": source.licence}


def write_summary(output: Path, counts: Path | None) -> None:
    """Print and write the accuracies of all sets in `output`; see `evaluate` for `counts`."""
    summary: dict[str, dict] = {}
    rows = ["label,predicted"]
    for name in HELD_OUT:
        if not (output / f"{name}.json").exists():
            continue
        metrics = read_json(output / f"{name}.json")
        summary[name] = {key: round(metrics[key], 4) for key in SUMMARY_KEYS if metrics[key] is not None}
        values = ", ".join(f"{key.replace('_', ' ')} {value:.4f}" for key, value in summary[name].items())
        print(f"{name}: {metrics['correct']:,} of {metrics['pictures']:,} pictures correct; {values}")
        for (label, predicted), hands in np.ndenumerate(np.array(metrics["count_confusion"])):
            rows += [f"{label},{predicted}"] * hands
    write_json(output / "summary.json", summary)
    if counts:
        with atomic_write(counts) as part:
            part.write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_json(file: Path, metrics: dict) -> None:
    with atomic_write(file) as part:
        part.write_text(json.dumps(metrics, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(file: Path) -> dict:
    """Read what `write_json` wrote.

    Raises:
        BadData: the file is damaged.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadData(f"{file}: damaged ({error}). Delete it, and evaluate again.") from None
