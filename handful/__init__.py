"""Count raised fingers, with numpy, OpenCV, pillow and onnxruntime only.

>>> from handful import FingerCounter
>>> from handful.images import decode
>>> prediction = FingerCounter()(decode("assets/samples/3L_0.jpg"))
>>> prediction.total, prediction.hands[0].side
(3, 'left')
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handful.counter import MODEL, Box, FingerCounter, Hand, Prediction, hand_from_probabilities, shared_counter
    from handful.images import BadImage
    from handful.labels import CLASSES, COUNTS, FINGERS, SIDES
    from handful.model_store import BadModel
    from handful.personal import BadHead, PersonalHead

__all__ = [
    "CLASSES",
    "COUNTS",
    "FINGERS",
    "MODEL",
    "SIDES",
    "BadHead",
    "BadImage",
    "BadModel",
    "Box",
    "FingerCounter",
    "Hand",
    "PersonalHead",
    "Prediction",
    "hand_from_probabilities",
    "shared_counter",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for: the command line starts before onnxruntime is loaded, to answer Ctrl-C."""
    if name in __all__:
        for module in ("labels", "images", "model_store", "personal", "counter"):
            if hasattr(imported := import_module(f"{__name__}.{module}"), name):
                globals()[name] = value = getattr(imported, name)
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
