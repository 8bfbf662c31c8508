"""The hand detector: what it is asked to say, what its answers mean, and the scenes that it learns from."""

import numpy as np
import pytest
import torch

from tests.builders import draw_hand
from training.augment.synthetic_faces import head, with_head
from training.data import scenes as scenery
from training.data.backgrounds import without_hands
from training.data.scenes import Cutouts, Scenes, decoy, fit, move, paste
from training.lightning.detector import detection_targets, detector_losses
from training.networks.detector import SIZE, STRIDE, HandDetector, decode_peaks, hands

CELLS = SIZE // STRIDE


def answer(boxes):
    """The output of a detector that says just what `detection_targets` asks for."""
    (heat,), (owner,), middles = detection_targets(boxes[None], CELLS)
    output = torch.zeros(5, CELLS, CELLS)
    output[0] = torch.logit(heat.clamp(1e-4, 1 - 1e-4))
    for k, (x0, y0, x1, y1) in enumerate(boxes):
        reach = torch.stack([middles[..., 0] - x0, middles[..., 1] - y0, x1 - middles[..., 0], y1 - middles[..., 1]])
        output[1:, owner == k] = (reach[:, owner == k].clamp_min(1) / STRIDE).log()
    return output


def read(output):
    """The hands that such an output tells of one frame."""
    (scores,), (boxes,) = decode_peaks(output[None])
    return hands(scores, boxes)


@pytest.mark.parametrize("box", [[20, 30, 80, 120], [0, 0, 158, 158], [100, 100, 124, 130]])
def test_what_is_asked_for_is_what_is_read(box):
    truth = torch.tensor([box], dtype=torch.float32)
    scores, found = read(answer(truth))
    assert scores[0] > 0.99
    assert scores[1] < 0.3, "one hand is told once"
    assert (found[0] - truth[0]).abs().max() < 0.5


def test_two_hands_side_by_side():
    truth = torch.tensor([[10.0, 40, 60, 100], [90, 50, 150, 120]])
    scores, found = read(answer(truth))
    assert (scores[:2] > 0.99).all()
    assert (found[:2].sort(0).values - truth.sort(0).values).abs().max() < 0.5


def test_of_a_batch_each_frame_is_told_its_own_hands():
    frames = [torch.tensor([[20.0, 30, 80, 120]]), torch.tensor([[10.0, 40, 60, 100], [90, 50, 150, 120]])]
    scores, boxes = decode_peaks(torch.stack([answer(truth) for truth in frames]))
    assert (scores > 0.99).sum(1).tolist() == [1, 2]
    for sure, box, truth in zip(scores, boxes, frames, strict=True):
        assert (box[sure > 0.99].sort(0).values - truth.sort(0).values).abs().max() < 0.5
    scores, boxes = decode_peaks(torch.empty(0, 5, CELLS, CELLS))
    assert (scores.shape, boxes.shape) == ((0, CELLS**2), (0, CELLS**2, 4))


def test_a_frame_without_hands_asks_for_nothing():
    heat, owner, _ = detection_targets(torch.zeros(1, 1, 4), CELLS)
    assert heat.max() == 0
    assert (owner == -1).all()


def test_each_frame_of_a_batch_is_asked_for_its_own_hands():
    """A frame counts for as much beside one with other hands as alone."""
    torch.manual_seed(0)
    output = HandDetector().eval()(torch.randn(2, 3, SIZE, SIZE))
    boxes = [torch.empty(0, 4), torch.tensor([[10.0, 40, 60, 100], [90, 50, 150, 120]])]
    empty, two = (detector_losses(frame[None], [one]) for frame, one in zip(output, boxes, strict=True))
    torch.testing.assert_close(detector_losses(output, boxes), (empty[0] + two[0], empty[1] + two[1]))
    assert empty[1].tolist() == [0, 0]
    assert two[1][0] == 2


def test_an_untrained_detector_sees_hardly_anything():
    torch.manual_seed(0)
    output = HandDetector().eval()(torch.randn(2, 3, SIZE, SIZE))
    assert output.shape == (2, 5, CELLS, CELLS)
    assert output[:, 0].sigmoid().max() < 0.2


# Scenes

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
    monkeypatch.setattr(scenery, "arm", lambda cutout, *_: cutout)
    monkeypatch.setattr(scenery, "relight", lambda picture, *_: picture)
    scene, _ = fit(WALL)
    scene, boxes = paste(scene, np.empty((0, 4), np.float32), cutouts(), np.random.default_rng(seed))
    for x0, y0, x1, y1 in boxes.astype(int):
        bright = scene[y0:y1, x0:x1, 0] > 115
        everywhere = scene[..., 0] > 115
        assert bright.sum() > 0.95 * everywhere.sum()
        assert bright.mean() > 0.3


@pytest.mark.parametrize("seed", range(20))
def test_a_drawn_head_has_features_within_its_mask(seed):
    picture, mask = head(SKIN, np.array([96, 80]), 40, np.random.default_rng(seed))
    assert 0.01 < (mask > 127).mean() < 0.9, "in view, and not all of it"
    assert picture[mask > 127].std() > 10, "more than bare skin"


@pytest.mark.parametrize("seed", range(20))
def test_a_head_stands_in_the_middle_of_a_place(seed):
    place, crop = np.zeros((SIZE, SIZE, 3), np.uint8), np.dstack([SKIN, np.full((SIZE, SIZE), 255, np.uint8)])
    seen = with_head(place, crop, np.random.default_rng(seed))
    assert (seen[75:85, 75:85] > 0).any(2).mean() > 0.9, "there it is"
    assert (seen[:5, :5] == 0).all(), "and around it the place"


@pytest.mark.parametrize("seed", range(20))
def test_a_decoy_changes_the_scene_and_leaves_what_is_beyond_the_frame(seed):
    scene, _ = fit(WALL)
    changed = decoy(scene, cutouts(), np.random.default_rng(seed))
    assert (changed != scene).any()
    assert not changed[scene.max(2) == 0].any()


@pytest.mark.parametrize("seed", range(20))
def test_boxes_follow_the_frame(seed):
    frame = WALL.copy()
    frame[60:140, 100:160] = 255
    scene, boxes = move(frame, np.float32([[100, 60, 160, 140]]), np.random.default_rng(seed))
    for x0, y0, x1, y1 in boxes:
        rows, columns = np.nonzero(scene.min(2) > 200)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == pytest.approx((x0, y0, x1, y1), abs=9)


def test_fitting_keeps_the_shape_and_tells_the_scale():
    small, share = fit(WALL)
    assert small.shape == (SIZE, SIZE, 3)
    assert share == SIZE / 320
    assert (small[: int(240 * share)] == WALL[0, 0]).all()
    assert not small[int(240 * share) + 1 :].any()


def test_scenes_differ_and_hold_what_they_tell():
    rng = np.random.default_rng(0)
    frame = (np.repeat(draw_hand("5L", rng)[:, :, None], 3, 2), np.float32([[20, 20, 110, 110]]))
    scenes = Scenes([[frame]], [WALL], [cutouts()], length=40)
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


def test_covered_hands_are_gone():
    frame = WALL.copy()
    frame[60:140, 100:160] = 255
    assert without_hands(frame, np.float32([[100, 60, 160, 140]])).min(2).max() < 200
