"""Average the weights of several trainings: better on strangers than each (Wortsman et al., 2022, arXiv:2203.05482).

Each must have continued one of the others: the mean of networks that were trained apart is of no use.
"""

from pathlib import Path

import torch
import yaml

from training.errors import BadData
from training.files import atomic_write
from training.lightning.checkpoint import load_checkpoint
from training.lightning.module import CHECKPOINT_KEYS


def average(checkpoints: list[Path], output: Path = Path("runs/average.ckpt")) -> None:
    """Average the weights of trainings into a checkpoint that `prune` and `export` accept like one training's.

    Args:
        checkpoints: checkpoints of `python -m training fit` or `detector fit`, in the order of training.
        output: checkpoint with the mean, and the provenance of all.

    Raises:
        BadData: fewer than two, a file is missing or damaged, or they are of different networks.
    """
    if len(checkpoints) < 2:
        raise BadData('Two checkpoints or more can be averaged: python -m training average "[FIRST, SECOND]"')
    trainings = [load_checkpoint(file, "fit --config training/configs/classifier.yaml") for file in checkpoints]
    *_, last = trainings
    shapes = [{name: weight.shape for name, weight in one["state_dict"].items()} for one in trainings]
    for file, own_shapes in zip(checkpoints, shapes, strict=True):
        if own_shapes != shapes[-1]:
            raise BadData(f"{file} and {checkpoints[-1]} are of different networks and cannot be averaged.")
    # As doubles and back: batch norms count their batches in whole numbers.
    last["state_dict"] = {
        name: torch.stack([one["state_dict"][name].double() for one in trainings]).mean(0).to(weight.dtype)
        for name, weight in last["state_dict"].items()
    }
    configs = [yaml.safe_load(one["provenance"]["config"]) for one in trainings]
    *earlier, config = configs
    config["average"] = [
        {"training commit": one["provenance"]["training commit"], **own_config}
        for one, own_config in zip(trainings[:-1], earlier, strict=True)
    ]
    last["provenance"] |= {
        "config": yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=100),
        "data": list(dict.fromkeys(credit for one in trainings for credit in one["provenance"]["data"])),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as part:
        torch.save({key: last[key] for key in CHECKPOINT_KEYS}, part)
