"""Networks made narrow: what is left out, what makes up for it, and that the rest learns to say the same."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import training.slim
from training.finder import HandFinder
from training.network import Block, HandNet, folded
from training.slim import (
    BATCH,
    UNIT,
    blocks,
    budget,
    convolutions,
    imitate,
    leave_out,
    moments,
    outputs,
    pruned,
    surgery,
)


def block(wide: int) -> Block:
    """A block of 8 channels that is `wide` inside, without batch norms."""
    torch.manual_seed(0)
    return folded(Block(8, 8, wide // 8, 3, 1))


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
    order, losses = surgery(*told)
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
    order, losses = surgery(*told)
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


def test_those_go_first_that_lose_least_for_their_time():
    flat, steep = np.linspace(0, 0.1, 64), np.linspace(0, 1, 64)
    assert budget([64, 64], [1, 1], [flat, steep], 0.75) == [32, 64]
    assert budget([64, 64], [1, 100], [flat, steep], 0.75) == [64, 32], "but ten times the loss saves a hundred times"
    assert budget([64, 64], [1, 1], [flat, steep], 0.2) == [UNIT, UNIT], "a block keeps something"


@pytest.mark.parametrize(("network", "side"), [(HandNet, 64), (HandFinder, 64)])
def test_a_narrow_network_learns_to_say_the_same(network, side, monkeypatch):
    monkeypatch.setattr(training.slim, "LEARNING_RATE", 1e-4)  # few steps
    torch.manual_seed(0)
    wide = folded(network())
    pictures = torch.nn.functional.interpolate(torch.rand(BATCH, 3, 16, 16) * 2 - 1, side, mode="bilinear")
    narrow = pruned(wide, pictures, 0.4)
    assert all(layer.out_channels % UNIT == 0 for one in blocks(narrow) for layer in convolutions(one)[:2])
    sizes = [sum(part.numel() for part in one.parameters()) for one in (wide, narrow)]
    assert 0.1 < sizes[1] / sizes[0] < 0.9

    @torch.no_grad()
    def off():
        pairs = zip(outputs(narrow, pictures), outputs(wide, pictures), strict=True)
        return sum(((a - b).square().mean() / b.var()).item() for a, b in pairs)

    before = off()
    untrained = sum(b.square().mean().item() / b.var().item() for b in outputs(wide, pictures))
    assert before < untrained / 2
    imitate(narrow, wide, iter([pictures] * 8), 8)
    assert off() < before
