"""The classifier: a small residual network of plain 3×3 convolutions.

Why this one: on a CPU, in bfloat16 and channels-last, plain 3×3 convolutions train about five times
as many pictures a second as inverted residuals with as many weights, and onnxruntime runs them as
fast as the processor multiplies. One fully connected layer over the global average of the last
feature map makes Grad-CAM exact in closed form (see `HandNet.gradcam`).

Shapes for a batch of N pictures, with the default widths (1.13 million weights):

    image      N × 96 × 96 × 3      uint8 RGB
    scaled     N ×   3 × 96 × 96    float, -1 … 1
    stem       N ×  16 × 48 × 48
    stage 1    N ×  32 × 24 × 24
    stage 2    N ×  64 × 12 × 12
    stage 3    N × 160 ×  6 ×  6    the feature map that Grad-CAM shows
    pooled     N × 160
    logits     N ×  12
    presence   N                    logit: is there a hand at all?
"""

import copy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3×3 convolution and its batch normalisation."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """x + f(x), with f two 3×3 convolutions (He et al., 2016, arXiv:1512.03385)."""

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(conv(width, width), nn.ReLU(), conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class HandNet(nn.Module):
    """Fingers and side of the one hand in a picture: 12 logits in the order of `model.CLASSES`, and whether it is one.

    Args:
        widths: channels of the stem and of each stage; every one of them halves the picture.
        dropout: share of pooled features left out in training.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 160), dropout: float = 0.1):
        super().__init__()
        layers: list[nn.Module] = [conv(3, widths[0], stride=2), nn.ReLU()]
        for before, width in pairwise(widths):
            layers += [conv(before, width, stride=2), nn.ReLU(), Residual(width)]
        self.features = nn.Sequential(*layers, Residual(widths[-1]))
        self.dropout = nn.Dropout(dropout)
        self.head, self.presence = nn.Linear(widths[-1], 12), nn.Linear(widths[-1], 1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, 12) and presence (N,) of pictures (N, 3, H, W), float, -1 … 1."""
        return self.classify(self.features(pictures))

    def classify(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, 12) and presence (N,), a logit too, of feature maps (N, C, h, w)."""
        pooled = self.dropout(features.mean((2, 3)))
        return self.head(pooled), self.presence(pooled)[:, 0]

    def gradcam(self, features: Tensor) -> Tensor:
        """Grad-CAM maps (N, 12, h, w), ≥ 0, of feature maps (N, C, h, w), for every class.

        Grad-CAM weighs each feature map by the mean gradient of a class's logit over that map,
        then keeps what is positive. Here logit_c = b_c + Σ_k W_ck · mean(A_k): the gradient is
        W_ck / (h·w) everywhere, so no backward pass is needed.
        """
        area = features.shape[2] * features.shape[3]
        return torch.einsum("ck,nkhw->nchw", self.head.weight / area, features).relu()


def scale(images: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) RGB to float, -1 … 1: what the network takes."""
    return images.float() / 127.5 - 1


def folded(network: Any) -> Any:
    """A network as it is kept in the file: its batch norms folded into its convolutions."""
    network = copy.deepcopy(network).eval()
    for part in list(network.modules()):
        if isinstance(part, nn.Sequential) and isinstance(part[-1], nn.BatchNorm2d):
            pair: Any = part
            pair[0], pair[1] = fuse_conv_bn_eval(*pair), nn.Identity()
    return network
