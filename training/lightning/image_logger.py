"""Log images to TensorBoard and Weights & Biases: the confusion matrix, and the worst errors."""

import heapq
from itertools import chain, count
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from handful.labels import CLASSES, SIDE_UNKNOWN
from training.augment.pipeline import center_crop

matplotlib.use("Agg")  # no windows

COLUMNS = 6
THUMBNAIL_SIZE = 128  # pixels


class ImageLogger(Callback):
    """Log both after each validation, over the hands whose side is labelled.

    Args:
        worst: how many errors to show, highest loss first.
    """

    def __init__(self, worst: int = 24):
        self.worst = worst
        self.order = count()  # breaks ties of the heap: images do not compare

    def on_validation_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.confusion = MulticlassConfusionMatrix(len(CLASSES)).to(module.device)
        self.errors: list[tuple[float, int, Tensor, str]] = []  # a heap, lowest loss first

    def on_validation_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        images, targets, _ = batch
        logits, side_known = outputs["logits"].float(), targets < SIDE_UNKNOWN
        self.confusion.update(logits[side_known], targets[side_known])  # on the device, where it is reduced
        logits, side_known, targets = logits.cpu(), side_known.cpu(), targets.cpu()
        losses = F.cross_entropy(logits, targets.where(side_known, 0), reduction="none")
        for i in (side_known & (logits.argmax(1) != targets)).nonzero()[:, 0].tolist():
            confidence, predicted = logits[i].softmax(0).max(0)
            title = f"{CLASSES[targets[i]]}, predicted {CLASSES[predicted]} ({confidence:.0%})"
            # Cloned: a view would keep the whole batch in memory.
            error = (losses[i].item(), next(self.order), images[i].cpu().clone(), title)
            (heapq.heappush if len(self.errors) < self.worst else heapq.heappushpop)(self.errors, error)

    def on_validation_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        loggers = [logger for logger in trainer.loggers if isinstance(logger, (TensorBoardLogger, WandbLogger))]
        if trainer.sanity_checking or not loggers:
            return
        confusion: Any = self.confusion.plot(labels=list(CLASSES))[0]
        if trainer.world_size > 1:
            gathered: Any = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, self.errors)
            self.errors = heapq.nlargest(self.worst, chain(*gathered), lambda error: error[:2])
        for name, figure in (("val/confusion", confusion), ("val/worst", self.draw_errors())):
            for logger in loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_figure(name, figure, trainer.global_step, close=False)
                else:
                    logger.log_image(name, [figure], trainer.global_step)
            plt.close(figure)

    def draw_errors(self) -> Figure:
        """Draw a grid of errors, highest loss first."""
        rows = -(-self.worst // COLUMNS)
        figure, axes = plt.subplots(rows, COLUMNS, figsize=(2 * COLUMNS, 2.2 * rows))
        for axis in axes.flat:
            axis.axis("off")
        for axis, (_, _, image, title) in zip(axes.flat, sorted(self.errors, key=lambda e: -e[0]), strict=False):
            thumbnail = (center_crop(image[None], THUMBNAIL_SIZE)[0].permute(1, 2, 0) + 1) / 2
            axis.imshow(thumbnail.clamp(0, 1))
            axis.set_title(title, fontsize=8)
        return figure
