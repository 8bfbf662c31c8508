"""Pruning the detector: which channels are removed, that the others compensate, and that the outputs stay."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import training.export.prune
from training.export.prune import (
    BATCH_SIZE,
    CHANNEL_GROUP,
    allocate,
    blocks,
    convolutions,
    moments,
    obs_prune_order,
    prune_network,
    remove_channels,
)
from training.networks.backbone import Block, fold_batchnorm, set_weights
from training.networks.detector import HandDetector


def block(wide: int) -> Block:
    """Return a block of 8 channels that is `wide` inside, without batch norms."""
    torch.manual_seed(0)
    return fold_batchnorm(Block(8, 8, wide // 8, 3, 1))


@torch.no_grad()
def doubled(one: Block) -> Block:
    """Return a block that is twice as wide: every channel inside is there twice, with half the weight."""
    two = copy.deepcopy(one)
    expand, depthwise, project = convolutions(two)
    for layer in (expand, depthwise):
        layer.weight, layer.bias = (nn.Parameter(part.repeat_interleave(2, 0)) for part in (layer.weight, layer.bias))
    project.weight = nn.Parameter(project.weight.repeat_interleave(2, 1) / 2)
    depthwise.groups *= 2
    return two


@torch.no_grad()
def test_redundant_channels_are_removed_without_loss():
    small = block(32)
    twice, pictures = doubled(small), torch.randn(BATCH_SIZE, 8, 12, 12)
    torch.testing.assert_close(twice(pictures), small(pictures), atol=1e-5, rtol=0)
    block_moments, expected = moments(twice, pictures, twice, pictures)
    order, losses = obs_prune_order(*block_moments)
    assert sorted(order) == list(range(64))
    assert losses[32] < 1e-3 < losses[40], "half of the channels cost nothing, more do"
    assert len({channel // 2 for channel in order[-32:]}) == 32, "one of each pair is kept"
    remove_channels(twice, order[:32], *block_moments[:2])
    assert [layer.out_channels for layer in convolutions(twice)] == [32, 32, 8]
    assert (twice(pictures) - expected).square().mean() < 1e-3 * expected.var()


@torch.no_grad()
def test_the_other_channels_compensate_for_removed_ones():
    whole, pictures = block(64), torch.randn(BATCH_SIZE, 8, 12, 12)
    block_moments, expected = moments(whole, pictures, whole, pictures)
    order, losses = obs_prune_order(*block_moments)
    assert (np.diff(losses) >= 0).all()

    def off(channels, ends):
        narrow = copy.deepcopy(whole)
        remove_channels(narrow, channels, *block_moments[:2])
        if not ends:
            *_, project = convolutions(narrow)
            project.weight = nn.Parameter(convolutions(whole)[2].weight[:, np.setdiff1d(np.arange(64), channels)])
        return ((narrow(pictures) - expected).square().mean() / whole.body(pictures).var((0, 2, 3)).mean()).item()

    least = off(order[:16], True)
    assert least == pytest.approx(losses[16], rel=0.2), "as estimated"
    assert least < 0.7 * off(order[:16], False), "the others compensate"
    assert least < 0.7 * off(order[-16:], True), "the least important ones are removed first"


def test_each_removed_channel_is_the_one_with_the_least_loss():
    random = np.random.default_rng(0)
    given = np.c_[random.normal(size=(500, 12)) @ random.normal(size=(12, 12)) + 1, np.ones(500)]
    target = np.tanh(given[:, :12]) @ random.normal(size=(12, 3))
    order, losses = obs_prune_order(given.T @ given / 500, given.T @ target / 500, target.var(0).sum())

    def left(out):
        kept = np.delete(given, out, 1)
        rest = target - kept @ np.linalg.lstsq(kept, target, rcond=None)[0]
        return (rest**2).mean(0).sum() / target.var(0).sum()

    for gone in range(12):
        cost = {channel: left([*order[:gone], channel]) for channel in set(range(12)) - set(order[:gone])}
        assert min(cost, key=cost.get) == order[gone]
        assert losses[gone + 1] == pytest.approx(cost[order[gone]] - left([]), rel=1e-2, abs=1e-4)


def test_channels_with_the_least_loss_for_their_cost_are_removed_first():
    flat, steep = np.linspace(0, 0.1, 64), np.linspace(0, 1, 64)
    assert allocate([64, 64], [1, 1], [flat, steep], 0.75) == [32, 64]
    assert allocate([64, 64], [1, 100], [flat, steep], 0.75) == [64, 32], (
        "ten times the loss saves a hundred times the cost"
    )
    assert allocate([64, 64], [1, 1], [flat, steep], 0.2) == [CHANNEL_GROUP, CHANNEL_GROUP], (
        "a block keeps some channels"
    )


@torch.no_grad()
def test_a_pruned_detector_predicts_nearly_the_same(monkeypatch):
    torch.manual_seed(0)
    wide = fold_batchnorm(HandDetector())
    wide.stride16 = wide.stride16[:1]  # without its widest stage, which takes most of the time
    seen, others = torch.nn.functional.interpolate(torch.rand(192, 3, 16, 16) * 2 - 1, 64, mode="bilinear").split(128)
    narrow = prune_network(wide, seen, 0.8)
    assert all(layer.out_channels % CHANNEL_GROUP == 0 for one in blocks(narrow) for layer in convolutions(one)[:2])
    sizes = [sum(part.numel() for part in one.parameters()) for one in (wide, narrow)]
    assert 0.5 < sizes[1] / sizes[0] < 0.95

    def off(one, pictures=others):
        expected = coarse(wide, pictures)
        return ((coarse(one, pictures) - expected).square().mean() / expected.var()).item()

    assert off(narrow) < 0.05
    with monkeypatch.context() as patch:  # each block on its own, whatever those before it lost
        patch.setattr(training.export.prune, "moments", lambda block, inputs, *_: moments(block, inputs, block, inputs))
        assert off(narrow, seen) < 0.9 * off(prune_network(wide, seen, 0.8), seen)
    # Without compensation.
    monkeypatch.setattr(training.export.prune, "remove_channels", cut)
    assert off(narrow) < off(prune_network(wide, seen, 0.8)) / 2


def cut(block, channels, products, wanted):
    *_, project = convolutions(block)
    weights, biases = project.weight.clone(), project.bias.clone()
    remove_channels(block, channels, products, wanted)
    set_weights(project, weights[:, np.setdiff1d(np.arange(weights.shape[1]), channels)], biases)


def coarse(detector, pictures):
    return detector.stride16(detector.stride8(pictures))
