"""Quantize the weights of the ONNX file to 8 bits: a third of the size of float32. Activations stay float32.

8-bit activations are a fifth faster where onnxruntime has the instructions for it, but half as fast in a browser, cost
half a point of the rendered hands, and let browser and server predict differently.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from training.export.onnx_if import subgraphs


def quantize(model: onnx.ModelProto) -> None:
    """Store the weights of all convolutions as int8, each output channel in steps of a 127th of its largest.

    The graph converts them back to float32, which runtimes do once, when they load it. Each branch does it itself and
    has biases of its own: onnxruntime optimises the layout only of tensors that belong to one graph.
    """
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights: dict[str, np.ndarray] = {}
    for graph in with_subgraphs(model.graph):
        convolutions = [node for node in graph.node if node.op_type == "Conv"]
        dequantize = []
        for name in dict.fromkeys(node.input[1] for node in convolutions):
            weights[name] = stored[name]
            own = f"{name}.{graph.name}"
            dequantize += [
                helper.make_node("Cast", [f"{name}.int8"], [f"{own}.whole"], f"{own}.cast", to=onnx.TensorProto.FLOAT),
                helper.make_node("Mul", [f"{own}.whole", f"{name}.step"], [own], f"{own}.scale"),
            ]
        biases = dict.fromkeys(bias for node in convolutions for bias in node.input[2:])
        for node in convolutions:
            node.input[1] += f".{graph.name}"
        if graph is not model.graph:
            graph.initializer.extend(numpy_helper.from_array(stored[bias], f"{bias}.{graph.name}") for bias in biases)
            for node in convolutions:
                node.input[2:] = [f"{bias}.{graph.name}" for bias in node.input[2:]]
        nodes = list(graph.node)
        del graph.node[:]
        graph.node.extend(dequantize + nodes)
    others = [tensor for tensor in model.graph.initializer if tensor.name not in weights]
    del model.graph.initializer[:]
    model.graph.initializer.extend(others)
    for name, values in weights.items():
        steps = np.maximum(np.abs(values).max((1, 2, 3), keepdims=True), 1e-12) / 127
        numbers = np.round(values / steps).astype(np.int8)
        model.graph.initializer.append(numpy_helper.from_array(numbers, f"{name}.int8"))
        model.graph.initializer.append(numpy_helper.from_array(steps.astype(np.float32), f"{name}.step"))
    onnx.checker.check_model(model, full_check=True)


def with_subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and the graphs of its branches, at any depth."""
    yield graph
    for node in graph.node:
        for subgraph in subgraphs(node):
            yield from with_subgraphs(subgraph)
