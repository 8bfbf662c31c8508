"""Load checkpoints that a user names, and explain in one line what is wrong with a file."""

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule

from training.errors import BadData


def load_checkpoint(file: Path, command: str) -> dict[str, Any]:
    """Load a checkpoint: weights under "state_dict", how they were trained under "provenance".

    Args:
        file: written by `TrainingModule`, `prune` or `average`.
        command: what creates such a file, after `python -m training`; part of the error message.

    Raises:
        BadData: the file is missing, damaged, or no checkpoint of Handful.
    """
    if not file.is_file():
        raise BadData(f"{file}: no such file. Train one: python -m training {command}")
    try:
        checkpoint: Any = torch.load(file, map_location="cpu", weights_only=False)
        if {"provenance", "state_dict"} <= set(checkpoint):
            return checkpoint
    except Exception as error:  # unpickling raises a dozen types
        raise BadData(f"{file}: damaged, or not a checkpoint ({type(error).__name__}). Train again.") from error
    raise BadData(f"{file}: not a checkpoint of Handful.")


def load_network(file: Path, module: type[LightningModule]) -> Any:
    """Load the network from a checkpoint that `load_checkpoint` accepts.

    Raises:
        BadData: it holds another network than `module` trains.
    """
    try:
        return module.load_from_checkpoint(file, map_location="cpu", weights_only=False).network
    except Exception as error:  # from building the network, or from weights that do not match it
        raise BadData(f"{file}: not a {module.__name__.removesuffix('Module').lower()} checkpoint.") from error
