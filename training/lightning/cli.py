"""The command line of a training."""

import warnings
from collections.abc import Sequence

import torch
from lightning import Callback, LightningDataModule, LightningModule
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI


class CLI(LightningCLI):
    """Lightning's own command line, with the callbacks named, so that each value has its own flag.

    `checkpoint` keeps the weights that measure best, `last` those of the last epoch, to go on from.
    """

    def __init__(
        self,
        module: type[LightningModule],
        data: type[LightningDataModule],
        args: list[str],
        callbacks: Sequence[Callback] = (),
        prog: str = "python -m training",
    ):
        warnings.filterwarnings("ignore", "LightningCLI's args")  # they are those of the command line, or a part
        super().__init__(
            module,
            data,
            args=args,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"callbacks": list(callbacks)},
            parser_kwargs={"prog": prog},
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        # What is exported is what is tested.
        return {name: LightningCLI.subcommands()[name] for name in ("fit", "validate")}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        # Not `save_last` of the former: that one is written only when the best is.
        parser.add_lightning_class_args(ModelCheckpoint, "last")
        parser.link_arguments("checkpoint.dirpath", "last.dirpath")
        parser.set_defaults({"last.filename": "last", "last.enable_version_counter": False})
        # The rate falls until the end, so no training ends before, but one whose loss is no number any more.
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.set_defaults({"early_stopping.monitor": "val/loss", "early_stopping.patience": 10**6})
        parser.add_lightning_class_args(EMAWeightAveraging, "ema")
        parser.set_defaults({"trainer.precision": precision(), "trainer.default_root_dir": "runs"})


def precision() -> str:
    """bf16-mixed on a GPU that computes in it, else 32-true.

    Some CPUs compute in bf16 too, but take two to three times as long for filters of a single channel.
    """
    quick = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if quick else "32-true"
