"""The weights of the ONNX file in 8 bits: a third of the size of float32. What they are multiplied with stays float32.

Activations in 8 bits as well are a fifth quicker where onnxruntime has the instructions for it, but half as quick in a
browser, cost half a point of the rendered hands, and let browser and server tell different numbers.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from training.export.onnx_if import subgraphs


def quantize(model: onnx.ModelProto) -> None:
    """Keep the weights of all convolutions as int8, each output channel in steps of a 127th of its largest.

    The graph turns them back to float32: runtimes do that once, when they load it. Each branch does it itself, and has
    biases of its own: onnxruntime lays out for speed those alone that a graph has to itself.
    """
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights: dict[str, np.ndarray] = {}
    for graph in graphs(model.graph):
        convolutions = [node for node in graph.node if node.op_type == "Conv"]
        nodes = []
        for name in dict.fromkeys(node.input[1] for node in convolutions):
            weights[name] = kept[name]
            own = f"{name}.{graph.name}"
            nodes += [
                helper.make_node("Cast", [f"{name}.int8"], [f"{own}.whole"], f"{own}.cast", to=onnx.TensorProto.FLOAT),
                helper.make_node("Mul", [f"{own}.whole", f"{name}.step"], [own], f"{own}.scale"),
            ]
        biases = dict.fromkeys(bias for node in convolutions for bias in node.input[2:])
        for node in convolutions:
            node.input[1] += f".{graph.name}"
        if graph is not model.graph:
            graph.initializer.extend(numpy_helper.from_array(kept[bias], f"{bias}.{graph.name}") for bias in biases)
            for node in convolutions:
                node.input[2:] = [f"{bias}.{graph.name}" for bias in node.input[2:]]
        others = list(graph.node)
        del graph.node[:]
        graph.node.extend(nodes + others)
    others = [tensor for tensor in model.graph.initializer if tensor.name not in weights]
    del model.graph.initializer[:]
    model.graph.initializer.extend(others)
    for name, values in weights.items():
        steps = np.maximum(np.abs(values).max((1, 2, 3), keepdims=True), 1e-12) / 127
        numbers = np.round(values / steps).astype(np.int8)
        model.graph.initializer.append(numpy_helper.from_array(numbers, f"{name}.int8"))
        model.graph.initializer.append(numpy_helper.from_array(steps.astype(np.float32), f"{name}.step"))
    onnx.checker.check_model(model, full_check=True)


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and its branches."""
    yield graph
    for node in graph.node:
        for way in subgraphs(node):
            yield from graphs(way)
