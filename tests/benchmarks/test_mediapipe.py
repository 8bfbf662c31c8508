"""The comparison with MediaPipe, without MediaPipe: metrics, the worker's protocol, missing sets and packages."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from benchmarks import Unavailable, mediapipe
from benchmarks.__main__ import main
from benchmarks.frames import FRAME_SETS, LabelledPicture
from handful import CLASSES, Hand, Prediction

MODES = ["static", "tracking"]


class FakeWorker:
    """Stands in for MediaPipe: finds one hand when static and none when tracking; records its input."""

    def __init__(self, *_):
        self.modes = MODES
        self.versions = {"mediapipe": "0", "numpy": "0", "opencv": "0"}
        self.inputs = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __call__(self, image, reset):
        self.inputs.append((image.shape, reset))
        times = {"ms": 20.0, "cpu_ms": 30.0}
        return {
            "static": {**times, "hands": 1, "totals": {"upright": 2, "distance": 1, "angles": 0}},
            "tracking": {**times, "hands": 0, "totals": {"upright": 0, "distance": 0, "angles": 0}},
        }


def predict_one(image) -> Prediction:
    """Return one finger for any picture."""
    maps = np.zeros((len(CLASSES), 2, 2))
    hand = Hand((0, 0, 8, 8), (0, 0, 8, 8), 1, "left", 1.0, np.zeros(len(CLASSES)), maps)
    return Prediction((hand,), 8, 8, 1.0)


def labelled(file, total: int, session: str = "") -> LabelledPicture:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (100, 100, 100)).save(file)
    return LabelledPicture(file, total, session)


def test_accuracy_is_that_of_the_best_rule_for_each_mode(tmp_path):
    pictures = [
        labelled(tmp_path / f"{name}.png", total, session)
        for name, total, session in (("a", 1, "x"), ("b", 1, "x"), ("c", 2, "y"))
    ]
    worker = FakeWorker()
    metrics = mediapipe.compute_metrics(mediapipe.predict_all(pictures, predict_one, worker), MODES)
    # A warm-up, then tracking restarts with each session.
    assert worker.inputs == [((8, 8, 3), reset) for reset in (False, True, False, True)]
    assert (metrics["handful"]["accuracy"], metrics["handful"]["no_hand"]) == (0.6667, 0)
    assert metrics["static"]["rules"] == {"upright": 0.3333, "distance": 0.6667, "angles": 0}
    assert (metrics["static"]["accuracy"], metrics["static"]["rule"]) == (0.6667, "distance")
    assert (metrics["tracking"]["accuracy"], metrics["tracking"]["no_hand"]) == (0, 1)


def test_each_condition_has_its_own_accuracy_and_best_rule(tmp_path):
    pictures = [
        labelled(tmp_path / condition / f"{number}.png", total, condition)
        for number, (condition, total) in enumerate([("grey", 1), ("grey", 2), ("poor line", 2), ("poor line", 2)])
    ]
    metrics = mediapipe.metrics_by_condition(mediapipe.predict_all(pictures, predict_one, FakeWorker()), MODES)
    assert metrics == {
        "grey": {"handful": {"accuracy": 0.5}, "static": {"accuracy": 0.5}, "tracking": {"accuracy": 0}},
        "poor line": {"handful": {"accuracy": 0}, "static": {"accuracy": 1}, "tracking": {"accuracy": 0}},
    }


@pytest.mark.parametrize("border", ["edges", "black"])
def test_close_crops_get_contrast_size_and_a_border(border):
    image = np.zeros((100, 100, 3), np.uint8)
    image[:, 50:] = 90
    padded = mediapipe.pad(image, border)
    assert padded.shape == (800, 800, 3)
    assert padded.dtype == np.uint8
    assert padded[400, 590].min() == 255
    assert padded[400, 799].min() == (255 if border == "edges" else 0)


def test_missing_sets_are_reported_and_leave_the_committed_results_unchanged(tmp_path, monkeypatch, capsys):
    labelled(tmp_path / "assets/samples/1L_0.jpg", 1)
    monkeypatch.setattr(mediapipe, "ROOT", tmp_path)
    monkeypatch.setattr(mediapipe, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(mediapipe, "environment", lambda: None)
    monkeypatch.setattr(mediapipe, "Worker", FakeWorker)
    assert main(["mediapipe", "--json", str(tmp_path / "numbers.json")]) == 0
    assert not (tmp_path / "results.json").exists()
    results = json.loads((tmp_path / "numbers.json").read_text())["mediapipe"]
    assert results["modes"] == MODES
    assert results["sets"]["samples"]["frames"] == 1
    assert results["sets"]["webcam"]["frames"] == 0
    text = capsys.readouterr().out
    assert "skipped: Kaggle Fingers, Webcam frames, Webcam frames of one hand, 640×480, Webcam" in text
    assert str(tmp_path) not in json.dumps(results)


def test_results_of_all_sets_on_all_frames_are_saved(tmp_path, monkeypatch):
    labelled(tmp_path / "assets/samples/1L_0.jpg", 1)
    monkeypatch.setattr(mediapipe, "ROOT", tmp_path)
    monkeypatch.setattr(mediapipe, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(mediapipe, "environment", lambda: None)
    monkeypatch.setattr(mediapipe, "Worker", FakeWorker)
    monkeypatch.setattr(mediapipe, "FRAME_SETS", {"samples": FRAME_SETS["samples"]})
    assert main(["mediapipe", "--frames", "3"]) == 0
    assert not (tmp_path / "results.json").exists()
    assert main(["mediapipe"]) == 0
    assert list(json.loads((tmp_path / "results.json").read_text())["sets"]) == ["samples"]


def test_a_failed_installation_is_explained(tmp_path, monkeypatch, capsys):
    def no_network(command, **_):
        raise subprocess.CalledProcessError(1, command, "", "first\nERROR: No matching distribution found")

    monkeypatch.setattr(mediapipe, "ENVIRONMENT", tmp_path / "environment")
    monkeypatch.setattr(subprocess, "run", no_network)
    assert main(["mediapipe"]) == 1
    error = capsys.readouterr().err
    assert "mediapipe is not available: mediapipe==0.10.21 cannot be installed" in error
    assert error.endswith("ERROR: No matching distribution found\n")


def test_the_error_of_a_worker_that_stops_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(mediapipe, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "worker.py").write_text("raise SystemExit('libGL.so.1 is missing')")
    with pytest.raises(Unavailable, match=re.escape("MediaPipe stopped: libGL.so.1 is missing")):
        mediapipe.Worker(sys.executable)


def test_the_protocol_of_the_worker_is_lines_of_json_and_pixels(tmp_path, monkeypatch):
    """With a worker that needs no MediaPipe."""
    monkeypatch.setattr(mediapipe, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "worker.py").write_text(
        "import json, math, sys\n"
        "print(json.dumps({'versions': {'mediapipe': '1'}, 'modes': ['static']}), flush=True)\n"
        "while line := sys.stdin.buffer.readline():\n"
        "    header = json.loads(line)\n"
        "    pixels = sys.stdin.buffer.read(math.prod(header['shape']))\n"
        "    print(json.dumps({'sum': sum(pixels), **header}), flush=True)\n"
    )
    with mediapipe.Worker(sys.executable) as worker:
        assert (worker.versions, worker.modes) == ({"mediapipe": "1"}, ["static"])
        image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
        assert worker(image, True) == {"sum": 1770, "shape": [4, 5, 3], "reset": True}
        assert worker(image, False)["reset"] is False
    assert worker.process.returncode == 0


def test_the_committed_results_have_all_sets_and_no_paths():
    text = mediapipe.RESULTS.read_text(encoding="utf-8")
    results = json.loads(text)
    assert list(results["sets"]) == list(FRAME_SETS)
    assert not re.search(r'"(/|[A-Z]:\\)', text)
    assert mediapipe.report(results)
