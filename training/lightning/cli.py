"""The command line of a training."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

BASE_CONFIG = Path(__file__).parents[1] / "configs/base.yaml"
RUN_FOLDER = "trainer.default_root_dir"


class TrainingCLI(LightningCLI):
    """Lightning's command line, with named callbacks and loggers, so that each of their values has a flag.

    Every training starts from configs/base.yaml and writes to one folder, `--trainer.default_root_dir`: best.ckpt
    (`checkpoint`), last.ckpt to resume from (`last`), and metrics in logs/ (CSV) and tensorboard/. Loggers of
    `--trainer.logger` are added to these two.
    """

    def __init__(
        self,
        module: type[LightningModule],
        data: type[LightningDataModule],
        args: list[str],
        callbacks: Sequence[Callback] = (),
        prog: str = "python -m training",
    ):
        warnings.filterwarnings("ignore", "LightningCLI's args")  # `args` may be a part of the command line
        base = {"default_config_files": [str(BASE_CONFIG)]}
        super().__init__(
            module,
            data,
            args=args,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"callbacks": list(callbacks)},
            parser_kwargs={"prog": prog, "fit": base, "validate": base},
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        # Not `test` and `predict`: `python -m training evaluate` does that, with the exported model.
        return {name: LightningCLI.subcommands()[name] for name in ("fit", "validate")}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        # Not `save_last` of `checkpoint`: it writes only when the best changes.
        parser.add_lightning_class_args(ModelCheckpoint, "last")
        # Stops where the loss is not finite, and never before: the learning rate falls until the last epoch.
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.add_lightning_class_args(EMAWeightAveraging, "ema")
        parser.add_class_arguments(CSVLogger, "csv_logger")
        parser.add_class_arguments(TensorBoardLogger, "tensorboard_logger")
        for target in ("checkpoint.dirpath", "last.dirpath", "csv_logger.save_dir", "tensorboard_logger.save_dir"):
            parser.link_arguments(RUN_FOLDER, target)
        parser.set_defaults({"trainer.precision": precision()})

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config: Any = self.config_init[str(self.subcommand)]
        loggers = config["trainer"]["logger"] or []
        loggers = loggers if isinstance(loggers, list) else [loggers]
        loggers = [*loggers, config["csv_logger"], config["tensorboard_logger"]]
        return super().instantiate_trainer(logger=loggers, **kwargs)


def precision() -> str:
    """Return bf16-mixed on a GPU that supports it, else 32-true.

    Some CPUs support bfloat16 too, but take two to three times as long for depthwise convolutions.
    """
    supported = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if supported else "32-true"
