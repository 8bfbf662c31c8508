"""The mean of several trainings' weights: steadier on strangers than each (Wortsman et al., 2022, arXiv:2203.05482).

Each must have gone on from one of the others: of networks that learned apart, the mean is none.
"""

from pathlib import Path

import torch
import yaml

from training.errors import BadData
from training.files import atomic_write
from training.lightning.checkpoint import load_checkpoint
from training.lightning.module import CHECKPOINT_KEYS


def average(checkpoints: list[Path], output: Path = Path("runs/average.ckpt")) -> None:
    """Average the weights of trainings, in a checkpoint that `slim` and `export` take as they take one training's.

    Args:
        checkpoints: what `python -m training fit` or `detector fit` left, in the order in which they were trained.
        output: checkpoint with the mean. It says of itself what the last one says, and how the others were trained.

    Raises:
        BadData: there are not two, a file is missing, damaged, or not of the same network as the others.
    """
    if len(checkpoints) < 2:
        raise BadData('A mean is of two checkpoints or more: python -m training average "[FIRST, SECOND]"')
    trained = [load_checkpoint(file, "fit --config training/configs/classifier.yaml") for file in checkpoints]
    *_, mean = trained
    shapes = [{name: weight.shape for name, weight in one["state_dict"].items()} for one in trained]
    for file, own in zip(checkpoints, shapes, strict=True):
        if own != shapes[-1]:
            raise BadData(f"{file} and {checkpoints[-1]} are of different networks: they have no mean.")
    # By way of floats and back: batch norms count their batches in whole numbers.
    mean["state_dict"] = {
        name: torch.stack([one["state_dict"][name].double() for one in trained]).mean(0).to(last.dtype)
        for name, last in mean["state_dict"].items()
    }
    configs = [yaml.safe_load(one["provenance"]["config"]) for one in trained]
    *before, config = configs
    config["average"] = [
        {"training commit": one["provenance"]["training commit"], **of_it}
        for one, of_it in zip(trained[:-1], before, strict=True)
    ]
    mean["provenance"] |= {
        "config": yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=100),
        "data": list(dict.fromkeys(credit for one in trained for credit in one["provenance"]["data"])),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as part:
        torch.save({key: mean[key] for key in CHECKPOINT_KEYS}, part)
