"""The weights of the ONNX file in 8 bits: a third of the size of float32. What they are multiplied with stays float32.

Activations in 8 bits as well are a fifth quicker where onnxruntime has the instructions for it, but half as quick in a
browser, cost half a point of the rendered hands, and let browser and server tell different numbers.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper


def quantize(model: onnx.ModelProto) -> None:
    """Keep the weights of all convolutions as int8, each output channel in steps of a 127th of its largest.

    The graph turns them back to float32: runtimes do that once, when they load it.
    """
    graph = model.graph
    weights = dict.fromkeys(node.input[1] for node in graph.node if node.op_type == "Conv")
    kept = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for name in weights:
        values = numpy_helper.to_array(kept[name])
        steps = np.maximum(np.abs(values).max((1, 2, 3), keepdims=True), 1e-12) / 127
        numbers = np.round(values / steps).astype(np.int8)
        graph.initializer.remove(kept[name])
        graph.initializer.append(numpy_helper.from_array(numbers, f"{name}.int8"))
        graph.initializer.append(numpy_helper.from_array(steps.astype(np.float32), f"{name}.step"))
        nodes += [
            helper.make_node("Cast", [f"{name}.int8"], [f"{name}.whole"], f"{name}.cast", to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}.whole", f"{name}.step"], [name], f"{name}.scale"),
        ]
    others = list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes + others)
    onnx.checker.check_model(model, full_check=True)
