"""Branches of the exported graph: what a frame does not need is not computed.

`torch.cond` cannot be exported where sizes depend on what was detected in the frame. So `onnx_cond` traces both
branches and leaves a marker node, and `lower_to_if` makes an ONNX If of it. Otherwise both branches would be computed,
one of them without any hand: hundreds of nodes would each compute nothing, and take their time.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import onnx
import torch
from onnx import helper
from torch import Tensor

DOMAIN, MARKER = "handful", "Cond"
Tensors = TypeVar("Tensors", bound=tuple[Tensor, ...])


def onnx_cond(condition: Tensor, then: Callable[[], Tensors], otherwise: Tensors) -> Tensors:
    """Return the result of `then` where the condition, a bool (), holds, else `otherwise`, of the same shapes."""
    if not torch.onnx.is_in_onnx_export():
        return then() if condition else otherwise
    dtypes, shapes = [tensor.dtype for tensor in otherwise], [tensor.shape for tensor in otherwise]
    both: Any = (condition, *then(), *otherwise)
    outputs = torch.onnx.ops.symbolic_multi_out(f"{DOMAIN}::{MARKER}", both, dtypes=dtypes, shapes=shapes, version=1)
    return cast(Tensors, tuple(outputs))


def lower_to_if(model: onnx.ModelProto) -> None:
    """Replace each marker of `onnx_cond` by an If; each of its branches gets the nodes that nothing else needs."""
    graph = model.graph
    # Inner ones come first: an outer one needs their outputs.
    for number, marker in enumerate([node for node in graph.node if node.op_type == MARKER]):
        condition, *both = marker.input
        outputs = {"then": both[: len(marker.output)], "else": both[len(marker.output) :]}
        own = {branch: exclusive_nodes(graph, names) for branch, names in outputs.items()}
        branches = {
            f"{branch}_branch": make_subgraph(graph, f"{branch}{number}", own[branch], outputs[branch])
            for branch in outputs
        }
        position = list(graph.node).index(marker)
        graph.node.insert(position, helper.make_node("If", [condition], marker.output, f"if{number}", **branches))
        for node in (marker, *own["then"], *own["else"]):
            graph.node.remove(node)
    standard = [opset for opset in model.opset_import if opset.domain != DOMAIN]
    model.ClearField("opset_import")
    model.opset_import.extend(standard)


def exclusive_nodes(graph: onnx.GraphProto, outputs: list[str]) -> list[onnx.NodeProto]:
    """Return the nodes that only these values depend on, each counted as often as it is named."""
    needed, uses = Counter(outputs), Counter(output.name for output in graph.output)
    for node in graph.node:
        uses.update(inputs_of(node))
    found: list[onnx.NodeProto] = []
    for node in reversed(graph.node):  # consumers come after producers
        if any(needed[value] for value in node.output) and all(needed[value] == uses[value] for value in node.output):
            found.insert(0, node)
            needed.update(inputs_of(node))
    return found


def make_subgraph(
    graph: onnx.GraphProto, name: str, nodes: list[onnx.NodeProto], outputs: list[str]
) -> onnx.GraphProto:
    """Make a graph of some nodes of another, with outputs of theirs or of the other's."""
    made = {value for node in nodes for value in node.output}
    types = {value.name: value.type.tensor_type for value in graph.value_info}
    # A branch may only output values of its own.
    names = {value: value if value in made else f"{value}.{name}" for value in outputs}
    copies = [helper.make_node("Identity", [value], [own]) for value, own in names.items() if own != value]
    infos = [
        helper.make_tensor_value_info(own, types[value].elem_type, [None] * len(types[value].shape.dim))
        for value, own in names.items()
    ]
    inner = [value for value in graph.value_info if value.name in made]
    return helper.make_graph([*nodes, *copies], name, [], infos, value_info=inner)


def inputs_of(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the values that a node uses, including those that its branches take from outside."""
    yield from node.input
    for graph in subgraphs(node):
        for inner in graph.node:
            yield from inputs_of(inner)


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the branches of a node: two of an If, none of any other."""
    return [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]
