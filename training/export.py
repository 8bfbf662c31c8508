"""Writes a trained network as one ONNX file that takes pictures as they are and explains itself."""

import json
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from model import CLASSES
from training.network import HandNet, scale

OPSET = 20


class Reader(nn.Module):
    """uint8 (N, H, W, 3) RGB in; probabilities (N, 12) and Grad-CAM maps (N, 12, h, w) out."""

    def __init__(self, network: HandNet):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.features(scale(image))
        return self.network.classify(features).softmax(1), self.network.gradcam(features)


def export_onnx(network: HandNet, size: int, path: Path, metadata: dict[str, str]) -> None:
    """Write `network`, for pictures of `size` × `size` pixels, to `path`.

    `metadata` says where the weights come from (commit, data, licence, …); the classes and the
    meaning of the input are added to it.
    """
    reader = Reader(network).eval()
    # torch takes a batch of one for a constant: trace with two.
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    program = torch.onnx.export(
        reader,
        (example,),
        input_names=["image"],
        output_names=["probabilities", "gradcam"],
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    proto = program.model_proto
    about = {
        "classes": json.dumps(CLASSES),
        "input": f"image: uint8 N×{size}×{size}×3 RGB, one hand a picture",
        **metadata,
    }
    onnx.helper.set_model_props(proto, about)
    onnx.checker.check_model(proto, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, path)
