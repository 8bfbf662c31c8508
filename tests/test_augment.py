"""Augmentation varies the picture, never the truth."""

import numpy as np
import torch

from model import CLASSES
from tests.drawn import draw_hand
from training.augment import Augment, mirror, plain


def batch(n=24):
    rng = np.random.default_rng(0)
    targets = torch.arange(n) % 12
    grey = torch.from_numpy(np.stack([draw_hand(CLASSES[t], rng) for t in targets]))
    return torch.stack([grey, grey, grey, (grey > 100) * 255], 1).to(torch.uint8), targets


def test_pictures_come_out_as_the_network_takes_them():
    pictures, _ = Augment(size=96)(*batch())
    assert pictures.shape == (24, 3, 96, 96)
    assert pictures.dtype == torch.float32
    assert pictures.min() >= -1
    assert pictures.max() <= 1


def test_the_count_stays_and_only_a_mirrored_hand_changes_side():
    torch.manual_seed(0)
    images, targets = batch()
    _, varied = Augment()(images, targets)
    assert (varied % 6 == targets % 6).all()
    assert 0 < (varied != targets).sum() < 24


def test_a_mirrored_hand_is_the_other_hand():
    assert [CLASSES[i] for i in mirror(torch.arange(12))] == [c[0] + {"L": "R", "R": "L"}[c[1]] for c in CLASSES]


def test_mirroring_moves_pixels_the_way_it_changes_the_label():
    still = Augment(tilt=0, zoom=(1, 1.0001), shift=0)
    images, _ = batch()
    x = images.float() / 255
    torch.manual_seed(1)
    straight = still.move(x, torch.zeros(24, dtype=torch.bool))
    torch.manual_seed(1)
    mirrored = still.move(x.flip(3), torch.ones(24, dtype=torch.bool))
    # Shear and stretch aside, a mirrored mirror image is the picture itself.
    assert (straight.mean(2) - mirrored.mean(2)).abs().mean() < 0.02


def test_another_background_leaves_the_hand():
    torch.manual_seed(0)
    images, _ = batch()
    x = images.float() / 255
    picture, mask = x[:, :3], x[:, 3:]
    placed = torch.lerp(Augment().room(picture), picture, mask)
    assert torch.equal(placed[mask.expand_as(placed) == 1], picture[mask.expand_as(placed) == 1])
    assert (placed - picture)[mask.expand_as(placed) == 0].abs().mean() > 0.1


def test_plain_only_scales():
    images, _ = batch()
    assert torch.allclose(plain(images, 128)[:, 2] * 127.5 + 127.5, images[:, 0].float(), atol=1e-3)
    assert plain(images, 96).shape == (24, 3, 96, 96)


def test_rooms_are_put_behind_hands_never_before_them():
    torch.manual_seed(0)
    images, _ = batch()
    augment = Augment()
    augment.rooms = torch.full((2, 3, 144, 144), 255, dtype=torch.uint8)
    x = images.float() / 255
    walls = augment.room(x[:, :3])
    assert 4 < sum(bool((wall == 1).all()) for wall in walls) < 24, "photographs and plain walls take turns"


def test_a_mirrored_hand_without_a_side_still_has_none():
    assert mirror(torch.tensor([0, 11, 12, 17])).tolist() == [6, 5, 12, 17]
