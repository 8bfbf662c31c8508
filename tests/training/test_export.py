"""The ONNX file predicts what PyTorch predicts: the same hands and probabilities, Grad-CAM equal to autograd's."""

import json
import os
from dataclasses import asdict, replace
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
import training.export.export
from handful import CLASSES, MODEL, FingerCounter
from handful.labels import mirror
from handful.personal import HEADS
from tests.builders import draw_hand
from training.errors import BadData
from training.export.cascade import Cascade, roi_crop
from training.export.config import CascadeConfig
from training.export.export import GONE, export, load, stored_config, to_onnx
from training.export.quantize import quantize
from training.lightning.classifier import ClassifierModule
from training.lightning.detector import DetectorModule
from training.networks.backbone import normalize
from training.networks.classifier import HandClassifier
from training.networks.detector import HandDetector

SIZE = 128
# For networks that were hardly trained: low thresholds, and flip TTA for every hand. Their detector has high scores
# everywhere.
CONFIG = CascadeConfig(presence_bias=0, threshold=0.1, other_threshold=0.1, flip_confidence=1.1)


@pytest.fixture(scope="module")
def pictures():
    """Drawn hands and coarse noise, of different sizes and shapes."""
    rng = np.random.default_rng(1)
    hands = [cv2.cvtColor(draw_hand(label, rng), cv2.COLOR_GRAY2RGB) for label in CLASSES]
    frames = [cv2.resize(hand, (160 + 40 * i, 200)) for i, hand in enumerate(hands)]
    noise = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
    return [*frames, cv2.resize(noise, (640, 480))]


def make(folder: Path) -> Path:
    """Export a detector that finds hands everywhere and a classifier whose outputs differ between pictures."""
    torch.manual_seed(0)
    detector, classifier = HandDetector(), HandClassifier()
    detector.head[-1].bias.data[0] = 3.0
    detector.head[-1].weight.data[0] *= 3  # untrained, it would score all places alike
    optimizer = torch.optim.AdamW(classifier.parameters(), 1e-3)
    rng = np.random.default_rng(1)
    hands = np.stack([cv2.cvtColor(draw_hand(label, rng), cv2.COLOR_GRAY2RGB) for label in CLASSES])
    x, targets = normalize(torch.from_numpy(hands).permute(0, 3, 1, 2)), torch.arange(len(CLASSES))
    for _ in range(15):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(classifier(x)[0], targets).backward()
        optimizer.step()
    networks = detector.eval(), classifier.eval()
    torch.save(networks, folder / "networks.pt")
    metadata = {"training commit": "abc", "licence": "Apache-2.0", "data": "drawn"}
    onnx.save(to_onnx(Cascade(*networks, SIZE, CONFIG).eval(), metadata), folder / "hand.onnx")
    return folder


pytestmark = pytest.mark.background(work=make)


@pytest.fixture(scope="module")
def cascade(background_jobs):
    networks = torch.load(background_jobs[make].result() / "networks.pt", weights_only=False)
    return Cascade(*networks, SIZE, CONFIG).eval()


@pytest.fixture(scope="module")
def exported(background_jobs):
    return background_jobs[make].result() / "hand.onnx"


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


def autograd_gradcam(classifier, crop, target):
    """Grad-CAM as published, of a crop and of its mirror image: the mean of both."""
    plain, flipped = (
        gradcam_of_one(classifier, picture, label)
        for picture, label in ((crop, target), (crop.flip(3), mirror(target)))
    )
    return (plain + flipped[:, ::-1]) / 2


def gradcam_of_one(classifier, crop, target):
    """Weigh each feature map by its mean gradient, keep what is positive."""
    features = classifier.features(crop)
    features.retain_grad()
    classifier.classify(features)[0][0, target].backward()
    weights = features.grad.mean((2, 3), keepdim=True)
    return (weights * features).sum(1).relu()[0].detach().numpy()


def test_every_output_equals_that_of_pytorch(cascade, exported, pictures):
    for picture in pictures:
        with torch.no_grad():
            boxes, crops, scores, probabilities, _, fingers, features = (
                output.numpy() for output in cascade(torch.from_numpy(picture))
            )
        outputs = run(exported, picture)
        assert len(outputs[0]) == len(boxes) > 1
        assert np.abs(outputs[0] - boxes).max() < 1e-2
        assert np.abs(outputs[1] - crops).max() < 1e-2
        assert np.abs(outputs[2] - scores).max() < 1e-3  # hardly trained networks are steep
        assert np.abs(outputs[3] - probabilities).max() < 1e-3
        assert np.abs(outputs[5] - fingers).max() < 1e-3
        assert np.abs(outputs[6] - features).max() < 1e-2
        assert outputs[3].dtype == outputs[5].dtype == outputs[6].dtype == np.float32
    assert probabilities.max() > 0.2, "a network that knows nothing would prove nothing"


def test_maps_equal_gradcam_by_autograd(cascade, exported, pictures, monkeypatch):
    highest, cropped = 0.0, []

    def keep(image, squares, size):
        cropped.append((squares.numpy(), roi_crop(image, squares, size)))
        return cropped[-1][1]

    monkeypatch.setattr(training.export.cascade, "roi_crop", keep)
    for picture in pictures[::6]:
        _, crops, _, _, maps, *_ = run(exported, picture)
        assert maps.shape == (len(crops), len(CLASSES), 8, 8)
        assert maps.dtype == np.float32
        assert maps.min() >= 0
        with torch.no_grad():
            cascade(torch.from_numpy(picture))
        squares, pictures_of_crops = cropped[-1]
        for crop, crop_maps in zip(crops, maps, strict=True):
            pixels = normalize(pictures_of_crops[np.abs(squares - crop).max(1).argmin()])
            for target in range(0, len(CLASSES), 5):
                expected = autograd_gradcam(cascade.classifier, pixels[None], target)
                assert np.abs(crop_maps[target] - expected).max() < 1e-3
        highest = max(highest, maps.max())
    assert highest > 0.02


def test_without_a_likely_hand_there_is_no_output(exported, tmp_path, pictures):
    model = onnx.load(exported)
    [bias] = [weights for weights in model.graph.initializer if weights.name == "detector.head.2.bias"]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) - 20, bias.name))
    onnx.save(model, tmp_path / "none.onnx")
    assert [len(output) for output in run(tmp_path / "none.onnx", pictures[0])] == [0] * 7


def test_without_presence_there_is_no_hand(exported, tmp_path, pictures):
    model = onnx.load(exported)
    [bias] = [weights for weights in model.graph.initializer if weights.name == "classifier.presence.bias"]
    bias.CopyFrom(onnx.numpy_helper.from_array(np.float32([-9]), bias.name))
    onnx.save(model, tmp_path / "nothing.onnx")
    assert len(run(exported, pictures[0])[0]) > 0
    assert [len(output) for output in run(tmp_path / "nothing.onnx", pictures[0])] == [0] * 7


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (2, 3000), (191, 193)])
def test_frames_of_any_shape_can_be_run(exported, shape):
    boxes, *rest = run(exported, np.full((*shape, 3), 128, np.uint8))
    assert all(np.isfinite(output).all() for output in (boxes, *rest))
    assert (boxes <= [shape[1], shape[0]] * 2).all()


def computed(picture, folder, kind="Conv") -> int:
    """Count the convolutions, or nodes of another kind, that the shipped model computes for a picture."""
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

    detection, classification = convolutions(HandDetector()), convolutions(HandClassifier())
    clear, hard = (cv2.imread(f"assets/samples/{name}.jpg", cv2.IMREAD_COLOR_RGB) for name in ("5L_0", "3L_8"))
    assert computed(clear, tmp_path) == detection + classification, "a clear hand needs one pass of each network"
    assert computed(hard, tmp_path) == detection + 2 * classification, "an uncertain one is classified in a mirror, too"


def test_several_candidates_are_sorted_and_a_single_one_is_not(tmp_path):
    one = cv2.imread("assets/samples/5L_0.jpg", cv2.IMREAD_COLOR_RGB)
    assert computed(one, tmp_path, "TopK") == 1, "the highest cells of the detector"
    assert computed(np.hstack([one, one]), tmp_path, "TopK") == 2, "and the highest scores of hands"


# Heads


@pytest.mark.parametrize("kind", ["exported", "quantized"])
def test_heads_given_as_inputs_count_in_every_output(kind, request, pictures, tmp_path):
    """As if they were the file's own: in both passes of flip TTA, in Grad-CAM, in what passes a threshold."""
    path = request.getfixturevalue(kind)
    model, rng = onnx.load(path), np.random.default_rng(0)
    stored = [tensor for tensor in model.graph.initializer if tensor.name in HEADS]
    shipped = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in stored}
    assert set(shipped) == set(HEADS)
    other = {name: values + rng.normal(0, 0.05, values.shape).astype(np.float32) for name, values in shipped.items()}
    for tensor in stored:
        tensor.CopyFrom(onnx.numpy_helper.from_array(other[tensor.name], tensor.name))
    onnx.save(model, tmp_path / "other.onnx")
    for picture in pictures[::4]:
        by_default = run(path, picture)
        for outputs, expected in (
            (session(path).run(None, {"image": picture, **shipped}), by_default),
            (session(path).run(None, {"image": picture, **other}), run(tmp_path / "other.onnx", picture)),
        ):
            for output, values in zip(outputs, expected, strict=True):
                np.testing.assert_array_equal(output, values)
        assert len(outputs[3]) != len(by_default[3]) or np.abs(outputs[3] - by_default[3]).max() > 0.01
        np.testing.assert_array_equal(run(path, picture)[3], by_default[3], "nothing is left of them in the next call")


# Metadata


def test_the_file_describes_itself(exported):
    metadata = FingerCounter(exported).metadata
    assert json.loads(metadata["classes"]) == list(CLASSES)
    assert "uint8 H×W×3 RGB" in metadata["input"]
    assert metadata["training commit"] == "abc"
    assert stored_config(exported) == CONFIG, "its thresholds and scales are those that it was exported with"


def test_a_cascade_config_is_saved_and_loaded(tmp_path):
    config = replace(CONFIG, temperature=1.5)
    config.save(tmp_path / "cascade.yaml")
    assert CascadeConfig.load(tmp_path / "cascade.yaml") == config
    (tmp_path / "part.yaml").write_text("temperature: 2.0\n")
    assert CascadeConfig.load(tmp_path / "part.yaml") == replace(CascadeConfig(), temperature=2.0)


@pytest.mark.parametrize("text", ["temprature: 2", "threshold: high", "[1, 2]", "a: b: c", ""])
def test_what_is_no_cascade_config_is_refused(tmp_path, text):
    file = tmp_path / "cascade.yaml"
    with pytest.raises(BadData, match="python -m training calibrate"):
        CascadeConfig.load(file)
    file.write_text(text)
    with pytest.raises(BadData, match="cascade config"):
        CascadeConfig.load(file)


def test_the_file_holds_nothing_of_the_machine_that_made_it(exported):
    for path in (exported, MODEL):
        assert str(Path.home()).encode() not in path.read_bytes()
        assert b"training/export/cascade.py" not in path.read_bytes()


def test_the_shipped_model_says_where_it_comes_from():
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == list(CLASSES)
    assert len(metadata["training commit"]) == 40, "made from committed code"
    assert metadata["licence"] == "Apache-2.0"
    assert "Fingers" in metadata["data"]
    assert "torch" in metadata["versions"]
    assert "sources" in metadata["config"]
    assert "scenes" in metadata["detector config"]
    assert set(json.loads(metadata["cascade"])) - set(GONE) == set(asdict(CascadeConfig()))
    assert [(i.name, i.type, i.shape[2]) for i in session.get_inputs()] == [("image", "tensor(uint8)", 3)]


# Quantization


def test_8_bit_weights_predict_nearly_the_same(exported, quantized, pictures):
    score, probability, map_correlation = [], [], []
    for picture in pictures:
        boxes, _, scores, probabilities, maps, *_ = run(exported, picture)
        outputs = run(quantized, picture)
        # Which places an untrained detector prefers is near to chance: only hands that both report are compared.
        overlap = box_iou(torch.tensor(boxes), torch.tensor(outputs[0])).numpy() > 0.9
        for a, b in zip(*np.nonzero(overlap), strict=True):
            score.append(abs(outputs[2][b] - scores[a]))
            probability.append(np.abs(outputs[3][b] - probabilities[a]).max())
            map_correlation.append(np.corrcoef(outputs[4][b].ravel(), maps[a].ravel())[0, 1])
    assert len(score) > 10
    # Single ones may be further off: hardly trained networks are steep.
    assert np.median(score) < 0.05
    assert np.median(probability) < 0.1
    assert np.median(map_correlation) > 0.9


def test_only_the_weights_of_convolutions_have_8_bits(exported, quantized):
    graph, before = onnx.load(quantized).graph, onnx.load(exported).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for tensor in before.initializer:
        weights = onnx.numpy_helper.to_array(tensor)
        if weights.ndim == 4 and tensor.name.endswith("weight"):
            numbers, steps = (onnx.numpy_helper.to_array(stored[f"{tensor.name}.{part}"]) for part in ("int8", "step"))
            assert numbers.dtype == np.int8
            assert np.isin(np.abs(numbers).max((1, 2, 3)), (0, 127)).all(), "each channel uses the full range"
            assert (np.abs(numbers * steps - weights) <= steps * 0.501).all()
        else:
            assert stored[tensor.name] == tensor


def test_the_files_are_valid_and_small(exported, quantized):
    for path, size in ((exported, 7_000_000), (quantized, 2_000_000), (MODEL, 1_800_000)):
        onnx.checker.check_model(onnx.load(path), full_check=True)
        assert os.path.getsize(path) < size


def test_quantization_keeps_the_metadata(quantized):
    assert FingerCounter(quantized).metadata["training commit"] == "abc"


# The command


def test_an_exported_file_is_all_that_another_export_needs():
    for kind, option, prefix in ((DetectorModule, "scenes", "detector "), (ClassifierModule, "augment", "")):
        network, provenance = load(MODEL, kind, "")
        assert option in provenance["config"]
        metadata = FingerCounter(MODEL).metadata
        assert provenance["training commit"] == metadata[f"{prefix}training commit"]
        assert "; ".join(provenance["data"]) == metadata["data"]
        sources = yaml.safe_load(provenance["config"])["data"]["sources"]
        assert {"fingers", "digits", "counting", "webcam", "varied", "faces"} <= set(sources)
        assert len(network.state_dict()) > 20
    assert provenance["size"] == 112


def test_an_interrupted_export_leaves_the_old_model(tmp_path, monkeypatch):
    file = tmp_path / "handful.onnx"
    file.write_bytes(b"the old model")

    def write_half(model, path):
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(training.export.export, "to_onnx", lambda *_: onnx.load(MODEL))
    monkeypatch.setattr(onnx, "save", write_half)
    with pytest.raises(OSError, match="No space"):
        export(MODEL, MODEL, output=file, quantized=False)
    assert file.read_bytes() == b"the old model"
