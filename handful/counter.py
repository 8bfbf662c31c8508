"""The counter: from the pixels of a picture to its hands, through one ONNX file."""

import json
import logging
import os
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

# Before it loads: from version 1.29 on it would tell Microsoft about every session, and leave an identifier behind.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

from handful.labels import CLASSES, decode, decode_probabilities
from handful.model_store import BadModel, checksum, local

# The wheel carries the model beside this file; a clone of the repository has it in model/.
MODEL = Path(__file__).with_name("handful.onnx")
if not MODEL.exists():
    MODEL = Path(__file__).parents[1] / "model/handful.onnx"
# From this many pixels on, a run gives its memory back: onnxruntime's arena would keep 590 MB for 50 megapixels.
# For a camera's frames that would cost a fifth of their time.
SHRINK_ARENA_PIXELS = 4_000_000
# Inputs and outputs of a model: type and shape, None for a dimension that varies or that training chooses.
IO_SPEC: dict[str, tuple[str, tuple[int | None, ...]]] = {
    "image": ("tensor(uint8)", (None, None, 3)),
    "boxes": ("tensor(float)", (None, 4)),
    "squares": ("tensor(float)", (None, 4)),
    "scores": ("tensor(float)", (None,)),
    "probabilities": ("tensor(float)", (None, len(CLASSES))),
    "gradcam": ("tensor(float)", (None, len(CLASSES), None, None)),
}

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Hand:
    """One hand that was read.

    Attributes:
        box: (x0, y0, x1, y1) around the hand, in pixels of the original picture.
        crop: (x0, y0, x1, y1) of the square that the classifier saw, in the same pixels; it may
            reach outside the picture. Grad-CAM maps cover this square.
        fingers: how many fingers are raised, 0-5.
        side: "left" or "right": the person's own hand, in a picture that is not mirrored.
        confidence: probability of the class told (fingers and side), 0-1.
        probabilities: (12,) float32, one for each of `CLASSES`, summing to 1.
    """

    box: Box
    crop: Box
    fingers: int
    side: str
    confidence: float
    probabilities: np.ndarray
    gradcam_maps: np.ndarray = field(repr=False)

    @property
    def label(self) -> str:
        """The class told, one of `CLASSES`, such as "3L"."""
        return f"{self.fingers}{self.side[0].upper()}"

    def gradcam(self, label: str | None = None) -> np.ndarray:
        """Where the classifier looked: the Grad-CAM map of a class (of the class told, by default).

        Returns (h, w) float32 over `crop`, scaled so that its largest value is 1 (all 0 where
        nothing spoke for the class). Grad-CAM: Selvaraju et al., 2017, arXiv:1610.02391.

        Raises:
            ValueError: `label` is not one of `CLASSES`.
        """
        label = label or self.label
        if label not in CLASSES:
            raise ValueError(f"{label!r} is none of {', '.join(CLASSES)}.")
        heat = self.gradcam_maps[CLASSES.index(label)]
        return heat / max(float(heat.max()), 1e-12)

    def to_dict(self) -> dict:
        """What the command line and the API tell of a hand, ready for JSON."""
        return {
            "fingers": self.fingers,
            "side": self.side,
            "confidence": round(self.confidence, 4),
            "box": [round(float(x), 1) for x in self.box],
            "probabilities": {c: round(float(p), 4) for c, p in zip(CLASSES, self.probabilities, strict=True)},
        }


@dataclass(frozen=True)
class Prediction:
    """What was read in one picture of `width` × `height` pixels, and how long that took."""

    hands: tuple[Hand, ...]
    width: int
    height: int
    milliseconds: float

    @property
    def total(self) -> int:
        """Raised fingers of all hands together."""
        return sum(hand.fingers for hand in self.hands)

    def to_dict(self) -> dict:
        """What the command line and the API tell of a picture, ready for JSON."""
        return {
            "width": self.width,
            "height": self.height,
            "total": self.total,
            "hands": [hand.to_dict() for hand in self.hands],
            "ms": round(self.milliseconds, 2),
        }


class FingerCounter:
    """Counts raised fingers. One counter serves any number of threads.

    >>> counter = FingerCounter()
    >>> counter(np.zeros((480, 640, 3), np.uint8)).hands
    ()
    """

    def __init__(self, path: str | Path = MODEL, threads: int = 1):
        """Load a model.

        Args:
            path: an ONNX file written by `python -m training export`.
            threads: threads for one reading. A server reads many pictures at once: one thread
                for each keeps the cores busy without fighting over them.

        Raises:
            BadModel: onnxruntime cannot run the file, or it is not a model of Handful's.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that wait for work sleep: spinning would take the core from another reading.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.path = Path(path)
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a dozen kinds of them
            raise BadModel(f"{path}: onnxruntime cannot run it ({type(error).__name__}).") from error
        self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        ends = {end.name: end for end in (*self.session.get_inputs(), *self.session.get_outputs())}
        for name, (kind, shape) in IO_SPEC.items():
            end = ends.get(name)
            if not end or end.type != kind or not fits(end.shape, shape):
                raise BadModel(f"{path}: no model of Handful's, which has {name}, {kind} {shape}.")
        if self.metadata.get("classes") != json.dumps(CLASSES):
            raise BadModel(f"{path}: no model of Handful's, which names its classes, {', '.join(CLASSES)}.")
        self.sha256 = checksum(self.path)

    def __call__(self, image: np.ndarray) -> Prediction:
        """Read a picture, (H, W, 3) uint8 RGB: up to four hands, from left to right.

        Raises:
            ValueError: `image` has another shape or dtype.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(f"A picture is (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}.")
        start = time.perf_counter()
        options = onnxruntime.RunOptions()
        if image.size > 3 * SHRINK_ARENA_PIXELS:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        # From pixels to probabilities, everything is inside the file: see training/export/cascade.py.
        boxes, crops, probabilities, gradcam_maps = self.session.run(
            ["boxes", "squares", "probabilities", "gradcam"], {"image": image}, options
        )
        hands = [
            hand_from_probabilities(*outputs)
            for outputs in zip(boxes.tolist(), crops.tolist(), probabilities, gradcam_maps, strict=True)
        ]
        hands.sort(key=lambda hand: hand.box[0])
        height, width = image.shape[:2]
        return Prediction(tuple(hands), width, height, 1000 * (time.perf_counter() - start))


def fits(shape: list[int | str], expected: tuple[int | None, ...]) -> bool:
    """Whether a shape, with names for lengths that vary, is as expected."""
    return len(shape) == len(expected) and all(n in (None, m) for n, m in zip(expected, shape, strict=True))


def hand_from_probabilities(box: Box, crop: Box, probabilities: np.ndarray, gradcam_maps: np.ndarray) -> Hand:
    """Return the hand that (12,) probabilities predict."""
    predicted = decode_probabilities(probabilities)
    fingers, side = decode(predicted)
    assert side is not None
    return Hand(box, crop, fingers, side, float(probabilities[predicted]), probabilities, gradcam_maps)


@cache
def shared_counter() -> FingerCounter:
    """The one counter of this process, for every page, stream and request.

    It runs the model that HANDFUL_MODEL names (see handful/model_store.py), or the one that comes with Handful where
    none is named and where that one cannot be used, which is logged.
    """
    if name := os.environ.get("HANDFUL_MODEL"):
        try:
            return FingerCounter(local(name))
        except BadModel as error:
            logging.getLogger("handful").warning("HANDFUL_MODEL is not used, but the model that came along: %s", error)
    return FingerCounter()
