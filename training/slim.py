"""Trained networks made narrow: a third of the time for hardly a difference.

Inside, the blocks of a network are six times as wide as between (see `training.network`), and much of that says the
same twice. Channels are left out one after the other, always the one whose loss costs what the block gives least once
the others make up for it: optimal brain surgery (Hassibi and Stork, 1993) on channels (He et al., 2017,
arXiv:1707.06168). Then the narrow network learns to say what the wide one says of varied pictures (Hinton et al., 2015,
arXiv:1503.02531; Romero et al., 2015, arXiv:1412.6550). No labels are needed.
"""

import copy
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import trange

from training.augment import Augment
from training.classifier import Classifier
from training.data import Hands
from training.data.scenes import Frames
from training.finder import Finder, HandFinder
from training.module import commit, one_cycle
from training.network import Block, fill, folded, scale

UNIT = 16  # channels that are left out together: processors compute so many at once
PLACES = 32  # of a picture, by which channels are chosen
# What a channel costs in a place, in multiplications: to be written and read, and for each one of its own filter, which
# takes longer than one that mixes channels. Measured with onnxruntime, roughly.
MEMORY, FILTERING = 16, 4
BATCH, LEARNING_RATE = 64, 0.001


def slim(
    finder: Path = Path("runs/finder/best.ckpt"),
    classifier: Path = Path("runs/handful/best.ckpt"),
    folder: Path = Path("data"),
    output: Path = Path("runs/slim"),
    share: float = 0.6,
    scenes: int = 24_000,
    crops: int = 64_000,
    seen: int = 512,
    workers: int = 1,
) -> None:
    """Make both trained networks narrow: `output`/finder.ckpt and `output`/classifier.ckpt.

    They see varied pictures of the sources that they were trained with. One that is there already is not made again.

    Args:
        finder: what `python -m training finder fit` left.
        classifier: what `python -m training fit` left.
        folder: where the sources lie.
        output: folder for the narrow networks' checkpoints.
        share: of the time, as estimated, that their blocks may still take.
        scenes: scenes that the finder learns from again.
        crops: crops that the classifier learns from again.
        seen: pictures that channels are chosen by.
        workers: processes that vary pictures.
    """
    output.mkdir(parents=True, exist_ok=True)
    for kind, file, pictures in ((Finder, finder, scenes), (Classifier, classifier, crops)):
        narrow_file = output / f"{kind.__name__.lower()}.ckpt"
        if narrow_file.exists():
            print(f"{narrow_file}: made before")
            continue
        if not file.is_file():
            raise SystemExit(f"{file}: no such file. Train first: make train")
        torch.manual_seed(1)
        checkpoint: Any = torch.load(file, map_location="cpu", weights_only=False)
        config = yaml.safe_load(checkpoint["about"]["config"])
        settings = config["data"] | {"folder": str(folder), "batch_size": BATCH, "workers": workers}
        if kind is Finder:
            data: Frames | Hands = Frames(**settings)
        else:
            data = Hands(**settings | {"augment": Augment(**settings["augment"])})
        wide = kind.load_from_checkpoint(file, map_location="cpu", weights_only=False).network
        narrow = narrowed(wide, data, share, pictures, seen)
        del checkpoint["averaging_state"]
        checkpoint["hyper_parameters"]["network"] = narrow
        checkpoint["state_dict"] = {f"network.{name}": value for name, value in narrow.state_dict().items()}
        config["slim"] = {"share": share, "pictures": pictures, "commit": commit()}
        checkpoint["about"]["config"] = yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=100)
        torch.save(checkpoint, narrow_file)


def narrowed(wide: Any, data: Frames | Hands, share: float, pictures: int, seen: int) -> Any:
    """A narrow network, without batch norms, that says nearly the same as a wide one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data.prepare_data()
    data.setup("fit")
    wide = folded(wide).to(device, memory_format=torch.channels_last)
    batches = prepared(chain.from_iterable(data.train_dataloader() for _ in repeat(None)), device)
    narrow = pruned(wide, torch.cat([next(batches) for _ in range(seen // BATCH)]), share)
    imitate(narrow, wide, batches, pictures // BATCH)
    return narrow.cpu()


def prepared(batches: Iterable[tuple[Tensor, Any]], device: str) -> Iterator[Tensor]:
    """Pictures (N, 3, H, W), float, -1 … 1, of a finder's batches or of a classifier's."""
    for pictures, _ in batches:
        planes = pictures if pictures.shape[1] == 3 else pictures.permute(0, 3, 1, 2)
        yield scale(planes.to(device)).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def pruned(wide: Any, seen: Tensor, share: float) -> Any:
    """A copy of a folded network whose blocks take `share` of the time, with fewer channels inside."""
    narrow = copy.deepcopy(wide)
    start = torch.cat([before_blocks(wide)(part) for part in seen.split(BATCH)])
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
        losses.append(surgery(*told, UNIT)[1])
        inputs = after
    exact = inputs = start
    for teacher, block, channels in zip(
        blocks(wide), blocks(narrow), budget(there, prices, losses, share), strict=True
    ):
        told, exact = moments(block, inputs, teacher, exact)
        leave_out(block, surgery(*told, channels)[0], *told[:2])
        inputs = torch.cat([block(part) for part in inputs.split(BATCH)])
    return narrow


def stages(network: Any) -> list[nn.Module]:
    """Stem and stages of a finder or a classifier."""
    return [*network.stride8, *network.stride16] if isinstance(network, HandFinder) else [*network.features]


def before_blocks(network: Any) -> nn.Sequential:
    """Stem and first stage, which is not wider inside."""
    return nn.Sequential(*stages(network)[:2])


def blocks(network: Any) -> list[Block]:
    """All blocks that are wider inside."""
    return [block for stage in stages(network)[2:] for block in stage.children() if isinstance(block, Block)]


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
            sample.append(pictures.permute(0, 2, 3, 1).flatten(0, 2)[rows.to(pictures.device)].double().cpu())
    given, target = torch.cat(inside), torch.cat(wanted)
    given = torch.cat([given, torch.ones(len(given), 1)], 1)
    variance = target.var(0, correction=0).sum().item()
    return ((given.T @ given / len(given)).numpy(), (given.T @ target / len(given)).numpy(), variance), torch.cat(after)


def ridge(products: np.ndarray) -> np.ndarray:
    """Products (C + 1, C + 1) a little less alike, so that channels that say the same can be told apart."""
    return products + np.diag([*np.full(len(products) - 1, 1e-6 * np.trace(products) / len(products)), 0])


def surgery(products: np.ndarray, wanted: np.ndarray, variance: float, keep: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Which of C channels can best be left out, the others making up for it, until `keep` are left: (C - keep,).

    In that order, and what it costs: (C - keep + 1,), the shares of the variance that are lost with 0, 1, 2 … left out.
    """
    inverse = np.linalg.inv(ridge(products))
    weights = inverse @ wanted
    there, order, losses = np.arange(len(products) - 1), [], [0.0]
    while len(there) > keep:
        costs = (weights[there] ** 2).sum(1) / np.diag(inverse)[there]
        out = there[costs.argmin()]
        order.append(out)
        losses.append(losses[-1] + costs.min() / variance)
        there = there[there != out]
        column = inverse[:, out] / inverse[out, out]
        weights -= np.outer(column, weights[out])
        inverse -= np.outer(column, inverse[out])
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
    fill(narrows, weights[:, :, None, None].to(narrows.weight), biases.to(narrows.weight))


def imitate(narrow: Any, wide: Any, batches: Iterator[Tensor], steps: int) -> None:
    """Teach a narrow network to make the same feature maps as a wide one, and to say the same of them."""
    narrow.eval().to(memory_format=torch.channels_last)  # no dropout
    optimizer = torch.optim.AdamW(narrow.parameters(), weight_decay=0)
    averaged = AveragedModel(narrow, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    progress = trange(steps, desc=type(narrow).__name__)
    for step in progress:
        pictures = next(batches)
        with torch.no_grad():
            meant = outputs(wide, pictures)
        off = [(a - b).square().mean() / b.var() for a, b in zip(outputs(narrow, pictures), meant, strict=True)]
        loss = torch.stack(off).sum()
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * one_cycle(step / steps)
        optimizer.step()
        averaged.update_parameters(narrow)
        progress.set_postfix(loss=f"{loss.item():.3f}")
    narrow.load_state_dict(averaged.module.state_dict())


def outputs(network: Any, pictures: Tensor) -> tuple[Tensor, ...]:
    """The feature maps that a network's heads see, and what they say."""
    if isinstance(network, HandFinder):
        maps = network.features(pictures)
        return *maps, network.tell(*maps)
    maps = network.features(pictures)
    return maps, *network.classify(maps)
