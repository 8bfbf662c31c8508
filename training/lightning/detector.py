"""How the detector is trained: targets, losses and metrics. Lightning does the rest."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import box_iou, generalized_box_iou_loss

from training.lightning.module import Module, WeightedMeans, weighted_mean
from training.networks.backbone import normalize
from training.networks.detector import CANDIDATE, STRIDE, HandDetector, decode_peaks, hands, middles, reaching


def targets(boxes: Tensor, cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the detector should say of N frames with up to K hands each, at `boxes` (N, K, 4), in pixels.

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


class DetectorModule(Module):
    """Trains a `HandFinder` on frames (N, 3, 160, 160) uint8 RGB and their boxes (a list of (K, 4)).

    Args:
        network: what is trained.
        learning_rate: highest rate of the cycle.
        weight_decay: of each step, times the rate.
        start: checkpoint whose weights it starts from; without it, from those of the network.
    """

    def __init__(
        self,
        network: HandDetector,
        learning_rate: float = 0.002,
        weight_decay: float = 0.02,
        start: Path | None = None,
    ):
        super().__init__(network, learning_rate, weight_decay, start)
        self.loss, self.recall, self.precision = WeightedMeans(2), WeightedMeans(), WeightedMeans()

    def training_step(self, batch: tuple[Tensor, list[Tensor]]) -> Tensor:
        frames, boxes = batch
        loss = weighted_mean(*detector_losses(self.answer(frames), boxes))
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def answer(self, frames: Tensor) -> Tensor:
        return self.network(normalize(frames).contiguous(memory_format=torch.channels_last)).float()

    def validation_step(self, batch: tuple[Tensor, list[Tensor]]) -> None:
        frames, boxes = batch
        output = self.answer(frames)
        right = told = there = 0
        for cells, reach, truth in zip(*decode_peaks(output), boxes, strict=True):
            scores, found = hands(cells, reach)
            found = found[scores > CANDIDATE]
            told, there = told + len(found), there + len(truth)
            if len(found) and len(truth):
                right += int((box_iou(found, truth).amax(0) > 0.5).sum())
        self.recall.update(right, there)
        self.precision.update(right, told)
        self.loss.update(*detector_losses(output, boxes))
        self.log("val/recall", self.recall)
        self.log("val/precision", self.precision)
        self.log("val/loss", self.loss, prog_bar=True)


def detector_losses(output: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Whether there is a hand, of every cell, told for each hand; how far it reaches, of the cells that answer for one.

    Of the detector's output for N frames and their boxes: two totals, (2,), and of how many hands and cells, (2,).
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
