"""The counter: predictions, geometry, Grad-CAM, threads and imports."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from handful import CLASSES, COUNTS, FINGERS, FingerCounter, Hand, Prediction, hand_from_probabilities, shared_counter
from handful.images import decode

SAMPLES = Path(__file__).parents[2] / "assets/samples"


@pytest.fixture(scope="module")
def counter() -> FingerCounter:
    return FingerCounter()


def scene(height: int, width: int, hands: dict[str, tuple[int, int, int]]) -> np.ndarray:
    """Return a grey picture, (H, W, 3), with sample pictures pasted in: {name: (x, y, size)}."""
    picture = np.full((height, width, 3), 128, np.uint8)
    for name, (x, y, size) in hands.items():
        sample = decode(SAMPLES / f"{name}.jpg")
        picture[y : y + size, x : x + size] = cv2.resize(sample, (size, size), interpolation=cv2.INTER_AREA)
    return picture


def hand(probabilities, maps=None, fingers=(0.1, 0.9, 0.6, 0.2, 0.7)) -> Hand:
    maps = np.zeros((len(CLASSES), 8, 8), np.float32) if maps is None else maps
    probabilities, fingers = np.asarray(probabilities, np.float32), np.asarray(fingers, np.float32)
    return hand_from_probabilities((0, 0, 9, 9), (0, 0, 9, 9), probabilities, maps, fingers)


# The model


def test_model_has_the_classes(counter):
    assert tuple(json.loads(counter.metadata["classes"])) == CLASSES


# Predictions


@pytest.mark.parametrize(
    ("height", "width", "size"), [(480, 640, 320), (640, 480, 400), (256, 256, 256), (1080, 1920, 900)]
)
def test_prediction_of_one_hand(counter, height, width, size):
    prediction = counter(scene(height, width, {"5L_0": (width - size, height - size, size)}))
    assert (prediction.width, prediction.height) == (width, height)
    assert prediction.milliseconds > 0
    [hand] = prediction.hands
    assert (hand.fingers, hand.side, prediction.total) == (5, "left", 5)
    assert hand.confidence == hand.probabilities[CLASSES.index(hand.label)]
    assert hand.probabilities.shape == (len(CLASSES),)
    assert hand.probabilities.dtype == np.float32
    assert hand.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert (hand.probabilities >= 0).all()
    assert hand.finger_probabilities.shape == (len(FINGERS),)
    assert hand.finger_probabilities.dtype == np.float32
    assert ((hand.finger_probabilities >= 0) & (hand.finger_probabilities <= 1)).all()
    assert hand.raised == FINGERS


@pytest.mark.parametrize("shape", [(480, 640), (1, 1), (2, 3000), (3000, 2), (128, 128)])
def test_no_hands_in_an_empty_picture(counter, shape):
    prediction = counter(np.full((*shape, 3), 128, np.uint8))
    assert prediction.hands == ()
    assert prediction.total == 0
    assert (prediction.height, prediction.width) == shape


def test_two_hands_are_sorted_from_left_to_right_and_add_up(counter):
    prediction = counter(scene(480, 640, {"5L_0": (340, 100, 290), "2R_0": (10, 100, 290)}))
    assert [hand.fingers for hand in prediction.hands] == [2, 5]
    assert prediction.total == 7


def test_crop_is_a_square_around_the_box_of_the_hand(counter):
    [hand] = counter(scene(480, 640, {"5R_0": (300, 120, 300)})).hands
    x0, y0, x1, y1 = hand.box
    assert 300 <= x0 < x1 <= 600
    assert 120 <= y0 < y1 <= 420
    assert max(x1 - x0, y1 - y0) > 150
    left, top, right, bottom = hand.crop
    assert right - left == pytest.approx(bottom - top, rel=1e-4)
    margin = json.loads(counter.metadata["cascade"])["crop_margin"]
    assert right - left == pytest.approx(margin * max(x1 - x0, y1 - y0), rel=1e-3)
    assert (left + right) / 2 == pytest.approx((x0 + x1) / 2, abs=0.1)


def test_boxes_are_inside_the_picture(counter):
    for name in ("5L_0", "0R_0", "2L_0"):
        for hand in counter(scene(300, 200, {name: (0, 100, 200)})[120:]).hands:
            x0, y0, x1, y1 = hand.box
            assert 0 <= x0 < x1 <= 200
            assert 0 <= y0 < y1 <= 180


def test_prediction_does_not_depend_on_place_and_size(counter):
    for x, y, size in ((0, 0, 200), (400, 200, 240), (150, 30, 440)):
        [hand] = counter(scene(480, 640, {"3R_0": (x, y, size)})).hands
        assert hand.label == "3R"


def test_prediction_is_deterministic_and_does_not_modify_the_picture(counter):
    picture = scene(240, 320, {"4L_0": (50, 0, 240)})
    before = picture.copy()
    first, second = counter(picture), counter(picture)
    np.testing.assert_array_equal(first.hands[0].probabilities, second.hands[0].probabilities)
    np.testing.assert_array_equal(picture, before)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_memory_of_large_pictures_is_freed(counter):
    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    before = resident_mb()
    assert counter(scene(4000, 6000, {"3L_0": (1000, 0, 4000)})).total == 3
    assert resident_mb() - before < 100


def test_prediction_does_not_depend_on_memory_layout(counter):
    picture = scene(400, 400, {"5L_0": (0, 0, 400)})
    expected = counter(np.ascontiguousarray(picture[::2, ::-2])).hands[0].probabilities
    np.testing.assert_array_equal(counter(picture[::2, ::-2]).hands[0].probabilities, expected)


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
def test_other_shapes_and_dtypes_are_rejected(counter, image):
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8 RGB"):
        counter(image)


def test_total_sums_the_fingers_of_all_hands():
    probabilities = np.eye(len(CLASSES))
    hands = tuple(hand(probabilities[CLASSES.index(label)]) for label in ("3L", "5R"))
    assert Prediction(hands, 9, 9, 1.0).total == Prediction(hands, 9, 9, 1.0).to_dict()["total"] == 8
    assert Prediction((), 9, 9, 1.0).total == 0


def test_prediction_as_json(counter):
    prediction = counter(scene(256, 300, {"1L_0": (20, 0, 256)}))
    data = json.loads(json.dumps(prediction.to_dict()))
    assert list(data) == ["width", "height", "total", "hands", "ms"]
    assert (data["width"], data["height"], data["total"]) == (300, 256, prediction.total)
    [hand] = data["hands"]
    assert hand["box"] == pytest.approx(prediction.hands[0].box, abs=0.05)
    assert (hand["fingers"], hand["raised"]) == (1, list(prediction.hands[0].raised))
    assert hand["confidence"] == pytest.approx(prediction.hands[0].confidence, abs=1e-4)
    assert list(hand["probabilities"]) == list(CLASSES)
    assert list(hand["probabilities"].values()) == pytest.approx(prediction.hands[0].probabilities.tolist(), abs=1e-4)


# Decoding of probabilities


@pytest.mark.parametrize("index", range(len(CLASSES)))
def test_certain_class_is_predicted(index):
    predicted = hand(np.eye(len(CLASSES))[index])
    assert predicted.label == CLASSES[index]
    assert (predicted.fingers, predicted.side[0].upper()) == (int(CLASSES[index][0]), CLASSES[index][1])
    assert predicted.confidence == 1


def test_count_is_predicted_over_both_sides():
    probabilities = dict.fromkeys(CLASSES, 0.0) | {"3L": 0.29, "3R": 0.31, "4L": 0.4}
    predicted = hand(list(probabilities.values()))
    assert predicted.label == "3R"  # not 4L, the most probable single class
    assert predicted.confidence == pytest.approx(0.31)


@pytest.mark.parametrize(
    ("label", "raised"), [("0R", ()), ("1L", ("index",)), ("3R", ("index", "middle", "little")), ("5L", FINGERS)]
)
def test_as_many_fingers_are_raised_as_the_class_says(label, raised):
    """Whatever their own probabilities: two of them are below 0.5, three above."""
    predicted = hand(np.eye(len(CLASSES))[CLASSES.index(label)])
    assert predicted.raised == raised
    assert predicted.to_dict()["raised"] == list(raised)


# Grad-CAM


def test_gradcam_has_a_maximum_of_1(counter):
    [predicted] = counter(scene(256, 256, {"2L_0": (0, 0, 256)})).hands
    for label in CLASSES:
        heatmap = predicted.gradcam(label)
        assert heatmap.shape == predicted.gradcam_maps.shape[1:]
        assert heatmap.dtype == np.float32
        assert heatmap.min() >= 0
        assert heatmap.max() == pytest.approx(1, abs=1e-5) or not heatmap.any()


def test_gradcam_is_of_the_predicted_class_by_default():
    maps = np.zeros((len(CLASSES), 8, 8), np.float32)
    maps[CLASSES.index("2R"), 1, 2] = 40
    maps[CLASSES.index("5L"), 3, 4] = 0.001
    predicted = hand(np.eye(len(CLASSES))[CLASSES.index("2R")], maps)
    assert np.unravel_index(predicted.gradcam().argmax(), (8, 8)) == (1, 2)
    assert np.unravel_index(predicted.gradcam("5L").argmax(), (8, 8)) == (3, 4)
    assert predicted.gradcam().max() == predicted.gradcam("5L").max() == 1
    assert not predicted.gradcam("0L").any()
    assert maps.max() == 40  # the maps are not modified


def test_gradcam_rejects_unknown_classes():
    with pytest.raises(ValueError, match="6L"):
        hand(np.eye(len(CLASSES))[0]).gradcam("6L")


# Threads


def test_counter_is_thread_safe(counter):
    pictures = [scene(256, 256 + 10 * fingers, {f"{fingers}R_0": (0, 0, 256)}) for fingers in COUNTS]
    expected = [counter(picture).hands[0] for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        for prediction, correct in zip(pool.map(counter, pictures * 10), expected * 10, strict=True):
            assert prediction.hands[0].box == correct.box
            np.testing.assert_array_equal(prediction.hands[0].probabilities, correct.probabilities)
            np.testing.assert_array_equal(prediction.hands[0].gradcam_maps, correct.gradcam_maps)


def test_predictions_compare_without_their_arrays_and_time(counter):
    one, again, other = (counter(decode(SAMPLES / name)) for name in ("3L_0.jpg", "3L_0.jpg", "5R_0.jpg"))
    assert one == again
    assert hash(one) == hash(again)
    assert one != other


def test_shared_counter_is_loaded_once():
    assert shared_counter() is shared_counter()


# Imports


def test_import_is_fast_and_needs_no_training_library():
    code = """
import sys, time
start = time.process_time()
import handful, handful.images, handful.overlay, handful.cli
print(time.process_time() - start, *{name.partition(".")[0] for name in sys.modules})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, *modules = done.stdout.split()
    assert float(seconds) < 1
    allowed = {"handful", "numpy", "cv2", "onnxruntime", "PIL", "pillow_heif"}
    assert allowed <= set(modules)
    unwanted = {"torch", "torchvision", "tqdm", "lightning", "pytorch_lightning", "streamlit", "pandas", "scipy"}
    assert not unwanted & set(modules)


def test_onnxruntime_telemetry_is_disabled(tmp_path):
    """It would store an identifier in the folder for temporary files."""
    command = [sys.executable, "-c", "from handful import FingerCounter; FingerCounter()"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("ORT_")}
    subprocess.run(command, check=True, cwd=SAMPLES.parents[1], env=env | {"TMPDIR": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []
