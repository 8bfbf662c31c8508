"""Augmentation varies the picture, never the truth."""

import cv2
import numpy as np
import pytest
import torch

from handful import CLASSES
from tests.builders import draw_hand
from training.augment.pipeline import (
    VIEW,
    Augment,
    arm,
    camera,
    cut_off,
    erase,
    light,
    look,
    mirror,
    place,
    plain,
    relight,
    room,
    texture,
    tone,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def crop(label="3L", seed=0):
    """A drawn hand as crops are kept: (192, 192, 4), nothing around the middle 128."""
    grey = draw_hand(label, np.random.default_rng(seed))
    rgba = np.dstack([grey, grey, grey, (grey > 100) * np.uint8(255)])
    return np.pad(rgba, ((32, 32), (32, 32), (0, 0)))


def box_of(mask):
    x, y, width, height = cv2.boundingRect((mask > 127).astype(np.uint8))
    return np.array([x, y, x + width, y + height], np.float32)


BOX = box_of(crop()[..., 3])


def moved(augment, picture, mirrored, rng):
    return cv2.warpAffine(picture, augment.move(len(picture), mirrored, rng), (augment.size,) * 2)


def test_pictures_come_out_as_the_network_takes_them(rng):
    picture, _ = Augment(size=96)(crop(), 3, BOX, rng)
    assert picture.shape == (96, 96, 3)
    assert picture.dtype == np.uint8


def test_the_count_stays_and_only_a_mirrored_hand_changes_side(rng):
    targets = [Augment()(crop(), 3, BOX, rng)[1] for _ in range(40)]
    assert set(targets) == {3, 9}


def test_the_same_seed_varies_alike_and_every_draw_differs():
    first, second, other = (Augment()(crop(), 3, BOX, np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    assert (first == second).all()
    assert (first != other).any()


def test_a_mirrored_hand_is_the_other_hand():
    assert [CLASSES[mirror(i)] for i in range(12)] == [c[0] + {"L": "R", "R": "L"}[c[1]] for c in CLASSES]


def test_a_mirrored_hand_without_a_side_still_has_none():
    assert [mirror(target) for target in (0, 11, 12, 17)] == [6, 5, 12, 17]


def test_mirroring_moves_pixels_the_way_it_changes_the_label():
    mark = np.zeros((192, 192, 4), np.uint8)
    mark[90:102, 50:60] = 255
    still = Augment(size=128, tilt=0, zoom=(1, 1), shift=0)
    straight, mirrored = (moved(still, mark, side, np.random.default_rng(1))[..., 0].sum(0) for side in (False, True))
    assert 15 < straight.argmax() < 35
    assert np.allclose(straight, mirrored[::-1], atol=300)


def test_hands_are_as_large_and_as_far_off_as_a_wrong_box_makes_them(rng):
    hand = np.zeros((192, 192, 4), np.uint8)
    hand[64:128, 64:128] = 255
    seen = [np.argwhere(moved(Augment(size=128), hand, False, rng)[..., 3] > 127) for _ in range(200)]
    sizes = [np.sqrt(len(one)) / 64 for one in seen]
    assert min(sizes) < 0.72
    assert max(sizes) > 1.38
    off = np.abs([one.mean(0) - 63.5 for one in seen]).max()
    assert 0.1 * 128 < off < 0.13 * 128


def test_a_crop_seen_straight_is_its_middle():
    still = Augment(size=128, tilt=0, zoom=(1, 1), shift=0)
    looks = np.stack([moved(still, crop(), False, np.random.default_rng(seed)) for seed in range(60)])
    seen = plain(torch.from_numpy(crop())[None], 128)[0].permute(1, 2, 0).numpy() * 127.5 + 127.5
    assert np.allclose(seen, crop()[32:-32, 32:-32, :3], atol=1e-3)
    blurred = looks[..., 3].mean(0)
    assert np.corrcoef(blurred.ravel(), crop()[32:-32, 32:-32, 3].ravel())[0, 1] > 0.9
    assert VIEW * 128 == 192


def white_square_with_a_wrist():
    """A cut-out hand, a white square, with a green wrist below; and the mask of the hand alone."""
    cutout = np.zeros((192, 192, 4), np.uint8)
    cutout[40:80, 60:100] = 255
    hand = cutout[..., 3].copy()
    cutout[80:100, 72:88] = (0, 200, 0, 255)
    return cutout, hand


@pytest.mark.parametrize("seed", range(20))
def test_an_arm_goes_on_until_the_picture_ends_and_the_hand_stays(seed):
    cutout, hand = white_square_with_a_wrist()
    grown = arm(cutout, hand, np.random.default_rng(seed))
    assert (grown[40:70, 60:100] == cutout[40:70, 60:100]).all(), "but for the heel, where the arm begins"
    added = (grown[..., 3] > 0) & (cutout[..., 3] == 0)
    assert any(rim.any() for rim in (added[0], added[-1], added[:, 0], added[:, -1]))
    assert not added[:40, 60:100].any(), "never from the fingers' side"
    assert 400 < added.sum() < 9000


def test_forearms_come_from_below_and_from_either_side(rng):
    ways = []
    for _ in range(40):
        grown = arm(*white_square_with_a_wrist(), rng)
        y, x = np.nonzero((grown[..., 3] > 0) & (cv2.circle(np.zeros((192, 192)), (80, 78), 60, 1, 2) > 0))
        ways.append(np.degrees(np.arctan2(x.mean() - 80, y.mean() - 78)))  # 0 is straight down
    assert min(ways) < -50
    assert max(ways) > 50
    assert np.mean(np.abs(ways) < 30) > 0.3


def test_a_hand_without_a_wrist_grows_no_arm(rng):
    cutout, hand = white_square_with_a_wrist()
    cutout[..., 3] = hand
    assert arm(cutout, hand, rng) is cutout


def test_plain_scales_to_other_sizes():
    assert plain(torch.from_numpy(crop())[None], 96).shape == (1, 3, 96, 96)


def test_another_background_leaves_the_hand(rng):
    picture, mask = crop()[32:-32, 32:-32, :3], crop()[32:-32, 32:-32, 3]
    placed = place(picture, mask, room(128, rng))
    assert (placed[mask == 255] == picture[mask == 255]).all()
    assert (placed[mask == 0] != picture[mask == 0]).mean() > 0.9


def test_photographs_and_plain_walls_take_turns(rng):
    rooms = np.full((2, 144, 144, 3), 255, np.uint8)
    walls = [room(128, rng, rooms) for _ in range(40)]
    assert 15 < sum(bool((wall == 255).all()) for wall in walls) < 36


def test_grey_hands_get_skin_of_many_tones(rng):
    red, green, blue = np.mean([tone(crop()[..., :3], rng).mean((0, 1)) for _ in range(20)], 0)
    assert red > green > blue


def test_a_dark_hand_is_often_lit_anew(rng):
    dark = (crop()[..., :3] * 0.15).astype(np.uint8)
    weighted_mean = [relight(dark, crop()[..., 3], rng)[crop()[..., 3] > 127].mean() for _ in range(40)]
    assert max(weighted_mean) > 2 * min(weighted_mean)
    assert np.median(weighted_mean) > dark[crop()[..., 3] > 127].mean()


def test_smooth_skin_gets_spots_and_keeps_its_tone(rng):
    smooth = np.full((96, 96, 3), (190, 140, 110), np.uint8)
    rough = [texture(smooth, rng) for _ in range(20)]
    assert all(one.std((0, 1)).min() > 0.5 for one in rough)
    assert max(one.std((0, 1)).max() for one in rough) > 8
    assert np.allclose(np.mean(rough, (0, 1, 2)), (190, 140, 110), atol=4)


def test_two_pictures_in_five_get_another_look(rng):
    picture = rng.integers(60, 180, (96, 96, 3)).astype(np.uint8)
    changed = [one for one in (look(picture, rng) for _ in range(300)) if (one != picture).any()]
    assert 90 < len(changed) < 165
    assert min(len(np.unique(one)) for one in changed) <= 16, "few levels"
    assert max(one.astype(int).max() for one in changed) == 255, "sharpened, or evened out"
    assert min(one.mean() for one in changed) < 0.8 * picture.mean(), "in a shadow"


@pytest.mark.parametrize("change", [light, camera, cut_off, erase])
def test_what_changes_a_picture_leaves_the_one_it_was_given(change, rng):
    picture = crop()[32:-32, 32:-32, :3].copy()
    before = picture.copy()
    changed = [change(picture, rng) for _ in range(20)]
    assert (picture == before).all()
    assert all(one.shape == picture.shape and one.dtype == np.uint8 for one in changed)
    assert sum((one != picture).any() for one in changed) > 8
