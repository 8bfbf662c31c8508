"""Prune the detector: fewer channels, less time, nearly the same outputs, and no further training.

Inside, the blocks of a network are six times as wide as between (see `training.networks.backbone`), and much of that is
redundant. Channels are removed one after the other, always the one that costs the block's output least once the others
compensate for it, by least squares over augmented frames: optimal brain surgeon (Hassibi and Stork, 1993) on channels
(He et al., 2017, arXiv:1707.06168). A block also compensates for what the blocks before it lost.
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
from training.networks.backbone import Block, fold_batchnorm, normalize, set_weights
from training.networks.detector import HandDetector

CHANNEL_GROUP = 16  # channels that are removed together: processors compute so many at once
SAMPLES_PER_FRAME = 32  # positions of a frame that the least squares use
# Cost of a channel at a position, in multiplications: writing and reading it, and each tap of its depthwise filter,
# which takes longer than a multiplication of a pointwise one. Roughly measured with onnxruntime.
MEMORY_COST, DEPTHWISE_COST = 16, 4
BATCH_SIZE = 64

# Of a block with C channels inside and a constant: the means of their products with each other, (C + 1, C + 1), and
# with the wanted output, (C + 1, outputs); the variance of that output.
Moments = tuple[np.ndarray, np.ndarray, float]


def prune(
    detector: Path = Path("runs/detector/best.ckpt"),
    folder: Path = Path("data"),
    output: Path = Path("runs/pruned.ckpt"),
    time_share: float = 0.7,
    frames: int = 1024,
) -> None:
    """Prune a trained detector. The classifier is not pruned: it would count strangers' fingers less well.

    Args:
        detector: checkpoint of `python -m training detector fit`.
        folder: folder of the data sets that it was trained on.
        output: checkpoint of the pruned detector.
        time_share: share of the time, as estimated, that its blocks may take.
        frames: training frames for the least squares.

    Raises:
        BadData: `detector` is missing, damaged or no detector, or its data sets are missing.
    """
    checkpoint = load_checkpoint(detector, "detector fit --config training/configs/detector.yaml")
    network = fold_batchnorm(load_network(detector, DetectorModule))
    torch.manual_seed(1)
    config = yaml.safe_load(checkpoint["provenance"]["config"])
    data = SceneDataModule(**config["data"] | {"folder": str(folder), "batch_size": BATCH_SIZE, "workers": 0})
    data.prepare_data()
    data.setup("fit")
    batches = islice(data.train_dataloader(), -(-frames // BATCH_SIZE))
    scenes = normalize(torch.cat([scenes for scenes, _ in batches])[:frames])
    pruned = prune_network(network, scenes.contiguous(memory_format=torch.channels_last), time_share)
    checkpoint["hyper_parameters"]["network"] = pruned
    checkpoint["state_dict"] = {f"network.{name}": value for name, value in pruned.state_dict().items()}
    config["prune"] = {"time_share": time_share, "frames": frames, "commit": git_commit()}
    checkpoint["provenance"]["config"] = yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=100)
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as part:
        torch.save({key: checkpoint[key] for key in CHECKPOINT_KEYS}, part)


@torch.no_grad()
def prune_network(network: HandDetector, frames: Tensor, time_share: float) -> HandDetector:
    """Return a copy of a folded detector whose blocks take `time_share` of the time, with fewer channels inside.

    Args:
        network: the detector, its batch norms folded.
        frames: (N, 3, h, w) float, -1 … 1.
        time_share: 0 … 1.
    """
    network = network.to(memory_format=torch.channels_last)
    pruned = copy.deepcopy(network)
    stem = network.stride8[:2]  # and the first stage, which is not wider inside
    first = torch.cat([stem(part) for part in frames.split(BATCH_SIZE)])
    widths: list[int] = []
    costs: list[float] = []
    losses: list[np.ndarray] = []
    inputs = first
    for block in blocks(network):
        expand, depthwise, project = convolutions(block)
        block_moments, outputs = moments(block, inputs, block, inputs)
        area, out_area = inputs[0, 0].numel(), outputs[0, 0].numel()
        pointwise = area * expand.in_channels + out_area * project.out_channels
        taps = depthwise.weight[0].numel()
        costs.append(pointwise + DEPTHWISE_COST * out_area * taps + MEMORY_COST * (area + out_area))
        widths.append(depthwise.out_channels)
        losses.append(obs_prune_order(*block_moments, CHANNEL_GROUP)[1])
        inputs = outputs
    exact = inputs = first
    kept = allocate(widths, costs, losses, time_share)
    for teacher, block, width in zip(blocks(network), blocks(pruned), kept, strict=True):
        block_moments, exact = moments(block, inputs, teacher, exact)
        remove_channels(block, obs_prune_order(*block_moments, width)[0], *block_moments[:2])
        inputs = torch.cat([block(part) for part in inputs.split(BATCH_SIZE)])
    return pruned


def blocks(detector: HandDetector) -> list[Block]:
    """Return all blocks that are wider inside."""
    return [
        block
        for stage in [*detector.stride8, *detector.stride16][2:]
        for block in stage.children()
        if isinstance(block, Block)
    ]


def convolutions(block: Block) -> tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d]:
    """Return the convolutions of a block: the one that expands, the depthwise one, the one that projects."""
    expand, depthwise, project = (part for part in block.body.modules() if isinstance(part, nn.Conv2d))
    return expand, depthwise, project


def moments(block: Block, inputs: Tensor, teacher: Block, exact: Tensor) -> tuple[Moments, Tensor]:
    """Compute what least squares need to make `block`, given `inputs`, output what `teacher` outputs given `exact`.

    From random positions. Returns the moments and the teacher's outputs.
    """
    generator = torch.Generator().manual_seed(0)
    sampled_channels: list[Tensor] = []
    sampled_targets: list[Tensor] = []
    outputs: list[Tensor] = []
    for part, exact_part in zip(inputs.split(BATCH_SIZE), exact.split(BATCH_SIZE), strict=True):
        outputs.append(teacher(exact_part))
        channels = block.body[:-1](part)
        targets = outputs[-1] - part if block.added else outputs[-1]
        rows = torch.randint(channels[:, 0].numel(), (SAMPLES_PER_FRAME * len(part),), generator=generator)
        for maps, samples in (channels, sampled_channels), (targets, sampled_targets):
            samples.append(maps.permute(0, 2, 3, 1).flatten(0, 2)[rows].double())
    channels, targets = torch.cat(sampled_channels), torch.cat(sampled_targets)
    channels = torch.cat([channels, torch.ones(len(channels), 1)], 1)
    variance = targets.var(0, correction=0).sum().item()
    products = (channels.T @ channels / len(channels)).numpy()
    return (products, (channels.T @ targets / len(channels)).numpy(), variance), torch.cat(outputs)


def ridge(products: np.ndarray) -> np.ndarray:
    """Regularize products (C + 1, C + 1), all but the constant's, so that equal channels can be solved for."""
    return products + np.diag([*np.full(len(products) - 1, 1e-6 * np.trace(products) / len(products)), 0])


def obs_prune_order(
    products: np.ndarray, targets: np.ndarray, variance: float, keep: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the order in which C channels are best removed, the others compensating, until `keep` are left.

    Returns (C - keep,) int, and (C - keep + 1,) float: the shares of the variance that are lost with 0, 1, 2 … removed.
    """
    # The constant, which always stays, comes first.
    inverse = np.linalg.inv(np.roll(ridge(products), 1, (0, 1)))
    weights = inverse @ np.roll(targets, 1, 0)
    left, order, losses = np.arange(len(products) - 1), [], [0.0]
    while (last := len(left)) > keep:
        costs = (weights[1:] ** 2).sum(1) / np.diag(inverse)[1:]
        out = int(costs.argmin())
        order.append(left[out])
        losses.append(losses[-1] + costs[out] / variance)
        column = inverse[:, out + 1] / inverse[out + 1, out + 1]
        weights -= np.outer(column, weights[out + 1])
        inverse -= np.outer(column, inverse[out + 1])
        # The last one takes its place: the arrays shrink with each channel.
        left[out], weights[out + 1], inverse[out + 1] = left[-1], weights[-1], inverse[-1]
        inverse[:, out + 1] = inverse[:, -1]
        left, weights, inverse = left[:-1], weights[:-1], inverse[:last, :last]
    return np.array(order, int), np.array(losses)


def allocate(widths: list[int], costs: list[float], losses: list[np.ndarray], time_share: float) -> list[int]:
    """Return how many channels each block keeps: those with the least loss for their cost are removed first."""
    kept = list(widths)

    def loss_per_cost(block: int) -> float:
        removed = widths[block] - kept[block]
        return (losses[block][removed + CHANNEL_GROUP] - losses[block][removed]) / costs[block]

    while np.dot(kept, costs) > time_share * np.dot(widths, costs) and max(kept) > CHANNEL_GROUP:
        kept[min((b for b in range(len(kept)) if kept[b] > CHANNEL_GROUP), key=loss_per_cost)] -= CHANNEL_GROUP
    return kept


def remove_channels(block: Block, channels: np.ndarray, products: np.ndarray, targets: np.ndarray) -> None:
    """Remove channels from a block, and let the others compensate."""
    expand, depthwise, project = convolutions(block)
    kept = np.setdiff1d(np.arange(len(products) - 1), channels)
    with_constant = np.append(kept, len(products) - 1)
    solution = np.linalg.solve(ridge(products)[np.ix_(with_constant, with_constant)], targets[with_constant])
    for layer in (expand, depthwise):
        assert layer.bias is not None
        set_weights(layer, layer.weight[kept], layer.bias[kept])
    weights, biases = torch.from_numpy(solution[:-1].T).float(), torch.from_numpy(solution[-1]).float()
    set_weights(project, weights[:, :, None, None], biases)
