"""Handful's runtime: from pixels to a count, with numpy, OpenCV and onnxruntime alone.

>>> from model import FingerCounter
>>> from model.images import decode
>>> reading = FingerCounter()(decode("assets/samples/3L_0.jpg"))
>>> reading.total, reading.hands[0].side
(3, 'left')
"""

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

from model.store import BadModel, checksum, local

# The 12 classes, in the order of the model's outputs: index = fingers + 6 * (side is right).
CLASSES = tuple(f"{fingers}{side}" for side in "LR" for fingers in range(6))
SIDES = ("left", "right")
MODEL = Path(__file__).parent / "handful.onnx"
# Pixels from which on a reading gives back its memory, which onnxruntime would keep for ever: 590 MB for 50 megapixels.
# For a camera's frames that would take a fifth of their time.
LARGE = 4_000_000
# What goes into a model and comes out of it: type and shape, None for a length that varies, or that training chooses.
ENDS: dict[str, tuple[str, tuple[int | None, ...]]] = {
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
    maps: np.ndarray = field(repr=False)

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
        heat = self.maps[CLASSES.index(label)]
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
class Reading:
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
        for name, (kind, shape) in ENDS.items():
            end = ends.get(name)
            if not end or end.type != kind or not fits(end.shape, shape):
                raise BadModel(f"{path}: no model of Handful's, which has {name}, {kind} {shape}.")
        if self.metadata.get("classes") != json.dumps(CLASSES):
            raise BadModel(f"{path}: no model of Handful's, which names its classes, {', '.join(CLASSES)}.")
        self.sha256 = checksum(self.path)

    def __call__(self, image: np.ndarray) -> Reading:
        """Read a picture, (H, W, 3) uint8 RGB: up to four hands, from left to right.

        Raises:
            ValueError: `image` has another shape or dtype.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(f"A picture is (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}.")
        start = time.perf_counter()
        options = onnxruntime.RunOptions()
        if image.size > 3 * LARGE:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        # From pixels to probabilities, everything is inside the file: see training/export.py.
        boxes, squares, probabilities, maps = self.session.run(
            ["boxes", "squares", "probabilities", "gradcam"], {"image": image}, options
        )
        hands = [tell(*one) for one in zip(boxes.tolist(), squares.tolist(), probabilities, maps, strict=True)]
        hands.sort(key=lambda hand: hand.box[0])
        height, width = image.shape[:2]
        return Reading(tuple(hands), width, height, 1000 * (time.perf_counter() - start))


def fits(shape: list[int | str], expected: tuple[int | None, ...]) -> bool:
    """Whether a shape, with names for lengths that vary, is as expected."""
    return len(shape) == len(expected) and all(n in (None, m) for n, m in zip(expected, shape, strict=True))


def tell(box: Box, crop: Box, probabilities: np.ndarray, maps: np.ndarray) -> Hand:
    """The hand that (12,) probabilities speak of: the likeliest count first, over both sides, then its side.

    A hand whose side is in doubt still has a sure count.
    """
    by_side = probabilities.reshape(2, 6)
    fingers = int(by_side.sum(0).argmax())
    side = int(by_side[:, fingers].argmax())
    return Hand(box, crop, fingers, SIDES[side], float(by_side[side, fingers]), probabilities, maps)


@cache
def shared_counter() -> FingerCounter:
    """The one counter of this process, for every page, stream and request.

    It reads with the model that HANDFUL_MODEL names, see model/store.py; with the one beside this file where none is
    named, and where that one is no good, which the log tells.
    """
    if name := os.environ.get("HANDFUL_MODEL"):
        try:
            return FingerCounter(local(name))
        except BadModel as error:
            logging.getLogger("handful").warning("HANDFUL_MODEL is not used, but the model that came along: %s", error)
    return FingerCounter()
