"""The hand detector: a small network without anchors.

It is trained on frames letterboxed into a square of 160 pixels; the cascade runs it on smaller and larger ones, of any
shape with multiples of 16 (see training/export/cascade.py). Every cell of a grid, 20 × 20 in the square, predicts
whether the centre of a hand lies in it, and how far from the cell's own centre the hand reaches to each side (FCOS,
Tian et al., 2019, arXiv:1904.01355; the score is trained as in CenterNet, Zhou et al., 2019, arXiv:1904.07850). A cell
with a higher score than its eight neighbours is a hand: there is no other non-maximum suppression.

    frame      N ×   3 × 160 × 160  float, -1 … 1
    stride  8  N ×  40 ×  20 ×  20  fine enough to separate two hands
    stride 16  N × 112 ×  10 ×  10  its receptive field is most of the frame; added to the finer one
    output     N ×   5 ×  20 ×  20  score logit; log of left, top, right, bottom in cells
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.labels import MAX_HANDS
from training.networks.backbone import backbone, conv

INPUT_SIZE = 160
STRIDE = 8
COARSE_STRIDE = 16  # both sides of a frame are multiples of it


class HandDetector(nn.Module):
    """Predict a score and a box in every cell of a frame: (N, 3, h, w), multiples of 16, to (N, 5, h / 8, w / 8)."""

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
        last.bias.data[0] = -4.0  # hands are rare: start with low scores

    def forward(self, frames: Tensor) -> Tensor:
        fine = self.stride8(frames)
        coarse = self.down(self.stride16(fine))
        return self.head(torch.relu(fine + F.interpolate(coarse, scale_factor=2.0)))


def decode_peaks(output: Tensor) -> tuple[Tensor, Tensor]:
    """Decode the output (N, 5, h, w): scores (N, h · w) and boxes (N, h · w, 4) in pixels of the frames.

    The score of a cell that is no local maximum is 0.
    """
    score = output[:, 0].sigmoid()
    score = score * (F.max_pool2d(score[:, None], 3, 1, 1)[:, 0] == score)
    distances = output[:, 1:].flatten(2).transpose(1, 2).exp() * STRIDE
    return score.flatten(1), boxes_from_distances(cell_centres(*output.shape[2:]).to(output.device), distances)


def topk_hands(scores: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the `MAX_HANDS` highest scores of all cells (C,), in falling order, and their boxes, of (C, 4)."""
    scores, index = scores.topk(MAX_HANDS)
    return scores, boxes[index]


def cell_centres(rows: int, columns: int) -> Tensor:
    """Return the centres of the cells of a grid: (rows · columns, 2), x and y, in pixels."""
    cells = torch.arange(rows * columns)
    row = cells // columns
    return (torch.stack([cells - row * columns, row], 1) + 0.5) * STRIDE


def boxes_from_distances(centres: Tensor, distances: Tensor) -> Tensor:
    """Return boxes (…, 4) from centres (…, 2) and the distances (…, 4) to their left, top, right and bottom."""
    return torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], -1)
