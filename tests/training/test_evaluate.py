"""Measures are right on small cases that can be counted by hand, and the pages find what they draw."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from handful import CLASSES, FingerCounter, hand_from_probabilities
from handful.images import decode
from handful.labels import SIDE_UNKNOWN
from tests.builders import write_fingers, write_rendered
from training.cli import main
from training.data.corruptions import CONDITIONS, DISTANCES, LOOKS, CorruptedFrames
from training.data.frames import Frame
from training.data.sources.rendered import Rendered
from training.evaluation.evaluate import by_group, evaluate, held_out, measure, reliability, write
from training.evaluation.report import report

ROOT = Path(__file__).parents[2]


def there(*labels, side=10):
    """A frame with hands side by side; "3" is a hand whose side is not known."""
    boxes = np.array([[k * 20, 0, k * 20 + side, side] for k in range(len(labels))], np.float32).reshape(-1, 4)
    targets = np.array(
        [CLASSES.index(label) if len(label) == 2 else SIDE_UNKNOWN + int(label) for label in labels], int
    )
    return Frame(np.zeros((side, 100, 3), np.uint8), boxes, targets)


def told(*labels, confidence=0.9, shift=0.0):
    """Hands at the places where `there` puts them."""
    hands = []
    for k, label in enumerate(labels):
        probabilities = np.full(12, (1 - confidence) / 11, np.float32)
        probabilities[CLASSES.index(label)] = confidence
        box = (k * 20 + shift, 0.0, k * 20 + 10 + shift, 10.0)
        hands.append(hand_from_probabilities(box, box, probabilities, np.zeros((12, 8, 8), np.float32)))
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


def test_a_fist_that_is_not_found_is_a_right_total_but_a_missed_hand():
    found = measured((there("0L"), ()), (there("3L"), ()), (there("3L"), told("3L")))
    assert found["total_accuracy"] == pytest.approx(2 / 3)
    assert found["recall"] == pytest.approx(1 / 3)
    assert found["right"] == 1


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


def test_hands_are_measured_by_group():
    predictions = [
        ("0.png", there("3L"), told("3L")),
        ("1.png", there("3L"), told("2R")),
        ("2.png", there("1R"), ()),
    ]
    traits = {"view": (["palm", "back", "edge"], ["palm", "palm", "back"])}
    assert by_group(predictions, traits) == {
        "view": [
            {"group": "palm", "pictures": 2, "total": 0.5, "found": 1, "count": 0.5, "side": 0.5},
            {"group": "back", "pictures": 1, "total": 0, "found": 0, "count": 0, "side": None},
            {"group": "edge", "pictures": 0, "total": 0, "found": 0, "count": 0, "side": None},
        ]
    }


@pytest.fixture
def rendered(tmp_path):
    return write_rendered(tmp_path / "render/val", 24)


def test_a_rendered_hand_lies_in_a_place_where_its_box_says(rendered):
    hands = Rendered(rendered, [np.full((300, 400, 3), (10, 60, 10), np.uint8)])
    for i in range(len(hands)):
        frame = hands.frame(i)
        height, width = frame.image.shape[:2]
        x0, y0, x1, y1 = frame.boxes[0]
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        assert 0.25 <= max(x1 - x0, y1 - y0) / min(height, width) <= 0.75
        assert CLASSES[frame.targets[0]] == CLASSES[i % 12]
        # What differs from the place is the hand.
        away = np.abs(frame.image.astype(int) - frame.image[0, 0]).max(2) > 20
        x, y, w, h = cv2.boundingRect(away.astype(np.uint8))
        assert np.allclose((x, y, x + w, y + h), frame.boxes[0], atol=3)
        assert (frame.image == hands.frame(i).image).all(), "the same every time"


def test_without_places_rendered_hands_are_before_plain_walls(rendered):
    walls = [Rendered(rendered, []).frame(i).image[0] for i in range(4)]
    assert all((wall == wall[0]).all() for wall in walls)
    assert len({tuple(wall[0]) for wall in walls}) == 4


def test_rendered_hands_for_training_stay_on_transparent_ground(rendered):
    hands = Rendered(rendered)
    assert np.flatnonzero(hands.validation).tolist() == [0, 10, 20], "one in ten is kept for validation"
    assert hands.frame(0).mask.shape == (192, 192)


def test_each_rendered_hand_has_a_group_of_every_trait(rendered):
    traits = Rendered(rendered).traits()
    for groups, labels in traits.values():
        assert len(labels) == 24
        assert set(labels) <= set(groups)
    assert traits["tilted"][1][-1] == "over 30°"
    ways, raised = traits["raised"]
    assert len(set(ways)) == 32
    assert ways[:3] == ["fist", "thumb", "index"]
    assert "thumb + little" in ways
    assert raised[:3] == ["fist", "index", "index + middle"]
    assert traits["raised fingers in sight"][1][:5] == ["a fist", "75-90%", "50-75%", "under 50%", "under 50%"]


def test_of_hands_rendered_before_it_was_kept_nobody_says_how_much_is_in_sight(rendered, tmp_path):
    shard = dict(np.load(rendered / "shard-00000.npz"))
    del shard["sight"]
    np.savez(tmp_path / "shard-00000.npz", **shard)
    older = Rendered(tmp_path)
    assert "raised fingers in sight" not in older.traits()
    assert (older.frame(1).image == Rendered(rendered).frame(1).image).all()


def test_the_same_hand_in_many_tones_stays_in_its_place(tmp_path):
    """So that nothing but the tone can make a difference."""
    rooms = [np.full((300, 400, 3), grey, np.uint8) for grey in range(60, 240)]
    hands = Rendered(write_rendered(tmp_path / "render/tones", 30, tones=True), rooms)
    corners = [int(hands.frame(i).image[0, 0, 0]) for i in range(30)]
    assert [set(corners[k : k + 10]) for k in (0, 10, 20)] == [{corners[0]}, {corners[10]}, {corners[20]}]
    assert len(set(corners)) == 3
    groups, labels = hands.traits()["skin tone"]
    assert list(hands.traits()) == ["skin tone"]
    assert labels == groups * 3


def write_webcam(folder: Path) -> Path:
    """Two frames of a session that no training sees, each with a hand in it that the shipped model can read."""
    webcam, lines = folder / "people/HandsDataset", ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    (webcam / "images/train").mkdir(parents=True)
    for name, sample in ("5_pic1.jpg", "3L_0"), ("5_pic2.jpg", "5R_0"):
        shutil.copy(ROOT / f"assets/samples/{sample}.jpg", webcam / "images/train" / name)
        x0, y0, x1, y1 = FingerCounter()(decode(webcam / "images/train" / name)).hands[0].box
        lines.append(f"{name},256,256,{sample[0]}-hand,{x0:.0f},{y0:.0f},{x1:.0f},{y1:.0f}")
    (webcam / "data").mkdir()
    (webcam / "data/train_labels.csv").write_text("\n".join(lines))
    (webcam / "data/test_labels.csv").write_text(lines[0])
    return folder


def test_harder_conditions_are_of_the_same_frames(tmp_path):
    source, index = held_out("webcam", write_webcam(tmp_path))
    room = np.full((300, 400, 3), 200, np.uint8)
    harder = CorruptedFrames(source, index, [room])
    assert len(harder) == 2 * len(CONDITIONS)
    assert harder.traits()["conditions"][1] == [*CONDITIONS, *CONDITIONS]
    recorded = source.frame(index[1])
    frames = {name: harder.frame(len(CONDITIONS) + k) for k, name in enumerate(CONDITIONS)}
    for name, frame in frames.items():
        assert frame.image.dtype == np.uint8
        assert frame.image.shape == recorded.image.shape
        assert frame.targets.tolist() == recorded.targets.tolist() == [SIDE_UNKNOWN + 5]
        if name in LOOKS:
            assert not np.array_equal(frame.image, recorded.image)
            assert np.array_equal(frame.boxes, recorded.boxes)
            again = harder.frame(len(CONDITIONS) + CONDITIONS.index(name))
            assert np.array_equal(frame.image, again.image), "the same every time"
    assert np.array_equal(frames["as recorded"].image, recorded.image)
    light = {name: frame.image.mean((0, 1)) for name, frame in frames.items()}
    assert light["a fifth of the light"].mean() == pytest.approx(light["as recorded"].mean() / 5, abs=3)
    assert light["twice the light"].mean() > 1.3 * light["as recorded"].mean()
    assert light["lamplight"] == pytest.approx(light["as recorded"] * [1, 0.75, 0.4], abs=1)
    assert np.ptp(light["grey"]) == 0
    assert light["poor line"] == pytest.approx(light["as recorded"], abs=4), "its colours stay"
    edges = {name: cv2.Laplacian(frame.image, cv2.CV_64F).std() for name, frame in frames.items()}
    assert edges["out of focus"] < edges["as recorded"] / 2


def test_hands_farther_away_are_smaller_before_another_place(tmp_path):
    source, index = held_out("webcam", write_webcam(tmp_path))
    harder = CorruptedFrames(source, index, [np.full((300, 400, 3), 200, np.uint8)])
    for name, share in DISTANCES.items():
        recorded, frame = source.frame(index[0]), harder.frame(CONDITIONS.index(name))
        assert frame.boxes[0, 2:] - frame.boxes[0, :2] == pytest.approx(
            (recorded.boxes[0, 2:] - recorded.boxes[0, :2]) * share, abs=0.01
        )
        place = (frame.image == 200).all(2)
        assert place.mean() == pytest.approx(1 - share**2, abs=0.05)
        # What is in the box is what was in the box, but smaller.
        cuts = []
        for one in (frame, recorded):
            x0, y0, x1, y1 = one.boxes[0].round().astype(int)
            cuts.append(cv2.resize(one.image[y0:y1, x0:x1], (32, 32), interpolation=cv2.INTER_AREA).astype(int))
        assert np.abs(cuts[0] - cuts[1]).mean() < 8


def test_the_webcam_frames_are_measured_in_every_condition(tmp_path):
    evaluate(write_webcam(tmp_path), output=tmp_path / "metrics")
    told = json.loads((tmp_path / "metrics/webcam.json").read_text())
    assert [row["group"] for row in told["conditions"]] == list(CONDITIONS)
    assert [row["pictures"] for row in told["conditions"]] == [2] * len(CONDITIONS)
    recorded = told["conditions"][0]
    assert (recorded["total"], recorded["found"], recorded["count"]) == (told["total_accuracy"], told["recall"], 1)


def test_the_exported_model_is_what_is_measured(tmp_path, capsys):
    folder = write_fingers(tmp_path / "fingers", train=1, test=1)
    write_rendered(tmp_path / "render/val", 24)
    write_rendered(tmp_path / "render/tones", 10, tones=True)
    (tmp_path / "people/Human-Robot_Finger-Counting_Dataset/Backgrounds/Office").mkdir(parents=True)
    room = tmp_path / "people/Human-Robot_Finger-Counting_Dataset/Backgrounds/Office/1.jpg"
    cv2.imwrite(str(room), np.full((300, 400, 3), 90, np.uint8))
    evaluate(tmp_path, output=tmp_path / "metrics", counts=tmp_path / "counts.csv")
    written = json.loads((tmp_path / "metrics" / "fingers-test.json").read_text())
    assert written["pictures"] == 12
    assert len(written["model"]["sha256"]) == 64
    assert len(written["wrong"]) == 12 - written["right"]
    assert {row["file"] for row in written["wrong"]} <= {f"fingers/test/{f.name}" for f in (folder / "test").iterdir()}
    rendered = json.loads((tmp_path / "metrics/rendered.json").read_text())
    assert rendered["pictures"] == 24
    assert [row["pictures"] for row in rendered["groups"]["fingers"]] == [4] * 6
    assert [row["pictures"] for row in rendered["groups"]["skin tone"]] == [1] * 10
    assert all(row["file"].startswith("render/val/") for row in rendered["wrong"])
    empty = json.loads((tmp_path / "metrics/empty.json").read_text())
    assert (empty["pictures"], empty["with_hands"], empty["alarms"]) == (1, 0, [])
    # For `dvc metrics` and `dvc plots`.
    summary = json.loads((tmp_path / "metrics/summary.json").read_text())
    assert summary["rendered"]["recall"] == pytest.approx(rendered["recall"], abs=1e-4)
    counts = pd.read_csv(tmp_path / "counts.csv")
    both = np.array(written["fingers_confusion"]) + rendered["fingers_confusion"]
    assert pd.crosstab(counts.label, counts.predicted).to_numpy().sum() == both.sum()
    assert (counts.label == counts.predicted).sum() == np.trace(both)
    assert "webcam: not measured." in capsys.readouterr().out


def test_of_what_is_not_here_the_measures_of_this_model_stay_and_those_of_another_go(tmp_path):
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    before = measured((there("3L"), told("3L")), (there("3L"), told("2L")))
    for name, sha256 in ("webcam", FingerCounter().sha256), ("digits", "another"), ("empty", "another"):
        write(metrics / f"{name}.json", {"model": {"sha256": sha256}, **before})
    write_rendered(tmp_path / "render/val", 1)
    evaluate(tmp_path, output=metrics)
    assert {file.stem for file in metrics.iterdir()} == {"webcam", "rendered", "summary"}
    summary = json.loads((metrics / "summary.json").read_text())
    assert list(summary) == ["webcam", "rendered"]
    assert summary["webcam"]["fingers_accuracy"] == 0.5


def test_with_nothing_to_measure_with_all_measures_stay(tmp_path):
    write(tmp_path / "summary.json", {"webcam": {"recall": 1}})
    write(tmp_path / "digits.json", {"model": {"sha256": "another"}})
    before = {file: file.read_text() for file in tmp_path.iterdir()}
    with pytest.raises(SystemExit, match=r"nothing here to measure with\. .* python -m training data$"):
        main(["evaluate", "--folder", str(tmp_path / "none"), "--output", str(tmp_path)])
    assert {file: file.read_text() for file in tmp_path.iterdir()} == before


def test_a_false_alarm_is_written_down(tmp_path):
    room = tmp_path / "people/Human-Robot_Finger-Counting_Dataset/Backgrounds/Office/1.jpg"
    room.parent.mkdir(parents=True)
    shutil.copy(ROOT / "assets/samples/3L_0.jpg", room)
    evaluate(tmp_path, output=tmp_path / "metrics")
    empty = json.loads((tmp_path / "metrics/empty.json").read_text())
    assert empty["with_hands"] == 1
    assert empty["alarms"][0]["hands"][0]["told"] == "3L"
    assert len(empty["alarms"][0]["hands"][0]["box"]) == 4


def test_the_report_has_a_row_a_set_beside_mediapipe(tmp_path, capsys):
    both = measured((there("3L"), told("3L")), (there("0L"), ()))
    conditions = [{"group": name, "total": 0.9, "count": 0.8, "found": 0.7} for name in ("grey", "poor line")]
    write(tmp_path / "webcam.json", {"title": "Webcam", "conditions": conditions, **both})
    write(tmp_path / "empty.json", {"pictures": 53, "with_hands": 6})
    left_out = {"title": "One man", **both, "side_accuracy": None}
    write(tmp_path / "leave-one-out.json", {"sources": {"counting": left_out}})
    modes = {"static": {"accuracy": 0.976}, "tracking": {"accuracy": 0.826}}
    sets = {"webcam": modes | {"frames": 1}, "counting-all": modes | {"frames": 2}, "digits": {"frames": 0}}
    sets["webcam-harder"] = {"conditions": {"grey": modes}}
    write(tmp_path / "mediapipe.json", {"sets": sets})
    report(tmp_path)
    lines = [re.sub(" +", " ", line) for line in capsys.readouterr().out.splitlines()]
    shares = "| 2 | 100.0% | 50.0% | {} | 50.0% | 100.0% | 0.100 | 97.6% / 82.6%{} |"
    assert "| Webcam " + shares.format("100.0%", " of 1") in lines, "of which it read only one"
    assert "| grey | 90.0% | 80.0% | 70.0% | 97.6% | 82.6% |" in lines
    assert "| poor line | 90.0% | 80.0% | 70.0% | – | – |" in lines
    assert "In 53 places without hands, a hand was seen in 6." in lines
    assert "| One man " + shares.format("–", "") in lines


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_damaged_measures_are_told_by_name(command, tmp_path):
    write_rendered(tmp_path / "render/val", 1)
    (tmp_path / "webcam.json").write_text('{"pictures":')
    where = ["--folder", str(tmp_path), *(["--output", str(tmp_path)] if command == "evaluate" else [])]
    with pytest.raises(SystemExit, match=r"webcam\.json: damaged .*Delete it, and measure again"):
        main([command, *where])
