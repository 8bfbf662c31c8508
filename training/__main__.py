"""Everything that makes the model, one command each:

python -m training data                                     fetch and check the pictures
python -m training finder fit --config training/finder.yaml train the hand finder
python -m training fit --config training/handful.yaml       train the classifier (also: validate)
python -m training export                                   both checkpoints to one ONNX file
python -m training evaluate                                 measure the ONNX file
"""

import sys
from typing import Any

import torch
from jsonargparse import auto_cli
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from training.classifier import Classifier
from training.data import Hands, prepare
from training.data.frames import BadData
from training.data.scenes import Frames
from training.evaluate import evaluate
from training.export import export
from training.finder import Finder

COMMANDS = {"data": prepare, "export": export, "evaluate": evaluate}


class CLI(LightningCLI):
    """Lightning's own command line, with the callbacks named, so that each value has its own flag."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.add_lightning_class_args(EMAWeightAveraging, "ema")
        parser.set_defaults({"trainer.precision": precision(), "trainer.default_root_dir": "runs"})


def precision() -> str:
    """bf16-mixed where that is quicker than float32, else 32-true."""
    if torch.cuda.is_available():
        quick = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        quick = torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if quick else "32-true"


def main(arguments: list[str]) -> None:
    command: Any = COMMANDS.get(arguments[0]) if arguments else None
    try:
        if arguments[:1] == ["finder"]:
            CLI(Finder, Frames, args=arguments[1:], save_config_kwargs={"overwrite": True})
        elif command:
            auto_cli(command, args=arguments[1:], as_positional=False)
        else:
            CLI(Classifier, Hands, args=arguments, save_config_kwargs={"overwrite": True})
    except BadData as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
