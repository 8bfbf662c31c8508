"""A trained detector made narrow: less time for hardly a difference, and nothing is learned anew.

Inside, the blocks of a network are six times as wide as between (see `training.networks.backbone`), and much of that is
redundant. Channels are left out one after the other, always the one that costs the block's output least once the
others make up for it, by least squares over varied pictures: optimal brain surgery (Hassibi and Stork, 1993) on
channels (He et al., 2017, arXiv:1707.06168). A block makes up for what the blocks before it lost, too.
"""

import copy
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from training.data.scenes import SceneDataModule
from training.files import atomic_write
from training.lightning.checkpoint import load_checkpoint, load_network
from training.lightning.detector import DetectorModule
from training.lightning.module import CHECKPOINT_KEYS, git_commit
from training.networks.backbone import Block, fill, fold_batchnorm, normalize
from training.networks.detector import HandDetector

UNIT = 16  # channels that are left out together: processors compute so many at once
PLACES = 32  # of a picture, by which channels are chosen
# What a channel costs in a place, in multiplications: to be written and read, and for each one of its own filter, which
# takes longer than one that mixes channels. Measured with onnxruntime, roughly.
MEMORY, FILTERING = 16, 4
BATCH = 64


def prune(
    detector: Path = Path("runs/detector/best.ckpt"),
    folder: Path = Path("data"),
    output: Path = Path("runs/pruned.ckpt"),
    share: float = 0.7,
    seen: int = 1024,
) -> None:
    """Make a trained detector narrow. The classifier stays as it is: it would count people whom it never saw less well.

    Args:
        detector: what `python -m training detector fit` left.
        folder: where the sources lie that it was trained with.
        output: checkpoint of the narrow detector.
        share: of the time, as estimated, that its blocks may still take.
        seen: frames of its training that it is shown.

    Raises:
        BadData: `detector` is missing, damaged, or no detector; or what it was trained with is not there.
    """
    checkpoint = load_checkpoint(detector, "detector fit --config training/configs/detector.yaml")
    wide = fold_batchnorm(load_network(detector, DetectorModule))
    torch.manual_seed(1)
    config = yaml.safe_load(checkpoint["provenance"]["config"])
    data = SceneDataModule(**config["data"] | {"folder": str(folder), "batch_size": BATCH, "workers": 0})
    data.prepare_data()
    data.setup("fit")
    shown = torch.cat([frames for frames, _ in islice(data.train_dataloader(), -(-seen // BATCH))])[:seen]
    narrow = pruned(wide, normalize(shown).contiguous(memory_format=torch.channels_last), share)
    checkpoint["hyper_parameters"]["network"] = narrow
    checkpoint["state_dict"] = {f"network.{name}": value for name, value in narrow.state_dict().items()}
    config["prune"] = {"share": share, "seen": seen, "commit": git_commit()}
    checkpoint["provenance"]["config"] = yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=100)
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as part:
        torch.save({key: checkpoint[key] for key in CHECKPOINT_KEYS}, part)


@torch.no_grad()
def pruned(wide: HandDetector, seen: Tensor, share: float) -> HandDetector:
    """A copy of a folded detector whose blocks take `share` of the time, with fewer channels inside."""
    wide = wide.to(memory_format=torch.channels_last)
    narrow = copy.deepcopy(wide)
    before = wide.stride8[:2]  # stem and first stage, which is not wider inside
    start = torch.cat([before(part) for part in seen.split(BATCH)])
    there: list[int] = []
    prices: list[float] = []
    losses: list[np.ndarray] = []
    inputs = start
    for block in blocks(wide):
        widens, filters, narrows = convolutions(block)
        told, after = moments(block, inputs, block, inputs)
        area, smaller = inputs[0, 0].numel(), after[0, 0].numel()
        mixing = area * widens.in_channels + smaller * narrows.out_channels
        prices.append(mixing + FILTERING * smaller * filters.weight[0].numel() + MEMORY * (area + smaller))
        there.append(filters.out_channels)
        losses.append(obs_prune_order(*told, UNIT)[1])
        inputs = after
    exact = inputs = start
    kept = budget(there, prices, losses, share)
    for teacher, block, channels in zip(blocks(wide), blocks(narrow), kept, strict=True):
        told, exact = moments(block, inputs, teacher, exact)
        leave_out(block, obs_prune_order(*told, channels)[0], *told[:2])
        inputs = torch.cat([block(part) for part in inputs.split(BATCH)])
    return narrow


def blocks(detector: HandDetector) -> list[Block]:
    """All blocks that are wider inside."""
    return [
        block
        for stage in [*detector.stride8, *detector.stride16][2:]
        for block in stage.children()
        if isinstance(block, Block)
    ]


def convolutions(block: Block) -> tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d]:
    """The convolutions of a block: what widens, filters each channel, and narrows."""
    widens, filters, narrows = (part for part in block.body.modules() if isinstance(part, nn.Conv2d))
    return widens, filters, narrows


def moments(
    block: Block, inputs: Tensor, teacher: Block, exact: Tensor
) -> tuple[tuple[np.ndarray, np.ndarray, float], Tensor]:
    """What least squares need to make `block`, of `inputs`, say what `teacher` says of `exact`, and what that is.

    Of the C channels inside and a constant: their products' means with each other, (C + 1, C + 1), and with what they
    should become, (C + 1, outputs); and the variance of that. From places taken at random.
    """
    generator = torch.Generator().manual_seed(0)
    inside: list[Tensor] = []
    wanted: list[Tensor] = []
    after: list[Tensor] = []
    for part, exact_part in zip(inputs.split(BATCH), exact.split(BATCH), strict=True):
        after.append(teacher(exact_part))
        channels, missing = block.body[:-1](part), after[-1] - part if block.added else after[-1]
        rows = torch.randint(channels[:, 0].numel(), (PLACES * len(part),), generator=generator)
        for pictures, sample in (channels, inside), (missing, wanted):
            sample.append(pictures.permute(0, 2, 3, 1).flatten(0, 2)[rows].double())
    given, target = torch.cat(inside), torch.cat(wanted)
    given = torch.cat([given, torch.ones(len(given), 1)], 1)
    variance = target.var(0, correction=0).sum().item()
    return ((given.T @ given / len(given)).numpy(), (given.T @ target / len(given)).numpy(), variance), torch.cat(after)


def ridge(products: np.ndarray) -> np.ndarray:
    """Products (C + 1, C + 1) a little less alike, so that channels that say the same can be told apart."""
    return products + np.diag([*np.full(len(products) - 1, 1e-6 * np.trace(products) / len(products)), 0])


def obs_prune_order(
    products: np.ndarray, wanted: np.ndarray, variance: float, keep: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Which of C channels can best be left out, the others making up for it, until `keep` are left: (C - keep,).

    In that order, and what it costs: (C - keep + 1,), the shares of the variance that are lost with 0, 1, 2 … left out.
    """
    # The constant, which always stays, comes first.
    inverse = np.linalg.inv(np.roll(ridge(products), 1, (0, 1)))
    weights = inverse @ np.roll(wanted, 1, 0)
    there, order, losses = np.arange(len(products) - 1), [], [0.0]
    while (last := len(there)) > keep:
        costs = (weights[1:] ** 2).sum(1) / np.diag(inverse)[1:]
        out = int(costs.argmin())
        order.append(there[out])
        losses.append(losses[-1] + costs[out] / variance)
        column = inverse[:, out + 1] / inverse[out + 1, out + 1]
        weights -= np.outer(column, weights[out + 1])
        inverse -= np.outer(column, inverse[out + 1])
        # The last one takes its place: with each that is out, there is less to compute.
        there[out], weights[out + 1], inverse[out + 1] = there[-1], weights[-1], inverse[-1]
        inverse[:, out + 1] = inverse[:, -1]
        there, weights, inverse = there[:-1], weights[:-1], inverse[:last, :last]
    return np.array(order, int), np.array(losses)


def budget(there: list[int], prices: list[float], losses: list[np.ndarray], share: float) -> list[int]:
    """How many channels each block keeps: those go first that lose least for the time that they take."""
    kept = list(there)

    def loss(block: int) -> float:
        out = there[block] - kept[block]
        return (losses[block][out + UNIT] - losses[block][out]) / prices[block]

    while np.dot(kept, prices) > share * np.dot(there, prices) and max(kept) > UNIT:
        kept[min((block for block in range(len(kept)) if kept[block] > UNIT), key=loss)] -= UNIT
    return kept


def leave_out(block: Block, channels: np.ndarray, products: np.ndarray, wanted: np.ndarray) -> None:
    """Take channels out of a block, and let the others make up for them."""
    widens, filters, narrows = convolutions(block)
    channels = np.setdiff1d(np.arange(len(products) - 1), channels)
    and_constant = np.append(channels, len(products) - 1)
    solved = np.linalg.solve(ridge(products)[np.ix_(and_constant, and_constant)], wanted[and_constant])
    for layer in (widens, filters):
        assert layer.bias is not None
        fill(layer, layer.weight[channels], layer.bias[channels])
    weights, biases = torch.from_numpy(solved[:-1].T).float(), torch.from_numpy(solved[-1]).float()
    fill(narrows, weights[:, :, None, None], biases)
