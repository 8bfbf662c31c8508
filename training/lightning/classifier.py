"""Train the classifier: loss and metrics."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.classification import BinaryAccuracy, MulticlassAccuracy

from handful.labels import CLASSES, COUNTS, FINGERS, NO_HAND, SIDE_UNKNOWN, count_of, marginal_over_sides
from training.augment.pipeline import center_crop
from training.lightning.module import TrainingModule, WeightedMeans, weighted_mean
from training.networks.backbone import normalize
from training.networks.classifier import HandClassifier

Batch = tuple[Tensor, Tensor, Tensor]
# The 32 combinations of raised fingers, as bits of their index: (32, 5).
COMBINATIONS = (torch.arange(1 << len(FINGERS))[:, None] >> torch.arange(len(FINGERS))) & 1


class ClassifierModule(TrainingModule):
    """Train a `HandClassifier` with AdamW, a one-cycle learning rate and label smoothing.

    Args:
        network: the network to train.
        learning_rate: peak of the one-cycle schedule (Smith and Topin, 2018, arXiv:1708.07120).
        weight_decay: decoupled weight decay of AdamW.
        label_smoothing: share of the target spread over all classes.
        size: width and height of the network's input, in pixels.
        frozen: how many of the first stages of the backbone keep their weights: edges and textures are the same for
            every hand, and learning them takes half of the time.
        start: checkpoint to take initial weights from.
    """

    def __init__(
        self,
        network: HandClassifier,
        learning_rate: float = 0.002,
        weight_decay: float = 0.02,
        label_smoothing: float = 0.02,
        size: int = 112,
        frozen: int = 0,
        start: Path | None = None,
    ):
        super().__init__(network, learning_rate, weight_decay, start)
        self.network.features[:frozen].requires_grad_(False)
        self.label_smoothing, self.size = label_smoothing, size
        self.accuracy = MulticlassAccuracy(len(CLASSES), average="micro")
        self.count_accuracy = MulticlassAccuracy(len(COUNTS), average="micro")
        self.presence_accuracy = BinaryAccuracy()
        self.finger_accuracy = BinaryAccuracy()
        self.loss = WeightedMeans(3)

    def training_step(self, batch: Batch) -> Tensor:
        images, targets, fingers = batch
        inputs = normalize(images.permute(0, 3, 1, 2)).contiguous(memory_format=torch.channels_last)
        logits, presence, finger_logits = self.network(inputs)
        losses = classifier_losses(logits, presence, finger_logits, targets, fingers, self.label_smoothing)
        loss = weighted_mean(*losses)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch) -> dict[str, Tensor]:
        images, targets, fingers = batch
        inputs = center_crop(images, self.size).contiguous(memory_format=torch.channels_last)
        logits, presence, finger_logits = (output.float() for output in self.network(inputs))
        self.loss.update(*classifier_losses(logits, presence, finger_logits, targets, fingers))
        self.log("val/loss", self.loss, prog_bar=True)
        counted, side_known, fingers_known = targets < NO_HAND, targets < SIDE_UNKNOWN, fingers >= 0
        self.presence_accuracy(presence, targets != NO_HAND)
        self.log("val/presence_accuracy", self.presence_accuracy)
        if counted.any():
            self.count_accuracy(marginal_over_sides(logits[counted].softmax(1)), count_of(targets[counted]))
        self.log("val/count_accuracy", self.count_accuracy, prog_bar=True)
        if side_known.any():
            self.accuracy(logits[side_known], targets[side_known])
        self.log("val/accuracy", self.accuracy, prog_bar=True)
        if fingers_known.any():
            self.finger_accuracy(finger_logits[fingers_known], COMBINATIONS.to(targets.device)[fingers[fingers_known]])
        self.log("val/finger_accuracy", self.finger_accuracy)
        return {"logits": logits}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["provenance"]["size"] = self.size


def classifier_losses(
    logits: Tensor,
    presence: Tensor,
    finger_logits: Tensor,
    targets: Tensor,
    fingers: Tensor,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Return three summed losses, (3,), and how many samples each sums over, (3,).

    Presence (N,), "is this a hand at all", is binary cross-entropy over all samples; the class, logits (N, 12), and the
    raised fingers, logits (N, 5), are cross-entropy over the hands among them whose count is labelled.
    """
    counted = targets < NO_HAND
    presence_loss = F.binary_cross_entropy_with_logits(presence.float(), (targets != NO_HAND).float(), reduction="sum")
    class_loss = partial_cross_entropy(logits[counted], targets[counted], label_smoothing)
    finger_loss = partial_finger_loss(finger_logits[counted], count_of(targets[counted]), fingers[counted])
    sizes = torch.stack([torch.ones_like(counted).sum(), counted.sum(), counted.sum()])
    return torch.stack([presence_loss, class_loss, finger_loss]), sizes


def partial_finger_loss(logits: Tensor, counts: Tensor, fingers: Tensor) -> Tensor:
    """Return the summed negative log-likelihood of (N, 5) logits, where some labels are only how many fingers.

    For those, the likelihood is that of the count: the sum over all combinations of so many fingers, which is the
    Poisson binomial distribution.

    Args:
        logits: of each finger.
        counts: (N,) how many are raised.
        fingers: (N,) which ones, see `Frame.fingers`.
    """
    combinations = COMBINATIONS.to(logits.device)
    logits, up = logits.float(), combinations.float()
    log_likelihoods = F.logsigmoid(logits) @ up.T + F.logsigmoid(-logits) @ (1 - up).T
    named = torch.arange(len(combinations), device=logits.device) == fingers[:, None]
    same_count = combinations.sum(1) == counts[:, None]
    accepted = torch.where((fingers >= 0)[:, None], named, same_count)
    return -log_likelihoods.masked_fill(~accepted, -torch.inf).logsumexp(1).sum()


def partial_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
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
