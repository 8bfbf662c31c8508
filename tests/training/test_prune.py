"""A detector made narrow: what is left out, what makes up for it, and that the rest says the same."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import training.export.prune
from training.export.prune import (
    BATCH,
    UNIT,
    blocks,
    budget,
    convolutions,
    leave_out,
    moments,
    obs_prune_order,
    pruned,
)
from training.networks.backbone import Block, fill, fold_batchnorm
from training.networks.detector import HandDetector


def block(wide: int) -> Block:
    """A block of 8 channels that is `wide` inside, without batch norms."""
    torch.manual_seed(0)
    return fold_batchnorm(Block(8, 8, wide // 8, 3, 1))


@torch.no_grad()
def doubled(one: Block) -> Block:
    """A block that is twice as wide, where every channel inside is there twice and counts half."""
    two = copy.deepcopy(one)
    widens, filters, narrows = convolutions(two)
    for layer in (widens, filters):
        layer.weight, layer.bias = (nn.Parameter(part.repeat_interleave(2, 0)) for part in (layer.weight, layer.bias))
    narrows.weight = nn.Parameter(narrows.weight.repeat_interleave(2, 1) / 2)
    filters.groups *= 2
    return two


@torch.no_grad()
def test_what_is_said_twice_is_left_out_without_loss():
    small = block(32)
    twice, pictures = doubled(small), torch.randn(BATCH, 8, 12, 12)
    torch.testing.assert_close(twice(pictures), small(pictures), atol=1e-5, rtol=0)
    told, meant = moments(twice, pictures, twice, pictures)
    order, losses = obs_prune_order(*told)
    assert sorted(order) == list(range(64))
    assert losses[32] < 1e-3 < losses[40], "half of the channels cost nothing, more do"
    assert len({channel // 2 for channel in order[-32:]}) == 32, "one of each pair is kept"
    leave_out(twice, order[:32], *told[:2])
    assert [layer.out_channels for layer in convolutions(twice)] == [32, 32, 8]
    assert (twice(pictures) - meant).square().mean() < 1e-3 * meant.var()


@torch.no_grad()
def test_the_others_make_up_for_what_is_left_out():
    whole, pictures = block(64), torch.randn(BATCH, 8, 12, 12)
    told, meant = moments(whole, pictures, whole, pictures)
    order, losses = obs_prune_order(*told)
    assert (np.diff(losses) >= 0).all()

    def off(channels, ends):
        narrow = copy.deepcopy(whole)
        leave_out(narrow, channels, *told[:2])
        if not ends:
            *_, narrows = convolutions(narrow)
            narrows.weight = nn.Parameter(convolutions(whole)[2].weight[:, np.setdiff1d(np.arange(64), channels)])
        return ((narrow(pictures) - meant).square().mean() / whole.body(pictures).var((0, 2, 3)).mean()).item()

    least = off(order[:16], True)
    assert least == pytest.approx(losses[16], rel=0.2), "as foretold"
    assert least < 0.7 * off(order[:16], False), "the others make up for it"
    assert least < 0.7 * off(order[-16:], True), "those that matter least go first"


def test_the_channel_that_goes_is_the_one_whose_loss_is_least_whatever_went_before():
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


def test_those_go_first_that_lose_least_for_their_time():
    flat, steep = np.linspace(0, 0.1, 64), np.linspace(0, 1, 64)
    assert budget([64, 64], [1, 1], [flat, steep], 0.75) == [32, 64]
    assert budget([64, 64], [1, 100], [flat, steep], 0.75) == [64, 32], "but ten times the loss saves a hundred times"
    assert budget([64, 64], [1, 1], [flat, steep], 0.2) == [UNIT, UNIT], "a block keeps something"


@torch.no_grad()
def test_a_narrow_detector_says_nearly_the_same(monkeypatch):
    torch.manual_seed(0)
    wide = fold_batchnorm(HandDetector())
    wide.stride16 = wide.stride16[:1]  # without its widest stage, which takes most of the time
    seen, others = torch.nn.functional.interpolate(torch.rand(192, 3, 16, 16) * 2 - 1, 64, mode="bilinear").split(128)
    narrow = pruned(wide, seen, 0.8)
    assert all(layer.out_channels % UNIT == 0 for one in blocks(narrow) for layer in convolutions(one)[:2])
    sizes = [sum(part.numel() for part in one.parameters()) for one in (wide, narrow)]
    assert 0.5 < sizes[1] / sizes[0] < 0.95

    def off(one, pictures=others):
        meant = coarse(wide, pictures)
        return ((coarse(one, pictures) - meant).square().mean() / meant.var()).item()

    assert off(narrow) < 0.05
    with monkeypatch.context() as patch:  # each block for itself, whatever those before it lost
        patch.setattr(training.export.prune, "moments", lambda block, inputs, *_: moments(block, inputs, block, inputs))
        assert off(narrow, seen) < 0.9 * off(pruned(wide, seen, 0.8), seen)
    # Without those channels, and nothing that makes up for them.
    monkeypatch.setattr(training.export.prune, "leave_out", cut)
    assert off(narrow) < off(pruned(wide, seen, 0.8)) / 2


def cut(block, channels, products, wanted):
    *_, narrows = convolutions(block)
    weights, biases = narrows.weight.clone(), narrows.bias.clone()
    leave_out(block, channels, products, wanted)
    fill(narrows, weights[:, np.setdiff1d(np.arange(weights.shape[1]), channels)], biases)


def coarse(detector, pictures):
    return detector.stride16(detector.stride8(pictures))
