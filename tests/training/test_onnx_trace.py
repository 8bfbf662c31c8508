"""A method that a graph uses more than once is traced once for each size, and tells what PyTorch tells."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from training.export.onnx_if import DOMAIN
from training.export.onnx_trace import inline_traced, trace_once


class Twice(torch.nn.Module):
    """Pictures of any size and their left halves go through one convolution, and a corner of 8 × 8 pixels."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.traced = []

    def forward(self, pictures):
        whole, mean = self.filtered(pictures)
        half, _ = self.filtered(pictures[..., : pictures.shape[3] // 2])
        corner, _ = self.filtered(pictures[..., :8, :8])
        return whole, half, corner, mean

    @trace_once(lambda self, n, c, h, w: [(n, 4, h, w), (n,)])
    def filtered(self, pictures):
        self.traced.append(pictures.shape[2:])
        maps = self.layer(pictures * 2 + 1)
        return maps, maps.mean((1, 2, 3))


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return Twice().eval()


@pytest.fixture(scope="module")
def exported(module):
    sizes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim("h", min=8), 3: torch.export.Dim("w", min=16)}
    program = torch.onnx.export(
        module,
        (torch.ones(2, 3, 20, 30),),
        input_names=["pictures"],
        dynamic_shapes=(sizes,),
        opset_version=20,
        dynamo=True,
        verbose=False,
    )
    assert not module.traced, "in the graph of the module are marks alone"
    model = program.model_proto
    inline_traced(model, module)
    assert len(module.traced) == 2, "for any size, and for that of the corner"
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.mark.parametrize("shape", [(1, 3, 8, 16), (3, 3, 33, 47)])
def test_every_use_tells_what_pytorch_tells(module, exported, shape):
    pictures = torch.rand(shape)
    told = onnxruntime.InferenceSession(exported.SerializeToString()).run(None, {"pictures": pictures.numpy()})
    for one, meant in zip(told, module(pictures), strict=True):
        np.testing.assert_allclose(one, meant.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_weights_are_there_once_under_their_own_names(exported):
    convolutions = [node for node in exported.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 3
    assert {name for node in convolutions for name in node.input[1:]} == {"layer.weight", "layer.bias"}
    assert [tensor.name for tensor in exported.graph.initializer if tensor.name.startswith("layer")] == [
        "layer.weight",
        "layer.bias",
    ]


def test_nothing_is_left_of_marks_and_functions(exported):
    assert not exported.functions
    assert DOMAIN not in {node.domain for node in exported.graph.node}
