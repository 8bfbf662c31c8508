"""Train the classifier: loss and metrics."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.classification import BinaryAccuracy, MulticlassAccuracy

from handful.labels import CLASSES, COUNTS, NO_HAND, SIDE_UNKNOWN, count_of, marginal_over_sides
from training.augment.pipeline import center_crop
from training.lightning.module import TrainingModule, WeightedMeans, weighted_mean
from training.networks.backbone import normalize
from training.networks.classifier import HandClassifier

Batch = tuple[Tensor, Tensor]


class ClassifierModule(TrainingModule):
    """Train a `HandClassifier` with AdamW, a one-cycle learning rate and label smoothing.

    Args:
        network: the network to train.
        learning_rate: peak of the one-cycle schedule (Smith and Topin, 2018, arXiv:1708.07120).
        weight_decay: decoupled weight decay of AdamW.
        label_smoothing: share of the target spread over all classes.
        size: width and height of the network's input, in pixels.
        start: checkpoint to take initial weights from.
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
        self.accuracy = MulticlassAccuracy(len(CLASSES), average="micro")
        self.count_accuracy = MulticlassAccuracy(len(COUNTS), average="micro")
        self.presence_accuracy = BinaryAccuracy()
        self.loss = WeightedMeans(2)

    def training_step(self, batch: Batch) -> Tensor:
        images, targets = batch
        inputs = normalize(images.permute(0, 3, 1, 2)).contiguous(memory_format=torch.channels_last)
        logits, presence = self.network(inputs)
        loss = weighted_mean(*classifier_losses(logits, presence, targets, self.label_smoothing))
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch) -> dict[str, Tensor]:
        images, targets = batch
        inputs = center_crop(images, self.size).contiguous(memory_format=torch.channels_last)
        logits, presence = (output.float() for output in self.network(inputs))
        self.loss.update(*classifier_losses(logits, presence, targets))
        self.log("val/loss", self.loss, prog_bar=True)
        is_hand, side_known = targets < NO_HAND, targets < SIDE_UNKNOWN
        self.presence_accuracy(presence, is_hand)
        self.log("val/presence_accuracy", self.presence_accuracy)
        if is_hand.any():
            self.count_accuracy(marginal_over_sides(logits[is_hand].softmax(1)), count_of(targets[is_hand]))
        self.log("val/count_accuracy", self.count_accuracy, prog_bar=True)
        if side_known.any():
            self.accuracy(logits[side_known], targets[side_known])
        self.log("val/accuracy", self.accuracy, prog_bar=True)
        return {"logits": logits}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["provenance"]["size"] = self.size


def classifier_losses(
    logits: Tensor, presence: Tensor, targets: Tensor, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return two summed losses, (2,), and how many samples each sums over, (2,).

    Presence (N,), "is this a hand at all", is binary cross-entropy over all samples; the class, logits (N, 12), is
    cross-entropy over the hands among them.
    """
    is_hand = targets < NO_HAND
    presence_loss = F.binary_cross_entropy_with_logits(presence.float(), is_hand.float(), reduction="sum")
    class_loss = partial_cross_entropy(logits[is_hand], targets[is_hand], label_smoothing)
    return torch.stack([presence_loss, class_loss]), torch.stack([torch.ones_like(is_hand).sum(), is_hand.sum()])


def partial_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Return the summed cross-entropy of (N, 12) logits where some targets (N,) label only the count.

    For a target of SIDE_UNKNOWN + count, the likelihood is the sum of both sides' probabilities.
    """
    log_probabilities = logits.float().log_softmax(1)
    classes = torch.arange(len(CLASSES), device=logits.device)
    same_class = classes == targets[:, None]
    same_count = count_of(classes) == count_of(targets)[:, None]
    accepted = same_class | ((targets >= SIDE_UNKNOWN)[:, None] & same_count)
    log_likelihood = log_probabilities.masked_fill(~accepted, -torch.inf).logsumexp(1)
    return -((1 - label_smoothing) * log_likelihood + label_smoothing * log_probabilities.mean(1)).sum()
