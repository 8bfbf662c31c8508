"""From pixels to a reading: geometry, what a hand tells, threads, and what is imported for it."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from model import CLASSES, SIDES, FingerCounter, Hand, Reading, letterbox, shared_counter


@pytest.fixture(scope="module")
def counter() -> FingerCounter:
    return FingerCounter()


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def hand(probabilities, maps=None) -> Hand:
    """The hand told from probabilities and maps."""
    maps = np.zeros((12, 8, 8), np.float32) if maps is None else maps
    return FingerCounter._hand((0, 0, 9, 9), (0, 0, 9, 9), np.asarray(probabilities, np.float32), maps)


# The classes


def test_the_classes_are_counts_and_sides():
    assert CLASSES == ("0L", "1L", "2L", "3L", "4L", "5L", "0R", "1R", "2R", "3R", "4R", "5R")


def test_the_model_was_trained_for_these_classes(counter):
    assert tuple(json.loads(counter.metadata["classes"])) == CLASSES


# A reading of a picture


@pytest.mark.parametrize("shape", [(480, 640), (640, 480), (1, 1), (2, 3000), (3000, 2), (128, 128)])
def test_a_reading(counter, shape):
    height, width = shape
    reading = counter(noise(height, width))
    assert (reading.width, reading.height) == (width, height)
    assert reading.milliseconds > 0
    [hand] = reading.hands
    assert reading.total == hand.fingers
    assert hand.fingers in range(6)
    assert hand.side in SIDES
    assert hand.label in CLASSES
    assert hand.confidence == hand.probabilities[CLASSES.index(hand.label)]
    assert hand.probabilities.shape == (12,)
    assert hand.probabilities.dtype == np.float32
    assert hand.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert (hand.probabilities >= 0).all()


def test_the_box_is_the_picture_and_the_crop_a_square_around_it(counter):
    [hand] = counter(noise(480, 640)).hands
    assert hand.box == (0, 0, 640, 480)
    assert hand.crop == (0, -80, 640, 560)
    [hand] = counter(noise(640, 480)).hands
    assert hand.box == (0, 0, 480, 640)
    assert hand.crop == (-80, 0, 560, 640)


def test_the_same_picture_gives_the_same_reading_and_stays_as_it_is(counter):
    picture = noise(120, 160)
    before = picture.copy()
    first, second = counter(picture), counter(picture)
    np.testing.assert_array_equal(first.hands[0].probabilities, second.hands[0].probabilities)
    np.testing.assert_array_equal(picture, before)


def test_any_memory_layout_is_read_alike(counter):
    picture = noise(200, 200)
    expected = counter(np.ascontiguousarray(picture[::2, ::-1])).hands[0].probabilities
    np.testing.assert_array_equal(counter(picture[::2, ::-1]).hands[0].probabilities, expected)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((480, 640), np.uint8),
        np.zeros((480, 640, 4), np.uint8),
        np.zeros((480, 640, 1), np.uint8),
        np.zeros((1, 480, 640, 3), np.uint8),
        np.zeros((480, 640, 3), np.float32),
        np.zeros((480, 640, 3), np.int64),
        np.zeros((0, 640, 3), np.uint8),
    ],
    ids=lambda image: f"{image.shape} {image.dtype}",
)
def test_what_is_no_picture_is_refused(counter, image):
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8 RGB"):
        counter(image)


def test_total_is_the_fingers_of_all_hands():
    probabilities = np.eye(12)
    hands = tuple(hand(probabilities[CLASSES.index(label)]) for label in ("3L", "5R"))
    assert Reading(hands, 9, 9, 1.0).total == Reading(hands, 9, 9, 1.0).to_dict()["total"] == 8
    assert Reading((), 9, 9, 1.0).total == 0


def test_a_reading_as_json(counter):
    reading = counter(noise(48, 64))
    told = json.loads(json.dumps(reading.to_dict()))
    assert list(told) == ["width", "height", "total", "hands", "ms"]
    assert (told["width"], told["height"], told["total"]) == (64, 48, reading.total)
    [hand] = told["hands"]
    assert hand["box"] == [0, 0, 64, 48]
    assert hand["confidence"] == pytest.approx(reading.hands[0].confidence, abs=1e-4)
    assert list(hand["probabilities"]) == list(CLASSES)
    assert list(hand["probabilities"].values()) == pytest.approx(reading.hands[0].probabilities.tolist(), abs=1e-4)


# From probabilities to a hand


@pytest.mark.parametrize("index", range(12))
def test_a_sure_hand(index):
    told = hand(np.eye(12)[index])
    assert told.label == CLASSES[index]
    assert (told.fingers, told.side[0].upper()) == (int(CLASSES[index][0]), CLASSES[index][1])
    assert told.confidence == 1


def test_the_count_is_sure_where_only_the_side_is_in_doubt():
    probabilities = dict.fromkeys(CLASSES, 0.0) | {"3L": 0.29, "3R": 0.31, "4L": 0.4}
    told = hand(list(probabilities.values()))
    assert told.label == "3R"  # not 4L, the single most probable class
    assert told.confidence == pytest.approx(0.31)


# Grad-CAM


def test_gradcam_is_scaled_to_one(counter):
    [told] = counter(noise(240, 320)).hands
    for label in CLASSES:
        heat = told.gradcam(label)
        assert heat.shape == told.maps.shape[1:]
        assert heat.dtype == np.float32
        assert heat.min() >= 0
        assert heat.max() == pytest.approx(1, abs=1e-5) or not heat.any()


def test_gradcam_is_of_the_class_told_unless_another_is_named():
    maps = np.zeros((12, 8, 8), np.float32)
    maps[CLASSES.index("2R"), 1, 2] = 40
    maps[CLASSES.index("5L"), 3, 4] = 0.001
    told = hand(np.eye(12)[CLASSES.index("2R")], maps)
    assert np.unravel_index(told.gradcam().argmax(), (8, 8)) == (1, 2)
    assert np.unravel_index(told.gradcam("5L").argmax(), (8, 8)) == (3, 4)
    assert told.gradcam().max() == told.gradcam("5L").max() == 1
    assert not told.gradcam("0L").any()
    assert maps.max() == 40  # the maps themselves stay as they are


def test_gradcam_of_an_unknown_class():
    with pytest.raises(ValueError, match=r"6L|not in tuple"):
        hand(np.eye(12)[0]).gradcam("6L")


# The square that the classifier sees


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((100, 100), (0, 0, 100, 100)),
        ((100, 200), (0, -50, 200, 150)),
        ((200, 100), (-50, 0, 150, 200)),
        ((3, 6), (0, -1.5, 6, 4.5)),
    ],
)
def test_letterbox(shape, box):
    square, crop = letterbox(noise(*shape), 64)
    assert square.shape == (64, 64, 3)
    assert square.dtype == np.uint8
    assert crop == pytest.approx(box)


def test_letterbox_draws_the_edges_out():
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[:50], picture[50:] = (255, 0, 0), (0, 0, 255)
    square, _ = letterbox(picture, 64)
    assert (square[:32] == (255, 0, 0)).all()
    assert (square[32:] == (0, 0, 255)).all()


@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (301, 77), (50, 40)])
def test_the_crop_tells_where_in_the_picture_the_square_is(shape):
    height, width = shape
    y, x = int(0.3 * height), int(0.6 * width)
    reach = max(2, max(shape) // 40)
    picture = np.zeros((height, width, 3), np.uint8)
    picture[y - reach : y + reach + 1, x - reach : x + reach + 1] = 255
    square, (x0, y0, x1, y1) = letterbox(picture, 128)
    rows, columns = np.nonzero(square[..., 0] > 100)
    assert x0 + (columns.mean() + 0.5) / 128 * (x1 - x0) == pytest.approx(x + 0.5, abs=max(shape) / 128)
    assert y0 + (rows.mean() + 0.5) / 128 * (y1 - y0) == pytest.approx(y + 0.5, abs=max(shape) / 128)


# Many at once


def test_classify_reads_many_squares_as_it_reads_each(counter):
    squares = np.stack([noise(counter.size, counter.size, seed) for seed in range(5)])
    probabilities, maps = counter.classify(squares)
    assert probabilities.shape == (5, 12)
    assert maps.shape[:2] == (5, 12)
    for index in range(5):
        alone = counter.classify(squares[index : index + 1])
        np.testing.assert_allclose(probabilities[index], alone[0][0], atol=1e-5)
        np.testing.assert_allclose(maps[index], alone[1][0], atol=1e-4)


def test_one_counter_serves_many_threads(counter):
    pictures = [noise(60 + 10 * seed, 100, seed) for seed in range(8)]
    expected = [counter(picture).hands[0] for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        for reading, right in zip(pool.map(counter, pictures * 10), expected * 10, strict=True):
            assert reading.hands[0].box == right.box
            np.testing.assert_array_equal(reading.hands[0].probabilities, right.probabilities)
            np.testing.assert_array_equal(reading.hands[0].maps, right.maps)


def test_the_shared_counter_is_loaded_once():
    assert shared_counter() is shared_counter()


# What it costs to import


def test_importing_is_quick_and_brings_no_training_library():
    code = """
import sys, time
start = time.perf_counter()
import model, model.images, model.overlay, model.__main__
print(time.perf_counter() - start, *{name.partition(".")[0] for name in sys.modules})
"""
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    seconds, *modules = min((run.stdout.split() for run in runs), key=lambda words: float(words[0]))
    assert float(seconds) < 1
    allowed = {"model", "numpy", "cv2", "onnxruntime", "PIL", "pillow_heif"}
    assert allowed <= set(modules)
    unwanted = {"torch", "torchvision", "tqdm", "lightning", "pytorch_lightning", "streamlit", "pandas", "scipy"}
    assert not unwanted & set(modules)
