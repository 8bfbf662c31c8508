"""The ONNX file in 8 bits: convolutions with integers, quicker and a third of the size of float32.

Static quantization by onnxruntime (Jacob et al., 2018, arXiv:1712.05877): weights by channel, activations by the
range that they take on frames of the training data. Integers of 7 bits for the weights: on processors without
VNNI, two products of 8 bits do not fit into the 16 that they are added in.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

from training.data import open_source
from training.data.places import places
from training.data.rendered import Rendered


def quantize(model: onnx.ModelProto, frames: Iterable[np.ndarray], output: Path) -> None:
    """Write `model` with the convolutions of both networks, and what follows each, in 8 bits.

    Args:
        model: the graph of `training.export`, its weights float32.
        frames: (H, W, 3) uint8 RGB, with hands in them, to find the ranges on.
        output: where the ONNX file goes.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    quantize_static(
        model,
        output,
        Frames(frames),
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_quantize=networks(model.graph),
        calibrate_method=CalibrationMethod.MinMax,
    )


class Frames(CalibrationDataReader):
    """Hands out frames the way onnxruntime asks for them."""

    def __init__(self, frames: Iterable[np.ndarray]):
        self.frames = iter(frames)

    def get_next(self) -> dict | None:
        frame = next(self.frames, None)
        return None if frame is None else {"image": frame}


LAYERS = {"Conv", "Clip", "Relu", "Add", "Resize"}


def networks(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes of both networks: convolutions, what limits them, sums and enlarged maps on the way to others.

    Not the picture's own sizes, nor what makes boxes and probabilities: there a 255th part counts.
    """
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    names, inside = [], set()
    for node in graph.node:  # what makes a value comes before what reads it
        output = node.output[0]
        first = node.op_type == "Conv" and readers[output] <= LAYERS
        if first or (node.op_type in LAYERS - {"Conv"} and node.input[0] in inside):
            names.append(node.name)
            inside.add(output)
    return names


def calibration_frames(folder: Path, sources: Iterable[str], each: int = 40) -> list[np.ndarray]:
    """Some whole frames of the training part of each source, none of validation.

    Args:
        folder: the data sets.
        sources: names of those that the model learned from.
        each: how many of a source.

    Raises:
        BadData: a source is not there.
    """
    frames = []
    for name in sources:
        source = open_source(name, folder)
        if isinstance(source, Rendered):  # on transparent ground: no frames
            source = Rendered(source.root, places(folder))
        index = np.random.default_rng(0).permutation(np.flatnonzero(~source.validation))[:each]
        frames += [source.frame(int(i)).image for i in index]
    return frames
