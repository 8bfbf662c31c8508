"""The hand detector: training targets, what its output means, and its losses."""

import pytest
import torch

from training.lightning.detector import detection_targets, detector_losses
from training.networks.detector import INPUT_SIZE, STRIDE, HandDetector, decode_peaks, topk_hands

CELLS = INPUT_SIZE // STRIDE


def perfect_output(boxes):
    """Return the output (5, h, w) of a detector that predicts exactly its targets for boxes (K, 4)."""
    (heat,), (owner,), centres = detection_targets(boxes[None], CELLS)
    output = torch.zeros(5, CELLS, CELLS)
    output[0] = torch.logit(heat.clamp(1e-4, 1 - 1e-4))
    for k, (x0, y0, x1, y1) in enumerate(boxes):
        reach = torch.stack([centres[..., 0] - x0, centres[..., 1] - y0, x1 - centres[..., 0], y1 - centres[..., 1]])
        output[1:, owner == k] = (reach[:, owner == k].clamp_min(1) / STRIDE).log()
    return output


def decode(output):
    """Return the highest scores and their boxes of the output for one frame."""
    (scores,), (boxes,) = decode_peaks(output[None])
    return topk_hands(scores, boxes)


@pytest.mark.parametrize("box", [[20, 30, 80, 120], [0, 0, 158, 158], [100, 100, 124, 130]])
def test_decoding_inverts_the_training_targets(box):
    label = torch.tensor([box], dtype=torch.float32)
    scores, boxes = decode(perfect_output(label))
    assert scores[0] > 0.99
    assert scores[1] < 0.3, "one hand is detected once"
    assert (boxes[0] - label[0]).abs().max() < 0.5


def test_two_hands_side_by_side_are_two_detections():
    labels = torch.tensor([[10.0, 40, 60, 100], [90, 50, 150, 120]])
    scores, boxes = decode(perfect_output(labels))
    assert (scores[:2] > 0.99).all()
    assert (boxes[:2].sort(0).values - labels.sort(0).values).abs().max() < 0.5


def test_a_batch_is_decoded_frame_by_frame():
    frames = [torch.tensor([[20.0, 30, 80, 120]]), torch.tensor([[10.0, 40, 60, 100], [90, 50, 150, 120]])]
    scores, boxes = decode_peaks(torch.stack([perfect_output(labels) for labels in frames]))
    assert (scores > 0.99).sum(1).tolist() == [1, 2]
    for frame_scores, frame_boxes, labels in zip(scores, boxes, frames, strict=True):
        assert (frame_boxes[frame_scores > 0.99].sort(0).values - labels.sort(0).values).abs().max() < 0.5
    scores, boxes = decode_peaks(torch.empty(0, 5, CELLS, CELLS))
    assert (scores.shape, boxes.shape) == ((0, CELLS**2), (0, CELLS**2, 4))


def test_a_frame_without_hands_has_empty_targets():
    heat, owner, _ = detection_targets(torch.zeros(1, 1, 4), CELLS)
    assert heat.max() == 0
    assert (owner == -1).all()


def test_the_loss_of_a_batch_is_the_sum_of_its_frames():
    """A frame counts as much beside one with hands as alone."""
    torch.manual_seed(0)
    output = HandDetector().eval()(torch.randn(2, 3, INPUT_SIZE, INPUT_SIZE))
    boxes = [torch.empty(0, 4), torch.tensor([[10.0, 40, 60, 100], [90, 50, 150, 120]])]
    empty, two = (detector_losses(frame[None], [one]) for frame, one in zip(output, boxes, strict=True))
    torch.testing.assert_close(detector_losses(output, boxes), (empty[0] + two[0], empty[1] + two[1]))
    assert empty[1].tolist() == [0, 0]
    assert two[1][0] == 2


def test_an_untrained_detector_has_low_scores():
    torch.manual_seed(0)
    output = HandDetector().eval()(torch.randn(2, 3, INPUT_SIZE, INPUT_SIZE))
    assert output.shape == (2, 5, CELLS, CELLS)
    assert output[:, 0].sigmoid().max() < 0.2
