"""Branches of an ONNX graph compute what PyTorch computes, and only when their condition holds."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from training.export.onnx_if import lower_to_if, onnx_cond
from training.export.quantize import with_subgraphs


class Steps(torch.nn.Module):
    """Nested conditions: sums above 0 are doubled, and of those above 100 some elements become sines."""

    def forward(self, numbers):
        shared = numbers.cos()
        low = numbers + shared, numbers.exp()
        return onnx_cond(numbers.sum() > 0, lambda: self.doubled(numbers, shared, low), low)

    def doubled(self, numbers, shared, low):
        twice = numbers * 2 + shared
        return onnx_cond(twice.sum() > 100, lambda: self.sines(twice, low), (twice, low[1]))

    def sines(self, twice, low):
        large = torch.nonzero(twice > 30)[:, 0]  # how many is not known before
        torch._check(large.shape[0] > 0)
        return twice.index_put((large,), twice[large].sin()), low[1]


@pytest.fixture(scope="module")
def exported():
    program = torch.onnx.export(Steps().eval(), (torch.ones(4),), input_names=["numbers"], dynamo=True, verbose=False)
    model = program.model_proto
    lower_to_if(model)
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.mark.parametrize("numbers", [[-1, -2, 0.5, 1], [1, 2, 3, 4], [-1, 50, 3, 20]])
def test_every_branch_computes_what_pytorch_computes(exported, numbers):
    numbers = np.float32(numbers)
    outputs = onnxruntime.InferenceSession(exported.SerializeToString()).run(None, {"numbers": numbers})
    for one, expected in zip(outputs, Steps()(torch.from_numpy(numbers)), strict=True):
        np.testing.assert_allclose(one, expected.numpy(), rtol=1e-5)


def test_a_branch_holds_the_nodes_that_nothing_else_needs(exported):
    operators = {graph.name: [node.op_type for node in graph.node] for graph in with_subgraphs(exported.graph)}
    main = operators[exported.graph.name]
    assert {"Cos", "Exp", "If"} <= set(main), "both branches need the cosine, and each outputs the powers"
    inner, outer = operators["then0"], operators["then1"]
    assert "Sin" in inner
    assert "If" in outer
    assert {"Sin", "NonZero"}.isdisjoint(main + outer)


def test_no_markers_are_left(exported):
    assert {node.domain for graph in with_subgraphs(exported.graph) for node in graph.node} == {""}
    assert {opset.domain for opset in exported.opset_import} == {""}
