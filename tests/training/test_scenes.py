"""Scenes that the detector is trained on: frames with pasted hands, arms, drawn heads and decoys."""

import numpy as np
import pytest
import torch

from tests.builders import draw_hand
from training.augment.synthetic_faces import add_head, draw_head
from training.data import scenes as scenery
from training.data.backgrounds import inpaint_hands
from training.data.scenes import Cutouts, SceneDataset, add_decoy, choose, letterbox, paste_hand, random_affine
from training.networks.detector import INPUT_SIZE as SIZE

SKIN = np.full((SIZE, SIZE, 3), (210, 160, 130), np.uint8)
WALL = np.full((240, 320, 3), (90, 120, 150), np.uint8)


def cutouts():
    """A white square with a green forearm below it, as a cut-out hand whose box is the square."""
    picture = np.zeros((1, 100, 100, 4), np.uint8)
    picture[:, 30:70, 30:70, :3] = (255, 240, 200)  # not grey: that would be given a tone
    picture[:, 70:, 40:60, 1] = 255
    picture[..., 3] = picture[..., :3].max(3)
    return Cutouts(picture, np.float32([[30, 30, 70, 70]]), np.array([0]))


@pytest.mark.parametrize("seed", range(20))
def test_a_pasted_hand_lies_in_its_box_without_its_forearm(seed, monkeypatch):
    monkeypatch.setattr(scenery, "draw_forearm", lambda cutout, *_: cutout)
    monkeypatch.setattr(scenery, "relight", lambda picture, *_: picture)
    scene, _ = letterbox(WALL)
    scene, boxes = paste_hand(scene, np.empty((0, 4), np.float32), cutouts(), np.random.default_rng(seed))
    for x0, y0, x1, y1 in boxes.astype(int):
        bright = scene[y0:y1, x0:x1, 0] > 115
        everywhere = scene[..., 0] > 115
        assert bright.sum() > 0.95 * everywhere.sum()
        assert bright.mean() > 0.3


@pytest.mark.parametrize("seed", range(20))
def test_a_drawn_head_has_features_within_its_mask(seed):
    picture, mask = draw_head(SKIN, np.array([96, 80]), 40, np.random.default_rng(seed))
    assert 0.01 < (mask > 127).mean() < 0.9, "in view, and not all of it"
    assert picture[mask > 127].std() > 10, "more than bare skin"


@pytest.mark.parametrize("seed", range(20))
def test_a_head_stands_in_the_middle_of_a_place(seed):
    place, crop = np.zeros((SIZE, SIZE, 3), np.uint8), np.dstack([SKIN, np.full((SIZE, SIZE), 255, np.uint8)])
    seen = add_head(place, crop, np.random.default_rng(seed))
    assert (seen[75:85, 75:85] > 0).any(2).mean() > 0.9, "there it is"
    assert (seen[:5, :5] == 0).all(), "and around it the place"


@pytest.mark.parametrize("seed", range(20))
def test_a_decoy_changes_the_scene_and_leaves_what_is_beyond_the_frame(seed):
    scene, _ = letterbox(WALL)
    changed = add_decoy(scene, cutouts(), np.random.default_rng(seed))
    assert (changed != scene).any()
    assert not changed[scene.max(2) == 0].any()


@pytest.mark.parametrize("seed", range(20))
def test_boxes_follow_the_frame(seed):
    frame = WALL.copy()
    frame[60:140, 100:160] = 255
    scene, boxes = random_affine(frame, np.float32([[100, 60, 160, 140]]), np.random.default_rng(seed))
    for x0, y0, x1, y1 in boxes:
        rows, columns = np.nonzero(scene.min(2) > 200)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == pytest.approx((x0, y0, x1, y1), abs=9)


def test_fitting_keeps_the_shape_and_tells_the_scale():
    small, share = letterbox(WALL)
    assert small.shape == (SIZE, SIZE, 3)
    assert share == SIZE / 320
    assert (small[: int(240 * share)] == WALL[0, 0]).all()
    assert not small[int(240 * share) + 1 :].any()


def test_scenes_differ_and_hold_what_they_tell():
    rng = np.random.default_rng(0)
    frame = (np.repeat(draw_hand("5L", rng)[:, :, None], 3, 2), np.float32([[20, 20, 110, 110]]))
    scenes = SceneDataset([([frame], 1)], [WALL], [(cutouts(), 1)], length=40)
    torch.manual_seed(0)
    made = [scenes[i] for i in range(40)]
    assert {len(boxes) for _, boxes in made} >= {0, 1, 2}
    for scene, boxes in made:
        assert scene.shape == (3, SIZE, SIZE)
        assert scene.dtype == torch.uint8
        assert boxes.shape[1:] == (4,)
        assert boxes.numel() == 0 or (boxes.min() >= 0 and boxes.max() <= SIZE)
    torch.manual_seed(0)
    assert all(torch.equal(scenes[i][0], made[i][0]) for i in range(5)), "the same seed makes the same scenes"


def test_sources_are_drawn_as_often_as_their_weights_say():
    rng = np.random.default_rng(0)
    drawn = [choose([("seldom", 1), ("often", 3), ("never", 0)], rng) for _ in range(400)]
    assert drawn.count("often") == pytest.approx(300, abs=40)
    assert drawn.count("seldom") == 400 - drawn.count("often")


def test_covered_hands_are_gone():
    frame = WALL.copy()
    frame[60:140, 100:160] = 255
    assert inpaint_hands(frame, np.float32([[100, 60, 160, 140]])).min(2).max() < 200
