"""Restore the networks inside an exported model, to train on: the repository carries no other weights.

Their batch norms are folded into the convolutions, so the restored networks have none: at the low rates of fine-tuning
they learn without. 8-bit weights come back as the values that they stand for, within a 127th of a channel's largest.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from handful import CLASSES, MODEL
from handful.model_store import BadModel
from training.networks.backbone import fold_batchnorm, set_weights
from training.networks.classifier import HandClassifier
from training.networks.detector import HandDetector


def classifier(model: Path = MODEL) -> HandClassifier:
    """Restore the classifier of an ONNX file written by `python -m training export`, in 8 bits or float32."""
    return _restore(HandClassifier(), model, "classifier.")


def detector(model: Path = MODEL) -> HandDetector:
    """Restore the detector of an ONNX file written by `python -m training export`, in 8 bits or float32."""
    return _restore(HandDetector(), model, "detector.")


def read_model(file: Path) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Read an exported model, of this version or an older one, and its metadata.

    Raises:
        BadModel: there is no such file, or it is not a model of Handful.
    """
    try:
        model = onnx.load(file)
    except OSError as error:
        raise BadModel(f"{file}: there is no such file.") from error
    except Exception as error:  # protobuf's own types
        raise BadModel(f"{file}: not an ONNX file ({type(error).__name__}).") from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if metadata.get("classes") != json.dumps(CLASSES):
        raise BadModel(f"{file}: not a Handful model, which has the classes {', '.join(CLASSES)}.")
    return model, metadata


def _restore(network: Any, model: Path, prefix: str) -> Any:
    """Fold `network` and load the weights that `model` holds under names with a prefix."""
    exported, metadata = read_model(model)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in exported.graph.initializer}
    network = fold_batchnorm(network)

    def tensor(name: str) -> torch.Tensor:
        name = prefix + name
        values = stored[name] if name in stored else stored[f"{name}.int8"] * stored[f"{name}.step"]
        return torch.from_numpy(values.astype(np.float32))

    def has(name: str) -> bool:
        return prefix + name in stored or f"{prefix}{name}.int8" in stored

    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):  # pruned ones have fewer channels
            set_weights(layer, tensor(f"{name}.weight"), tensor(f"{name}.bias"))
    # Models of older versions have no head for fingers: it starts anew.
    known = [name for name in network.state_dict() if has(name)]
    network.load_state_dict({name: tensor(name) for name in known}, strict=False)
    network.credits = metadata.get("data", "").split("; ")  # for a training that goes on from here
    return network.train()
