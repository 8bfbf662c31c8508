"""The ONNX file says what PyTorch says: the same hands, the same probabilities, Grad-CAM as autograd finds it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from torchvision.ops import box_iou

import training.export.cascade
from handful import CLASSES, MODEL, FingerCounter
from tests.builders import draw_hand
from training.data.scenes import fit
from training.export.cascade import (
    AGAIN,
    ANOTHER,
    CLEAR,
    DIM,
    FAR,
    GLANCE,
    NEAR,
    SMALL,
    SURE,
    TEMPERATURE,
    THRESHOLD,
    Reader,
    cut_out,
    doubles,
    enough,
    export,
    fitted,
    load,
    to_onnx,
)
from training.export.quantize import quantize
from training.lightning.classifier import ClassifierModule
from training.lightning.detector import DetectorModule
from training.networks.backbone import normalize
from training.networks.classifier import HandClassifier
from training.networks.detector import CANDIDATE, COARSE, HandDetector
from training.networks.detector import SIZE as FITTED

SIZE = 128


@pytest.fixture(scope="module")
def pictures():
    """Drawn hands and coarse noise, of different sizes and shapes."""
    rng = np.random.default_rng(1)
    hands = [cv2.cvtColor(draw_hand(label, rng), cv2.COLOR_GRAY2RGB) for label in CLASSES]
    frames = [cv2.resize(hand, (160 + 40 * i, 200)) for i, hand in enumerate(hands)]
    noise = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
    return [*frames, cv2.resize(noise, (640, 480))]


# Networks that were hardly trained are not sure of anything.
# All need the high-resolution pass and flip TTA. Their detector is too confident everywhere, in some frames more so; all
# that it finds is refined.
EASILY_TOLD = {
    "THRESHOLD": 0.1,
    "ANOTHER": 0.1,
    "CLEAR": 0.9996,
    "DIM": 1,
    "SURE": 0.9975,
    "SMALL": 1.1,
    "AT_A_GLANCE": 1.1,
    "CLOSELY": 1.1,
}


@contextmanager
def easily_told() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in EASILY_TOLD.items():
            patch.setattr(training.export.cascade, name, value)
        yield


def make(folder: Path) -> Path:
    """A detector that sees hands everywhere, a classifier whose outputs differ between pictures, their ONNX file."""
    torch.manual_seed(0)
    detector, network = HandDetector(), HandClassifier()
    detector.head[-1].bias.data[0] = 3.0
    detector.head[-1].weight.data[0] *= 3  # untrained, it would prefer no place to another
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    rng = np.random.default_rng(1)
    hands = np.stack([cv2.cvtColor(draw_hand(label, rng), cv2.COLOR_GRAY2RGB) for label in CLASSES])
    x, targets = normalize(torch.from_numpy(hands).permute(0, 3, 1, 2)), torch.arange(12)
    for _ in range(15):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x)[0], targets).backward()
        optimizer.step()
    networks = detector.eval(), network.eval()
    torch.save(networks, folder / "networks.pt")
    about = {"training commit": "abc", "licence": "Apache-2.0", "data": "drawn"}
    with easily_told():
        onnx.save(to_onnx(Reader(*networks, SIZE).eval(), about), folder / "hand.onnx")
    return folder


pytestmark = pytest.mark.ahead(work=make)


@pytest.fixture(scope="module")
def networks(begun):
    return torch.load(begun[make].result() / "networks.pt", weights_only=False)


@pytest.fixture(scope="module", autouse=True)
def _easily_told():
    with easily_told():
        yield


@pytest.fixture(scope="module")
def reader(networks):
    return Reader(*networks, SIZE).eval()


@pytest.fixture(scope="module")
def exported(begun):
    return begun[make].result() / "hand.onnx"


@pytest.fixture(scope="module")
def quantized(exported, tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "hand.onnx"
    model = onnx.load(exported)
    quantize(model)
    onnx.save(model, path)
    return path


@cache
def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run(path, picture):
    return session(path).run(None, {"image": picture})


def autograd_gradcam(network, square, target):
    """Grad-CAM as published, of a look and of one in a mirror: the mean of both."""
    there, mirrored = (
        one_look(network, look, label) for look, label in ((square, target), (square.flip(3), (target + 6) % 12))
    )
    return (there + mirrored[:, ::-1]) / 2


def one_look(network, square, target):
    """Weigh each feature map by its mean gradient, keep what is positive."""
    features = network.features(square)
    features.retain_grad()
    network.classify(features)[0][0, target].backward()
    weights = features.grad.mean((2, 3), keepdim=True)
    return (weights * features).sum(1).relu()[0].detach().numpy()


def test_every_output_equals_that_of_pytorch(reader, exported, pictures):
    searched, times = [], []
    hook = reader.detector.register_forward_hook(lambda *_: searched.append(1))
    for picture in pictures:
        searched.clear()
        with torch.no_grad():
            boxes, squares, scores, probabilities, _ = (o.numpy() for o in reader(torch.from_numpy(picture)))
        times.append(len(searched))
        told = run(exported, picture)
        assert len(told[0]) == len(boxes) > 1
        assert np.abs(told[0] - boxes).max() < 1e-2
        assert np.abs(told[1] - squares).max() < 1e-2
        assert np.abs(told[2] - scores).max() < 1e-3  # hardly trained networks are steep
        assert np.abs(told[3] - probabilities).max() < 1e-3
        assert told[3].dtype == np.float32
    assert probabilities.max() > 0.2, "a network that knows nothing would prove nothing"
    hook.remove()
    assert set(times) == {1, 2, 3}, "some frames are searched from afar alone, some from near too, some hands again"


def test_maps_equal_gradcam_by_autograd(reader, exported, pictures, monkeypatch):
    highest, cuts = 0.0, []

    def keep(image, squares, size):
        cuts.append((squares.numpy(), cut_out(image, squares, size)))
        return cuts[-1][1]

    monkeypatch.setattr(training.export.cascade, "cut_out", keep)
    for picture in pictures[::6]:
        _, squares, _, _, maps = run(exported, picture)
        assert maps.shape == (len(squares), 12, 8, 8)
        assert maps.dtype == np.float32
        assert maps.min() >= 0
        with torch.no_grad():
            reader(torch.from_numpy(picture))
        all_squares, crops = cuts[-1]
        for square, told in zip(squares, maps, strict=True):
            crop = normalize(crops[np.abs(all_squares - square).max(1).argmin()])
            for target in range(0, 12, 5):
                expected = autograd_gradcam(reader.classifier, crop[None], target)
                assert np.abs(told[target] - expected).max() < 1e-3
        highest = max(highest, maps.max())
    assert highest > 0.02


def test_what_a_look_is_not_sure_of_is_looked_at_more_closely(networks, reader, pictures, monkeypatch):
    picture = torch.from_numpy(pictures[7])

    def sure(logits, presence):
        return presence.sigmoid() * (logits / TEMPERATURE).softmax(1).amax(1)

    def told(at_a_glance, closely):
        monkeypatch.setattr(training.export.cascade, "AT_A_GLANCE", at_a_glance)
        monkeypatch.setattr(training.export.cascade, "CLOSELY", closely)
        with torch.no_grad():
            _, squares, _, probabilities, _ = reader(picture)
            at_once, there = networks[1](normalize(cut_out(picture, squares, int(GLANCE * SIZE))))
            first = sure(at_once, there)
            doubtful = first < at_a_glance
            crops = normalize(cut_out(picture, squares[doubtful], SIZE))
            (logits, there), (mirrored, _) = networks[1](crops), networks[1](crops.flip(3))
            second = sure(logits, there)
            puzzling = second < closely
        both = (logits + mirrored.roll(6, 1)) / 2  # in a mirror, left and right hands change places
        meant = at_once.clone()
        meant[doubtful] = torch.where(puzzling[:, None], both, logits)
        assert (meant - at_once).abs().max() > 0.05 or not doubtful.any(), "alike looks would prove nothing"
        torch.testing.assert_close(probabilities, (meant / TEMPERATURE).softmax(1), atol=1e-4, rtol=0)
        return first, second

    at_a_glance, _ = told(0.0, 0.0)
    limit = float(at_a_glance.sort().values[:2].mean())  # three hands are surer than that, one is not
    _, closely = told(limit, 0.0)
    assert len(closely) == 1
    _, closely = told(1.1, 0.0)
    assert len(closely) == 4
    limit = float(closely.sort().values[1:3].mean())
    told(1.1, limit)
    told(1.1, 1.1)


def test_without_a_sure_hand_nothing_is_told(exported, tmp_path, pictures):
    model = onnx.load(exported)
    [bias] = [weights for weights in model.graph.initializer if weights.name == "detector.head.2.bias"]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) - 20, bias.name))
    onnx.save(model, tmp_path / "none.onnx")
    told = run(tmp_path / "none.onnx", pictures[0])
    assert [len(part) for part in told] == [0] * 5


def test_what_the_classifier_takes_for_no_hand_is_none(exported, tmp_path, pictures):
    model = onnx.load(exported)
    [bias] = [weights for weights in model.graph.initializer if weights.name == "classifier.presence.bias"]
    bias.CopyFrom(onnx.numpy_helper.from_array(np.float32([-9]), bias.name))
    onnx.save(model, tmp_path / "nothing.onnx")
    assert len(run(exported, pictures[0])[0]) > 0
    assert [len(part) for part in run(tmp_path / "nothing.onnx", pictures[0])] == [0] * 5


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (2, 3000), (191, 193)])
def test_frames_of_any_shape_are_read(exported, shape):
    boxes, *rest = run(exported, np.full((*shape, 3), 128, np.uint8))
    assert all(np.isfinite(part).all() for part in (boxes, *rest))
    assert (boxes <= [shape[1], shape[0]] * 2).all()


@pytest.fixture
def photograph():
    """A sample hand, (H, W, 3) uint8 RGB, at any size, with the noise of a camera."""

    def enlarged(height, width):
        sample = cv2.imread("assets/samples/5L_0.jpg", cv2.IMREAD_COLOR_RGB)
        clean = cv2.resize(sample, (width, height), interpolation=cv2.INTER_CUBIC)
        return (clean + np.random.default_rng(0).normal(0, 10, clean.shape)).clip(0, 255).astype(np.uint8)

    return enlarged


@pytest.mark.parametrize("share", [FAR, 1, NEAR])
@pytest.mark.parametrize("shape", [(128, 128), (360, 480), (480, 640), (451, 300), (720, 1280), (3000, 4000)])
def test_the_detector_is_given_the_mean_of_what_a_pixel_covers(photograph, shape, share):
    picture = photograph(*shape)
    size = int(share * FITTED)
    rows, columns = (max(1, length * size // max(shape)) for length in shape)
    whole = fitted(torch.from_numpy(picture), size)[0].permute(1, 2, 0).numpy()
    assert whole.shape == (rows + -rows % COARSE, columns + -columns % COARSE, 3), "no more black than need be"
    assert not whole[rows:].any()
    assert not whole[:, columns:].any()
    told = whole[:rows, :columns]
    way = cv2.INTER_AREA if max(shape) > size else cv2.INTER_LINEAR
    meant = cv2.resize(picture, (columns, rows), interpolation=way)
    assert np.abs(told - meant).mean() < 7, "one pixel alone would be 8 off"
    if share == 1:
        trained_on = fit(picture)[0][:rows, :columns].astype(float)
        assert np.abs(told - trained_on).mean() < 7


def test_a_square_is_cut_where_it_lies_and_is_black_beyond_the_edge(photograph):
    picture = photograph(900, 1200)
    squares = np.array([(50, 20, 178, 148), (300, 200, 1100, 1000), (-64, 500, 436, 1000), (-500, -600, 1700, 1600)])
    cuts = [cut_out(torch.from_numpy(picture), one[None], SIZE)[0] for one in torch.from_numpy(squares).float()]
    beyond = cv2.copyMakeBorder(picture, 1000, 1000, 1000, 1000, cv2.BORDER_CONSTANT)
    for (x0, y0, x1, y1), planes in zip(squares + 1000, cuts, strict=True):
        cut = planes.permute(1, 2, 0).numpy()
        expected = cv2.resize(beyond[y0:y1, x0:x1], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        assert np.abs(cut - expected).mean() < 3
        inner = cv2.erode((expected == 0).all(2).astype(np.uint8), np.ones((5, 5))) > 0
        assert (cut[inner] == 0).all()


@pytest.mark.parametrize("count", range(5))
def test_hands_of_different_sizes_stay_in_their_order(photograph, count):
    picture = torch.from_numpy(photograph(480, 640))
    squares = torch.tensor([[0, 0, 400, 400], [90, 90, 220, 220], [0, 0, 640, 640], [200, 100, 300, 200.0]])[:count]
    together = cut_out(picture, squares, SIZE)
    assert together.shape == (count, 3, SIZE, SIZE)
    for square, cut in zip(squares, together, strict=True):
        alone = cut_out(picture, square[None], SIZE)[0]
        assert (alone - cut).abs().mean() < 7, "a large one beside a small one is sampled more coarsely, not elsewhere"
        assert (alone - cut.flip(2)).abs().mean() > 8


def computed(picture, folder, kind="Conv") -> int:
    """How many convolutions, or nodes of another kind, the model that ships computes for a picture."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
    session.run(None, {"image": picture})
    events = json.loads(Path(session.end_profiling()).read_text())
    return sum(
        event.get("args", {}).get("op_name") == kind and event["name"].endswith("_kernel_time") for event in events
    )


def test_what_a_frame_does_not_need_is_not_computed(tmp_path):
    def convolutions(network):
        return sum(isinstance(layer, torch.nn.Conv2d) for layer in network.modules())

    search, look = convolutions(HandDetector()), convolutions(HandClassifier())
    clear, hard = (cv2.imread(f"assets/samples/{name}.jpg", cv2.IMREAD_COLOR_RGB) for name in ("5L_0", "3L_8"))
    assert computed(clear, tmp_path) == search + look, "a clear hand is found from afar and read at a glance"
    assert computed(hard, tmp_path) in (search + 2 * look, search + 3 * look), "what is doubtful is looked at closely"
    blank = np.full((480, 640, 3), 128, np.uint8)
    assert computed(blank, tmp_path) == 2 * search + look, "where nothing is clear, it is searched from near, too"


def test_what_may_be_several_hands_is_put_in_order_and_one_hand_is_not(tmp_path):
    one = cv2.imread("assets/samples/5L_0.jpg", cv2.IMREAD_COLOR_RGB)
    assert computed(one, tmp_path, "TopK") == 1, "of all places, the likeliest are taken"
    assert computed(np.hstack([one, one]), tmp_path, "TopK") == 2, "and of hands, the surest comes first"


def test_a_box_inside_a_surer_one_is_a_double():
    boxes = torch.tensor(
        [[0, 0, 100, 100], [40, 40, 110, 110], [10, 10, 40, 40], [200, 0, 300, 100], [90, 0, 190, 100]]
    )
    assert doubles(boxes.float()).tolist() == [False, True, True, False, False]


class Finds(torch.nn.Module):
    """A detector that is as sure as it is told to be, from afar, from near, and again: places (score, middle).

    Middles on the diagonal of 160 × 160 pixels, and how far the hand reaches from there, 24 pixels by default. The
    picture is wider than high: what is square is searched again.
    """

    def __init__(self, afar, near=(), again=()):
        super().__init__()
        self.places = {FAR: afar, NEAR: near, AGAIN: again}
        self.searched = []

    def forward(self, frames):
        rows, columns = frames.shape[2] // 8, frames.shape[3] // 8
        share = NEAR if columns > 16 else AGAIN if rows == columns else FAR
        self.searched.append(share)
        output = torch.full((len(frames), 5, rows, columns), -9.0)
        for score, middle, *reach in self.places[share]:
            cell = round(middle * share / 8 - 0.5)
            reach = np.log((reach or [24])[0] * share / 8)
            output[:, :, cell, cell] = torch.tensor([np.log(score / (1 - score)), *[reach] * 4])
        return output


@pytest.mark.parametrize(
    ("afar", "told"),
    [
        ([(CLEAR + 0.1, 40)], [40]),
        ([(CLEAR + 0.1, 40), (CLEAR + 0.2, 120)], [40, 120]),
        ([(CLEAR + 0.1, 40), (DIM - 0.05, 120)], [40]),
        ([(CLEAR + 0.1, 40), (DIM + 0.05, 120)], [60, 110]),
        ([(CLEAR - 0.1, 40)], [60, 110]),
        ([(DIM - 0.1, 40)], [60, 110]),
        ([], [60, 110]),
    ],
)
def test_what_is_not_clear_from_afar_is_looked_at_from_near(networks, monkeypatch, afar, told):
    monkeypatch.setattr(training.export.cascade, "CLEAR", CLEAR)
    monkeypatch.setattr(training.export.cascade, "DIM", DIM)
    detector = Finds(afar, near=[(0.4, 60), (0.9, 110)])
    scores, boxes = Reader(detector, networks[1], SIZE).find(torch.zeros(288, 320, 3, dtype=torch.uint8))
    middles = ((boxes[:, :2] + boxes[:, 2:]) / 2)[scores > CANDIDATE]  # in twice as large a picture
    assert (middles.sort(0).values - 2 * torch.tensor(told)[:, None]).abs().max() <= 2 * 4 / FAR


@pytest.mark.parametrize(
    ("afar", "again", "score", "box"),
    [
        ((0.62, 80), (0.9, 100, 30), 0.9, (151, 205)),
        ((0.62, 80), (0.6, 100, 30), 0.62, (112, 208)),  # it is not surer than before: as it was
        ((0.75, 80), None, 0.75, (112, 208)),  # sure enough
        ((0.62, 80, 33), None, 0.62, (94, 226)),  # as large as hands in training are
    ],
)
def test_what_is_vague_and_small_is_searched_for_again_where_it_seems_to_be(
    networks, monkeypatch, afar, again, score, box
):
    for name, limit in ("CLEAR", CLEAR), ("DIM", DIM), ("SURE", SURE), ("SMALL", SMALL):
        monkeypatch.setattr(training.export.cascade, name, limit)
    reader = Reader(Finds([afar], again=[again] if again else []), networks[1], SIZE)
    scores, boxes = reader.find(torch.zeros(288, 320, 3, dtype=torch.uint8))
    assert reader.detector.searched == ([FAR, AGAIN] if again else [FAR])
    assert scores[0] == pytest.approx(score)
    # Where in its square the hand lies is known by cells, and so is where from afar.
    assert boxes[0].tolist() == pytest.approx([*box[:1] * 2, *box[1:] * 2], abs=24)


def test_of_boxes_in_each_other_the_one_that_can_be_read_is_told():
    """The detector is surer of hand and arm; the classifier can read the hand alone, here: what is all white."""

    class Reads(HandClassifier):
        def classify(self, features):
            white = features.amin((1, 2, 3))
            return torch.eye(12)[3] * 20 * white[:, None], white * 0

        def features(self, crops):
            return (crops[:, :, 40:88, 40:88] > 0).float()

        def gradcam(self, features):
            return torch.zeros(len(features), 12, 8, 8)

    picture = torch.zeros(144, 160, 3, dtype=torch.uint8)
    picture[88:140, 88:140] = 255
    network = Reads()
    del network._modules["features"]
    detector = Finds([], near=[(0.9, 93, 56), (0.7, 113.4, 23)])  # 37 … 149 pixels, and in it 90 … 136
    boxes, _, _, probabilities, _ = Reader(detector, network, SIZE)(picture)
    assert boxes.tolist() == [pytest.approx([90, 90, 137, 137], abs=4)]
    assert probabilities[0].view(2, 6).sum(0).argmax() == 3


def test_a_hand_beside_a_surer_one_must_be_surer_itself(monkeypatch):
    monkeypatch.setattr(training.export.cascade, "THRESHOLD", THRESHOLD)
    monkeypatch.setattr(training.export.cascade, "ANOTHER", ANOTHER)
    between, above = (THRESHOLD + ANOTHER) / 2, ANOTHER + 0.1
    assert enough(torch.tensor([between])).tolist() == [True]
    assert enough(torch.tensor([between, above, above])).tolist() == [False, True, True]
    assert enough(torch.tensor([THRESHOLD - 0.1, 0.0])).tolist() == [False, False]
    assert enough(torch.empty(0)).tolist() == []


def test_the_file_explains_itself(exported):
    about = FingerCounter(exported).metadata
    assert json.loads(about["classes"]) == list(CLASSES)
    assert "uint8 H×W×3 RGB" in about["input"]
    assert about["training commit"] == "abc"
    assert 0 < CANDIDATE < THRESHOLD < ANOTHER < 1
    assert CANDIDATE <= THRESHOLD**2, "what the classifier does not look at could not be told if it were sure of it"


def test_in_8_bits_nearly_the_same_is_told(exported, quantized, pictures):
    score, probability, map_alike = [], [], []
    for picture in pictures:
        boxes, _, scores, probabilities, maps = run(exported, picture)
        told = run(quantized, picture)
        # Which places an untrained detector prefers is near to chance: only hands that both tell are compared.
        for a, b in zip(*np.nonzero(box_iou(torch.tensor(boxes), torch.tensor(told[0])).numpy() > 0.9), strict=True):
            score.append(abs(told[2][b] - scores[a]))
            probability.append(np.abs(told[3][b] - probabilities[a]).max())
            map_alike.append(np.corrcoef(told[4][b].ravel(), maps[a].ravel())[0, 1])
    assert len(score) > 10
    # Single ones may be further off: hardly trained networks are steep.
    assert np.median(score) < 0.05
    assert np.median(probability) < 0.1
    assert np.median(map_alike) > 0.9


def test_in_8_bits_are_the_weights_of_convolutions_and_nothing_else(exported, quantized):
    graph, before = onnx.load(quantized).graph, onnx.load(exported).graph
    kept = {tensor.name: tensor for tensor in graph.initializer}
    for tensor in before.initializer:
        weights = onnx.numpy_helper.to_array(tensor)
        if weights.ndim == 4 and tensor.name.endswith("weight"):
            numbers, steps = (onnx.numpy_helper.to_array(kept[f"{tensor.name}.{part}"]) for part in ("int8", "step"))
            assert numbers.dtype == np.int8
            assert np.isin(np.abs(numbers).max((1, 2, 3)), (0, 127)).all(), (
                "each channel that is not empty uses all of them"
            )
            assert (np.abs(numbers * steps - weights) <= steps * 0.501).all()
        else:
            assert kept[tensor.name] == tensor


def test_the_files_are_clean_and_small(exported, quantized):
    for path, size in ((exported, 7_000_000), (quantized, 2_000_000), (MODEL, 1_800_000)):
        onnx.checker.check_model(onnx.load(path), full_check=True)
        assert os.path.getsize(path) < size


def test_the_file_says_nothing_of_the_machine_that_made_it(exported):
    for path in (exported, MODEL):
        assert str(Path.home()).encode() not in path.read_bytes()
        assert b"training/export/cascade.py" not in path.read_bytes()


def test_what_the_file_says_of_itself_stays(quantized):
    assert FingerCounter(quantized).metadata["training commit"] == "abc"


def test_what_was_exported_can_be_exported_anew_from_the_file_alone():
    for kind, trained_with, prefix in ((DetectorModule, "scenes", "detector "), (ClassifierModule, "augment", "")):
        network, about = load(MODEL, kind, "")
        assert trained_with in about["config"]
        metadata = FingerCounter(MODEL).metadata
        assert about["training commit"] == metadata[f"{prefix}training commit"]
        assert "; ".join(about["data"]) == metadata["data"]
        sources = yaml.safe_load(about["config"])["data"]["sources"]
        assert {"fingers", "digits", "counting", "webcam", "rendered"} <= set(sources)
        assert len(network.state_dict()) > 20
    assert about["size"] == SIZE


def test_an_export_that_breaks_off_leaves_the_model_as_it_was(tmp_path, monkeypatch):
    file = tmp_path / "handful.onnx"
    file.write_bytes(b"the model before")

    def half(model, path):
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(training.export.cascade, "to_onnx", lambda *_: onnx.load(MODEL))
    monkeypatch.setattr(onnx, "save", half)
    with pytest.raises(OSError, match="No space"):
        export(MODEL, MODEL, file, quantized=False)
    assert file.read_bytes() == b"the model before"


def test_the_shipped_model_says_where_it_comes_from():
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == list(CLASSES)
    assert len(about["training commit"]) == 40, "made from committed code"
    assert about["licence"] == "Apache-2.0"
    assert "Fingers" in about["data"]
    assert "torch" in about["versions"]
    assert "sources" in about["config"]
    assert "scenes" in about["detector config"]
    assert [(i.name, i.type, i.shape[2]) for i in session.get_inputs()] == [("image", "tensor(uint8)", 3)]
