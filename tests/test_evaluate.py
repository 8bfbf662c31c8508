"""Measures are right on small cases that can be counted by hand, and the pages find what they draw."""

import json

import numpy as np
import pytest

from model import CLASSES
from tests.drawn import write_fingers
from training.evaluate import evaluate, measure, reliability


def sure(labels, confidence=0.9):
    """Probabilities (N, 12) that put `confidence` on each label."""
    rows = np.full((len(labels), 12), (1 - confidence) / 11)
    rows[np.arange(len(labels)), [CLASSES.index(label) for label in labels]] = confidence
    return rows


def measured(truth, labels, confidence=0.9):
    told = indices(labels)
    return measure(indices(truth), told, sure(labels, confidence), [f"{i}.png" for i in range(len(told))])


def indices(labels):
    return np.array([CLASSES.index(label) for label in labels])


def test_accuracies_count_classes_fingers_and_sides():
    told = measured(["3L", "3L", "3R", "0L"], ["3L", "3R", "3R", "1L"])
    assert told["pictures"] == 4
    assert told["accuracy"] == 0.5
    assert told["fingers_accuracy"] == 0.75
    assert told["side_accuracy"] == 0.75


def test_matrices_are_counts_of_truth_and_told():
    told = measured(["3L", "3L", "0R"], ["3L", "2R", "0R"])
    confusion = np.array(told["confusion"])
    assert confusion.sum() == 3
    assert confusion[CLASSES.index("3L"), CLASSES.index("2R")] == 1
    assert np.array(told["fingers_confusion"])[3].tolist() == [0, 0, 1, 1, 0, 0]
    assert told["side_confusion"] == [[1, 1], [0, 1]]


def test_each_class_has_precision_recall_and_f1():
    told = measured(["3L", "3L", "2L"], ["3L", "2L", "2L"])
    rows = {row["class"]: row for row in told["per_class"]}
    assert rows["3L"] == {"class": "3L", "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2}
    assert rows["2L"]["precision"] == 0.5
    assert rows["5R"]["support"] == 0


def test_calibration_error_is_the_gap_between_confidence_and_share_right():
    ece, bins = reliability(np.full(10, 0.9), np.arange(10) < 6)
    assert ece == pytest.approx(0.3)
    assert sum(b["count"] for b in bins) == 10
    assert reliability(np.full(10, 1.0), np.ones(10, bool))[0] == 0


def test_every_wrong_picture_is_listed_the_surest_first():
    probabilities = np.concatenate([sure(["2L"], 0.5), sure(["3L"], 0.9), sure(["1L"], 0.8)])
    wrong = measure(indices(["3L"] * 3), probabilities.argmax(1), probabilities, ["a.png", "b.png", "c.png"])["wrong"]
    assert [row["file"] for row in wrong] == ["c.png", "a.png"]
    assert wrong[0]["truth"] == "3L"
    assert wrong[0]["predicted"] == "1L"
    assert wrong[0]["probabilities"]["1L"] == 0.8


def test_the_exported_model_is_what_is_measured(tmp_path):
    folder = write_fingers(tmp_path / "fingers", train=1, test=1)
    evaluate(folder, output=tmp_path / "metrics")
    written = json.loads((tmp_path / "metrics" / "fingers-test.json").read_text())
    assert written["pictures"] == 12
    assert len(written["model"]["sha256"]) == 64
    assert len(written["wrong"]) == round(12 * (1 - written["accuracy"]))
    assert {row["file"] for row in written["wrong"]} <= {f"fingers/test/{f.name}" for f in (folder / "test").iterdir()}
