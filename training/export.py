"""Writes a trained network as one ONNX file that takes pictures as they are and explains itself."""

import json
from datetime import UTC, datetime
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from model import CLASSES, MODEL
from training.classifier import Classifier
from training.network import HandNet, scale

OPSET = 20


class Reader(nn.Module):
    """uint8 (N, H, W, 3) RGB in; probabilities (N, 12) and Grad-CAM maps (N, 12, h, w) out."""

    def __init__(self, network: HandNet):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.features(scale(image.permute(0, 3, 1, 2)))
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
    assert program is not None  # only without dynamo
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


def export(checkpoint: Path = Path("runs/fingers/best.ckpt"), output: Path = MODEL) -> None:
    """Turn a checkpoint into the one ONNX file that the app runs.

    Args:
        checkpoint: what `python -m training fit` left.
        output: where the ONNX file goes.
    """
    if not checkpoint.is_file():
        raise SystemExit(
            f"{checkpoint}: no such file. Train one: python -m training fit --config training/fingers.yaml"
        )
    about = torch.load(checkpoint, map_location="cpu", weights_only=False)["about"]
    network = Classifier.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=False).network
    metadata = {
        "name": "Handful",
        "training commit": about["commit"],
        "data": about["data"],
        "licence": "Apache-2.0",
        "exported": datetime.now(UTC).date().isoformat(),
    }
    export_onnx(network, about["size"], output, metadata)
    print(f"{output}: {output.stat().st_size / 1e6:.2f} MB, trained at {about['commit']}")
