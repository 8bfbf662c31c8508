"""Writes finder and classifier as one ONNX file: a frame of any size in, read hands out.

Everything between pixels and probabilities lies inside the graph, so that every runtime that can run
the file reads the same: fitting the frame, finding hands, cutting them out, classifying them, Grad-CAM.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn

from model import CLASSES, MODEL
from training.classifier import Classifier
from training.data.frames import MARGIN
from training.finder import MOST, SIZE, Finder, HandFinder, hands
from training.network import HandNet, scale

OPSET = 20
# Finder scores from here on are hands: see `python -m training evaluate`.
THRESHOLD = 0.4


class Reader(nn.Module):
    """One frame (H, W, 3) uint8 RGB to its K hands, K ≤ 4, the surest first.

    Returns boxes (K, 4) and the squares cut out (K, 4), x0, y0, x1, y1 in pixels of the frame; scores
    (K,) of the finder; probabilities (K, 12); Grad-CAM maps (K, 12, h, w) over the squares.
    """

    def __init__(self, finder: HandFinder, classifier: HandNet, size: int):
        super().__init__()
        self.finder, self.classifier, self.size = finder, classifier, size

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        height, width = image.shape[0], image.shape[1]
        longest = torch.sym_max(height, width)
        picture = image.permute(2, 0, 1)[None].float()
        scores, boxes = hands(self.finder(scale(fit(picture, height, width, longest)))[0])
        kept = torch.nonzero((scores > THRESHOLD) & ~doubles(boxes))[:, 0]
        # For tracing: nothing says how many there are. No hand at all goes the same way.
        torch._check(kept.shape[0] > 0)
        torch._check(kept.shape[0] <= MOST)
        share: Any = longest / SIZE
        limits = torch.tensor([width, height, width, height])
        boxes = torch.minimum(torch.relu(boxes[kept] * share), limits)
        squares = around(boxes)
        features = self.classifier.features(scale(cut_out(picture, squares, self.size)))
        probabilities = self.classifier.classify(features).softmax(1)
        return boxes, squares, scores[kept], probabilities, self.classifier.gradcam(features)


def doubles(boxes: Tensor) -> Tensor:
    """Which boxes (K, 4), the surest first, lie for more than half in a surer one: (K,) bool."""
    low, high = torch.maximum(boxes[:, None, :2], boxes[:, :2]), torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
    shared = (high - low).clamp_min(0).prod(2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    inside = shared / torch.minimum(area[:, None], area) > 0.5
    return torch.tril(inside, diagonal=-1).any(1)


def fit(picture: Tensor, height: Any, width: Any, longest: Any) -> Tensor:
    """A picture (1, 3, H, W) in the upper left of a square of the finder's size, black elsewhere."""
    rows, columns = torch.sym_max(1, height * SIZE // longest), torch.sym_max(1, width * SIZE // longest)
    # Linear over what a pixel covers: without it, thin fingers of a large picture fall between the samples.
    small = F.interpolate(picture, (rows, columns), mode="bilinear", antialias=True)
    return F.pad(small, (0, SIZE - columns, 0, SIZE - rows))


def around(boxes: Tensor) -> Tensor:
    """The squares (K, 4) that hold boxes (K, 4) with a margin; they may reach outside the picture."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) / 2 * MARGIN
    return torch.cat([middle - half, middle + half], 1)


def cut_out(picture: Tensor, squares: Tensor, size: int) -> Tensor:
    """Squares (K, 4) of a picture (1, 3, H, W) as (K, 3, size, size); beyond the edge, the edge is repeated.

    A large square is taken from the picture at half or a quarter of its size, as a texture is from a
    mipmap (Williams, 1983): otherwise thin fingers would fall between the samples. The three sizes
    stand in one column, so that one GridSample serves all hands.
    """
    height, width = picture.shape[2], picture.shape[3]
    half = F.avg_pool2d(picture, 2, ceil_mode=True)
    quarter = F.avg_pool2d(half, 2, ceil_mode=True)
    column = [F.pad(level, (0, width - level.shape[3], 0, 0)) for level in (picture, half, quarter)]
    tops = torch.tensor([0, height, height + half.shape[2]])
    level = ((squares[:, 2] - squares[:, 0]) / size).clamp(1, 4).log2().long()
    shrunk = (2**level)[:, None]
    steps = (torch.arange(size) + 0.5) / size
    x = (squares[:, 0:1] + (squares[:, 2:3] - squares[:, 0:1]) * steps) / shrunk
    y = (squares[:, 1:2] + (squares[:, 3:4] - squares[:, 1:2]) * steps) / shrunk
    # Half a pixel inside: the samples at the edge must not mix with what stands beside it.
    x = torch.minimum(x.clamp_min(0.5), width / shrunk - 0.5)
    y = torch.minimum(y.clamp_min(0.5), height / shrunk - 0.5) + tops[level][:, None]
    tall = torch.cat(column, 2)
    x, y = x * 2 / width - 1, y * 2 / tall.shape[2] - 1
    grid = torch.stack([x[:, None].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], 3)
    crops = F.grid_sample(tall, grid.view(1, -1, size, 2), padding_mode="border", align_corners=False)
    return crops.view(3, -1, size, size).transpose(0, 1)


def export(
    finder: Path = Path("runs/finder/best.ckpt"),
    classifier: Path = Path("runs/handful/best.ckpt"),
    output: Path = MODEL,
) -> None:
    """Turn two checkpoints into the one ONNX file that the app runs.

    Args:
        finder: what `python -m training finder fit` left.
        classifier: what `python -m training fit` left.
        output: where the ONNX file goes.
    """
    find, found_by = load(finder, Finder, "finder fit --config training/finder.yaml")
    classify, classified_by = load(classifier, Classifier, "fit --config training/handful.yaml")
    metadata = {
        "name": "Handful",
        "training commit": classified_by["commit"],
        "finder's training commit": found_by["commit"],
        "data": "; ".join(dict.fromkeys(found_by["data"] + classified_by["data"])),
        "licence": "Apache-2.0",
        "exported": datetime.now(UTC).date().isoformat(),
    }
    export_onnx(Reader(find, classify, classified_by["size"]), output, metadata)
    print(f"{output}: {output.stat().st_size / 1e6:.2f} MB")


def load(checkpoint: Path, kind: type[LightningModule], command: str) -> tuple[Any, dict]:
    """The network in a checkpoint, and what it says of its training."""
    if not checkpoint.is_file():
        raise SystemExit(f"{checkpoint}: no such file. Train one: python -m training {command}")
    about = torch.load(checkpoint, map_location="cpu", weights_only=False)["about"]
    return kind.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=False).network, about


def export_onnx(reader: Reader, output: Path, metadata: dict[str, str]) -> None:
    """Write `reader` to `output`.

    `metadata` says where the weights come from (commits, data, licence, …); the classes and the
    meaning of the input are added to it.
    """
    program = torch.onnx.export(
        reader.eval(),
        (torch.zeros(480, 640, 3, dtype=torch.uint8),),
        input_names=["image"],
        output_names=["boxes", "squares", "scores", "probabilities", "gradcam"],
        dynamic_shapes={"image": {i: torch.export.Dim(name, min=1, max=65_535) for i, name in enumerate(("h", "w"))}},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # only without dynamo
    proto = program.model_proto
    about = {
        "classes": json.dumps(CLASSES),
        "input": "image: uint8 H×W×3 RGB, a frame of any size",
        **metadata,
    }
    onnx.helper.set_model_props(proto, about)
    store_as_float16(proto.graph)
    onnx.checker.check_model(proto, full_check=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, output)


def store_as_float16(graph: onnx.GraphProto) -> None:
    """Keep large weights as float16, cast to float32 when the file is loaded: half the file, the same arithmetic."""
    for weights in list(graph.initializer):
        values = onnx.numpy_helper.to_array(weights)
        if values.dtype == np.float32 and values.size > 1000:
            stored = onnx.numpy_helper.from_array(values.astype(np.float16), f"{weights.name}.float16")
            graph.initializer.remove(weights)
            graph.initializer.append(stored)
            cast = onnx.helper.make_node("Cast", [stored.name], [weights.name], to=onnx.TensorProto.FLOAT)
            graph.node.insert(0, cast)
