"""Makes detector and classifier one ONNX file: a frame of any size in, read hands out.

Everything between pixels and probabilities lies inside the graph, so that every runtime that can run
the file reads the same: fitting the frame, finding hands, cutting them out, classifying them, Grad-CAM.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx
import torch
import torch.nn.functional as F
import wandb
import yaml
from lightning import LightningModule
from torch import Tensor, nn

from handful import CLASSES, MODEL, FingerCounter
from handful.model_store import BadModel
from training.export import onnx_weights
from training.export.onnx_if import lower_to_if, onnx_cond
from training.export.onnx_trace import inline_traced, trace_once
from training.export.quantize import quantize
from training.files import atomic_write
from training.lightning.checkpoint import load_checkpoint, load_network
from training.lightning.classifier import ClassifierModule
from training.lightning.detector import DetectorModule
from training.networks.backbone import fold_batchnorm, normalize
from training.networks.classifier import HandClassifier
from training.networks.detector import CANDIDATE, COARSE, MOST, SIZE, STRIDE, HandDetector, decode_peaks, hands

OPSET = 20
HALVINGS = 4  # of a picture, so that hands of any size can be cut out of it
# Side of the square that the classifier reads, in longer sides of a hand's box. Less than in training (1.3): what is
# varied in size there looks larger than it is (Touvron et al., 2019, arXiv:1906.06423). Chosen like those below.
MARGIN = 1.1
# How sure the surest hand of a frame must be to be told, and any other: who looks at a finger counter shows it a hand,
# and what else there is may be a pen tray. Chosen on the held-out sets and on sources left out of a training.
THRESHOLD, ANOTHER = 0.56, 0.68
# Sizes at which hands are detected, relative to the size of the detector's training: first coarse, in three fifths of
# the time, and as from near, if need be. Scenes in training have hands of all sizes, so it is trained for both. From
# afar a camera's frame, four wide and three high, fills nearly all of the next multiples of the coarsest stride.
FAR, NEAR = 0.775, 1.2
# Seen from afar, what is surer than CLEAR is a hand and what is less sure than DIM is none; what lies between is looked
# at from near, and a frame without a clear hand. Chosen on the held-out sets, and on them with hands twice as far away.
CLEAR, DIM = 0.55, 0.15
# What is surer than FAINT, less sure than SURE and smaller than SMALL of the frame's longer side is searched for again,
# alone: in a square ROOM times as large as its box, in which it is as large as hands in training, in AGAIN
# times the size of that. Chosen as CLEAR was: hands far away are found that were not, or only with an arm.
FAINT, SURE, SMALL = 0.2, 0.65, 0.4
ROOM, AGAIN = 1.5, 0.8
# The side of a glance at a hand, in that of a close look: half the work. Hands are as large as many in training, there.
GLANCE = 0.75
# How sure a glance must be, of the hand and its class, to be the only look, and how sure a close look, to be the last.
# From .95, held-out totals of people are those of always looking closely; where their pictures are turned, darkened,
# blurred or noisy, 4 of 7,264 fewer from .975. From .9 to always looking in a mirror too, they stay alike.
AT_A_GLANCE, CLOSELY = 0.965, 0.89
# Logits are divided by it, so that confidence can be taken at its word (Guo et al., 2017, arXiv:1706.04599): label
# smoothing and augmentation leave the network less sure than it should be. Chosen on the held-out sets.
TEMPERATURE = 0.85


# Of hands (K,): logits (K, 12), presence (K,), a logit too, and Grad-CAM maps (K, 12, h, w).
Look = tuple[Tensor, Tensor, Tensor]


class Reader(nn.Module):
    """One frame (H, W, 3) uint8 RGB to its K hands, K ≤ 4, the surest first.

    Returns boxes (K, 4) and the squares cut out (K, 4), x0, y0, x1, y1 in pixels of the frame; scores
    (K,); probabilities (K, 12); Grad-CAM maps (K, 12, h, w) over the squares.

    A score is the root of three factors: the detector's score, which sees the whole frame, the classifier's
    presence, which sees the hand alone and large, and the probability of the count: what the classifier can
    make nothing of is no hand.
    """

    def __init__(self, detector: HandDetector, classifier: HandClassifier, size: int):
        super().__init__()
        self.detector, self.classifier, self.size = fold_batchnorm(detector), fold_batchnorm(classifier), size

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        scores, boxes = self.find(image)
        candidates = scores > CANDIDATE
        kept = which(candidates)
        boxes = boxes[kept]
        squares = around(boxes, MARGIN)
        glance = self.look(cut_out(image, squares, int(GLANCE * self.size)))
        doubtful = unsure(glance, AT_A_GLANCE)
        logits, presence, maps = onnx_cond(
            some(doubtful), lambda: self.closely(image, squares, glance, doubtful), glance
        )
        probabilities = (logits / TEMPERATURE).softmax(1)
        count = probabilities.view(-1, 2, 6).sum(1).amax(1)
        sure = (scores[kept] * presence.sigmoid() * count).sqrt()
        (told,) = onnx_cond(candidates.sum() > 1, lambda: (surest(sure, boxes),), (which(sure > THRESHOLD),))
        return boxes[told], squares[told], sure[told], probabilities[told], maps[told]

    def find(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The likeliest hands of a frame: scores (4,) and boxes (4, 4) in its pixels."""
        afar = self.search(image, int(FAR * SIZE))
        unclear = (afar[0].amax(0) < CLEAR) | ((afar[0] > DIM) & (afar[0] < CLEAR)).any()
        scores, boxes = onnx_cond(unclear, lambda: hands(*self.search(image, int(NEAR * SIZE))), hands(*afar))
        longest: Any = torch.sym_max(image.shape[0], image.shape[1])
        boxes = within(boxes * longest, image)
        small = (boxes[:, 2:] - boxes[:, :2]).amax(1) < SMALL * longest
        vague = (scores > FAINT) & (scores < SURE) & small
        return onnx_cond(some(vague), lambda: self.again(image, scores, boxes, vague), (scores, boxes))

    def again(self, image: Tensor, scores: Tensor, boxes: Tensor, vague: Tensor) -> tuple[Tensor, Tensor]:
        """The same with the vague ones, (4,) bool, searched for again where each seems to be: what is surer is told."""
        there = which(vague)
        squares, size = around(boxes[there], ROOM), int(AGAIN * SIZE)
        cells, reach = self.seen(cut_out(image, squares, size))
        sure, where = cells.max(1)
        found = reach.gather(1, where[:, None, None].expand(-1, 1, 4))[:, 0] / size
        corners = squares[:, :2].repeat(1, 2) + found * (squares[:, 2:3] - squares[:, :1])
        surer = (sure > scores[there])[:, None]
        boxes = boxes.index_put((there,), torch.where(surer, within(corners, image), boxes[there]))
        return scores.index_put((there,), sure.maximum(scores[there])), boxes

    def search(self, image: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """A frame at one size: scores (cells,) and boxes (cells, 4) in its longer sides."""
        (scores,), (boxes,) = self.seen(fitted(image, size))
        return scores, boxes / size

    @trace_once(lambda _, n, c, h, w: [(n, (h // STRIDE) * (w // STRIDE)), (n, (h // STRIDE) * (w // STRIDE), 4)])
    def seen(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Detect in frames (N, 3, h, w): the score of each cell, and its box in pixels; see `decode_peaks`."""
        return decode_peaks(self.detector(normalize(frames)))

    @trace_once(lambda self, n, *_: [(n, 12), (n,), (n, 12, *2 * (self.size // COARSE,))])
    def look(self, crops: Tensor) -> Look:
        """Hands as they look in crops (K, 3, s, s). The maps of a glance become as large as those of a close look."""
        features = self.classifier.features(normalize(crops))
        maps = F.interpolate(self.classifier.gradcam(features), 2 * (self.size // COARSE,), mode="bilinear")
        return *self.classifier.classify(features), maps

    def closely(self, image: Tensor, squares: Tensor, glance: Look, doubtful: Tensor) -> Look:
        """The glance at hands, less what is doubtful of it, (K,) bool: that is told by a close look."""
        there = which(doubtful)
        crops = cut_out(image, squares[there], self.size)
        close = self.look(crops)
        puzzling = unsure(close, CLOSELY)
        return put(glance, there, onnx_cond(some(puzzling), lambda: self.in_a_mirror(crops, close, puzzling), close))

    def in_a_mirror(self, crops: Tensor, close: Look, puzzling: Tensor) -> Look:
        """The close look at hands, with what is puzzling of it, (K,) bool, looked at in a mirror, too.

        There each hand is the other hand. What one look misses, the other may see: what is told is the mean.
        """
        there = which(puzzling)
        logits, presence, maps = self.look(crops[there].flip(3))
        swapped = [*range(6, 12), *range(6)]
        mirrored = logits[:, swapped], presence, maps[:, swapped].flip(3)
        return put(close, there, tuple((one[there] + other) / 2 for one, other in zip(close, mirrored, strict=True)))


def unsure(look: Look, limit: float) -> Tensor:
    """Which hands a look is less sure of, the hand and its class, than that: (K,) bool."""
    logits, presence, _ = look
    return presence.sigmoid() * (logits / TEMPERATURE).softmax(1).amax(1) < limit


def some(hands: Tensor) -> Tensor:
    """Whether there are some such hands, (K,) bool: a bool (). In ONNX, any of no hands would be such a one."""
    return hands.sum() > 0


def which(hands: Tensor) -> Tensor:
    """The indices of some hands, (K,) bool."""
    found = torch.nonzero(hands)[:, 0]
    # For tracing: nothing says how many there are. No hand at all goes the same way.
    torch._check(found.shape[0] > 0)
    torch._check(found.shape[0] <= MOST)
    return found


def put(look: Look, where: Tensor, better: tuple[Tensor, ...]) -> Look:
    """A look at hands (K,), some of them, by their indices, looked at better."""
    logits, presence, maps = (one.index_put((where,), other) for one, other in zip(look, better, strict=True))
    return logits, presence, maps


def surest(sure: Tensor, boxes: Tensor) -> Tensor:
    """Which of several hands are told, the surest first: indices, by how sure each is (K,) and boxes (K, 4)."""
    order = sure.argsort(descending=True)
    # Of boxes in each other, the one that the classifier can read is the hand.
    return order[which(enough(sure[order]) & ~doubles(boxes[order]))]


def doubles(boxes: Tensor) -> Tensor:
    """Which boxes (K, 4), the surest first, lie for more than half in a surer one: (K,) bool."""
    low, high = torch.maximum(boxes[:, None, :2], boxes[:, :2]), torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
    shared = (high - low).clamp_min(0).prod(2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    inside = shared / torch.minimum(area[:, None], area) > 0.5
    return torch.tril(inside, diagonal=-1).any(1)


def enough(sure: Tensor) -> Tensor:
    """Which hands of a frame, by how sure each is (K,), are told: (K,) bool."""
    surest = ~(sure[:, None] < sure).any(1)
    return sure > torch.where(surest, THRESHOLD, ANOTHER)


def fitted(image: Tensor, size: int) -> Tensor:
    """A frame (H, W, 3) uint8 as the detector takes it: (1, 3, h, w) float.

    The longer side is `size`, black below or beside: only as much as makes both sides multiples of the coarsest stride,
    a wide frame takes less time than a square. Of a large one only every second, third … row is taken, as far as five
    are left for three that are needed: to turn all pixels of a frame to float would take a good part of the time that
    finding takes. Linear sampling at half the size is the mean of 2 × 2 pixels.
    """
    height: Any = image.shape[0]
    width: Any = image.shape[1]
    longest = torch.sym_max(height, width)
    step = torch.sym_max(1, 3 * longest // (5 * size))
    rows, columns = torch.sym_max(1, height * size // longest), torch.sym_max(1, width * size // longest)
    thinned = image.index_select(0, torch.arange(0, height, step))[None]
    half = torch.sym_max(rows, thinned.shape[1] // 2), torch.sym_max(columns, width // (2 * step))
    small = F.interpolate(F.interpolate(planes(thinned), half, mode="bilinear"), (rows, columns), mode="bilinear")
    # As numbers of their own, so that torch.export need not carry all that was reckoned through every layer: an export
    # takes two thirds of the time.
    down, across = torch.tensor([(rows + COARSE - 1) // COARSE, (columns + COARSE - 1) // COARSE]).tolist()
    torch._check(down >= 1)
    torch._check(across >= 1)
    return F.pad(small, (0, across * COARSE - columns, 0, down * COARSE - rows))


def planes(image: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 as (N, 3, H, W) float."""
    return image.permute(0, 3, 1, 2).float()


def within(boxes: Tensor, image: Tensor) -> Tensor:
    """Boxes (K, 4), as far as they lie in a picture (H, W, 3)."""
    height, width = image.shape[0], image.shape[1]
    return torch.minimum(torch.relu(boxes), torch.tensor([width, height, width, height]))


def around(boxes: Tensor, room: float) -> Tensor:
    """The squares (K, 4) around boxes (K, 4), `room` of their longer sides wide; they may reach outside the picture."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) / 2 * room
    return torch.cat([middle - half, middle + half], 1)


def cut_out(image: Tensor, squares: Tensor, size: int) -> Tensor:
    """Squares (K, 4) of a picture (H, W, 3) uint8 as (K, 3, size, size) float; black beyond the edge.

    Only the part of the picture that squares lie in is turned to float. It is halved as long as the smallest of them
    need not be enlarged; then each is sampled once a pixel: more coarsely, where one is much larger than another.
    """
    least = 2**HALVINGS
    end = torch.tensor([image.shape[1], image.shape[0]]).float()
    # One pixel more, as linear sampling takes from both sides; one pixel at least, where there are no squares. In whole
    # pixels of the smallest level: what else is cut out does not shift what pixels there are the mean of.
    low = torch.cat([squares[:, :2] - 1, end[None] - 1]).amin(0).div(least).floor().relu() * least
    high = torch.cat([squares[:, 2:] + 1, low[None] + 1]).amax(0).div(least).ceil().mul(least).minimum(end)
    part = planes(between(image, low.long(), high.long())[None])
    rows, columns = part.shape[2:]
    sides = squares[:, 2:] - squares[:, :2]
    smallest = torch.cat([sides[:, 0], torch.tensor([float(size * least)])]).amin(0)
    times = torch.tensor([2.0**n for n in range(HALVINGS + 1)])
    shrunk: Any = (times * (times * size <= smallest)).amax(0).clamp_min(1).long().item()
    torch._check(shrunk >= 1)
    torch._check(shrunk <= least)
    # Linear sampling at half the size is the mean of 2 × 2 pixels: thin fingers do not fall between the samples.
    for by in (torch.sym_min(shrunk, 2), shrunk):
        part = F.interpolate(part, (torch.sym_max(1, rows // by), torch.sym_max(1, columns // by)), mode="bilinear")
    middles = (torch.arange(size) + 0.5) / size
    places = (squares[:, :2, None] + sides[:, :, None] * middles - low[:, None]) / (high - low)[:, None] * 2 - 1
    grid = torch.stack([places[:, 0, None, :].expand(-1, size, -1), places[:, 1, :, None].expand(-1, -1, size)], 3)
    # All squares below each other: the picture need not be there once for each.
    crops = F.grid_sample(part, grid.view(1, -1, size, 2), align_corners=False)
    return crops.view(3, -1, size, size).transpose(0, 1)


def between(image: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The part of a picture (H, W, 3) between two corners, x and y in whole pixels, (2,) int64 each."""
    (left, top), (right, bottom) = low.tolist(), high.tolist()
    if not torch.onnx.is_in_onnx_export():
        return image[top:bottom, left:right]
    # In one step. torch.export would write two, and rows would be copied in their full width first.
    shape = (bottom - top, right - left, image.shape[2])
    corners = low.flip(0), high.flip(0)
    return torch.onnx.ops.symbolic("Slice", (image, *corners), dtype=image.dtype, shape=shape, version=OPSET)


def export(
    detector: Path = Path("runs/pruned.ckpt"),
    classifier: Path = Path("runs/classifier/best.ckpt"),
    output: Path = MODEL,
    quantized: bool = True,
    log: bool = False,
) -> None:
    """Turn two checkpoints into the one ONNX file that the app runs.

    Args:
        detector: what `python -m training prune` or `detector fit` left, or an ONNX file, whose detector is then kept.
        classifier: what `python -m training fit` left, or an ONNX file too.
        output: where the ONNX file goes.
        quantized: weights in 8 bits; false keeps float32, to compare with.
        log: also hand the file to Weights & Biases, as an artifact.

    Raises:
        BadData, BadModel: a file is missing, damaged, or of the other network.
    """
    find, found_by = load(detector, DetectorModule, "detector fit --config training/configs/detector.yaml, then slim")
    classify, classified_by = load(classifier, ClassifierModule, "fit --config training/configs/classifier.yaml")
    metadata = {
        "name": "Handful",
        "training commit": classified_by["training commit"],
        "detector training commit": found_by["training commit"],
        "data": "; ".join(dict.fromkeys(found_by["data"] + classified_by["data"])),
        "licence": "Apache-2.0",
        "exported": datetime.now(UTC).date().isoformat(),
        "versions": classified_by["versions"],
        "config": classified_by["config"],
        "detector config": found_by["config"],
    }
    model = to_onnx(Reader(find, classify, classified_by["size"]), metadata)
    if quantized:
        quantize(model)
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as part:
        onnx.save(model, part)
    print(f"{output}: {output.stat().st_size / 1e6:.2f} MB")
    if log:
        with wandb.init(project="handful", job_type="export", config=metadata) as run:
            run.log_artifact(output, name="handful", type="model")


def load(file: Path, kind: type[LightningModule], command: str) -> tuple[Any, dict]:
    """The network of that kind in a checkpoint or an ONNX file, and what it says of its training.

    Raises:
        BadData, BadModel: there is none, and the command that trains one is told, or it is of another kind.
    """
    if file.suffix == ".onnx":
        return kept(file, kind)
    about = load_checkpoint(file, command)["about"]
    return load_network(file, kind), about


def kept(file: Path, kind: type[LightningModule]) -> tuple[Any, dict]:
    """The same of a model that was exported before."""
    metadata = FingerCounter(file).metadata
    whose = "detector " if kind is DetectorModule else ""
    try:
        network = onnx_weights.detector(file) if kind is DetectorModule else onnx_weights.classifier(file)
        config = yaml.safe_load(metadata[f"{whose}config"])
        return network, {
            "training commit": metadata[f"{whose}training commit"],
            "data": metadata["data"].split("; "),
            "versions": metadata["versions"],
            "config": metadata[f"{whose}config"],
            "size": config["model"].get("size"),  # the detector's is always the same
        }
    except KeyError as error:
        raise BadModel(f"{file}: python -m training export did not write it: there is no {error} in it.") from error


def to_onnx(reader: Reader, metadata: dict[str, str]) -> onnx.ModelProto:
    """`reader` as an ONNX model, in float32.

    `metadata` says where the weights come from (commits, data, licence, …); the classes and the
    meaning of the input are added to it.
    """
    program = torch.onnx.export(
        reader.eval(),
        (torch.zeros(480, 640, 3, dtype=torch.uint8),),
        input_names=["image"],
        output_names=["boxes", "squares", "scores", "probabilities", "gradcam"],
        dynamic_shapes={"image": {i: torch.export.Dim(name, min=1, max=65_535) for i, name in enumerate(("h", "w"))}},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # only without dynamo
    proto = program.model_proto
    inline_traced(proto, reader)
    about = {
        "classes": json.dumps(CLASSES),
        "input": "image: uint8 H×W×3 RGB, a frame of any size",
        **metadata,
    }
    # Where each node comes from in the code, and in whose folder: a tenth of the file.
    for part in (proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        part.ClearField("metadata_props")
    lower_to_if(proto)
    onnx.helper.set_model_props(proto, about)
    onnx.checker.check_model(proto, full_check=True)
    return proto
