"""The cascade, in PyTorch: which passes a frame gets, what they predict, and how pictures are resized and cropped."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from handful.labels import MIRRORED, marginal_over_sides
from training.data.scenes import letterbox as numpy_letterbox
from training.export.cascade import Cascade, contained, letterbox, roi_crop
from training.export.config import CascadeConfig
from training.networks.backbone import normalize
from training.networks.classifier import HandClassifier
from training.networks.detector import COARSE_STRIDE, INPUT_SIZE

SIZE = 128
CONFIG = CascadeConfig()
CLEAR, NOISE = CONFIG.clear_score, CONFIG.noise_score
COARSE, FINE, REFINE = CONFIG.coarse_scale, CONFIG.fine_scale, CONFIG.refine_scale


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    return HandClassifier().eval()


@pytest.fixture
def photograph():
    """A sample hand, (H, W, 3) uint8 RGB, at any size, with the noise of a camera."""

    def enlarged(height, width):
        sample = cv2.imread("assets/samples/5L_0.jpg", cv2.IMREAD_COLOR_RGB)
        clean = cv2.resize(sample, (width, height), interpolation=cv2.INTER_CUBIC)
        return (clean + np.random.default_rng(0).normal(0, 10, clean.shape)).clip(0, 255).astype(np.uint8)

    return enlarged


# Resizing and cropping


@pytest.mark.parametrize("scale", [COARSE, 1, FINE])
@pytest.mark.parametrize("shape", [(128, 128), (360, 480), (480, 640), (451, 300), (720, 1280), (3000, 4000)])
def test_letterbox_averages_all_pixels_that_one_pixel_covers(photograph, shape, scale):
    picture = photograph(*shape)
    size = int(scale * INPUT_SIZE)
    rows, columns = (max(1, length * size // max(shape)) for length in shape)
    padded = letterbox(torch.from_numpy(picture), size)[0].permute(1, 2, 0).numpy()
    assert padded.shape == (rows + -rows % COARSE_STRIDE, columns + -columns % COARSE_STRIDE, 3), "least padding"
    assert not padded[rows:].any()
    assert not padded[:, columns:].any()
    resized = padded[:rows, :columns]
    interpolation = cv2.INTER_AREA if max(shape) > size else cv2.INTER_LINEAR
    expected = cv2.resize(picture, (columns, rows), interpolation=interpolation)
    assert np.abs(resized - expected).mean() < 7, "one pixel alone would be 8 off"
    if scale == 1:
        trained_on = numpy_letterbox(picture)[0][:rows, :columns].astype(float)
        assert np.abs(resized - trained_on).mean() < 7


def test_a_square_is_cropped_where_it_lies_and_is_black_beyond_the_edge(photograph):
    picture = photograph(900, 1200)
    squares = np.array([(50, 20, 178, 148), (300, 200, 1100, 1000), (-64, 500, 436, 1000), (-500, -600, 1700, 1600)])
    crops = [roi_crop(torch.from_numpy(picture), one[None], SIZE)[0] for one in torch.from_numpy(squares).float()]
    beyond = cv2.copyMakeBorder(picture, 1000, 1000, 1000, 1000, cv2.BORDER_CONSTANT)
    for (x0, y0, x1, y1), planes in zip(squares + 1000, crops, strict=True):
        crop = planes.permute(1, 2, 0).numpy()
        expected = cv2.resize(beyond[y0:y1, x0:x1], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        assert np.abs(crop - expected).mean() < 3
        inner = cv2.erode((expected == 0).all(2).astype(np.uint8), np.ones((5, 5))) > 0
        assert (crop[inner] == 0).all()


@pytest.mark.parametrize("count", range(5))
def test_squares_of_different_sizes_are_cropped_together_in_their_order(photograph, count):
    picture = torch.from_numpy(photograph(480, 640))
    squares = torch.tensor([[0, 0, 400, 400], [90, 90, 220, 220], [0, 0, 640, 640], [200, 100, 300, 200.0]])[:count]
    together = roi_crop(picture, squares, SIZE)
    assert together.shape == (count, 3, SIZE, SIZE)
    for square, crop in zip(squares, together, strict=True):
        alone = roi_crop(picture, square[None], SIZE)[0]
        assert (alone - crop).abs().mean() < 7, (
            "beside a small one, a large one is sampled more coarsely, not elsewhere"
        )
        assert (alone - crop.flip(2)).abs().mean() > 8


# Detection


class FixedDetector(torch.nn.Module):
    """A detector with fixed outputs at the coarse and the fine scale and in refined regions: (score, centre, reach).

    Centres lie on the diagonal of 160 × 160 pixels; the hand reaches 24 pixels from there by default. The picture is
    wider than high: what is square is a refined region.
    """

    def __init__(self, coarse, fine=(), refined=()):
        super().__init__()
        self.hands = {COARSE: coarse, FINE: fine, REFINE: refined}
        self.scales = []

    def forward(self, frames):
        rows, columns = frames.shape[2] // 8, frames.shape[3] // 8
        scale = FINE if columns > 16 else REFINE if rows == columns else COARSE
        self.scales.append(scale)
        output = torch.full((len(frames), 5, rows, columns), -9.0)
        for score, centre, *reach in self.hands[scale]:
            cell = round(centre * scale / 8 - 0.5)
            reach = np.log((reach or [24])[0] * scale / 8)
            output[:, :, cell, cell] = torch.tensor([np.log(score / (1 - score)), *[reach] * 4])
        return output


@pytest.mark.parametrize(
    ("coarse", "detected"),
    [
        ([(CLEAR + 0.1, 40)], [40]),
        ([(CLEAR + 0.1, 40), (CLEAR + 0.2, 120)], [40, 120]),
        ([(CLEAR + 0.1, 40), (NOISE - 0.05, 120)], [40]),
        ([(CLEAR + 0.1, 40), (NOISE + 0.05, 120)], [60, 110]),
        ([(CLEAR - 0.1, 40)], [60, 110]),
        ([(NOISE - 0.1, 40)], [60, 110]),
        ([], [60, 110]),
    ],
)
def test_a_frame_without_a_clear_hand_is_searched_at_the_fine_scale(classifier, coarse, detected):
    detector = FixedDetector(coarse, fine=[(0.4, 60), (0.9, 110)])
    frame = torch.zeros(288, 320, 3, dtype=torch.uint8)
    scores, boxes = Cascade(detector, classifier, SIZE, replace(CONFIG, refine_size=None)).detect(frame)
    centres = ((boxes[:, :2] + boxes[:, 2:]) / 2)[scores > CONFIG.candidate_score]  # in twice as large a picture
    assert (centres.sort(0).values - 2 * torch.tensor(detected)[:, None]).abs().max() <= 2 * 4 / COARSE


@pytest.mark.parametrize(
    ("coarse", "refined", "score", "box"),
    [
        ((0.62, 80), (0.9, 100, 30), 0.9, (151, 205)),
        ((0.62, 80), (0.6, 100, 30), 0.62, (112, 208)),  # no higher score than before: unchanged
        ((0.75, 80), None, 0.75, (112, 208)),  # a high score
        ((0.62, 80, 33), None, 0.62, (94, 226)),  # as large as hands in training
    ],
)
def test_a_small_hand_with_a_low_score_is_refined(classifier, coarse, refined, score, box):
    cascade = Cascade(FixedDetector([coarse], refined=[refined] if refined else []), classifier, SIZE, CONFIG)
    scores, boxes = cascade.detect(torch.zeros(288, 320, 3, dtype=torch.uint8))
    assert cascade.detector.scales == ([COARSE, REFINE] if refined else [COARSE])
    assert scores[0] == pytest.approx(score)
    # The place of a hand in its region is known by cells, and so is that of the region.
    assert boxes[0].tolist() == pytest.approx([*box[:1] * 2, *box[1:] * 2], abs=24)


@pytest.mark.parametrize("stage", ["fine_scale", "refine_size"])
def test_a_stage_without_a_value_is_not_run(classifier, stage):
    detector = FixedDetector([(CLEAR - 0.01, 80)], fine=[(CLEAR - 0.01, 80)])
    cascade = Cascade(detector, classifier, SIZE, replace(CONFIG, **{stage: None}))
    cascade.detect(torch.zeros(288, 320, 3, dtype=torch.uint8))
    assert {"fine_scale": FINE, "refine_size": REFINE}[stage] not in cascade.detector.scales
    assert len(cascade.detector.scales) == 2


# Classification


def test_uncertain_crops_get_a_high_resolution_pass_and_flip_tta(photograph):
    torch.manual_seed(0)
    classifier = HandClassifier().eval()
    classifier.presence.bias.data += 2  # confidences spread enough to lie on both sides of a threshold
    classifier.head.weight.data *= 20
    picture = torch.from_numpy(photograph(480, 640))
    crops = torch.tensor([[0, 0, 400, 400], [90, 90, 220, 220], [0, 0, 640, 640], [200, 100, 300, 200.0]])

    def confidence(logits, presence):
        return presence.sigmoid() * (logits / CONFIG.temperature).softmax(1).amax(1)

    def check(low_res_confidence, flip_confidence):
        config = replace(CONFIG, low_res_confidence=low_res_confidence, flip_confidence=flip_confidence)
        with torch.no_grad():
            logits, _, _ = Cascade(FixedDetector([]), classifier, SIZE, config).classify(picture, crops)
            low_size = int(CONFIG.low_res_scale * SIZE)
            low_res, presence = classifier(normalize(roi_crop(picture, crops, low_size)))
            first = confidence(low_res, presence)
            needs_high_res = first < (low_res_confidence or 0)
            pictures = normalize(roi_crop(picture, crops[needs_high_res], SIZE))
            (high_res, presence), (flipped, _) = classifier(pictures), classifier(pictures.flip(3))
            second = confidence(high_res, presence)
        needs_tta = second < (flip_confidence or 0)
        expected = low_res.clone()
        expected[needs_high_res] = torch.where(
            needs_tta[:, None], (high_res + flipped[:, list(MIRRORED)]) / 2, high_res
        )
        assert (expected - low_res).abs().max() > 0.05 or not needs_high_res.any(), "equal passes would prove nothing"
        torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)
        return first, second

    first, _ = check(0.0, None)
    _, second = check(float(first.sort().values[:2].mean()), None)
    assert len(second) == 1, "one of four crops is less certain"
    _, second = check(1.1, None)
    assert len(second) == 4
    check(1.1, float(second.sort().values[1:3].mean()))
    check(1.1, 1.1)


def test_without_a_low_resolution_the_first_crop_has_the_full_one(photograph):
    torch.manual_seed(0)
    classifier = HandClassifier().eval()
    picture, crops = torch.from_numpy(photograph(480, 640)), torch.tensor([[90, 90, 220, 220.0]])
    config = replace(CONFIG, low_res_scale=None, flip_confidence=None)
    with torch.no_grad():
        logits, _, _ = Cascade(FixedDetector([]), classifier, SIZE, config).classify(picture, crops)
        expected, _ = classifier(normalize(roi_crop(picture, crops, SIZE)))
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)


# Selection


def test_a_box_that_lies_mostly_in_one_with_a_higher_score_is_suppressed():
    boxes = torch.tensor(
        [[0, 0, 100, 100], [40, 40, 110, 110], [10, 10, 40, 40], [200, 0, 300, 100], [90, 0, 190, 100]]
    )
    assert contained(boxes.float()).tolist() == [False, True, True, False, False]


def test_of_boxes_in_each_other_the_one_that_is_recognised_is_reported():
    """The detector prefers hand and arm; the classifier recognises the hand alone, here: what is all white."""

    class WhiteClassifier(HandClassifier):
        def classify(self, features):
            white = features.amin((1, 2, 3))
            return torch.eye(12)[3] * 20 * white[:, None], white * 0

        def features(self, crops):
            return (crops[:, :, 40:88, 40:88] > 0).float()

        def gradcam(self, features):
            return torch.zeros(len(features), 12, 8, 8)

    picture = torch.zeros(144, 160, 3, dtype=torch.uint8)
    picture[88:140, 88:140] = 255
    network = WhiteClassifier()
    del network._modules["features"]
    detector = FixedDetector([], fine=[(0.9, 93, 56), (0.7, 113.4, 23)])  # 37 … 149 pixels, and in it 90 … 136
    config = replace(
        CONFIG, threshold=0.1, other_threshold=0.1, refine_size=None, low_res_confidence=1.1, flip_confidence=1.1
    )
    boxes, _, _, probabilities, _ = Cascade(detector, network, SIZE, config)(picture)
    assert boxes.tolist() == [pytest.approx([90, 90, 137, 137], abs=4)]
    assert marginal_over_sides(probabilities[0]).argmax() == 3


def test_a_second_hand_needs_a_higher_score_than_the_first(classifier):
    above_threshold = Cascade(FixedDetector([]), classifier, SIZE, CONFIG).above_threshold
    low, high = CONFIG.threshold, CONFIG.other_threshold
    assert above_threshold(torch.tensor([(low + high) / 2])).tolist() == [True]
    assert above_threshold(torch.tensor([(low + high) / 2, high + 0.1, high + 0.1])).tolist() == [False, True, True]
    assert above_threshold(torch.tensor([low - 0.1, 0.0])).tolist() == [False, False]
    assert above_threshold(torch.empty(0)).tolist() == []
    assert CONFIG.candidate_score == low**2, "what is not classified could not pass"
