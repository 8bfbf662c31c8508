"""The comparison with MediaPipe, without MediaPipe: metrics, the worker's protocol, missing sets and packages."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from benchmarks import Unavailable, mediapipe
from benchmarks.__main__ import main
from benchmarks.frames import FRAME_SETS, FrameSet, LabelledPicture
from benchmarks.mediapipe import learned
from handful import CLASSES, FINGERS, Hand, Prediction
from training.data.registry import SOURCES

MODES = ["static", "tracking"]


def make_hand(count: int, seed: int = 0) -> dict:
    """Return the landmarks of an upright right palm with so many fingers raised from the thumb on, slightly random."""
    points = np.zeros((21, 3))
    for finger in range(5):
        turn = np.radians(24 * (finger - 2))
        up, curl = np.array([np.sin(turn), -np.cos(turn), 0]), 1 if finger < count else -0.7
        lengths = 100 + np.array([0, 30, 30 + 25 * curl, 30 + 45 * curl])
        points[1 + 4 * finger : 5 + 4 * finger] = 200 * np.array([1, 1, 0]) + lengths[:, None] * up
        points[1 + 4 * finger : 5 + 4 * finger, 2] = 0 if finger < count else [0, -15, -30, -20]
    points[0, :2] = 200
    points += np.random.default_rng(seed).normal(0, 2, points.shape)
    return {"points": points.tolist(), "world": (points / 1000).tolist(), "side": "Right"}


def transform(hand: dict, matrix, shift=(0, 0, 0)) -> dict:
    return hand | {
        "points": (np.array(hand["points"]) @ np.array(matrix) + shift).tolist(),
        "world": (np.array(hand["world"]) @ np.array(matrix)).tolist(),
    }


class FakeWorker:
    """Stands in for MediaPipe: finds one hand when static and none when tracking; records its input."""

    def __init__(self, *_):
        self.modes, self.model_bytes = MODES, 7_000_000
        self.versions = {"mediapipe": "0", "numpy": "0", "opencv": "0"}
        self.inputs = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __call__(self, image, reset, modes=()):
        self.inputs.append((image.shape, reset))
        times = {"ms": 20.0, "cpu_ms": 30.0}
        found = {"hands": 1, "totals": {"upright": 2, "distance": 1, "angles": 0}, "landmarks": [make_hand(3)]}
        none = {"hands": 0, "totals": {"upright": 0, "distance": 0, "angles": 0}, "landmarks": []}
        return {
            mode: {**times, **result}
            for mode, result in (("static", found), ("tracking", none))
            if mode in (modes or MODES)
        }


def predict_one(image) -> Prediction:
    """Return one finger for any picture."""
    maps = np.zeros((len(CLASSES), 2, 2))
    hand = Hand((0, 0, 8, 8), (0, 0, 8, 8), 1, "left", 1.0, np.zeros(len(CLASSES)), maps, np.zeros(len(FINGERS)))
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
    accuracies = {
        name: {model: one["accuracy"] for model, one in row.items() if model != "frames"}
        for name, row in metrics.items()
    }
    assert accuracies == {
        "grey": {"handful": 0.5, "static": 0.5, "tracking": 0},
        "poor line": {"handful": 0, "static": 1, "tracking": 0},
    }
    assert [row["frames"] for row in metrics.values()] == [2, 2]
    assert {model: one["correct"] for model, one in metrics["poor line"].items() if model != "frames"} == {
        "handful": 0,
        "static": 2,
        "tracking": 0,
    }


def test_intervals_are_of_people_not_of_pictures(tmp_path):
    """MediaPipe's best rule says 1 too, on twenty pictures of ones and twos."""
    pictures = [
        replace(labelled(tmp_path / f"{number}.png", 1 if number < 15 else 2), group=f"person {number % 5}")
        for number in range(20)
    ]
    rows = mediapipe.predict_all(pictures, predict_one, FakeWorker())
    rows = [row | {"learned": row["total"]} for row in rows]  # which is always right
    metrics = mediapipe.compute_metrics(rows, MODES)
    assert [metrics["handful"][key] for key in ("accuracy", "correct", "units")] == [0.75, 15, 5]
    assert metrics["handful"]["interval"] == [0.75, 0.75], "three of four of every person"
    assert metrics["static"]["behind"] == [0, 0]
    assert metrics["learned"]["behind"] == [-0.25, -0.25]
    alone = mediapipe.compute_metrics([row | {"group": ""} for row in rows], MODES)
    low, high = alone["handful"]["interval"]
    assert low < 0.6 < 0.85 < high


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
    captured = capsys.readouterr()
    assert results["learned"] == {}
    assert "Webcam frames: nothing learned from it. " in captured.err
    text = captured.out
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
        "print(json.dumps({'versions': {'mediapipe': '1'}, 'modes': ['static'], 'model_bytes': 5}), flush=True)\n"
        "while line := sys.stdin.buffer.readline():\n"
        "    header = json.loads(line)\n"
        "    pixels = sys.stdin.buffer.read(math.prod(header['shape']))\n"
        "    print(json.dumps({'sum': sum(pixels), **header}), flush=True)\n"
    )
    with mediapipe.Worker(sys.executable) as worker:
        assert (worker.versions, worker.modes, worker.model_bytes) == ({"mediapipe": "1"}, ["static"], 5)
        image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
        assert worker(image, True) == {"sum": 1770, "shape": [4, 5, 3], "reset": True, "modes": ["static"]}
        assert worker(image, False)["reset"] is False
    assert worker.process.returncode == 0


def test_the_committed_results_have_all_sets_and_no_paths():
    text = mediapipe.RESULTS.read_text(encoding="utf-8")
    results = json.loads(text)
    assert list(results["sets"]) == list(FRAME_SETS)
    assert not re.search(r'"(/|[A-Z]:\\)', text)
    assert mediapipe.report(results)


ROTATION = [[np.cos(2), np.sin(2), 0], [-np.sin(2), np.cos(2), 0], [0, 0, 1]]


@pytest.mark.parametrize("count", [0, 2, 5])
@pytest.mark.parametrize(
    ("matrix", "shift"),
    [(np.eye(3), (70, -30, 0)), (3 * np.eye(3), 0), (ROTATION, 0), (np.diag([-1, 1, 1]), 0), (np.diag([1, -1, 1]), 0)],
    ids=["shift", "scale", "rotation", "mirror", "upside down mirror"],
)
def test_features_do_not_depend_on_place_size_rotation_and_side(count, matrix, shift):
    hand = make_hand(count)
    features = learned.to_features(hand)
    assert features == pytest.approx(learned.to_features(transform(hand, matrix, shift)), abs=1e-3)
    knuckle = features[24:27]
    assert knuckle[0] == pytest.approx(0, abs=1e-6)
    assert np.linalg.norm(knuckle) == pytest.approx(1)
    assert knuckle[1] < 0, "up"


def test_features_tell_counts_apart():
    features = np.array([learned.to_features(make_hand(count)) for count in range(6)])
    assert np.linalg.norm(np.diff(features, axis=0), axis=1).min() > 0.5
    angles = learned.to_features(make_hand(5, seed=1))[60:]
    assert angles.shape == (15,)
    assert np.degrees(angles[3:]).max() < 30, "raised fingers are straight"


def test_hands_are_matched_with_the_boxes_that_they_are_most_like():
    hand = make_hand(5)
    points = np.array(hand["points"])[:, :2]
    box = [*(points.min(0) - 9), *(points.max(0) + 9)]
    boxes = np.array([[0, 0, 30, 30], box])
    assert [target for _, target in learned.match([hand, transform(hand, np.eye(3), 900)], boxes, [1, 5])] == [5]
    assert learned.match([hand], np.zeros((0, 4)), []) == []


def learn_from(source: str, groups: int = 3) -> list[tuple]:
    hands = [(count, group, make_hand(count, 10 * group + count)) for count in range(6) for group in range(groups)]
    return [(learned.to_features(hand), count, source, f"{source}/{group}") for count, group, hand in hands]


def test_the_learned_rule_counts_and_leaves_a_fold_of_sources_out():
    wrong = [
        (features, 5 - count, source, f"{source}/{k}")
        for source in ("chilean", "rps")  # of one fold
        for k, (features, count, *_) in enumerate(learn_from(source, 9))
    ]
    samples = learned.Samples(*map(np.array, zip(*learn_from("digits"), *wrong, strict=True)))
    rule = learned.fit(samples, without=SOURCES["rps"].fold)
    assert [learned.total(rule, [make_hand(count, 99)]) for count in range(6)] == list(range(6))
    assert learned.total(rule, [make_hand(2, 98), make_hand(3, 97)]) == 5
    assert learned.total(rule, []) == 0
    one_group = samples._replace(groups=np.where(samples.sources == "digits", "a", samples.groups))
    assert learned.fit(one_group, without=SOURCES["rps"].fold) is None
    assert learned.describe(rule, samples)["hands"] == {"chilean": 54, "digits": 18, "rps": 54}


def test_rules_learn_from_detected_hands_of_training_frames(tmp_path, capsys):
    folder = tmp_path / "people/HandsDataset"
    (folder / "data").mkdir(parents=True)
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for name, count in ("1_pic1.jpg", 2), ("2_pic1.jpg", 3), ("5_pic1.jpg", 4):
        (folder / "images/train").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (400, 400)).save(folder / "images/train" / name)
        rows.append(f"{name},400,400,{count}-hand,70,50,330,210")
    for split in "train", "test":
        (folder / f"data/{split}_labels.csv").write_text("\n".join(rows if split == "train" else rows[:1]))
    samples = learned.collect(lambda image, border: [make_hand(5)], tmp_path)
    assert samples.counts.tolist() == [2, 3], "5_ is held out"
    assert samples.groups.tolist() == ["webcam/1_", "webcam/2_"]
    assert np.array_equal(samples.features[0], learned.to_features(make_hand(5)))
    assert "Webcam frames: learned from 2 of 2 hands" in capsys.readouterr().err


def test_landmarks_of_a_close_crop_are_in_its_pixels():
    class Finder(FakeWorker):
        def __call__(self, image, reset, modes=()):
            y, x = np.argwhere(image[:, :, 0] > 128).mean(0)
            return {"static": {"landmarks": [{"points": [[x, y, 40]]}]}}

    image = np.zeros((50, 100, 3), np.uint8)
    image[20:30, 60:70] = 255
    hands = mediapipe.detect(image, "black", Finder())
    assert hands[0]["points"][0] == pytest.approx([64.5, 24.5, 10], abs=1)
    image = cv2.copyMakeBorder(image, 300, 300, 300, 300, cv2.BORDER_CONSTANT)
    assert mediapipe.detect(image, "", Finder())[0]["points"][0] == pytest.approx([364.5, 324.5, 40])


def test_stills_groups_and_pictures_without_hands(tmp_path, monkeypatch, capsys):
    """HaGRID has groups; a tracker would see no sequence; pictures without hands count false alarms."""
    hagrid = tmp_path / "data/people/vlm-edge-hagrid/data/hagrid_380_resize336/images"
    for gesture, total in ("peace", 2), ("two_up", 2), ("one", 1):
        labelled(hagrid / gesture / "1.jpg", total)
    labelled(tmp_path / "data/people/EthnicityDetection/fair_face/val/3.jpg", 0)
    labelled(tmp_path / "data/people/EthnicityDetection/fair_face/train/7.jpg", 0)
    rows = learn_from("webcam")
    samples = learned.Samples(*map(np.array, zip(*rows, strict=True)))
    for name, value in {
        "ROOT": tmp_path,
        "environment": lambda: None,
        "Worker": FakeWorker,
        "FRAME_SETS": {name: FRAME_SETS[name] for name in ("hagrid", "faces")},
        "learn": lambda worker: samples,
    }.items():
        monkeypatch.setattr(mediapipe, name, value)
    results = mediapipe.run()
    measured = results["sets"]["hagrid"]
    assert measured["frames"] == 3
    assert "tracking" not in measured
    assert (measured["static"]["rule"], measured["static"]["accuracy"]) == ("upright", 0.6667)
    assert (measured["learned"]["accuracy"], measured["learned"]["correct"]) == (0, 0), "it sees three fingers"
    assert results["model_bytes"]["mediapipe"] == 7_000_000
    assert {name: one["frames"] for name, one in measured["groups"].items()} == {
        "fingers spread": 2,
        "fingers together": 1,
    }
    assert results["sets"]["faces"]["frames"] == 1, "those for validation"
    assert results["sets"]["faces"]["static"] == {"false_alarms": 1}
    assert results["learned"]["hands"] == {"webcam": 18}
    text = re.sub(" +", " ", mediapipe.report(results))
    assert "| … fingers together | 1 |" in text
    assert re.search(r"\| Faces \(FairFace\) \| 1 \| [01] \| 1 \| – \|", text)
    assert json.dumps(results)


def test_a_rule_is_learned_without_the_source_that_it_is_tested_on(tmp_path, monkeypatch):
    labelled(tmp_path / "1.png", 3)
    monkeypatch.setattr(mediapipe, "FRAME_SETS", {"webcam-all": FrameSet("Webcam", "webcam", whole=True)})
    monkeypatch.setattr(mediapipe, "load_frames", lambda *_: [LabelledPicture(tmp_path / "1.png", 3)])
    monkeypatch.setattr(mediapipe, "environment", lambda: None)
    monkeypatch.setattr(mediapipe, "Worker", FakeWorker)
    monkeypatch.setattr(mediapipe, "learn", lambda worker: True)
    without = []
    monkeypatch.setattr(mediapipe, "fit", lambda samples, source: without.append(source))
    mediapipe.run()
    assert without == ["webcam", ""]
