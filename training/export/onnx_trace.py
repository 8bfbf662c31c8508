"""Networks that a graph uses more than once are traced once, and put in wherever it uses them.

`torch.export` follows a network each time that it is called, and reasons about sizes at every layer. So what is marked
with `once` leaves a mark in the graph, and `put_in` makes it of what the method alone becomes.
"""

import copy
from collections.abc import Callable
from functools import wraps
from types import MethodType
from typing import Any, TypeVar, cast

import onnx
import torch
from onnx import helper, inliner
from torch import Tensor, nn

from training.export.onnx_if import DOMAIN, Tensors

Module = TypeVar("Module", bound=nn.Module)
LIKE = 2, 3, 64, 96  # sizes to trace with, where they may be any


def trace_once(
    shapes: Callable[..., list[tuple]],
) -> Callable[[Callable[[Module, Tensor], Tensors]], Callable[[Module, Tensor], Tensors]]:
    """Of a module's method that takes one tensor (N, C, h, w) and tells some, all float32.

    Args:
        shapes: of what it tells, from the module and the sizes of what it takes.
    """

    def mark(method: Callable[[Module, Tensor], Tensors]) -> Callable[[Module, Tensor], Tensors]:
        @wraps(method)
        def marked(self: Module, x: Tensor) -> Tensors:
            if not torch.onnx.is_in_onnx_export():
                return method(self, x)
            told: Any = shapes(self, *x.shape)
            name = f"{DOMAIN}::{method.__name__}"
            kinds = [torch.float32] * len(told)
            outputs = torch.onnx.ops.symbolic_multi_out(name, (x,), dtypes=kinds, shapes=told, version=1)
            return cast(Tensors, tuple(outputs))

        return marked

    return mark


def inline_traced(model: onnx.ModelProto, module: nn.Module) -> None:
    """Make what `once` marked in a graph of a module what the methods tell."""
    known = [*model.graph.input, *model.graph.value_info]
    shapes = {value.name: value.type.tensor_type.shape.dim for value in known}
    uses: dict[tuple[str, tuple[int, ...]], list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.domain == DOMAIN and hasattr(module, node.op_type):
            sizes = tuple(size.dim_value for size in shapes[node.input[0]])  # 0 for any
            uses.setdefault((node.op_type, sizes), []).append(node)
    kept = {tensor.name for tensor in model.graph.initializer}
    (opset,) = (one for one in model.opset_import if not one.domain)
    for number, ((method, sizes), nodes) in enumerate(uses.items()):
        name = f"{method}{number}"
        part = alone(module, method, sizes, opset.version).graph
        # Weights have the names that they have in the module, whichever method needs them; other constants are its own.
        weights = {
            one.name: one.name if one.name in module.state_dict() else f"{name}.{one.name}" for one in part.initializer
        }
        for tensor in part.initializer:
            tensor.name = weights[tensor.name]
            if tensor.name not in kept:
                kept.add(tensor.name)
                model.graph.initializer.append(tensor)
        for node in part.node:
            node.input[:] = [weights.get(value, value) for value in node.input]
        takes, tells = [*(one.name for one in part.input), *weights.values()], [one.name for one in part.output]
        model.functions.append(helper.make_function(DOMAIN, name, takes, tells, list(part.node), [opset]))
        for node in nodes:
            node.op_type = name
            node.input.extend(weights.values())
    model.CopyFrom(inliner.inline_local_functions(model))


def alone(module: nn.Module, method: str, sizes: tuple[int, ...], opset: int) -> onnx.ModelProto:
    """What a method tells of a tensor of such sizes, 0 for any, as a graph of its own."""
    module = copy.copy(module)
    module.forward = MethodType(getattr(type(module), method).__wrapped__, module)
    like = torch.zeros([size or some for size, some in zip(sizes, LIKE, strict=True)])
    any_size = {i: torch.export.Dim.DYNAMIC for i, size in enumerate(sizes) if not size}
    program = torch.onnx.export(
        module, (like,), dynamic_shapes=(any_size,), opset_version=opset, dynamo=True, verbose=False
    )
    assert program is not None  # only without dynamo
    return program.model_proto
