"""Parts of an ONNX graph that are computed only if need be tell what PyTorch tells."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from training.export.onnx_if import lower_to_if, onnx_cond
from training.export.quantize import graphs


class Steps(torch.nn.Module):
    """Numbers and what both ways need; numbers above 0 in all are doubled, and of those above 100 some are sines."""

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
def test_every_way_tells_what_pytorch_tells(exported, numbers):
    numbers = np.float32(numbers)
    told = onnxruntime.InferenceSession(exported.SerializeToString()).run(None, {"numbers": numbers})
    for one, meant in zip(told, Steps()(torch.from_numpy(numbers)), strict=True):
        np.testing.assert_allclose(one, meant.numpy(), rtol=1e-5)


def test_in_a_branch_lies_what_nothing_else_needs(exported):
    operators = {graph.name: [node.op_type for node in graph.node] for graph in graphs(exported.graph)}
    main = operators[exported.graph.name]
    assert {"Cos", "Exp", "If"} <= set(main), "both ways need the cosine, and each tells the powers"
    inner, outer = operators["then0"], operators["then1"]
    assert "Sin" in inner
    assert "If" in outer
    assert {"Sin", "NonZero"}.isdisjoint(main + outer)


def test_nothing_is_left_of_the_marks(exported):
    assert {node.domain for graph in graphs(exported.graph) for node in graph.node} == {""}
    assert {opset.domain for opset in exported.opset_import} == {""}
