"""The classifier: one hand in, its class, which fingers are raised, whether it is a hand, and Grad-CAM maps out.

One fully connected layer over the global average of the last feature map makes Grad-CAM exact in closed form (see
`HandClassifier.gradcam`).

Shapes for a batch of N crops (0.70 million weights):

    crops      N × 112 × 112 × 3    uint8 RGB
    normalized N ×   3 × 112 × 112  float, -1 … 1
    stem       N ×  32 ×  56 ×  56
    stage 1    N ×  16 ×  56 ×  56
    stage 2    N ×  24 ×  28 ×  28
    stage 3    N ×  40 ×  14 ×  14
    stage 4    N ×  80 ×   7 ×   7
    stage 5    N × 112 ×   7 ×   7  the feature map that Grad-CAM shows
    pooled     N × 112
    logits     N ×  12
    presence   N                    logit: is there a hand at all?
    fingers    N ×   5              logits: is the thumb raised, the index finger, …?
"""

import torch
from torch import Tensor, nn

from handful.labels import CLASSES, FINGERS
from training.networks.backbone import STAGES, backbone


class HandClassifier(nn.Module):
    """Classify a crop: 12 logits in the order of `handful.labels.CLASSES`, and whether there is a hand.

    Args:
        dropout: share of pooled features left out in training.
    """

    def __init__(self, dropout: float = 0.1):
        super().__init__()
        self.features = backbone()
        width = STAGES[-1][1]
        self.dropout = nn.Dropout(dropout)
        self.head, self.presence = nn.Linear(width, len(CLASSES)), nn.Linear(width, 1)
        self.fingers = nn.Linear(width, len(FINGERS))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (N, 12), presence (N,) and fingers (N, 5) of pictures (N, 3, H, W), float, -1 … 1."""
        return self.classify(self.features(pictures))

    def classify(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (N, 12), presence (N,) and fingers (N, 5), logits too, of feature maps (N, C, h, w)."""
        pooled = self.dropout(features.mean((2, 3)))
        return self.head(pooled), self.presence(pooled)[:, 0], self.fingers(pooled)

    def gradcam(self, features: Tensor) -> Tensor:
        """Return Grad-CAM maps (N, 12, h, w), ≥ 0, of feature maps (N, C, h, w), for every class.

        Grad-CAM weighs each feature map by the mean gradient of a class's logit over that map,
        then keeps what is positive. Here logit_c = b_c + Σ_k W_ck · mean(A_k): the gradient is
        W_ck / (h·w) everywhere, so no backward pass is needed.
        """
        area = features.shape[2] * features.shape[3]
        # Divided last: the exported graph takes other weights, and none may be folded into constants.
        return torch.einsum("ck,nkhw->nchw", self.head.weight, features).relu() / area
