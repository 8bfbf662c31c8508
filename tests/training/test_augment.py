"""Augmentation changes the image, and the label only where a flip changes the side."""

import cv2
import numpy as np
import pytest
import torch

from handful.labels import CLASSES, encode
from tests.builders import draw_hand
from training.augment.pipeline import (
    CROP_CONTEXT,
    Augment,
    add_skin_texture,
    black_border,
    center_crop,
    colour_jitter,
    composite,
    draw_forearm,
    random_background,
    random_erasing,
    random_filter,
    recolour_grey,
    relight,
    simulate_camera,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def hand_crop(label="3L", seed=0):
    """Return a drawn hand as crops are cached: (192, 192, 4), nothing around the middle 128."""
    grey = draw_hand(label, np.random.default_rng(seed))
    rgba = np.dstack([grey, grey, grey, (grey > 100) * np.uint8(255)])
    return np.pad(rgba, ((32, 32), (32, 32), (0, 0)))


def box_of(mask):
    x, y, width, height = cv2.boundingRect((mask > 127).astype(np.uint8))
    return np.array([x, y, x + width, y + height], np.float32)


BOX = box_of(hand_crop()[..., 3])
IMAGE, MASK = hand_crop()[32:-32, 32:-32, :3], hand_crop()[32:-32, 32:-32, 3]
UNCHANGED = Augment(size=128, tilt=0, turn=0, zoom=(1, 1), shift=0)


def warp(augment, image, flip, rng):
    return cv2.warpAffine(image, augment.random_matrix(len(image), flip, rng), (augment.size,) * 2)


def test_the_result_is_the_input_of_the_network(rng):
    image, _ = Augment(size=96)(hand_crop(), encode(3, "left"), BOX, rng)
    assert image.shape == (96, 96, 3)
    assert image.dtype == np.uint8


def test_the_count_never_changes_and_flips_change_the_side(rng):
    targets = [Augment()(hand_crop(), encode(3, "left"), BOX, rng)[1] for _ in range(40)]
    assert {CLASSES[target] for target in targets} == {"3L", "3R"}


def test_flips_keep_a_target_without_side(rng):
    assert {Augment()(hand_crop(), encode(3), BOX, rng)[1] for _ in range(20)} == {encode(3)}


def test_augmentation_depends_on_the_seed_alone():
    first, second, other = (Augment()(hand_crop(), 3, BOX, np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    assert (first == second).all()
    assert (first != other).any()


def test_a_flip_mirrors_pixels():
    mark = np.zeros((192, 192, 4), np.uint8)
    mark[90:102, 50:60] = 255
    straight, flipped = (warp(UNCHANGED, mark, flip, np.random.default_rng(1))[..., 0].sum(0) for flip in (False, True))
    assert 15 < straight.argmax() < 35
    assert np.allclose(straight, flipped[::-1], atol=300)


def test_scale_and_shift_cover_the_errors_of_detected_boxes(rng):
    hand = np.zeros((192, 192, 4), np.uint8)
    hand[64:128, 64:128] = 255
    warped = [np.argwhere(warp(Augment(size=128), hand, False, rng)[..., 3] > 127) for _ in range(200)]
    scales = [np.sqrt(len(pixels)) / 64 for pixels in warped]
    assert min(scales) < 0.72
    assert max(scales) > 1.38
    shift = np.abs([pixels.mean(0) - 63.5 for pixels in warped]).max()
    assert 0.1 * 128 < shift < 0.13 * 128


def test_the_center_crop_is_what_augmentation_varies_around():
    cropped = center_crop(torch.from_numpy(hand_crop())[None], 128)[0].permute(1, 2, 0).numpy() * 127.5 + 127.5
    assert np.allclose(cropped, IMAGE, atol=1e-3)
    warped = np.stack([warp(UNCHANGED, hand_crop(), False, np.random.default_rng(seed)) for seed in range(60)])
    assert np.corrcoef(warped[..., 3].mean(0).ravel(), MASK.ravel())[0, 1] > 0.9
    assert len(hand_crop()) == CROP_CONTEXT * 128


def test_the_center_crop_is_resized():
    assert center_crop(torch.from_numpy(hand_crop())[None], 96).shape == (1, 3, 96, 96)


def square_with_wrist():
    """Return a cut-out hand, a white square with a green wrist below, and the mask of the hand alone."""
    cutout = np.zeros((192, 192, 4), np.uint8)
    cutout[40:80, 60:100] = 255
    hand = cutout[..., 3].copy()
    cutout[80:100, 72:88] = (0, 200, 0, 255)
    return cutout, hand


@pytest.mark.parametrize("seed", range(20))
def test_a_forearm_leaves_the_image_and_does_not_cover_the_hand(seed):
    cutout, hand = square_with_wrist()
    extended = draw_forearm(cutout, hand, np.random.default_rng(seed))
    assert (extended[40:70, 60:100] == cutout[40:70, 60:100]).all(), "all but the heel, where the forearm begins"
    forearm = (extended[..., 3] > 0) & (cutout[..., 3] == 0)
    assert any(border.any() for border in (forearm[0], forearm[-1], forearm[:, 0], forearm[:, -1]))
    assert not forearm[:40, 60:100].any(), "never from the side of the fingers"
    assert 400 < forearm.sum() < 9000


def test_forearms_come_from_below_and_from_both_sides(rng):
    angles = []
    for _ in range(40):
        extended = draw_forearm(*square_with_wrist(), rng)
        y, x = np.nonzero((extended[..., 3] > 0) & (cv2.circle(np.zeros((192, 192)), (80, 78), 60, 1, 2) > 0))
        angles.append(np.degrees(np.arctan2(x.mean() - 80, y.mean() - 78)))  # 0 is straight down
    assert min(angles) < -50
    assert max(angles) > 50
    assert np.mean(np.abs(angles) < 30) > 0.3


def test_a_hand_without_a_wrist_gets_no_forearm(rng):
    cutout, hand = square_with_wrist()
    cutout[..., 3] = hand
    assert draw_forearm(cutout, hand, rng) is cutout


def test_compositing_replaces_the_background_only(rng):
    composited = composite(IMAGE, MASK, random_background(128, rng))
    assert (composited[MASK == 255] == IMAGE[MASK == 255]).all()
    assert (composited[MASK == 0] != IMAGE[MASK == 0]).mean() > 0.9


def test_backgrounds_are_photographs_and_procedural(rng):
    photographs = np.full((2, 144, 144, 3), 255, np.uint8)
    backgrounds = [random_background(128, rng, photographs) for _ in range(40)]
    assert 15 < sum(bool((background == 255).all()) for background in backgrounds) < 36


def test_grey_hands_get_skin_tones(rng):
    red, green, blue = np.mean([recolour_grey(IMAGE, rng).mean((0, 1)) for _ in range(20)], 0)
    assert red > green > blue


def test_relighting_brightens_dark_hands(rng):
    dark = (IMAGE * 0.15).astype(np.uint8)
    means = [relight(dark, MASK, rng)[MASK > 127].mean() for _ in range(40)]
    assert max(means) > 2 * min(means)
    assert np.median(means) > dark[MASK > 127].mean()


def test_skin_texture_keeps_the_mean_colour(rng):
    smooth = np.full((96, 96, 3), (190, 140, 110), np.uint8)
    textured = [add_skin_texture(smooth, rng) for _ in range(20)]
    assert all(image.std((0, 1)).min() > 0.5 for image in textured)
    assert max(image.std((0, 1)).max() for image in textured) > 8
    assert np.allclose(np.mean(textured, (0, 1, 2)), (190, 140, 110), atol=4)


def test_two_images_in_five_are_filtered(rng):
    image = rng.integers(60, 180, (96, 96, 3)).astype(np.uint8)
    filtered = [result for result in (random_filter(image, rng) for _ in range(300)) if (result != image).any()]
    assert 90 < len(filtered) < 165
    assert min(len(np.unique(result)) for result in filtered) <= 16, "posterized"
    assert max(result.astype(int).max() for result in filtered) == 255, "sharpened or equalized"
    assert min(result.mean() for result in filtered) < 0.8 * image.mean(), "shadowed"


@pytest.mark.parametrize("transform", [colour_jitter, simulate_camera, black_border, random_erasing])
def test_transforms_do_not_modify_their_input(transform, rng):
    image = IMAGE.copy()
    results = [transform(image, rng) for _ in range(20)]
    assert (image == IMAGE).all()
    assert all(result.shape == image.shape and result.dtype == np.uint8 for result in results)
    assert sum((result != image).any() for result in results) > 8
