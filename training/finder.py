"""The hand finder: where in a frame are hands? A small network without anchors, and how it is trained.

The frame is fitted into a square of 160 pixels; to be read, into a smaller or a larger one, or what of it the frame
fills, to the next 16 (see `training.export.fitted`). Every cell of a grid, 20 × 20 in the square, tells how sure it is
that the middle of a hand lies in it, and how far from its own middle the hand reaches to each side (FCOS, Tian et al.,
2019, arXiv:1904.01355; the score is trained as in CenterNet, Zhou et al., 2019, arXiv:1904.07850). A cell that is surer
than its eight neighbours is a hand: nothing else suppresses doubles.

    frame      N ×   3 × 160 × 160  float, -1 … 1
    stride  8  N ×  40 ×  20 ×  20  fine enough to tell two hands apart
    stride 16  N × 112 ×  10 ×  10  sees most of the frame; added to the finer one
    output     N ×   5 ×  20 ×  20  score logit; log of left, top, right, bottom in cells
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import box_iou, generalized_box_iou_loss

from training.module import Means, Module, means
from training.network import backbone, conv, scale

SIZE = 160
STRIDE = 8
COARSE = 16  # the stride of what sees most of the frame: both sides are multiples of it
MOST = 4  # hands told of a frame
CANDIDATE = 0.31  # how sure the finder must be for the classifier to look: what is less sure is never told, see export


class HandFinder(nn.Module):
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


def peaks(output: Tensor) -> tuple[Tensor, Tensor]:
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


def targets(boxes: Tensor, cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the finder should say of N frames with up to K hands each, at `boxes` (N, K, 4), in pixels.

    A box without a size is no hand. Returns heat (N, h, w), 1 in the middle of a hand and falling off around it;
    which hand each cell answers for (N, h, w), -1 for none; and the cells' middles (h, w, 2).
    """
    middle = middles(cells, cells).view(cells, cells, 2).to(boxes.device)
    size, centre = boxes[..., 2:] - boxes[..., :2], (boxes[..., 2:] + boxes[..., :2]) / 2
    # A tenth of the hand: a box around a cell this far from its middle still overlaps by half.
    sigma = (size * 0.11).clamp_min(STRIDE * 0.4)
    away = middle - centre[:, :, None, None]
    bells = torch.exp(-((away / sigma[:, :, None, None]) ** 2).sum(4) / 2)
    nearest = (away**2).sum(4).flatten(2).argmin(2, keepdim=True)
    bells = bells.flatten(2).scatter(2, nearest, 1.0).view_as(bells) * (size.amin(2) > 0)[:, :, None, None]
    heat, owner = bells.max(1)
    return heat, owner.where(heat > 0.4, -1), middle


class Finder(Module):
    """Trains a `HandFinder` on frames (N, 3, 160, 160) uint8 RGB and their boxes (a list of (K, 4)).

    Args:
        network: what is trained.
        learning_rate: highest rate of the cycle.
        weight_decay: of each step, times the rate.
        start: checkpoint whose weights it starts from; without it, from those of the network.
    """

    def __init__(
        self,
        network: HandFinder,
        learning_rate: float = 0.002,
        weight_decay: float = 0.02,
        start: Path | None = None,
    ):
        super().__init__(network, learning_rate, weight_decay, start)
        self.loss, self.recall, self.precision = Means(2), Means(), Means()

    def training_step(self, batch: tuple[Tensor, list[Tensor]]) -> Tensor:
        frames, boxes = batch
        loss = means(*finder_losses(self.answer(frames), boxes))
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def answer(self, frames: Tensor) -> Tensor:
        return self.network(scale(frames).contiguous(memory_format=torch.channels_last)).float()

    def validation_step(self, batch: tuple[Tensor, list[Tensor]]) -> None:
        frames, boxes = batch
        output = self.answer(frames)
        right = told = there = 0
        for cells, reach, truth in zip(*peaks(output), boxes, strict=True):
            scores, found = hands(cells, reach)
            found = found[scores > CANDIDATE]
            told, there = told + len(found), there + len(truth)
            if len(found) and len(truth):
                right += int((box_iou(found, truth).amax(0) > 0.5).sum())
        self.recall.update(right, there)
        self.precision.update(right, told)
        self.loss.update(*finder_losses(output, boxes))
        self.log("val/recall", self.recall)
        self.log("val/precision", self.precision)
        self.log("val/loss", self.loss, prog_bar=True)


def finder_losses(output: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Whether there is a hand, of every cell, told for each hand; how far it reaches, of the cells that answer for one.

    Of the finder's output for N frames and their boxes: two totals, (2,), and of how many hands and cells, (2,).
    """
    # At least one hand a frame, if one without a size.
    padded = pad_sequence([F.pad(of_frame, (0, 0, 0, 1)) for of_frame in boxes], batch_first=True)
    heat, owner, middle = targets(padded, output.shape[2])
    score = output[:, 0]
    # Focal loss of CenterNet: near a middle, a high score is no mistake.
    p = score.sigmoid()
    hit, miss = (1 - p) ** 2 * F.logsigmoid(score), (1 - heat) ** 4 * p**2 * F.logsigmoid(-score)
    found = -torch.where(heat == 1, hit, miss).sum()
    frame, row, column = torch.nonzero(owner >= 0, as_tuple=True)
    reach = output[frame, 1:, row, column].exp() * STRIDE
    told = reaching(middle[row, column], reach)
    truth = padded[frame, owner[frame, row, column]]
    apart = generalized_box_iou_loss(told, truth, reduction="sum")
    return torch.stack([found, apart]), found.new_tensor([sum(map(len, boxes)), len(frame)])
