"""Branches: what a frame does not need is not computed.

`torch.cond` cannot be exported where sizes depend on what was found in the frame. So `either` follows both ways and
leaves a mark, and `branch` makes an If of it. Without, both ways would be taken in ONNX, one of them with no hands:
hundreds of nodes would each compute nothing, and take their time.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import onnx
import torch
from onnx import helper
from torch import Tensor

DOMAIN, MARK = "handful", "Either"
Tensors = TypeVar("Tensors", bound=tuple[Tensor, ...])


def onnx_cond(condition: Tensor, then: Callable[[], Tensors], otherwise: Tensors) -> Tensors:
    """What `then` tells where the condition, a bool (), holds, else what is told otherwise: tensors as large."""
    if not torch.onnx.is_in_onnx_export():
        return then() if condition else otherwise
    kinds, shapes = [one.dtype for one in otherwise], [one.shape for one in otherwise]
    both: Any = (condition, *then(), *otherwise)
    told = torch.onnx.ops.symbolic_multi_out(f"{DOMAIN}::{MARK}", both, dtypes=kinds, shapes=shapes, version=1)
    return cast(Tensors, tuple(told))


def lower_to_if(model: onnx.ModelProto) -> None:
    """Make what `either` marked an If of ONNX: in each of its branches lies what nothing else needs."""
    graph = model.graph
    # Inner ones come first: an outer one needs what they tell.
    for number, mark in enumerate([node for node in graph.node if node.op_type == MARK]):
        condition, *both = mark.input
        told = {"then": both[: len(mark.output)], "else": both[len(mark.output) :]}
        alone = {way: needed_alone(graph, names) for way, names in told.items()}
        ways = {f"{way}_branch": part(graph, f"{way}{number}", alone[way], told[way]) for way in told}
        place = list(graph.node).index(mark)
        graph.node.insert(place, helper.make_node("If", [condition], mark.output, f"if{number}", **ways))
        for node in (mark, *alone["then"], *alone["else"]):
            graph.node.remove(node)
    known = [opset for opset in model.opset_import if opset.domain != DOMAIN]
    model.ClearField("opset_import")
    model.opset_import.extend(known)


def needed_alone(graph: onnx.GraphProto, told: list[str]) -> list[onnx.NodeProto]:
    """The nodes that nothing needs but one that takes these values, each as often as they are named."""
    needed, uses = Counter(told), Counter(end.name for end in graph.output)
    for node in graph.node:
        uses.update(values(node))
    found: list[onnx.NodeProto] = []
    for node in reversed(graph.node):  # what needs a node comes after it
        if any(needed[value] for value in node.output) and all(needed[value] == uses[value] for value in node.output):
            found.insert(0, node)
            needed.update(values(node))
    return found


def part(graph: onnx.GraphProto, name: str, nodes: list[onnx.NodeProto], told: list[str]) -> onnx.GraphProto:
    """Some nodes of a graph as one of its own, which tells some values: theirs, or others of the graph."""
    made = {value for node in nodes for value in node.output}
    kinds = {value.name: value.type.tensor_type for value in graph.value_info}
    # A branch has to tell values of its own.
    names = {value: value if value in made else f"{value}.{name}" for value in told}
    others = [helper.make_node("Identity", [value], [own]) for value, own in names.items() if own != value]
    ends = [
        helper.make_tensor_value_info(own, kinds[value].elem_type, [None] * len(kinds[value].shape.dim))
        for value, own in names.items()
    ]
    inside = [value for value in graph.value_info if value.name in made]
    return helper.make_graph([*nodes, *others], name, [], ends, value_info=inside)


def values(node: onnx.NodeProto) -> Iterator[str]:
    """The values that a node takes, those that its branches take from outside among them."""
    yield from node.input
    for graph in subgraphs(node):
        for inner in graph.node:
            yield from values(inner)


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The branches of a node: two of an If, none of any other."""
    return [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]
