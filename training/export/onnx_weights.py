"""The networks inside an exported model, to train on: an ONNX file is all that comes with the repository.

Batch norms are folded into the convolutions there, so the restored networks have none: at the low rates of
fine-tuning they learn without. Weights come back from 8 bits to what they stood for, within a 127th of a channel's
largest.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from handful import MODEL, FingerCounter
from training.networks.backbone import fill, fold_batchnorm
from training.networks.classifier import HandClassifier
from training.networks.detector import HandDetector


def classifier(model: Path = MODEL) -> HandClassifier:
    """The classifier of an ONNX file written by `python -m training export`, in 8 bits or in float32."""
    return _fill(HandClassifier(), model, "classifier.")


def detector(model: Path = MODEL) -> HandDetector:
    """The detector of an ONNX file written by `python -m training export`, in 8 bits or in float32."""
    return _fill(HandDetector(), model, "detector.")


def _fill(network: Any, model: Path, prefix: str) -> Any:
    """`network`, folded, with the weights that `model` keeps under names that begin with `prefix`."""
    FingerCounter(model)  # which tells what is wrong with a file
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(model).graph.initializer}
    network = fold_batchnorm(network)

    def weights(name: str) -> np.ndarray:
        return kept[name] if name in kept else kept[f"{name}.int8"] * kept[f"{name}.step"]

    def tensor(name: str) -> torch.Tensor:
        return torch.from_numpy(weights(prefix + name).astype(np.float32))

    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):  # maybe narrow, see training.export.prune
            fill(layer, tensor(f"{name}.weight"), tensor(f"{name}.bias"))
    network.load_state_dict({name: tensor(name) for name in network.state_dict()})
    return network.train()
