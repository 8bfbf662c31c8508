"""The cascade, in PyTorch: which passes a frame gets, what they predict, and how pictures are resized and cropped."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from handful.labels import MIRRORED, marginal_over_sides
from training.data.scenes import letterbox as numpy_letterbox
from training.export.cascade import Cascade, contained, hand_scores, letterbox, roi_crop
from training.export.config import CascadeConfig
from training.networks.backbone import normalize
from training.networks.classifier import HandClassifier
from training.networks.detector import COARSE_STRIDE, INPUT_SIZE

SIZE = 128
CONFIG = CascadeConfig()


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


@pytest.mark.parametrize("scale", [0.775, 1, 1.2])
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
    """A detector with fixed outputs: (score, centre, reach).

    Centres lie on the diagonal of 160 × 160 pixels; the hand reaches 24 pixels from there by default.
    """

    def __init__(self, hands):
        super().__init__()
        self.hands = hands

    def forward(self, frames):
        output = torch.full((len(frames), 5, frames.shape[2] // 8, frames.shape[3] // 8), -9.0)
        for score, centre, *reach in self.hands:
            cell = round(centre / 8 - 0.5)
            distances = [np.log((reach or [24])[0] / 8)] * 4
            output[:, :, cell, cell] = torch.tensor([np.log(score / (1 - score)), *distances])
        return output


def test_detections_are_in_pixels_of_the_frame(classifier):
    frame = torch.zeros(288, 320, 3, dtype=torch.uint8)
    cascade = Cascade(FixedDetector([(0.9, 60), (0.7, 110)]), classifier, SIZE, CONFIG)
    scores, boxes = cascade.detect(frame)
    assert scores[:2].tolist() == pytest.approx([0.9, 0.7], abs=1e-4)
    assert ((boxes[:2, :2] + boxes[:2, 2:]) / 2).flatten().tolist() == pytest.approx([120, 120, 220, 220], abs=8)
    assert (boxes[:2, 2:] - boxes[:2, :2]).flatten().tolist() == pytest.approx([96] * 4, abs=1)


# Classification


def test_uncertain_crops_get_flip_tta(photograph):
    torch.manual_seed(0)
    classifier = HandClassifier().eval()
    classifier.presence.bias.data += 2  # confidences spread enough to lie on both sides of a threshold
    classifier.head.weight.data *= 20
    picture = torch.from_numpy(photograph(480, 640))
    squares = torch.tensor([[0, 0, 400, 400], [90, 90, 220, 220], [0, 0, 640, 640], [200, 100, 300, 200.0]])
    crops = roi_crop(picture, squares, int(CONFIG.crop_scale * SIZE))

    def check(flip_confidence):
        config = replace(CONFIG, flip_confidence=flip_confidence)
        with torch.no_grad():
            (logits, _, fingers, _), features = Cascade(FixedDetector([]), classifier, SIZE, config).classify(crops)
            plain, presence, plain_fingers = classifier(normalize(crops))
            flipped, _, flipped_fingers = classifier(normalize(crops.flip(3)))
        confidence = presence.sigmoid() * (plain / CONFIG.temperature).softmax(1).amax(1)
        mean = (plain + flipped[:, list(MIRRORED)]) / 2
        needs_tta = confidence < flip_confidence
        assert (mean - plain).abs().max() > 0.05, "equal passes would prove nothing"
        torch.testing.assert_close(logits, torch.where(needs_tta[:, None], mean, plain), atol=1e-3, rtol=1e-3)
        mean_fingers = (plain_fingers + flipped_fingers) / 2  # a thumb stays a thumb in a mirror
        expected = torch.where(needs_tta[:, None], mean_fingers, plain_fingers)
        torch.testing.assert_close(fingers, expected, atol=1e-3, rtol=1e-3)
        # Those of the crop as it is: the classes of both passes are swapped, and are no function of a mean.
        torch.testing.assert_close(classifier.head(features), plain, atol=1e-3, rtol=1e-3)
        return confidence

    confidence = check(0.0)
    check(float(confidence.sort().values[1:3].mean()))
    check(1.1)


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
            return torch.eye(12)[3].expand(len(white), 12), 20 * white - 10, torch.zeros(len(white), 5)

        def features(self, crops):
            return (crops[:, :, 30:66, 30:66] > 0).float()

        def gradcam(self, features):
            return torch.zeros(len(features), 12, 8, 8)

    picture = torch.zeros(144, 160, 3, dtype=torch.uint8)
    picture[88:140, 88:140] = 255
    network = WhiteClassifier()
    del network._modules["features"]
    detector = FixedDetector([(0.9, 93, 56), (0.7, 113.4, 23)])  # 37 … 149 pixels, and in it 90 … 136
    config = replace(CONFIG, threshold=0.1, other_threshold=0.1, flip_confidence=1.1)
    boxes, _, _, probabilities, *_ = Cascade(detector, network, SIZE, config)(picture)
    assert boxes.tolist() == [pytest.approx([90, 90, 137, 137], abs=4)]
    assert marginal_over_sides(probabilities[0]).argmax() == 3


def test_where_the_classifier_is_sure_little_of_the_detector_will_do():
    scores = hand_scores(
        torch.tensor([0.25, 0.9]), torch.tensor([9.0, 0.0]), CONFIG.detector_power, CONFIG.presence_bias
    )
    assert (scores > CONFIG.threshold).tolist() == [True, False]
    assert hand_scores(torch.tensor(0.0625), torch.tensor(3.0), 0.25, -3.0).item() == pytest.approx(0.25)


def test_a_second_hand_needs_a_higher_score_than_the_first(classifier):
    above_threshold = Cascade(FixedDetector([]), classifier, SIZE, CONFIG).above_threshold
    low, high = CONFIG.threshold, CONFIG.other_threshold
    apart = torch.tensor([[100.0 * k, 0, 100 * k + 50, 50] for k in range(3)])
    assert above_threshold(torch.tensor([(low + high) / 2]), apart[:1]).tolist() == [True]
    scores = torch.tensor([high + 0.1, high + 0.1, (low + high) / 2])
    assert above_threshold(scores, apart).tolist() == [True, True, False]
    assert above_threshold(torch.tensor([low - 0.1, 0.0]), apart[:2]).tolist() == [False, False]
    assert above_threshold(torch.empty(0), torch.empty(0, 4)).tolist() == []
    assert CONFIG.candidate_score**CONFIG.detector_power == pytest.approx(low), "what is not classified could not pass"


@pytest.mark.parametrize(
    ("box", "needs_more"),
    [
        ((40, 105, 80, 135), True),  # a watch
        ((0, 110, 100, 210), False),  # as large as the hand
        ((40, 140, 80, 170), False),  # away from it
    ],
)
def test_something_small_beside_a_hand_needs_a_far_higher_score(classifier, box, needs_more):
    above_threshold = Cascade(FixedDetector([]), classifier, SIZE, CONFIG).above_threshold
    boxes = torch.tensor([(0.0, 0, 100, 100), box])
    between = (CONFIG.other_threshold + CONFIG.beside_threshold) / 2
    assert above_threshold(torch.tensor([0.99, between]), boxes).tolist() == [True, not needs_more]
    assert above_threshold(torch.tensor([0.99, CONFIG.beside_threshold + 0.05]), boxes).tolist() == [True, True]
