"""The hand detector: where in a frame are hands? A small network without anchors, and how it is trained.

The frame is fitted into a square of 160 pixels; to be read, into a smaller or a larger one, or what of it the frame
fills, to the next 16 (see `training.export.cascade.fitted`). Every cell of a grid, 20 × 20 in the square, predicts how
likely it is that the middle of a hand lies in it, and how far from its own middle the hand reaches to each side (FCOS, Tian et al.,
2019, arXiv:1904.01355; the score is trained as in CenterNet, Zhou et al., 2019, arXiv:1904.07850). A cell that is surer
than its eight neighbours is a hand: nothing else suppresses doubles.

    frame      N ×   3 × 160 × 160  float, -1 … 1
    stride  8  N ×  40 ×  20 ×  20  fine enough to tell two hands apart
    stride 16  N × 112 ×  10 ×  10  sees most of the frame; added to the finer one
    output     N ×   5 ×  20 ×  20  score logit; log of left, top, right, bottom in cells
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.backbone import backbone, conv

SIZE = 160
STRIDE = 8
COARSE = 16  # the stride of what sees most of the frame: both sides are multiples of it
MOST = 4  # hands told of a frame
CANDIDATE = (
    0.31  # how sure the detector must be for the classifier to look: what is less sure is never told, see export
)


class HandDetector(nn.Module):
    """Scores and boxes of hands for every cell of a frame: (N, 3, h, w), multiples of 16, to (N, 5, h / 8, w / 8)."""

    def __init__(self) -> None:
        super().__init__()
        stages = backbone()
        self.stride8, self.stride16 = stages[:4], stages[4:]
        self.down = nn.Conv2d(112, 40, 1)
        self.head = nn.Sequential(conv(40, 64), nn.ReLU(), nn.Conv2d(64, 5, 1))
        last = self.head[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.zeros_(last.bias)
        last.bias.data[0] = -4.0  # hands are rare: start by seeing none

    def forward(self, frames: Tensor) -> Tensor:
        fine = self.stride8(frames)
        coarse = self.down(self.stride16(fine))
        return self.head(torch.relu(fine + F.interpolate(coarse, scale_factor=2.0)))


def decode_peaks(output: Tensor) -> tuple[Tensor, Tensor]:
    """How sure each cell of frames, (N, 5, h, w), is of a hand, (N, h · w), and its box in their pixels, (N, h · w, 4).

    A cell with a surer neighbour, which sees the same hand, is not sure at all.
    """
    score = output[:, 0].sigmoid()
    score = score * (F.max_pool2d(score[:, None], 3, 1, 1)[:, 0] == score)
    reach = output[:, 1:].flatten(2).transpose(1, 2).exp() * STRIDE
    return score.flatten(1), reaching(middles(*output.shape[2:]).to(output.device), reach)


def hands(scores: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest hands, of all cells' scores (C,) and boxes (C, 4): four of them, scores falling."""
    scores, likeliest = scores.topk(MOST)
    return scores, boxes[likeliest]


def middles(rows: int, columns: int) -> Tensor:
    """Where so many cells have their middles: (rows · columns, 2), x and y, in pixels."""
    cells = torch.arange(rows * columns)
    row = cells // columns
    return (torch.stack([cells - row * columns, row], 1) + 0.5) * STRIDE


def reaching(middle: Tensor, reach: Tensor) -> Tensor:
    """Boxes (…, 4) that reach that far, (…, 4), to the left, top, right and bottom of middles (…, 2)."""
    return torch.cat([middle - reach[..., :2], middle + reach[..., 2:]], -1)
