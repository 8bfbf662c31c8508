"""Average the weights of several trainings: better on strangers than each (Wortsman et al., 2022, arXiv:2203.05482).

Each must have continued one of the others: the mean of networks that were trained apart is of no use.
"""

from pathlib import Path
from typing import Any

import torch
import yaml

from training.errors import BadData
from training.export.export import load_exported
from training.files import atomic_write
from training.lightning.checkpoint import load_checkpoint
from training.lightning.classifier import ClassifierModule
from training.lightning.detector import DetectorModule
from training.lightning.module import CHECKPOINT_KEYS

COMMAND = "fit --config training/configs/classifier.yaml"


def average(
    checkpoints: list[Path], output: Path = Path("runs/average.ckpt"), last_weight: float | None = None
) -> None:
    """Average the weights of trainings into a checkpoint that `prune` and `export` accept like one training's.

    Args:
        checkpoints: checkpoints of `python -m training fit` or `detector fit`, in the order of training. All but the
            last may be exported models, which the last continued: what it knew before is kept in part (Wortsman et al.,
            2022, arXiv:2109.01903).
        output: checkpoint with the mean, and the provenance of all.
        last_weight: of the last one in the mean, 0 … 1; the others share the rest. By default all weigh the same.

    Raises:
        BadData, BadModel: fewer than two, a file is missing or damaged, or they are of different networks.
    """
    if len(checkpoints) < 2:
        raise BadData('Two checkpoints or more can be averaged: python -m training average "[FIRST, SECOND]"')
    last = load_checkpoint(checkpoints[-1], COMMAND)
    trainings = [*(load_part(file, last) for file in checkpoints[:-1]), last]
    shapes = [{name: weight.shape for name, weight in one["state_dict"].items()} for one in trainings]
    for file, own_shapes in zip(checkpoints, shapes, strict=True):
        if own_shapes != shapes[-1]:
            raise BadData(f"{file} and {checkpoints[-1]} are of different networks and cannot be averaged.")
    share = 1 / len(trainings) if last_weight is None else last_weight
    others = (1 - share) / (len(trainings) - 1)
    shares = [others] * (len(trainings) - 1) + [share]
    # As doubles and back: batch norms count their batches in whole numbers.
    last["state_dict"] = {
        name: torch.stack(
            [part * one["state_dict"][name].double() for part, one in zip(shares, trainings, strict=True)]
        )
        .sum(0)
        .to(weight.dtype)
        for name, weight in last["state_dict"].items()
    }
    configs = [yaml.safe_load(one["provenance"]["config"]) for one in trainings]
    *earlier, config = configs
    config["average"] = [
        {"training commit": one["provenance"]["training commit"], **own_config}
        for one, own_config in zip(trainings[:-1], earlier, strict=True)
    ]
    config["average weight"] = share
    last["provenance"] |= {
        "config": yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=100),
        "data": list(dict.fromkeys(credit for one in trainings for credit in one["provenance"]["data"])),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as part:
        torch.save({key: last[key] for key in CHECKPOINT_KEYS}, part)


def load_part(file: Path, last: dict[str, Any]) -> dict[str, Any]:
    """Return weights and provenance of a checkpoint, or of the network in an exported model that `last` is one of.

    Raises:
        BadData, BadModel: the file is missing or damaged.
    """
    if file.suffix != ".onnx":
        return load_checkpoint(file, COMMAND)
    kind = ClassifierModule if "network.presence.weight" in last["state_dict"] else DetectorModule
    network, provenance = load_exported(file, kind)
    return {
        "state_dict": {f"network.{name}": weight for name, weight in network.state_dict().items()},
        "provenance": provenance,
    }
