"""The cascade: a frame of any size in, its hands out, as one module that is exported as one ONNX graph.

Everything between pixels and probabilities lies in it, so that every runtime that can run the file predicts the same:
letterbox, detection, crops, classification, Grad-CAM. In order (`Cascade.forward`):

    detect       hands in the letterboxed frame
    classify     a crop of each hand; uncertain ones with flip TTA
    select       hands whose score passes a threshold, without those inside others

What a frame does not need is not computed: these stages lie in branches of the graph, see onnx_if.py.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.labels import MAX_HANDS, MIRRORED
from training.export.config import CascadeConfig
from training.export.onnx_if import onnx_cond
from training.networks.backbone import fold_batchnorm, normalize
from training.networks.classifier import HandClassifier
from training.networks.detector import COARSE_STRIDE, INPUT_SIZE, HandDetector, decode_peaks, topk_hands

OPSET = 20
HALVINGS = 4  # of a picture at most, so that hands of any size can be cropped from it

# Of K crops: logits (K, 12), presence logits (K,), finger logits (K, 5), Grad-CAM maps (K, 12, h, w).
Outputs = tuple[Tensor, Tensor, Tensor, Tensor]


class Cascade(nn.Module):
    """Predict the hands of one frame (H, W, 3) uint8 RGB: K ≤ 4, the highest score first.

    Returns boxes (K, 4) and crops (K, 4), x0, y0, x1, y1 in pixels of the frame; scores (K,); probabilities (K, 12);
    Grad-CAM maps (K, 12, h, w) over the crops; the probability that each finger is raised (K, 5); the pooled features
    (K, 112) that the classifier's heads are linear in, of the crop as it is: personal heads are fitted on them (see
    handful/personal.py). No mean with flip TTA, as the class head is not linear in one: a mirror swaps its classes.

    A score is the product of the detector's score, which comes from the whole frame, and of the classifier's presence,
    which comes from the hand alone and large; by `detector_power` and `presence_bias`, the second decides.
    """

    def __init__(self, detector: HandDetector, classifier: HandClassifier, size: int, config: CascadeConfig):
        super().__init__()
        self.detector, self.classifier = fold_batchnorm(detector), fold_batchnorm(classifier)
        self.size, self.config = size, config

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        scores, boxes = self.detect(image)
        candidates = scores > self.config.candidate_score
        index = indices(candidates)
        boxes = boxes[index]
        crops = squares_around(boxes, self.config.crop_margin)
        pictures = roi_crop(image, crops, int(self.config.crop_scale * self.size))
        (logits, presence, finger_logits, gradcam), features = self.classify(pictures)
        probabilities = (logits / self.config.temperature).softmax(1)
        scores = hand_scores(scores[index], presence, self.config.detector_power, self.config.presence_bias)
        (selected,) = onnx_cond(
            candidates.sum() > 1,
            lambda: (self.select_detections(scores, boxes),),
            (indices(scores > self.config.threshold),),
        )
        fingers = finger_logits.sigmoid()
        outputs = (boxes, crops, scores, probabilities, gradcam, fingers, features)
        return tuple(output[selected] for output in outputs)  # type: ignore[return-value]

    def detect(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the most likely hands of a frame: scores (4,) and boxes (4, 4) in its pixels."""
        size = int(self.config.detector_scale * INPUT_SIZE)
        (cells,), (cell_boxes,) = decode_peaks(self.detector(normalize(letterbox(image, size))))
        scores, boxes = topk_hands(cells, cell_boxes)
        longer: Any = torch.sym_max(image.shape[0], image.shape[1])
        return scores, clip_boxes(boxes / size * longer, image)

    def classify(self, pictures: Tensor) -> tuple[Outputs, Tensor]:
        """Classify crops (K, 3, s, s) float, 0 … 255; uncertain ones again in a mirror, which gives the mean of both.

        In a mirror each hand is the other hand. Returns the outputs, and the pooled features (K, 112) of the crops.
        """
        outputs, features = self.classify_crops(pictures)
        needs_tta = self.confidence(outputs) < self.config.flip_confidence

        def flip_tta() -> Outputs:
            index = indices(needs_tta)
            (logits, presence, fingers, gradcam), _ = self.classify_crops(pictures[index].flip(3))
            flipped = logits[:, MIRRORED], presence, fingers, gradcam[:, MIRRORED].flip(3)
            mean = tuple((one[index] + other) / 2 for one, other in zip(outputs, flipped, strict=True))
            return replace_outputs(outputs, index, mean)

        return onnx_cond(any_of(needs_tta), flip_tta, outputs), features

    def classify_crops(self, pictures: Tensor) -> tuple[Outputs, Tensor]:
        """Run the classifier on crops (K, 3, s, s) float, 0 … 255; also return its pooled features (K, 112)."""
        maps = self.classifier.features(normalize(pictures))
        return (*self.classifier.classify(maps), self.classifier.gradcam(maps)), maps.mean((2, 3))

    def confidence(self, outputs: Outputs) -> Tensor:
        """Return the probability (K,) that a crop shows a hand, and one of the most likely class."""
        logits, presence, *_ = outputs
        return presence.sigmoid() * (logits / self.config.temperature).softmax(1).amax(1)

    def select_detections(self, scores: Tensor, boxes: Tensor) -> Tensor:
        """Return the indices of the hands to report, the highest score first, of scores (K,) and boxes (K, 4)."""
        order = scores.argsort(descending=True)
        # Of boxes in each other, the one that the classifier recognises is the hand.
        scores, boxes = scores[order], boxes[order]
        return order[indices(self.above_threshold(scores, boxes) & ~contained(boxes))]

    def above_threshold(self, scores: Tensor, boxes: Tensor) -> Tensor:
        """Return which scores (K,) of a frame pass, (K,) bool.

        The highest one has a threshold of its own, and so have small boxes (K, 4) beside a hand: watches and sleeves.
        """
        highest = ~(scores[:, None] < scores).any(1)
        others = torch.where(beside(boxes), self.config.beside_threshold, self.config.other_threshold)
        return scores > torch.where(highest, self.config.threshold, others)


def hand_scores(detector: Tensor, presence: Tensor, power: float, bias: float) -> Tensor:
    """Return the scores of hands (K,) from the detector's (K,), 0 … 1, and the logits of presence (K,).

    What personal heads are compared by, `find_correct` in handful/personal.py, does the same in numpy.
    """
    return detector**power * (presence + bias).sigmoid()


def any_of(mask: Tensor) -> Tensor:
    """Return whether any of (K,) bool is true, as a bool (). `any` of no elements is true in ONNX."""
    return mask.sum() > 0


def indices(mask: Tensor) -> Tensor:
    """Return the indices of the true elements of (K,) bool."""
    index = torch.nonzero(mask)[:, 0]
    if torch.onnx.is_in_onnx_export():  # tracing knows nothing of their number; no hand at all takes the same path
        torch._check(index.shape[0] > 0)
        torch._check(index.shape[0] <= MAX_HANDS)
    return index


def replace_outputs(outputs: Outputs, index: Tensor, better: tuple[Tensor, ...]) -> Outputs:
    """Replace the outputs of some crops, by their indices."""
    return tuple(one.index_put((index,), other) for one, other in zip(outputs, better, strict=True))  # type: ignore[return-value]


def contained(boxes: Tensor) -> Tensor:
    """Return which boxes (K, 4), the highest score first, lie for more than half in a higher one: (K,) bool."""
    low, high = torch.maximum(boxes[:, None, :2], boxes[:, :2]), torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
    shared = (high - low).clamp_min(0).prod(2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    inside = shared / torch.minimum(area[:, None], area) > 0.5
    return torch.tril(inside, diagonal=-1).any(1)


def beside(boxes: Tensor) -> Tensor:
    """Return which boxes (K, 4), the highest score first, are small and touch a higher one, or nearly: (K,) bool."""
    sides = boxes[:, 2:] - boxes[:, :2]
    area, reach = sides.prod(1), sides.amax(1)[:, None] / 4  # in the size of the higher one
    low, high = torch.maximum(boxes[:, None, :2], boxes[:, :2]), torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
    touches = (high - low + reach).amin(2) > 0
    return torch.tril(touches & (area[:, None] < 0.6 * area), diagonal=-1).any(1)


def letterbox(image: Tensor, size: int) -> Tensor:
    """Resize a frame (H, W, 3) uint8 for the detector, its longer side to `size`: (1, 3, h, w) float, 0 … 255.

    It is padded with black below or beside, only as far as makes both sides multiples of the coarsest stride: a wide
    frame takes less time than a square. Of a large one only every second, third … row is used, as long as five are
    left for three that are needed: converting all pixels of a frame to float would take a good part of the time of
    detection. Bilinear sampling at half the size is the mean of 2 × 2 pixels.
    """
    height: Any = image.shape[0]
    width: Any = image.shape[1]
    longer = torch.sym_max(height, width)
    step = torch.sym_max(1, 3 * longer // (5 * size))
    rows, columns = torch.sym_max(1, height * size // longer), torch.sym_max(1, width * size // longer)
    thinned = image.index_select(0, torch.arange(0, height, step))[None]
    half = torch.sym_max(rows, thinned.shape[1] // 2), torch.sym_max(columns, width // (2 * step))
    small = F.interpolate(F.interpolate(to_planes(thinned), half, mode="bilinear"), (rows, columns), mode="bilinear")
    # As numbers of their own, so that torch.export need not carry this arithmetic through every layer: an export
    # takes two thirds of the time.
    down, across = torch.tensor(
        [(rows + COARSE_STRIDE - 1) // COARSE_STRIDE, (columns + COARSE_STRIDE - 1) // COARSE_STRIDE]
    ).tolist()
    torch._check(down >= 1)
    torch._check(across >= 1)
    return F.pad(small, (0, across * COARSE_STRIDE - columns, 0, down * COARSE_STRIDE - rows))


def to_planes(image: Tensor) -> Tensor:
    """Convert (N, H, W, 3) uint8 to (N, 3, H, W) float."""
    return image.permute(0, 3, 1, 2).float()


def clip_boxes(boxes: Tensor, image: Tensor) -> Tensor:
    """Clip boxes (K, 4) to a picture (H, W, 3)."""
    height, width = image.shape[0], image.shape[1]
    return torch.minimum(torch.relu(boxes), torch.tensor([width, height, width, height]))


def squares_around(boxes: Tensor, margin: float) -> Tensor:
    """Return squares (K, 4) around boxes (K, 4), `margin` of their longer sides wide; they may leave the picture."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) / 2 * margin
    return torch.cat([centre - half, centre + half], 1)


def roi_crop(image: Tensor, squares: Tensor, size: int) -> Tensor:
    """Crop squares (K, 4) from a picture (H, W, 3) uint8: (K, 3, size, size) float, 0 … 255, black beyond the edge.

    Only the part of the picture that holds all squares is converted to float. It is halved as long as the smallest
    square need not be enlarged; then each square is sampled once a pixel, more coarsely where it is much larger.
    """
    largest_factor = 2**HALVINGS
    end = torch.tensor([image.shape[1], image.shape[0]]).float()
    # One pixel more, as bilinear sampling uses both sides; one pixel at least, where there are no squares. In whole
    # pixels of the smallest level, so that the part's corner does not shift what pixels there are the mean of.
    low = torch.cat([squares[:, :2] - 1, end[None] - 1]).amin(0).div(largest_factor).floor().relu() * largest_factor
    high = torch.cat([squares[:, 2:] + 1, low[None] + 1]).amax(0).div(largest_factor).ceil().mul(largest_factor)
    high = high.minimum(end)
    part = to_planes(slice_image(image, low.long(), high.long())[None])
    rows, columns = part.shape[2:]
    sides = squares[:, 2:] - squares[:, :2]
    smallest = torch.cat([sides[:, 0], torch.tensor([float(size * largest_factor)])]).amin(0)
    factors = torch.tensor([2.0**n for n in range(HALVINGS + 1)])
    factor: Any = (factors * (factors * size <= smallest)).amax(0).clamp_min(1).long().item()
    torch._check(factor >= 1)
    torch._check(factor <= largest_factor)
    # Bilinear sampling at half the size is the mean of 2 × 2 pixels: thin fingers do not fall between the samples.
    for by in (torch.sym_min(factor, 2), factor):
        part = F.interpolate(part, (torch.sym_max(1, rows // by), torch.sym_max(1, columns // by)), mode="bilinear")
    centres = (torch.arange(size) + 0.5) / size
    points = (squares[:, :2, None] + sides[:, :, None] * centres - low[:, None]) / (high - low)[:, None] * 2 - 1
    grid = torch.stack([points[:, 0, None, :].expand(-1, size, -1), points[:, 1, :, None].expand(-1, -1, size)], 3)
    # All squares below each other: the picture need not be copied for each.
    crops = F.grid_sample(part, grid.view(1, -1, size, 2), align_corners=False)
    return crops.view(3, -1, size, size).transpose(0, 1)


def slice_image(image: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return the part of a picture (H, W, 3) between two corners, x and y in whole pixels, (2,) int64 each."""
    (left, top), (right, bottom) = low.tolist(), high.tolist()
    if not torch.onnx.is_in_onnx_export():
        return image[top:bottom, left:right]
    # One node. torch.export would write two, and copy rows in their full width first.
    shape = (bottom - top, right - left, image.shape[2])
    corners = low.flip(0), high.flip(0)
    return torch.onnx.ops.symbolic("Slice", (image, *corners), dtype=image.dtype, shape=shape, version=OPSET)
