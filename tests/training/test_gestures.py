"""HaGRID: totals and fingers by gesture."""

import numpy as np
import pytest

from handful import CLASSES, FINGERS, Prediction, hand_from_probabilities
from tests.builders import write_image
from training.data.registry import ALL_FINGERS
from training.errors import BadData
from training.evaluation import gestures
from training.evaluation.gestures import GESTURES, GROUPS, PATH, evaluate_gestures, raises


def hand(count: int, *raised: str):
    probabilities = np.eye(len(CLASSES), dtype=np.float32)[count]
    fingers = np.array([finger in raised for finger in FINGERS], np.float32)
    box = (0.0, 0.0, 9.0, 9.0)
    return hand_from_probabilities(box, box, probabilities, np.zeros((len(CLASSES), 7, 7), np.float32), fingers)


def prediction(*hands) -> Prediction:
    return Prediction(hands, 100, 100, 1.0)


def test_every_gesture_says_how_many_fingers_and_which():
    for label in GESTURES.values():
        assert len(label.raised.split()) == label.count
    assert GESTURES["palm"].raised == ALL_FINGERS
    assert {gesture for name in ("counting", "other signs") for gesture in GROUPS[name]} == set(GESTURES)
    assert {*GROUPS["fingers spread"], *GROUPS["fingers together"]} == set(GROUPS["counting"])


def test_fingers_are_those_of_the_only_hand_that_raises_any():
    index, only_index = hand(1, "index"), GESTURES["one"].fingers
    assert raises(prediction(index, hand(0)), only_index)
    assert not raises(prediction(hand(1, "little")), only_index)
    assert not raises(prediction(index, index), only_index)
    for nothing in prediction(hand(0)), prediction():
        assert raises(nothing, GESTURES["fist"].fingers)
        assert not raises(nothing, only_index)


def test_accuracy_is_that_of_totals_and_of_fingers(tmp_path, monkeypatch):
    for name in ("fist/1", "one/1", "one/2", "peace/1"):
        write_image(tmp_path / PATH / f"{name}.jpg", np.full((20, 20, 3), 99, np.uint8))
    answers = iter([prediction(), prediction(hand(1, "index")), prediction(hand(1, "little")), prediction(hand(3))])
    metrics = evaluate_gestures(lambda image: next(answers), tmp_path)
    assert metrics["pictures"] == 4
    assert metrics["total_accuracy"] == 0.75
    assert metrics["finger_accuracy"] == 0.5, "the little finger is not the index finger"
    by_name = {row["group"]: row for row in metrics["groups"]["gesture"]}
    expected = {
        "group": "one",
        "shows": "the index finger",
        "pictures": 2,
        "total_accuracy": 1.0,
        "finger_accuracy": 0.5,
    }
    assert by_name["one"].items() >= expected.items()
    assert by_name["one"]["total"]["correct"] == 2
    assert metrics["ece"] == pytest.approx(1 / 3), "one of three hands is counted wrongly, with certainty"
    file = f"{PATH}/peace/1.jpg"
    assert metrics["errors"] == [{"file": file, "gesture": "peace", "label": 2, "predicted": 3}]
    with pytest.raises(BadData, match="no pictures"):
        gestures.evaluate_gestures(lambda image: prediction(), tmp_path / "nothing")
