"""Restore the networks inside an exported model, to train on: the repository carries no other weights.

Their batch norms are folded into the convolutions, so the restored networks have none: at the low rates of fine-tuning
they learn without. 8-bit weights come back as the values that they stand for, within a 127th of a channel's largest.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from handful import MODEL, FingerCounter
from training.networks.backbone import fold_batchnorm, set_weights
from training.networks.classifier import HandClassifier
from training.networks.detector import HandDetector


def classifier(model: Path = MODEL) -> HandClassifier:
    """Restore the classifier of an ONNX file written by `python -m training export`, in 8 bits or float32."""
    return _restore(HandClassifier(), model, "classifier.")


def detector(model: Path = MODEL) -> HandDetector:
    """Restore the detector of an ONNX file written by `python -m training export`, in 8 bits or float32."""
    return _restore(HandDetector(), model, "detector.")


def _restore(network: Any, model: Path, prefix: str) -> Any:
    """Fold `network` and load the weights that `model` holds under names with a prefix."""
    FingerCounter(model)  # raises what is wrong with the file
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(model).graph.initializer}
    network = fold_batchnorm(network)

    def tensor(name: str) -> torch.Tensor:
        name = prefix + name
        values = stored[name] if name in stored else stored[f"{name}.int8"] * stored[f"{name}.step"]
        return torch.from_numpy(values.astype(np.float32))

    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):  # pruned ones have fewer channels
            set_weights(layer, tensor(f"{name}.weight"), tensor(f"{name}.bias"))
    network.load_state_dict({name: tensor(name) for name in network.state_dict()})
    return network.train()
