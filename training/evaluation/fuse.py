"""Compare ways to combine detector and classifier into one score, on people and rooms that neither was trained on.

On strangers, both are less sure than on people held out of known sources. What counts is how many strangers' hands are
found at the same rate of false alarms, with networks that `python -m training leave-out` trained without their sources.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou
from tqdm import tqdm

from training.data.frames import counted
from training.data.registry import SOURCES, open_calibration, open_source
from training.errors import BadData
from training.evaluation.calibrate import spread
from training.export.cascade import Cascade, hand_scores, roi_crop, squares_around
from training.export.export import load_cascade
from training.markdown import markdown_table

POWERS = (0.15, 0.25, 0.35, 0.5)
BIASES = (0.0, -1.0, -2.0, -3.0, -4.0)
FACES = "calibration_faces"
MAX_FALSE_ALARMS = 0.01  # share of the faces in which one is taken for a hand
LEAST_SCORE = 0.02  # of the detector: others are no candidates
MIN_IOU = 0.4


class Candidates(NamedTuple):
    """What may be hands in a picture: scores of the detector (K,), logits of presence (K,) and boxes (K, 4)."""

    scores: Tensor
    presence: Tensor
    boxes: Tensor

    def combine(self, power: float, bias: float) -> Tensor:
        """Return the scores of hands (K,)."""
        return hand_scores(self.scores, self.presence, power, bias)


class Fold(NamedTuple):
    """Candidates in faces, and of each source left out those at labelled hands; a hand without has none."""

    faces: list[Candidates]
    hands: dict[str, list[Candidates]]

    def recall(self, power: float, bias: float) -> dict[str, float]:
        """Return which share of each source's hands has a score above the threshold that the faces allow."""
        highest = sorted((highest_of(one.combine(power, bias)) for one in self.faces), reverse=True)
        threshold = highest[int(MAX_FALSE_ALARMS * len(highest))]
        return {
            name: float(np.mean([highest_of(hand.combine(power, bias)) > threshold for hand in hands]))
            for name, hands in self.hands.items()
        }


def fuse(folder: Path = Path("data"), runs: Path = Path("runs/leave-out"), frames: int = 150) -> None:
    """Print the recall of strangers' hands by exponent of the detector's score and bias of the classifier's presence.

    Args:
        folder: the data sets, as `python -m training data` fetches them.
        runs: folder of the models that `python -m training leave-out` has trained.
        frames: frames of each source at most, evenly spread.

    Raises:
        BadData: there are no such models, or no faces.
    """
    names = dict.fromkeys(source.fold for source in SOURCES.values() if source.fold)
    found = [fold for name in names if (fold := open_fold(folder, runs / name, frames))]
    if not found:
        raise BadData(f"{runs}: no models here. Train some: python -m training leave-out")
    rows = []
    for power in POWERS:
        recalls = [np.mean([r for fold in found for r in fold.recall(power, bias).values()]) for bias in BIASES]
        rows.append([f"{power:g}", *(f"{recall:.1%}" for recall in recalls)])
    print(markdown_table(["Recall by power and bias", *(f"{bias:g}" for bias in BIASES)], rows))


def open_fold(folder: Path, run: Path, frames: int) -> Fold | None:
    """Run the model of a fold on the sources that it was trained without, and on faces; None if there is no model."""
    if not (run / "handful.onnx").exists():
        return None
    torch.set_num_threads(1)  # for single frames, more of them wait for each other
    cascade = load_cascade(run / "handful.onnx")
    calibration = open_calibration(folder)
    if FACES not in calibration:
        raise BadData(f"{folder}: no faces here. Fetch the data sets: python -m training data")
    dataset, indices = calibration[FACES]
    faces = [find(cascade, dataset.frame(int(i)).image) for i in tqdm(indices, f"{run.name}: faces")]
    names = [name for name, source in SOURCES.items() if source.fold == run.name]
    return Fold(faces, {name: list(find_hands(cascade, name, folder, frames)) for name in names})


def find_hands(cascade: Cascade, name: str, folder: Path, frames: int) -> Iterator[Candidates]:
    """Yield the candidates at each labelled hand of a source."""
    dataset = open_source(name, folder)
    for i in tqdm(spread(range(len(dataset)), frames), name):
        frame = counted(dataset.frame(int(i)))
        if frame is None or not len(frame.boxes):
            continue
        candidates = find(cascade, frame.image)
        for overlaps in box_iou(torch.from_numpy(frame.boxes), candidates.boxes) >= MIN_IOU:
            yield Candidates(*(part[overlaps] for part in candidates))


@torch.inference_mode()
def find(cascade: Cascade, image: np.ndarray) -> Candidates:
    """Return the candidates in a picture (H, W, 3) uint8 RGB."""
    picture = torch.from_numpy(np.ascontiguousarray(image))
    scores, boxes = cascade.detect(picture)
    scores, boxes = scores[scores > LEAST_SCORE], boxes[scores > LEAST_SCORE]
    if not len(scores):
        return Candidates(scores, scores, boxes)
    squares = squares_around(boxes, cascade.config.crop_margin)
    (_, presence, *_), _ = cascade.classify(roi_crop(picture, squares, int(cascade.config.crop_scale * cascade.size)))
    return Candidates(scores, presence, boxes)


def highest_of(scores: Tensor) -> float:
    return float(scores.max()) if len(scores) else 0.0
