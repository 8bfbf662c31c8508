"""What both trainings share: optimizer, learning rate, metrics over a whole epoch, provenance in checkpoints."""

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

# What `prune` and `average` copy from a checkpoint. The rest, such as the optimizer's state, fits the old weights only.
CHECKPOINT_KEYS = ("pytorch-lightning_version", "state_dict", "hparams_name", "hyper_parameters", "provenance")
# Options of Lightning's trainer that affect the result.
TRAINER_KEYS = (
    *("max_steps", "limit_train_batches", "accumulate_grad_batches"),
    *("gradient_clip_val", "gradient_clip_algorithm"),
)
PACKAGES = ("torch", "lightning", "numpy", "opencv-python-headless")


class TrainingModule(LightningModule):
    """Train with AdamW and the `one_cycle` schedule, and save in each checkpoint how it was trained.

    Raises:
        BadData: `start` is no checkpoint, or one of another network.
    """

    def __init__(self, network: nn.Module, learning_rate: float, weight_decay: float, start: Path | None):
        super().__init__()
        # Saved as given on the command line, so that a checkpoint can rebuild its network, whatever it started from.
        self.save_hyperparameters(ignore=["start"])
        self.network: Any = network.to(memory_format=torch.channels_last)
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.initial_credits: Any = getattr(network, "credits", [])  # of weights from an exported model
        self.parent: dict[str, Any] = {}  # provenance of the initial weights
        if start:
            checkpoint = load_checkpoint(start, "fit --config training/configs/classifier.yaml")
            try:
                self.load_state_dict(checkpoint["state_dict"])
            except RuntimeError as error:
                raise BadData(f"{start}: weights of another network than the one to train.") from error
            self.parent = checkpoint["provenance"]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        learned = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learned, self.learning_rate, weight_decay=self.weight_decay)
        steps = self.trainer.estimated_stepping_batches
        # Not torch's OneCycleLR: its state includes its length, so a resumed training could not be prolonged.
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step / steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        self.commit = git_commit()  # now: files may change during training

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        checkpoint["provenance"] = {
            "training commit": self.commit,
            # The initial weights were trained on their own data.
            "data": list(dict.fromkeys([*self.initial_credits, *self.parent.get("data", []), *data.credits])),
            "versions": f"python {platform.python_version()}, " + ", ".join(f"{p} {version(p)}" for p in PACKAGES),
            "config": training_config(self.trainer, data.source_metadata, self.parent),
        }
        checkpoint["parent"] = self.parent

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        # A resumed training need not be given `start` again.
        self.parent = checkpoint.get("parent", self.parent)


class WeightedMeans(Metric):
    """The sum of K means, each over all samples of an epoch, in all processes.

    It is updated with totals and counts, numbers or (K,). The mean of the batches' means would differ: batches do not
    hold equally many hands.
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
    """Return the sum of K means of totals (K,) over counts (K,); the mean of nothing is 0."""
    return (totals / counts.clamp_min(1)).sum()


def one_cycle(progress: float) -> float:
    """Return the share of the peak learning rate at 0 … 1 of a training: up for a quarter, then down, along cosines."""
    if progress < 0.25:
        return 0.04 + 0.48 * (1 - math.cos(4 * math.pi * progress))
    return 0.0005 + 0.49975 * (1 + math.cos(math.pi * (progress - 0.25) / 0.75))


def training_config(trainer: Trainer, pictures: dict[str, Any], parent: dict[str, Any]) -> str:
    """Return all settings that affect the result of a training as YAML, without folders.

    Args:
        trainer: of the training.
        pictures: how many pictures each source holds; added to the settings.
        parent: provenance of the initial weights, which replaces the path of `start`: nobody else has that file.
    """
    (callback,) = (callback for callback in trainer.callbacks if isinstance(callback, SaveConfigCallback))  # type: ignore[attr-defined]
    settings = yaml.safe_load(callback.parser.dump(callback.config, skip_none=True))
    config = {key: settings[key] for key in ("seed_everything", "model", "data", "ema")}
    del config["data"]["folder"]
    if parent:
        config["model"]["start"] = {"training commit": parent["training commit"], **yaml.safe_load(parent["config"])}
    config["trainer"] = {
        "max_epochs": trainer.max_epochs,
        "precision": trainer.precision,
        "devices": trainer.world_size,
        **{key: settings["trainer"][key] for key in TRAINER_KEYS if key in settings["trainer"]},
        "patience": settings["early_stopping"]["patience"],
    }
    config["pictures"] = pictures
    return yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=100)


def git_commit() -> str:
    """Return the commit of the running training code, with "-dirty" where files differ from it.

    Outside a git checkout it is the environment variable HANDFUL_COMMIT, which training/Dockerfile sets, or "unknown".
    """
    try:
        head, changes = (
            subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
            for arguments in (
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "-uno", "--", "training", "handful"],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("HANDFUL_COMMIT") or "unknown"
    return f"{head}-dirty" if changes else head
