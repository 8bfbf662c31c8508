"""Calibrate the cascade: find thresholds, scales and temperature for a pair of networks, on a split of its own.

The split is never trained on, and no published metric is computed on it: see `calibration` in the registry of sources.
The search runs the cascade itself, in PyTorch; what the networks return for an input is remembered, so that most
configs need no network at all.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torchvision.ops import box_iou
from tqdm import tqdm

from handful.labels import CLASSES, SIDE_UNKNOWN, count_of, decode, decode_probabilities, marginal_over_sides
from training.data.frames import Frame, counted
from training.data.registry import open_calibration
from training.errors import BadData
from training.evaluation.metrics import IOU_THRESHOLD
from training.export.cascade import Cascade
from training.export.config import CascadeConfig
from training.export.export import CLASSIFIER_COMMAND, DETECTOR_COMMAND, load
from training.files import atomic_write
from training.lightning.classifier import ClassifierModule
from training.lightning.detector import DetectorModule
from training.networks.detector import INPUT_SIZE

# What one more pass of both networks in every frame must bring, as a share of the frames: two points.
PASS_PRICE = 0.02
# Values that are tried for each field, in this order; all others keep their value meanwhile.
SEARCH: dict[str, tuple[float, ...]] = {
    "crop_margin": (1.0, 1.1, 1.2, 1.3),
    "detector_scale": (0.8, 0.9, 1.0, 1.1, 1.2),
    "crop_scale": (0.715, 0.8572, 1.0, 1.143),  # 80, 96, 112 and 128 pixels
    "threshold": tuple(np.arange(0.3, 0.81, 0.04).round(2).tolist()),
    "other_threshold": tuple(np.arange(0.3, 0.91, 0.04).round(2).tolist()),
    "flip_confidence": (0.0, 0.7, 0.8, 0.89, 0.95),
}


def calibrate(
    detector: Path = Path("runs/pruned.ckpt"),
    classifier: Path = Path("runs/classifier/best.ckpt"),
    folder: Path = Path("data"),
    output: Path = Path("runs/cascade.yaml"),
    frames: int = 300,
    fields: tuple[str, ...] = tuple(SEARCH),
) -> None:
    """Find the cascade config of two networks, for `export --cascade`.

    Args:
        detector: checkpoint of `python -m training prune` or `detector fit`, or an ONNX file.
        classifier: checkpoint of `python -m training fit`, or an ONNX file.
        folder: the data sets, as `python -m training data` fetches them.
        output: the config, as YAML.
        frames: frames of each source at most, evenly spread.
        fields: which are searched; the others keep their defaults.

    Raises:
        BadData, BadModel: a file is missing or damaged, a field is not searched for, or no source of the calibration
            split is there.
    """
    if unknown := set(fields) - set(SEARCH):
        raise BadData(f"{', '.join(sorted(unknown))}: not searched for. Choose from {', '.join(SEARCH)}.")
    runner = load_runner(detector, classifier, folder, frames)
    config = replace(CascadeConfig(), temperature=runner.best_temperature(CascadeConfig()))
    best = runner.run(config)
    print(f"start: {best}")
    for field in fields:
        for value in SEARCH[field]:
            trial = replace(config, **{field: value})
            if trial != config and (result := runner.run(trial)).utility > best.utility:
                config, best = trial, result
        print(f"{field} {getattr(config, field)}: {best}", flush=True)
    config = replace(config, temperature=runner.best_temperature(config))
    print(f"temperature {config.temperature}: {runner.run(config)}")
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as part:
        config.save(part)


@dataclass(frozen=True)
class Result:
    """What a config achieves.

    Attributes:
        accuracy: mean over sources of the share of frames whose hands have exactly the labelled counts.
        by_source: the same of each source.
        cost: multiplications of the networks a frame, relative to one pass of each at full size.
    """

    accuracy: float
    by_source: dict[str, float]
    cost: float

    @property
    def utility(self) -> float:
        return self.accuracy - PASS_PRICE * self.cost

    def __str__(self) -> str:
        return f"{self.accuracy:.2%} of frames correct, {self.cost:.2f} passes a frame"


class LabelledFrame(NamedTuple):
    """A frame (H, W, 3) uint8 RGB and its labels, for the cascade: boxes (K, 4), targets (K,)."""

    image: Tensor
    boxes: Tensor
    targets: np.ndarray


class CascadeRunner:
    """Run configs of a cascade on labelled frames, each source by name."""

    def __init__(self, detector: Any, classifier: Any, size: int, sources: dict[str, list[Frame]]):
        torch.set_num_threads(1)  # for single frames, more of them wait for each other
        self.cascade = Cascade(detector, classifier, size, CascadeConfig()).eval().to(memory_format=torch.channels_last)
        self.detector = self.cascade.detector = MemoizedNetwork(self.cascade.detector)
        self.features = self.cascade.classifier.features = MemoizedNetwork(self.cascade.classifier.features)
        # A pass at the training size; the frame is 4:3, as a webcam's.
        self.crop_pixels, self.frame_pixels = size**2, 3 / 4 * INPUT_SIZE**2
        self.sources = {
            name: [
                LabelledFrame(
                    torch.from_numpy(np.ascontiguousarray(frame.image)), torch.from_numpy(frame.boxes), frame.targets
                )
                for frame in frames
            ]
            for name, frames in sources.items()
        }

    @torch.inference_mode()
    def predict(self, config: CascadeConfig, frame: LabelledFrame) -> tuple[Tensor, Tensor]:
        """Return boxes (K, 4) and probabilities (K, 12) of the hands in a frame."""
        self.cascade.config = config
        boxes, _, _, probabilities, *_ = self.cascade(frame.image)
        return boxes, probabilities

    def run(self, config: CascadeConfig) -> Result:
        """Run a config on all frames."""
        correct: dict[str, float] = {}
        self.detector.pixels = self.features.pixels = 0
        for name, frames in self.sources.items():
            exact = 0
            for frame in frames:
                _, probabilities = self.predict(config, frame)
                predicted = sorted(decode(decode_probabilities(one))[0] for one in probabilities.numpy())
                exact += predicted == sorted(count_of(frame.targets).tolist())
            correct[name] = exact / len(frames)
        number = sum(map(len, self.sources.values()))
        # Half of a pass is the detector's, half the classifier's, roughly.
        cost = (self.detector.pixels / self.frame_pixels + self.features.pixels / self.crop_pixels) / 2 / number
        return Result(float(np.mean(list(correct.values()))), correct, cost)

    def best_temperature(self, config: CascadeConfig) -> float:
        """Return the temperature with the least negative log-likelihood of the labels of detected hands."""
        logits, targets = [], []
        for frame in (frame for frames in self.sources.values() for frame in frames if len(frame.boxes)):
            boxes, probabilities = self.predict(config, frame)
            if len(boxes):
                overlap = box_iou(frame.boxes, boxes)
                for k, target in enumerate(frame.targets.tolist()):
                    if overlap[k].max() >= IOU_THRESHOLD:
                        # Up to a constant, these are the logits that the config's temperature divided.
                        logits.append(probabilities[overlap[k].argmax()].clamp_min(1e-12).log() * config.temperature)
                        targets.append(target)
        if not targets:
            return config.temperature
        stacked = torch.stack(logits).double()
        index = torch.tensor(targets)
        sided = index < SIDE_UNKNOWN

        def negative_log_likelihood(temperature: float) -> float:
            probabilities = (stacked / temperature).softmax(1)
            counts = marginal_over_sides(probabilities).gather(1, count_of(index)[:, None])[:, 0]
            classes = probabilities.gather(1, index.clamp_max(len(CLASSES) - 1)[:, None])[:, 0]
            return -torch.where(sided, classes, counts).clamp_min(1e-12).log().mean().item()

        return round(float(minimize_scalar(negative_log_likelihood, bounds=(0.3, 5), method="bounded").x), 3)


class MemoizedNetwork(nn.Module):
    """A network that remembers its output for each input of a batch, and counts the pixels of its inputs."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.outputs: dict[bytes, Tensor] = {}
        self.pixels = 0

    def forward(self, batch: Tensor) -> Tensor:
        if not len(batch):
            return self.network(batch)
        outputs = []
        for one in batch:
            self.pixels += one.shape[1] * one.shape[2]
            key = blake2b(one.contiguous().numpy(), person=str(tuple(one.shape[1:])).encode()[:16]).digest()
            if key not in self.outputs:
                self.outputs[key] = self.network(one[None])[0]
            outputs.append(self.outputs[key])
        return torch.stack(outputs)


def load_runner(detector: Path, classifier: Path, folder: Path, frames: int) -> CascadeRunner:
    """Load two networks, and at most so many frames of each source of the calibration split.

    Raises:
        BadData, BadModel: a file is missing or damaged, or no source of the calibration split is there.
    """
    detector_network, _ = load(detector, DetectorModule, DETECTOR_COMMAND)
    classifier_network, provenance = load(classifier, ClassifierModule, CLASSIFIER_COMMAND)
    sources = {
        name: [
            frame
            for i in tqdm(spread(indices, frames), name, unit=" frames")
            if (frame := counted(dataset.frame(int(i)))) is not None
        ]
        for name, (dataset, indices) in open_calibration(folder).items()
    }
    if not sources:
        raise BadData(f"{folder}: nothing to calibrate on. Fetch the data sets: python -m training data")
    return CascadeRunner(detector_network, classifier_network, provenance["size"], sources)


def spread(indices: Iterable[int], most: int) -> np.ndarray:
    """Return at most so many of some indices, evenly spread."""
    array = np.array(indices)
    return array[np.linspace(0, len(array) - 1, min(most, len(array))).round().astype(int)]
