"""Train the detector: targets, losses and metrics."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import box_iou, generalized_box_iou_loss

from training.lightning.module import TrainingModule, WeightedMeans, weighted_mean
from training.networks.backbone import normalize
from training.networks.detector import (
    STRIDE,
    HandDetector,
    boxes_from_distances,
    cell_centres,
    decode_peaks,
    topk_hands,
)

IOU_THRESHOLD = 0.5  # of validation: a detection matches a hand from this overlap on
VALIDATION_SCORE = 0.31  # of a detection that counts in validation metrics


class DetectorModule(TrainingModule):
    """Train a `HandDetector` on frames (N, 3, 160, 160) uint8 RGB and their boxes, a list of (K, 4).

    Args:
        network: the network to train.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: decoupled weight decay of AdamW.
        frozen: how many of the first stages of the backbone keep their weights.
        start: checkpoint to take initial weights from.
    """

    def __init__(
        self,
        network: HandDetector,
        learning_rate: float = 0.002,
        weight_decay: float = 0.02,
        frozen: int = 0,
        start: Path | None = None,
    ):
        super().__init__(network, learning_rate, weight_decay, start)
        self.network.stride8[:frozen].requires_grad_(False)
        self.loss, self.recall, self.precision = WeightedMeans(2), WeightedMeans(), WeightedMeans()

    def forward(self, frames: Tensor) -> Tensor:
        return self.network(normalize(frames).contiguous(memory_format=torch.channels_last)).float()

    def training_step(self, batch: tuple[Tensor, list[Tensor]]) -> Tensor:
        frames, boxes = batch
        loss = weighted_mean(*detector_losses(self(frames), boxes))
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, list[Tensor]]) -> None:
        frames, boxes = batch
        output = self(frames)
        matched = detected = labelled = 0
        for scores, candidates, labels in zip(*decode_peaks(output), boxes, strict=True):
            scores, candidates = topk_hands(scores, candidates)
            detections = candidates[scores > VALIDATION_SCORE]
            detected, labelled = detected + len(detections), labelled + len(labels)
            if len(detections) and len(labels):
                matched += int((box_iou(detections, labels).amax(0) > IOU_THRESHOLD).sum())
        self.recall.update(matched, labelled)
        self.precision.update(matched, detected)
        self.loss.update(*detector_losses(output, boxes))
        self.log("val/recall", self.recall)
        self.log("val/precision", self.precision)
        self.log("val/loss", self.loss, prog_bar=True)


def detection_targets(boxes: Tensor, cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the training targets of N frames with up to K hands each, at `boxes` (N, K, 4), in pixels.

    A box of size zero is padding. Returns the heatmap (N, h, w), 1 at the centre of a hand and falling off around it;
    the hand that each cell is assigned to (N, h, w), -1 for none; and the centres of the cells (h, w, 2).
    """
    centres = cell_centres(cells, cells).view(cells, cells, 2).to(boxes.device)
    size, box_centres = boxes[..., 2:] - boxes[..., :2], (boxes[..., 2:] + boxes[..., :2]) / 2
    # A tenth of the hand: a box shifted by this much still overlaps by half.
    sigma = (size * 0.11).clamp_min(STRIDE * 0.4)
    offset = centres - box_centres[:, :, None, None]
    gaussians = torch.exp(-((offset / sigma[:, :, None, None]) ** 2).sum(4) / 2)
    nearest = (offset**2).sum(4).flatten(2).argmin(2, keepdim=True)
    gaussians = gaussians.flatten(2).scatter(2, nearest, 1.0).view_as(gaussians)
    gaussians = gaussians * (size.amin(2) > 0)[:, :, None, None]
    heatmap, assigned = gaussians.max(1)
    return heatmap, assigned.where(heatmap > 0.4, -1), centres


def detector_losses(output: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return two summed losses, (2,), and how many hands and how many cells they are to be averaged over, (2,).

    The score loss is the focal loss of CenterNet over all cells of the detector's output (N, 5, h, w), per hand; the
    box loss is the generalized IoU loss of the cells that are assigned to a hand.
    """
    # At least one box a frame, if one of size zero.
    padded = pad_sequence([F.pad(frame_boxes, (0, 0, 0, 1)) for frame_boxes in boxes], batch_first=True)
    heatmap, assigned, centres = detection_targets(padded, output.shape[2])
    score = output[:, 0]
    p = score.sigmoid()
    positive = (1 - p) ** 2 * F.logsigmoid(score)
    negative = (1 - heatmap) ** 4 * p**2 * F.logsigmoid(-score)  # near a centre, a high score costs little
    score_loss = -torch.where(heatmap == 1, positive, negative).sum()
    frame, row, column = torch.nonzero(assigned >= 0, as_tuple=True)
    distances = output[frame, 1:, row, column].exp() * STRIDE
    predicted = boxes_from_distances(centres[row, column], distances)
    labels = padded[frame, assigned[frame, row, column]]
    box_loss = generalized_box_iou_loss(predicted, labels, reduction="sum")
    return torch.stack([score_loss, box_loss]), score_loss.new_tensor([sum(map(len, boxes)), len(frame)])
