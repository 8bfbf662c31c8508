"""What TensorBoard and Weights & Biases are shown beside curves: the confusion matrix, and the worst mistakes."""

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

from handful import CLASSES
from handful.labels import SIDE_UNKNOWN
from training.augment.pipeline import plain

matplotlib.use("Agg")  # pictures, no windows


class Pictures(Callback):
    """After each validation, log both as pictures: of the hands whose side is known.

    Args:
        worst: how many mistakes to show, those first whose right class was thought least likely.
    """

    def __init__(self, worst: int = 24):
        self.worst = worst
        self.order = count()  # of two mistakes equally bad, the later one stays

    def on_validation_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.confusion = MulticlassConfusionMatrix(len(CLASSES)).to(module.device)
        self.mistakes: list[tuple[float, int, Tensor, str]] = []  # a heap: the mildest of the worst comes first

    def on_validation_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        images, targets = batch
        logits, known = outputs["logits"].float(), targets < SIDE_UNKNOWN
        self.confusion.update(logits[known], targets[known])  # on its device, where processes add theirs up
        logits, known, targets = logits.cpu(), known.cpu(), targets.cpu()
        losses = F.cross_entropy(logits, targets.where(known, 0), reduction="none")
        for i in (known & (logits.argmax(1) != targets)).nonzero()[:, 0].tolist():
            told = logits[i].softmax(0)
            title = f"{CLASSES[targets[i]]}, told {CLASSES[told.argmax()]} ({told.max():.0%})"
            # A copy: a part of the batch would keep all of it.
            mistake = (losses[i].item(), next(self.order), images[i].cpu().clone(), title)
            (heapq.heappush if len(self.mistakes) < self.worst else heapq.heappushpop)(self.mistakes, mistake)

    def on_validation_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        loggers = [logger for logger in trainer.loggers if isinstance(logger, (TensorBoardLogger, WandbLogger))]
        if trainer.sanity_checking or not loggers:
            return
        matrix: Any = self.confusion.plot(labels=list(CLASSES))[0]
        if trainer.world_size > 1:
            shares: Any = [None] * trainer.world_size
            torch.distributed.all_gather_object(shares, self.mistakes)
            self.mistakes = heapq.nlargest(self.worst, chain(*shares), lambda mistake: mistake[:2])
        for name, figure in (("val/confusion", matrix), ("val/worst", self.draw())):
            for logger in loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_figure(name, figure, trainer.global_step, close=False)
                else:
                    logger.log_image(name, [figure], trainer.global_step)
            plt.close(figure)

    def draw(self) -> Figure:
        """The mistakes side by side, the worst first."""
        columns = 6
        figure, axes = plt.subplots(-(-self.worst // columns), columns, figsize=(12, 2.2 * -(-self.worst // columns)))
        for axis in axes.flat:
            axis.axis("off")
        for axis, (_, _, image, title) in zip(axes.flat, sorted(self.mistakes, key=lambda m: -m[0]), strict=False):
            picture = (plain(image[None], 128)[0].permute(1, 2, 0) + 1) / 2
            axis.imshow(picture.clamp(0, 1))
            axis.set_title(title, fontsize=8)
        return figure
