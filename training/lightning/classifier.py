"""How the classifier is trained: loss and metrics. Lightning does the rest."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.classification import BinaryAccuracy, MulticlassAccuracy

from handful.labels import NO_HAND, SIDE_UNKNOWN
from training.augment.pipeline import plain
from training.lightning.module import Module, WeightedMeans, weighted_mean
from training.networks.backbone import normalize
from training.networks.classifier import HandClassifier

Batch = tuple[Tensor, Tensor]


class ClassifierModule(Module):
    """Trains a `HandClassifier`: AdamW, one cycle of learning rate, label smoothing.

    Args:
        network: what is trained.
        learning_rate: highest rate of the cycle (Smith and Topin, 2018, arXiv:1708.07120).
        weight_decay: of each step, times the rate.
        label_smoothing: share of the target spread over all classes.
        size: width and height of the pictures that the network is made for.
        start: checkpoint whose weights it starts from; without it, from those of the network.
    """

    def __init__(
        self,
        network: HandClassifier,
        learning_rate: float = 0.002,
        weight_decay: float = 0.02,
        label_smoothing: float = 0.02,
        size: int = 128,
        start: Path | None = None,
    ):
        super().__init__(network, learning_rate, weight_decay, start)
        self.label_smoothing, self.size = label_smoothing, size
        self.accuracy = MulticlassAccuracy(12, average="micro")
        self.fingers_accuracy = MulticlassAccuracy(6, average="micro")
        self.presence_accuracy = BinaryAccuracy()
        self.loss = WeightedMeans(2)

    def training_step(self, batch: Batch) -> Tensor:
        images, targets = batch
        pictures = normalize(images.permute(0, 3, 1, 2))
        logits, presence = self.network(pictures.contiguous(memory_format=torch.channels_last))
        loss = weighted_mean(*hand_losses(logits, presence, targets, self.label_smoothing))
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch) -> dict[str, Tensor]:
        images, targets = batch
        pictures = plain(images, self.size).contiguous(memory_format=torch.channels_last)
        logits, presence = (part.float() for part in self.network(pictures))
        self.loss.update(*hand_losses(logits, presence, targets))
        self.log("val/loss", self.loss, prog_bar=True)
        self.presence_accuracy(presence, targets < NO_HAND)
        self.log("val/presence_accuracy", self.presence_accuracy)
        there = targets < NO_HAND
        if there.any():
            self.fingers_accuracy(logits[there].softmax(1).view(-1, 2, 6).sum(1), targets[there] % 6)
        self.log("val/fingers_accuracy", self.fingers_accuracy, prog_bar=True)
        known = targets < SIDE_UNKNOWN
        if known.any():
            self.accuracy(logits[known], targets[known])
        self.log("val/accuracy", self.accuracy, prog_bar=True)
        return {"logits": logits}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["about"]["size"] = self.size


def hand_losses(
    logits: Tensor, presence: Tensor, targets: Tensor, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Whether there is a hand, presence (N,), of every picture; which one, logits (N, 12), of those with a hand.

    Two totals, (2,), and of how many pictures each is, (2,).
    """
    there = targets < NO_HAND
    found = F.binary_cross_entropy_with_logits(presence.float(), there.float(), reduction="sum")
    read = partial_cross_entropy(logits[there], targets[there], label_smoothing)
    return torch.stack([found, read]), torch.stack([torch.ones_like(there).sum(), there.sum()])


def partial_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of (N, 12) logits, summed up, where some targets (N,) tell only the count.

    A target of SIDELESS + fingers is met by either side: its loss is the log of both probabilities' sum.
    """
    logs = logits.float().log_softmax(1)
    fingers = torch.arange(12, device=logits.device) % 6
    exact = torch.arange(12, device=logits.device) == targets[:, None]
    meant = exact | ((targets[:, None] >= SIDE_UNKNOWN) & (fingers == targets[:, None] % 6))
    told = logs.masked_fill(~meant, -torch.inf).logsumexp(1)
    return -((1 - label_smoothing) * told + label_smoothing * logs.mean(1)).sum()
