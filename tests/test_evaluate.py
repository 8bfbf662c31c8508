"""Measures are right on small cases that can be counted by hand, and the pages find what they draw."""

import json

import numpy as np
import pytest

from model import CLASSES, tell
from tests.drawn import write_fingers
from training.data.frames import SIDELESS, Frame
from training.evaluate import evaluate, measure, reliability


def there(*labels, side=10):
    """A frame with hands side by side; "3" is a hand whose side is not known."""
    boxes = np.array([[k * 20, 0, k * 20 + side, side] for k in range(len(labels))], np.float32).reshape(-1, 4)
    targets = np.array([CLASSES.index(label) if len(label) == 2 else SIDELESS + int(label) for label in labels], int)
    return Frame(np.zeros((side, 100, 3), np.uint8), boxes, targets)


def told(*labels, confidence=0.9, shift=0.0):
    """Hands at the places where `there` puts them."""
    hands = []
    for k, label in enumerate(labels):
        probabilities = np.full(12, (1 - confidence) / 11, np.float32)
        probabilities[CLASSES.index(label)] = confidence
        box = (k * 20 + shift, 0.0, k * 20 + 10 + shift, 10.0)
        hands.append(tell(box, box, probabilities, np.zeros((12, 8, 8), np.float32)))
    return tuple(hands)


def measured(*pairs):
    return measure([(f"{i}.png", frame, hands) for i, (frame, hands) in enumerate(pairs)])


def test_accuracies_count_classes_fingers_and_sides():
    both = zip(("3L", "3L", "3R", "0L"), ("3L", "3R", "3R", "1L"), strict=True)
    found = measured(*((there(truth), told(label)) for truth, label in both))
    assert found["pictures"] == 4
    assert found["accuracy"] == 0.5
    assert found["fingers_accuracy"] == 0.75
    assert found["side_accuracy"] == 0.75
    assert found["total_accuracy"] == 0.75


def test_a_missed_hand_counts_as_wrong_and_one_made_up_too():
    found = measured((there("3L"), ()), (there("2L"), told("2L", "1R")), (there("5L"), told("5L")))
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["total_accuracy"] == pytest.approx(1 / 3)
    assert found["right"] == 1
    assert {row["file"]: row["predicted"] for row in found["wrong"]} == {"0.png": "no hand", "1.png": "2L+1R"}


def test_a_fist_that_is_not_found_is_no_right_total():
    assert measured((there("0L"), ()))["total_accuracy"] == 0


def test_a_box_must_overlap_by_half():
    assert measured((there("3L"), told("3L", shift=2)))["recall"] == 1
    assert measured((there("3L"), told("3L", shift=6)))["recall"] == 0


def test_two_hands_are_matched_by_place():
    swapped = tuple(reversed(told("3L", "5R")))
    assert measured((there("3L", "5R"), swapped))["accuracy"] == 1


def test_where_no_side_is_known_the_count_is_judged():
    found = measured((there("3"), told("3R")), (there("2"), told("3L")))
    assert found["accuracy"] == 0.5
    assert found["confusion"] is found["side_confusion"] is found["side_accuracy"] is None
    assert np.array(found["fingers_confusion"])[2, 3] == 1
    assert found["wrong"][0]["truth"] == "2"


def test_matrices_are_counts_of_truth_and_told():
    found = measured((there("3L"), told("3L")), (there("3L"), told("2R")), (there("0R"), told("0R")))
    confusion = np.array(found["confusion"])
    assert confusion.sum() == 3
    assert confusion[CLASSES.index("3L"), CLASSES.index("2R")] == 1
    assert np.array(found["fingers_confusion"])[3].tolist() == [0, 0, 1, 1, 0, 0]
    assert found["side_confusion"] == [[1, 1], [0, 1]]


def test_each_class_has_precision_recall_and_f1():
    found = measured((there("3L"), told("3L")), (there("3L"), told("2L")), (there("2L"), told("2L")))
    rows = {row["class"]: row for row in found["per_class"]}
    assert rows["3L"] == {"class": "3L", "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2}
    assert rows["2L"]["precision"] == 0.5
    assert rows["5R"]["support"] == 0


def test_calibration_error_is_the_gap_between_confidence_and_share_right():
    ece, bins = reliability(np.full(10, 0.9), np.arange(10) < 6)
    assert ece == pytest.approx(0.3)
    assert sum(b["count"] for b in bins) == 10
    assert reliability(np.full(10, 1.0), np.ones(10, bool))[0] == 0


def test_every_wrong_picture_is_listed_the_surest_first():
    found = measured(
        (there("3L"), told("2L", confidence=0.5)), (there("3L"), told("3L")), (there("3L"), told("1L", confidence=0.8))
    )
    assert [row["file"] for row in found["wrong"]] == ["2.png", "0.png"]
    assert found["wrong"][0] | {"probabilities": {}} == {
        "file": "2.png", "truth": "3L", "predicted": "1L", "confidence": 0.8, "probabilities": {}
    }  # fmt: skip
    assert found["wrong"][0]["probabilities"]["1L"] == 0.8


def test_the_exported_model_is_what_is_measured(tmp_path, capsys):
    folder = write_fingers(tmp_path / "fingers", train=1, test=1)
    evaluate(tmp_path, output=tmp_path / "metrics")
    written = json.loads((tmp_path / "metrics" / "fingers-test.json").read_text())
    assert written["pictures"] == 12
    assert len(written["model"]["sha256"]) == 64
    assert len(written["wrong"]) == 12 - written["right"]
    assert {row["file"] for row in written["wrong"]} <= {f"fingers/test/{f.name}" for f in (folder / "test").iterdir()}
    assert "webcam: not measured." in capsys.readouterr().out
