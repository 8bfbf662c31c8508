"""Count raised fingers: one ONNX file takes the pixels of a picture and returns its hands."""

import logging
import os
import time
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import numpy as np

# Set before the import: from version 1.29 on, onnxruntime reports sessions to Microsoft and stores an identifier.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

from handful.labels import CLASSES, FINGERS, decode, decode_probabilities, raised_fingers
from handful.model_store import BadModel, check, checksum, resolve
from handful.personal import HEADS, BadHead, PersonalHead, Weights, read_heads, shape_matches

# The wheel has the model beside this file; a clone of the repository has it in model/.
MODEL = Path(__file__).with_name("handful.onnx")
if not MODEL.exists() and (folder := Path(__file__).parents[1] / "model").is_dir():
    MODEL = folder / "handful.onnx"
# Runs on larger pictures free their memory: onnxruntime's arena would hold 590 MB after 50 megapixels. Smaller ones do
# not, as that would make camera frames a fifth slower.
SHRINK_ARENA_PIXELS = 4_000_000
Box = tuple[float, float, float, float]  # x0, y0, x1, y1, in pixels
# Inputs and outputs of a model: type and shape; None is a dimension that varies or that training chooses.
IO_SPEC: dict[str, tuple[str, tuple[int | None, ...]]] = {
    "image": ("tensor(uint8)", (None, None, 3)),
    "boxes": ("tensor(float)", (None, 4)),
    "squares": ("tensor(float)", (None, 4)),
    "scores": ("tensor(float)", (None,)),
    "probabilities": ("tensor(float)", (None, len(CLASSES))),
    "gradcam": ("tensor(float)", (None, len(CLASSES), None, None)),
    "fingers": ("tensor(float)", (None, len(FINGERS))),
    "features": ("tensor(float)", (None, None)),
    **{name: ("tensor(float)", shape) for name, shape in HEADS.items()},
}
NO_FEATURES = np.empty(0, np.float32)


@dataclass(frozen=True)
class Hand:
    """One detected hand.

    Attributes:
        box: (x0, y0, x1, y1) around the hand, in pixels of the original picture.
        crop: (x0, y0, x1, y1) of the classifier's square input, in the same pixels; it may reach outside the
            picture. Grad-CAM maps cover this square.
        fingers: predicted number of raised fingers, 0-5.
        side: "left" or "right": the person's own hand, in a picture that is not mirrored.
        confidence: probability of the predicted class (fingers and side), 0-1.
        probabilities: (12,) float32, one for each of `CLASSES`, summing to 1.
        gradcam_maps: (12, h, w) float32, one unscaled Grad-CAM map for each of `CLASSES`; see `gradcam`.
        finger_probabilities: (5,) float32, that each of `FINGERS` is raised.
        features: (112,) float32, what the classifier's heads are linear in; empty where it is not known.

    Arrays are not compared.
    """

    box: Box
    crop: Box
    fingers: int
    side: str
    confidence: float
    probabilities: np.ndarray = field(compare=False)
    gradcam_maps: np.ndarray = field(compare=False, repr=False)
    finger_probabilities: np.ndarray = field(compare=False)
    features: np.ndarray = field(default_factory=lambda: NO_FEATURES, compare=False, repr=False)

    @property
    def label(self) -> str:
        """The predicted class, one of `CLASSES`, such as "3L"."""
        return f"{self.fingers}{self.side[0].upper()}"

    @property
    def raised(self) -> tuple[str, ...]:
        """The fingers that are most likely raised, as many as `fingers` says: ("index", "middle")."""
        return raised_fingers(self.finger_probabilities, self.fingers)

    def gradcam(self, label: str | None = None) -> np.ndarray:
        """Return the Grad-CAM heatmap of a class; by default, of the predicted one.

        Returns (h, w) float32 over `crop`, scaled to a maximum of 1 (all 0 where no activation supports the class).
        Grad-CAM: Selvaraju et al., 2017, arXiv:1610.02391.

        Raises:
            ValueError: `label` is not one of `CLASSES`.
        """
        label = label or self.label
        if label not in CLASSES:
            raise ValueError(f"{label!r} is not one of {', '.join(CLASSES)}.")
        heatmap = self.gradcam_maps[CLASSES.index(label)]
        return heatmap / max(float(heatmap.max()), 1e-12)

    def to_dict(self) -> dict:
        """Return the hand as the command line and the API report it, ready for JSON."""
        return {
            "fingers": self.fingers,
            "raised": list(self.raised),
            "side": self.side,
            "confidence": round(self.confidence, 4),
            "box": [round(float(x), 1) for x in self.box],
            "probabilities": {c: round(float(p), 4) for c, p in zip(CLASSES, self.probabilities, strict=True)},
        }


@dataclass(frozen=True)
class Prediction:
    """The hands of one picture, from left to right, its size in pixels and the inference time (not compared)."""

    hands: tuple[Hand, ...]
    width: int
    height: int
    milliseconds: float = field(compare=False)

    @property
    def total(self) -> int:
        """The number of raised fingers of all hands together."""
        return sum(hand.fingers for hand in self.hands)

    def to_dict(self) -> dict:
        """Return the prediction as the command line and the API report it, ready for JSON."""
        return {
            "width": self.width,
            "height": self.height,
            "total": self.total,
            "hands": [hand.to_dict() for hand in self.hands],
            "ms": round(self.milliseconds, 2),
        }


class FingerCounter:
    """Count raised fingers in pictures. Thread-safe.

    >>> counter = FingerCounter()
    >>> counter(np.zeros((480, 640, 3), np.uint8)).hands
    ()
    """

    def __init__(self, path: str | Path = MODEL, threads: int = 1, personal: PersonalHead | None = None):
        """Load a model.

        Args:
            path: an ONNX file written by `python -m training export`.
            threads: intra-op threads of one call. A server predicts many pictures at once: one thread for each
                uses all cores without contention.
            personal: predicts with this head, see handful/personal.py.

        Raises:
            BadModel: there is no such file, it cannot be read, onnxruntime cannot load it, or its inputs, outputs or
                classes are not those of a Handful model.
            BadHead: `personal` was fitted to another model.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Waiting threads sleep: spinning would take the core from another call.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # it warns of each head, which cannot be folded into constants: that is intended
        self.path = Path(path)
        check(self.path)
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a dozen types
            raise BadModel(f"{path}: onnxruntime cannot load it ({type(error).__name__}).") from error
        self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        inputs = (*self.session.get_inputs(), *self.session.get_overridable_initializers())
        nodes = {node.name: node for node in (*inputs, *self.session.get_outputs())}
        for name, (dtype, shape) in IO_SPEC.items():
            node = nodes.get(name)
            if not node or node.type != dtype or not shape_matches(node.shape, shape):
                raise BadModel(
                    f"{path}: not a Handful model of this version, which has {name}, {dtype} {shape}. Write it again: "
                    f"python -m training export --detector {path} --classifier {path}"
                )
        self.sha256 = checksum(self.path)
        self.personal = self.check(personal) if personal else None

    def __call__(self, image: np.ndarray, personal: PersonalHead | None = None) -> Prediction:
        """Detect up to four hands in a picture, (H, W, 3) uint8 RGB, and count the fingers of each.

        `personal` is a head for this call, in place of the counter's own.

        Raises:
            ValueError: `image` has another shape or dtype.
            BadHead: `personal` was fitted to another model.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(f"A picture is (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}.")
        head = self.check(personal) if personal else self.personal
        weights = head.weights if head else {}
        start = time.perf_counter()
        options = onnxruntime.RunOptions()
        if image.size > 3 * SHRINK_ARENA_PIXELS:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        # Resizing, cropping and all else is part of the ONNX graph: see training/export/cascade.py.
        boxes, crops, *others = self.session.run(
            ["boxes", "squares", "probabilities", "gradcam", "fingers", "features"],
            {"image": image, **weights},
            options,
        )
        hands = [
            hand_from_probabilities(*outputs)
            for outputs in zip(map(tuple, boxes.tolist()), map(tuple, crops.tolist()), *others, strict=True)
        ]
        hands.sort(key=lambda hand: hand.box[0])
        height, width = image.shape[:2]
        return Prediction(tuple(hands), width, height, 1000 * (time.perf_counter() - start))

    def check(self, personal: PersonalHead) -> PersonalHead:
        """Return a personal head if it was fitted to this model, or raise BadHead."""
        shapes = {name: list(values.shape) for name, values in personal.weights.items()}
        expected = {node.name: node.shape for node in self.session.get_overridable_initializers()}
        if personal.model != self.sha256 or not shapes.items() <= expected.items():
            raise BadHead("This personal head was made for another model. Fit it anew to this one: docs/teach.md.")
        return personal

    @cached_property
    def heads(self) -> Weights:
        """The shipped heads, by their names in `HEADS`."""
        return read_heads(self.path)


def hand_from_probabilities(
    box: Box,
    crop: Box,
    probabilities: np.ndarray,
    gradcam_maps: np.ndarray,
    finger_probabilities: np.ndarray,
    features: np.ndarray = NO_FEATURES,
) -> Hand:
    """Return a hand with the class that (12,) probabilities predict."""
    predicted = decode_probabilities(probabilities)
    fingers, side = decode(predicted)
    assert side is not None
    confidence = float(probabilities[predicted])
    return Hand(box, crop, fingers, side, confidence, probabilities, gradcam_maps, finger_probabilities, features)


@cache
def shared_counter() -> FingerCounter:
    """Return this process's counter, shared by all pages, streams and requests.

    It runs the model that HANDFUL_MODEL names (see handful/model_store.py). Where that is not set or cannot be used,
    which is logged, it runs the bundled model. HANDFUL_PERSONAL names the file of a personal head in the same way.

    Raises:
        BadModel: the bundled model is missing or damaged.
    """
    counter = shared_model()
    if file := os.environ.get("HANDFUL_PERSONAL"):
        try:
            counter.personal = counter.check(PersonalHead.load(Path(file)))
        except BadHead as error:
            logging.getLogger("handful").warning("HANDFUL_PERSONAL is not used, but the model's own head: %s", error)
    return counter


def shared_model() -> FingerCounter:
    """Return a counter with the model that HANDFUL_MODEL names, or the bundled one."""
    if name := os.environ.get("HANDFUL_MODEL"):
        try:
            return FingerCounter(resolve(name))
        except BadModel as error:
            logging.getLogger("handful").warning("HANDFUL_MODEL is not used, but the bundled model: %s", error)
    return FingerCounter()
