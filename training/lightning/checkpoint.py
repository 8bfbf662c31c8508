"""Reads what a training left. Whatever is wrong with a file is told in words: it was named by a user."""

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule

from training.errors import BadData


def load_checkpoint(file: Path, command: str) -> dict[str, Any]:
    """What is in a checkpoint: weights under "state_dict", what it says of itself under "about".

    Raises:
        BadData: there is no such file, which `python -m training {command}` would leave; or it is none of a training.
    """
    if not file.is_file():
        raise BadData(f"{file}: no such file. Train one: python -m training {command}")
    try:
        checkpoint: Any = torch.load(file, map_location="cpu", weights_only=False)
        if {"about", "state_dict"} <= set(checkpoint):
            return checkpoint
    except Exception as error:  # pickle knows a dozen kinds of them
        raise BadData(f"{file}: damaged, or no checkpoint ({type(error).__name__}). Train anew.") from error
    raise BadData(f"{file}: no checkpoint of a training of Handful's.")


def load_network(file: Path, kind: type[LightningModule]) -> Any:
    """The network in a checkpoint that `load_checkpoint` reads.

    Raises:
        BadData: `kind` trains another.
    """
    try:
        return kind.load_from_checkpoint(file, map_location="cpu", weights_only=False).network
    except Exception as error:  # of what builds it, or of weights that do not fit in
        raise BadData(
            f"{file}: not what a training of the {kind.__name__.removesuffix('Module').lower()} left."
        ) from error
