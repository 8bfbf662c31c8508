"""The ONNX file says what PyTorch says: the same probabilities, and Grad-CAM as autograd finds it."""

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
from training.export import export_onnx
from training.network import HandNet, scale

SIZE = 128


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(1)
    hands = [cv2.cvtColor(draw_hand(label, rng), cv2.COLOR_GRAY2RGB) for label in CLASSES]
    noise = rng.integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    return np.concatenate([np.stack(hands), noise])


@pytest.fixture(scope="module")
def network(pictures):
    """A network whose statistics and answers differ from picture to picture, as trained ones do."""
    torch.manual_seed(0)
    network = HandNet()
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    x, targets = scale(torch.from_numpy(pictures[:12]).permute(0, 3, 1, 2)), torch.arange(12)
    for _ in range(15):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x), targets).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "hand.onnx"
    export_onnx(network, SIZE, path, {"training commit": "abc", "licence": "Apache-2.0", "data": "drawn"})
    return path


def autograd_gradcam(network, picture, target):
    """Grad-CAM as published: weigh each feature map by its mean gradient, keep what is positive."""
    features = network.features(scale(torch.from_numpy(picture[None]).permute(0, 3, 1, 2)))
    features.retain_grad()
    network.classify(features)[0, target].backward()
    weights = features.grad.mean((2, 3), keepdim=True)
    return (weights * features).sum(1).relu()[0].detach().numpy()


def test_probabilities_equal_those_of_pytorch(network, exported, pictures):
    told, _ = FingerCounter(exported).classify(pictures)
    with torch.no_grad():
        expected = network(scale(torch.from_numpy(pictures).permute(0, 3, 1, 2))).softmax(1).numpy()
    assert told.dtype == np.float32
    assert np.abs(told - expected).max() < 1e-4
    assert expected.max(1).mean() > 0.3, "a network that knows nothing would prove nothing"


def test_maps_equal_gradcam_by_autograd_for_every_class(network, exported, pictures):
    _, maps = FingerCounter(exported).classify(pictures)
    assert maps.shape == (len(pictures), 12, 8, 8)
    assert maps.dtype == np.float32
    assert maps.min() >= 0
    for picture, told in zip(pictures, maps, strict=True):
        for target in range(12):
            assert np.abs(told[target] - autograd_gradcam(network, picture, target)).max() < 1e-3
    assert maps.max() > 0.05


def test_any_number_of_pictures_is_a_batch(exported, pictures):
    counter = FingerCounter(exported)
    one_by_one = np.concatenate([counter.classify(picture[None])[0] for picture in pictures])
    assert np.abs(counter.classify(pictures)[0] - one_by_one).max() < 1e-5


def test_the_file_explains_itself(exported):
    about = FingerCounter(exported).metadata
    assert json.loads(about["classes"]) == list(CLASSES)
    assert "uint8 N×128×128×3 RGB" in about["input"]
    assert about["training commit"] == "abc"


@pytest.mark.parametrize("shipped", [False, True])
def test_the_file_is_clean_and_small(exported, shipped):
    path = MODEL if shipped else exported
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert os.path.getsize(path) < 2_000_000


def test_the_shipped_model_says_where_it_comes_from():
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == list(CLASSES)
    assert len(about["training commit"]) == 40, "made from committed code"
    assert about["licence"] == "Apache-2.0"
    assert "Fingers" in about["data"]
    assert [(i.name, i.type, i.shape[1:]) for i in session.get_inputs()] == [("image", "tensor(uint8)", [128, 128, 3])]
