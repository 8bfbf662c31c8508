"""The hand finder: where in a frame are hands? A small network without anchors, and how it is trained.

The frame is fitted into a square of 192 pixels. Every cell of a 24 × 24 grid tells how sure it is that
the middle of a hand lies in it, and how far from its own middle the hand reaches to each side (FCOS,
Tian et al., 2019, arXiv:1904.01355; the score is trained as in CenterNet, Zhou et al., 2019,
arXiv:1904.07850). A cell that is surer than its eight neighbours is a hand: nothing else suppresses
doubles.

    frame      N ×   3 × 192 × 192  float, -1 … 1
    stride  8  N ×  40 ×  24 ×  24  fine enough to tell two hands apart
    stride 16  N ×  72 ×  12 ×  12
    stride 32  N × 112 ×   6 ×   6  sees the whole frame; added back into the finer two
    output     N ×   5 ×  24 ×  24  score logit; log of left, top, right, bottom in cells
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou, generalized_box_iou_loss

from training.module import Module
from training.network import Residual, conv, scale

SIZE = 192
STRIDE = 8
MOST = 4  # hands told of a frame
CANDIDATE = 0.2  # how sure the finder must be for the classifier to look


class HandFinder(nn.Module):
    """Scores and boxes of hands for every cell of a frame: (N, 3, 192, 192) to (N, 5, 24, 24)."""

    def __init__(self, widths: tuple[int, ...] = (16, 24, 40, 72, 112)):
        super().__init__()
        a, b, c, d, e = widths
        self.stride8 = nn.Sequential(
            conv(3, a, 2), nn.ReLU(), conv(a, b, 2), nn.ReLU(), Residual(b), conv(b, c, 2), nn.ReLU(), Residual(c)
        )
        self.stride16 = nn.Sequential(conv(c, d, 2), nn.ReLU(), Residual(d))
        self.stride32 = nn.Sequential(conv(d, e, 2), nn.ReLU(), Residual(e))
        self.down16, self.down8 = nn.Conv2d(e, d, 1), nn.Conv2d(d, c, 1)
        self.head = nn.Sequential(conv(c, c), nn.ReLU(), nn.Conv2d(c, 5, 1))
        last = self.head[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.zeros_(last.bias)
        last.bias.data[0] = -4.0  # hands are rare: start by seeing none

    def forward(self, frames: Tensor) -> Tensor:
        fine = self.stride8(frames)
        middle = self.stride16(fine)
        coarse = self.stride32(middle)
        middle = torch.relu(middle + F.interpolate(self.down16(coarse), scale_factor=2.0))
        fine = torch.relu(fine + F.interpolate(self.down8(middle), scale_factor=2.0))
        return self.head(fine)


def hands(output: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest hands of one frame, (5, h, w): scores (4,), falling, and boxes (4, 4) in its pixels."""
    score = output[0].sigmoid()
    # Only peaks: the neighbours of a sure cell see the same hand.
    peaks = score * (F.max_pool2d(score[None], 3, 1, 1)[0] == score)
    scores, cells = peaks.flatten().topk(MOST)
    width = output.shape[2]
    x, y = (cells % width + 0.5) * STRIDE, (cells // width + 0.5) * STRIDE
    left, top, right, bottom = output[1:].flatten(1)[:, cells].exp() * STRIDE
    return scores, torch.stack([x - left, y - top, x + right, y + bottom], 1)


def targets(boxes: Tensor, cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the finder should say of a frame with hands at `boxes` (K, 4), in pixels.

    Returns heat (h, w), 1 in the middle of a hand and falling off around it; which hand each cell
    answers for (h, w), -1 for none; and the cells' middles (h, w, 2).
    """
    place = (torch.arange(cells) + 0.5) * STRIDE
    middles = torch.stack(torch.meshgrid(place, place, indexing="xy"), 2)
    heat, owner = torch.zeros(cells, cells), torch.full((cells, cells), -1)
    for k, box in enumerate(boxes):
        size, centre = box[2:] - box[:2], (box[:2] + box[2:]) / 2
        # A tenth of the hand: a box around a cell this far from its middle still overlaps by half.
        sigma = (size * 0.11).clamp_min(STRIDE * 0.4)
        bell = torch.exp(-(((middles - centre) / sigma) ** 2).sum(2) / 2)
        nearest = ((middles - centre) ** 2).sum(2).argmin()
        bell.view(-1)[nearest] = 1
        owner[(bell > 0.4) & (bell > heat)] = k
        heat = torch.maximum(heat, bell)
    return heat, owner, middles


class Finder(Module):
    """Trains a `HandFinder` on frames (N, 3, 192, 192) uint8 RGB and their boxes (a list of (K, 4)).

    Args:
        network: what is trained.
        learning_rate: highest rate of the cycle.
        weight_decay: of each step, times the rate.
        small: width and height of the frames in the first epochs; quicker.
        small_epochs: share of the epochs with small frames.
    """

    def __init__(
        self,
        network: HandFinder,
        learning_rate: float = 0.02,
        weight_decay: float = 0.02,
        small: int = 128,
        small_epochs: float = 0.6,
    ):
        super().__init__(learning_rate, weight_decay)
        self.save_hyperparameters()
        self.network = network.to(memory_format=torch.channels_last)
        self.small, self.small_epochs = small, small_epochs

    def training_step(self, batch: tuple[Tensor, list[Tensor]]) -> Tensor:
        frames, boxes = batch
        pictures = scale(frames)
        if self.current_epoch < self.small_epochs * (self.trainer.max_epochs or 1):
            pictures = F.interpolate(pictures, (self.small, self.small), mode="bilinear", antialias=True)
            boxes = [of_frame * (self.small / SIZE) for of_frame in boxes]
        loss = self.loss(pictures, boxes)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def loss(self, frames: Tensor, boxes: list[Tensor]) -> Tensor:
        output = self.network(frames.contiguous(memory_format=torch.channels_last)).float()
        heat, owner, middles = (
            torch.stack(part) for part in zip(*(targets(b, output.shape[2]) for b in boxes), strict=True)
        )
        score = output[:, 0]
        # Focal loss of CenterNet: near a middle, a high score is no mistake.
        p = score.sigmoid()
        hit, miss = (1 - p) ** 2 * F.logsigmoid(score), (1 - heat) ** 4 * p**2 * F.logsigmoid(-score)
        found = torch.where(heat == 1, hit, miss).sum() / max(1, sum(map(len, boxes)))
        frame, row, column = torch.nonzero(owner >= 0, as_tuple=True)
        if not len(frame):
            return -found
        reach = output[frame, 1:, row, column].exp() * STRIDE
        middle = middles[frame, row, column]
        told = torch.cat([middle - reach[:, :2], middle + reach[:, 2:]], 1)
        hand = owner[frame, row, column]
        truth = torch.stack([boxes[f][k] for f, k in zip(frame, hand, strict=True)])
        return generalized_box_iou_loss(told, truth, reduction="mean") - found

    def validation_step(self, batch: tuple[Tensor, list[Tensor]]) -> None:
        frames, boxes = batch
        frames = scale(frames)
        output = self.network(frames.contiguous(memory_format=torch.channels_last)).float()
        right = told = there = 0
        for one, truth in zip(output, boxes, strict=True):
            scores, found = hands(one)
            found = found[scores > CANDIDATE]
            told, there = told + len(found), there + len(truth)
            if len(found) and len(truth):
                right += int((box_iou(found, truth).amax(0) > 0.5).sum())
        self.log("val/recall", right / max(there, 1), batch_size=max(there, 1))
        self.log("val/precision", right / max(told, 1), batch_size=max(told, 1))
        self.log("val/loss", self.loss(frames, boxes), prog_bar=True, batch_size=len(frames))
