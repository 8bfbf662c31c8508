"""What both trainings share: the optimiser, means over all that is measured, what a checkpoint says of itself."""

import math
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric

from training.errors import BadData
from training.lightning.checkpoint import load_checkpoint

# What a checkpoint says that still holds once its weights are others than those that were trained.
KEPT = ("pytorch-lightning_version", "state_dict", "hparams_name", "hyper_parameters", "about")
# Of Lightning's settings, those that also change what is learned.
LIMITS = ("max_steps", "limit_train_batches", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm")
PACKAGES = ("torch", "lightning", "numpy", "opencv-python-headless")


class Module(LightningModule):
    """Trains with AdamW, its rate following `one_cycle`, and keeps in its checkpoints where they come from."""

    def __init__(self, network: nn.Module, learning_rate: float, weight_decay: float, start: Path | None):
        super().__init__()
        # As given on the command line: a checkpoint can then build its own network again, whatever it started from.
        self.save_hyperparameters(ignore=["start"])
        self.network: Any = network.to(memory_format=torch.channels_last)
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.begun: dict[str, Any] = {}  # what the checkpoint that it starts from says of itself
        if start:
            checkpoint = load_checkpoint(start, "fit --config training/configs/classifier.yaml")
            try:
                self.load_state_dict(checkpoint["state_dict"])
            except RuntimeError as error:
                raise BadData(f"{start}: of another network than the one to train.") from error
            self.begun = checkpoint["about"]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(self.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        steps = self.trainer.estimated_stepping_batches
        # Not torch's OneCycleLR: that one restores its length too, and a training could not be prolonged.
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step / steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        self.commit = commit()  # now: files may change while it trains

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        checkpoint["about"] = {
            "training commit": self.commit,
            # What it started from has learned from its own pictures.
            "data": list(dict.fromkeys([*self.begun.get("data", []), *data.credits])),
            "versions": f"python {platform.python_version()}, " + ", ".join(f"{p} {version(p)}" for p in PACKAGES),
            "config": settings(self.trainer, data.pictures, self.begun),
        }
        checkpoint["begun"] = self.begun

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        # Whoever goes on need not name again what it once started from.
        self.begun = checkpoint.get("begun", self.begun)


class WeightedMeans(Metric):
    """The sum of K means, each over all batches of all processes. It is given totals and counts, (K,) or numbers.

    The mean of batches' means would be another one: not every batch holds as many hands.
    """

    totals: Tensor
    counts: Tensor

    def __init__(self, k: int = 1):
        super().__init__()
        for name in ("totals", "counts"):
            self.add_state(name, torch.zeros(k), dist_reduce_fx="sum")

    def update(self, totals: Tensor | int, counts: Tensor | int) -> None:
        self.totals += totals
        self.counts += counts

    def compute(self) -> Tensor:
        return weighted_mean(self.totals, self.counts)


def weighted_mean(totals: Tensor, counts: Tensor) -> Tensor:
    """The sum of K means; the mean of nothing is 0."""
    return (totals / counts.clamp_min(1)).sum()


def one_cycle(progress: float) -> float:
    """Share of the highest learning rate at 0 … 1 of a training: up for a quarter, then down, along cosines."""
    if progress < 0.25:
        return 0.04 + 0.48 * (1 - math.cos(4 * math.pi * progress))
    return 0.0005 + 0.49975 * (1 + math.cos(math.pi * (progress - 0.25) / 0.75))


def settings(trainer: Trainer, pictures: dict[str, Any], begun: dict[str, Any]) -> str:
    """What was set for a training, as YAML: all that decides what is learned, not where it is written.

    With it, how many `pictures` its sources held. Of what it started from, `begun`, the same stands in place of a path
    that nobody else has.
    """
    (saved,) = (callback for callback in trainer.callbacks if isinstance(callback, SaveConfigCallback))  # type: ignore[attr-defined]
    told = yaml.safe_load(saved.parser.dump(saved.config, skip_none=True))
    kept = {key: told[key] for key in ("seed_everything", "model", "data", "ema")}
    del kept["data"]["folder"]
    if begun:
        kept["model"]["start"] = {"training commit": begun["training commit"], **yaml.safe_load(begun["config"])}
    trained = {"max_epochs": trainer.max_epochs, "precision": trainer.precision, "devices": trainer.world_size}
    trained |= {key: told["trainer"][key] for key in LIMITS if key in told["trainer"]}
    trained["patience"] = told["early_stopping"]["patience"]
    kept |= {"trainer": trained, "pictures": pictures}
    return yaml.safe_dump(kept, sort_keys=False, default_flow_style=None, width=100)


def commit() -> str:
    """The commit of the training code that runs, marked where it differs from that; "unknown" outside git.

    HANDFUL_COMMIT tells it there, as in the image of training/Dockerfile.
    """
    try:
        head, changes = (
            subprocess.run(["git", *what], capture_output=True, text=True, check=True).stdout.strip()
            for what in (
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "-uno", "--", "training", "handful"],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("HANDFUL_COMMIT") or "unknown"
    return f"{head}-dirty" if changes else head
