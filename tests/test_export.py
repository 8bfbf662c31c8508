"""The ONNX file says what PyTorch says: the same hands, the same probabilities, Grad-CAM as autograd finds it."""

import json
import os

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from model import CLASSES, MODEL, FingerCounter
from tests.drawn import draw_hand
from training.export import THRESHOLD, Reader, cut_out, doubles, export_onnx
from training.finder import HandFinder
from training.network import HandNet, scale

SIZE = 128


@pytest.fixture(scope="module")
def pictures():
    """Drawn hands and noise, of different sizes and shapes."""
    rng = np.random.default_rng(1)
    hands = [cv2.cvtColor(draw_hand(label, rng), cv2.COLOR_GRAY2RGB) for label in CLASSES]
    frames = [cv2.resize(hand, (160 + 40 * i, 200)) for i, hand in enumerate(hands)]
    return [*frames, rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)]


@pytest.fixture(scope="module")
def reader():
    """A finder that sees hands everywhere and a classifier whose answers differ from picture to picture."""
    torch.manual_seed(0)
    finder, network = HandFinder(), HandNet()
    finder.head[-1].bias.data[0] = 3.0
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    rng = np.random.default_rng(1)
    hands = np.stack([cv2.cvtColor(draw_hand(label, rng), cv2.COLOR_GRAY2RGB) for label in CLASSES])
    x, targets = scale(torch.from_numpy(hands).permute(0, 3, 1, 2)), torch.arange(12)
    for _ in range(15):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x), targets).backward()
        optimizer.step()
    return Reader(finder, network, SIZE).eval()


@pytest.fixture(scope="module")
def exported(reader, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "hand.onnx"
    export_onnx(reader, path, {"training commit": "abc", "licence": "Apache-2.0", "data": "drawn"})
    return path


def run(path, picture):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"image": picture})


def autograd_gradcam(network, square, target):
    """Grad-CAM as published: weigh each feature map by its mean gradient, keep what is positive."""
    features = network.features(square)
    features.retain_grad()
    network.classify(features)[0, target].backward()
    weights = features.grad.mean((2, 3), keepdim=True)
    return (weights * features).sum(1).relu()[0].detach().numpy()


def test_every_output_equals_that_of_pytorch(reader, exported, pictures):
    for picture in pictures:
        with torch.no_grad():
            boxes, squares, scores, probabilities, _ = (o.numpy() for o in reader(torch.from_numpy(picture)))
        told = run(exported, picture)
        assert len(told[0]) == 4
        assert np.abs(told[0] - boxes).max() < 0.5
        assert np.abs(told[1] - squares).max() < 0.5
        assert np.abs(told[2] - scores).max() < 2e-3
        assert np.abs(told[3] - probabilities).max() < 2e-3, "weights are stored as float16"
        assert told[3].dtype == np.float32
    assert probabilities.max() > 0.2, "a network that knows nothing would prove nothing"


def test_maps_equal_gradcam_by_autograd(reader, exported, pictures):
    highest = 0.0
    for picture in pictures[::6]:
        _, squares, _, _, maps = run(exported, picture)
        assert maps.shape == (len(squares), 12, 8, 8)
        assert maps.dtype == np.float32
        assert maps.min() >= 0
        whole = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
        crops = scale(cut_out(whole, torch.from_numpy(squares), SIZE))
        for crop, told in zip(crops, maps, strict=True):
            for target in range(0, 12, 5):
                expected = autograd_gradcam(reader.classifier, crop[None], target)
                assert np.abs(told[target] - expected).max() < 1e-3
        highest = max(highest, maps.max())
    assert highest > 0.02


def test_without_a_sure_hand_nothing_is_told(reader, tmp_path, pictures):
    reader.finder.head[-1].bias.data[0] -= 20
    try:
        export_onnx(reader, tmp_path / "none.onnx", {})
    finally:
        reader.finder.head[-1].bias.data[0] += 20
    told = run(tmp_path / "none.onnx", pictures[0])
    assert [len(part) for part in told] == [0] * 5


def test_a_square_is_cut_where_it_lies():
    rows, columns = torch.meshgrid(torch.arange(300.0), torch.arange(400.0), indexing="ij")
    picture = torch.stack([columns, rows, rows * 0])[None]
    squares = torch.tensor([[50.0, 20.0, 178.0, 148.0], [10.0, 0.0, 290.0, 280.0], [-64.0, 200.0, 192.0, 456.0]])
    for square, cut in zip(squares, cut_out(picture, squares, SIZE), strict=True):
        steps = (torch.arange(SIZE) + 0.5) / SIZE
        x = square[0] + (square[2] - square[0]) * steps - 0.5
        y = square[1] + (square[3] - square[1]) * steps - 0.5
        inside = (x > 4) & (x < 395)
        assert (cut[0, 64] - x)[inside].abs().max() < 0.6
        assert (cut[1, :, 64] - y.clamp(0, 299))[y < 293].abs().max() < 0.6


def test_beyond_the_edge_the_edge_is_repeated_at_every_scale():
    picture = torch.zeros(1, 3, 200, 240)
    picture[..., :120], picture[..., 120:] = 50.0, 200.0
    for size in (100.0, 300.0, 800.0):
        square = torch.tensor([[120 - size / 2, 100 - size / 2, 120 + size / 2, 100 + size / 2]])
        cut = cut_out(picture, square, SIZE)[0, 0]
        assert (cut[:, :60] - 50).abs().max() < 1
        assert (cut[:, 68:] - 200).abs().max() < 1


def test_a_box_inside_a_surer_one_is_a_double():
    boxes = torch.tensor(
        [[0, 0, 100, 100], [40, 40, 110, 110], [10, 10, 40, 40], [200, 0, 300, 100], [90, 0, 190, 100]]
    )
    assert doubles(boxes.float()).tolist() == [False, True, True, False, False]


def test_the_file_explains_itself(exported):
    about = FingerCounter(exported).metadata
    assert json.loads(about["classes"]) == list(CLASSES)
    assert "uint8 H×W×3 RGB" in about["input"]
    assert about["training commit"] == "abc"
    assert 0 < THRESHOLD < 1


@pytest.mark.parametrize("shipped", [False, True])
def test_the_file_is_clean_and_small(exported, shipped):
    path = MODEL if shipped else exported
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert os.path.getsize(path) < 3_000_000


def test_the_shipped_model_says_where_it_comes_from():
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == list(CLASSES)
    assert len(about["training commit"]) == 40, "made from committed code"
    assert about["licence"] == "Apache-2.0"
    assert "Fingers" in about["data"]
    assert [(i.name, i.type, i.shape[2]) for i in session.get_inputs()] == [("image", "tensor(uint8)", 3)]
