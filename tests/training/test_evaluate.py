"""Evaluation: metrics on cases small enough to check by hand, held-out and corrupted frames, files and tables."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from handful import CLASSES, FINGERS, FingerCounter, hand_from_probabilities
from handful.images import decode
from handful.labels import COUNT_UNKNOWN, NO_HAND, SIDE_UNKNOWN, encode
from tests.builders import write_fingers, write_image, write_rendered, write_webcam
from training.cli import main
from training.data.corruptions import CONDITIONS, CORRUPTIONS, DISTANCES, CorruptedFrames
from training.data.frames import Frame, counted
from training.data.registry import FINGERS_UNKNOWN, open_held_out
from training.data.sources.rendered import Rendered
from training.evaluation import gestures
from training.evaluation.evaluate import BACKDROP, evaluate, session_and_size, write_json
from training.evaluation.intervals import accuracy, lead
from training.evaluation.metrics import FramePrediction, compute_metrics, metrics_by_group, reliability
from training.evaluation.report import report

ROOT = Path(__file__).parents[2]


def labelled(*labels, side=10):
    """Return a frame with hands side by side; "3" is a hand whose side is not labelled."""
    boxes = np.array([[k * 20, 0, k * 20 + side, side] for k in range(len(labels))], np.float32).reshape(-1, 4)
    targets = [encode(int(label[0]), {"L": "left", "R": "right", "": None}[label[1:]]) for label in labels]
    return Frame(np.zeros((side, 100, 3), np.uint8), boxes, np.array(targets, int))


def predicted(*labels, confidence=0.9, shift=0.0):
    """Return hands at the boxes of `labelled`."""
    hands = []
    for k, label in enumerate(labels):
        probabilities = np.full(len(CLASSES), (1 - confidence) / (len(CLASSES) - 1), np.float32)
        probabilities[CLASSES.index(label)] = confidence
        box = (k * 20 + shift, 0.0, k * 20 + 10 + shift, 10.0)
        maps, fingers = np.zeros((len(CLASSES), 8, 8), np.float32), np.zeros(len(FINGERS), np.float32)
        hands.append(hand_from_probabilities(box, box, probabilities, maps, fingers))
    return tuple(hands)


def metrics_of(*pairs):
    return compute_metrics([FramePrediction(f"{i}.png", frame, hands) for i, (frame, hands) in enumerate(pairs)])


def test_fingers_are_right_if_exactly_those_labelled_are_raised():
    index, thumb, unknown = 2, 1, FINGERS_UNKNOWN
    frame = replace(labelled("1", "1", "1"), fingers=np.array([index, thumb, unknown]))
    up = np.eye(len(FINGERS), dtype=np.float32)[1]  # the index finger
    hands = tuple(replace(hand, finger_probabilities=up) for hand in predicted("1L", "1L", "1L"))
    assert metrics_of((frame, hands))["finger_accuracy"] == 0.5, "of the two whose fingers are labelled"
    assert metrics_of((labelled("1"), predicted("1L")))["finger_accuracy"] is None


def test_what_is_no_hand_is_not_evaluated():
    frame = labelled("3L", "2R")
    assert counted(frame).targets.tolist() == frame.targets.tolist()
    one = counted(replace(frame, targets=np.array([encode(3, "left"), NO_HAND])))
    assert (one.targets.tolist(), one.boxes.tolist()) == ([encode(3, "left")], frame.boxes[:1].tolist())
    assert counted(replace(frame, targets=np.array([3, COUNT_UNKNOWN]))) is None, "nobody knows what it counts"


def test_accuracy_of_class_count_side_and_total():
    pairs = zip(("3L", "3L", "3R", "0L"), ("3L", "3R", "3R", "1L"), strict=True)
    metrics = metrics_of(*((labelled(label), predicted(prediction)) for label, prediction in pairs))
    assert metrics["pictures"] == 4
    assert metrics["class_accuracy"] == 0.5
    assert metrics["count_accuracy"] == 0.75
    assert metrics["side_accuracy"] == 0.75
    assert metrics["total_accuracy"] == 0.75


def test_missed_hands_and_false_alarms_are_errors():
    metrics = metrics_of(
        (labelled("3L"), ()), (labelled("2L"), predicted("2L", "1R")), (labelled("5L"), predicted("5L"))
    )
    assert metrics["class_accuracy"] == pytest.approx(2 / 3)
    assert metrics["recall"] == pytest.approx(2 / 3)
    assert metrics["precision"] == pytest.approx(2 / 3)
    assert metrics["total_accuracy"] == pytest.approx(1 / 3)
    assert metrics["correct"] == 1
    assert {row["file"]: row["predicted"] for row in metrics["errors"]} == {"0.png": "no hand", "1.png": "2L+1R"}


def test_a_missed_fist_is_a_correct_total_but_lowers_recall():
    metrics = metrics_of((labelled("0L"), ()), (labelled("3L"), ()), (labelled("3L"), predicted("3L")))
    assert metrics["total_accuracy"] == pytest.approx(2 / 3)
    assert metrics["recall"] == pytest.approx(1 / 3)
    assert metrics["correct"] == 1


def test_a_match_needs_an_iou_of_a_half():
    assert metrics_of((labelled("3L"), predicted("3L", shift=2)))["recall"] == 1
    assert metrics_of((labelled("3L"), predicted("3L", shift=6)))["recall"] == 0


def test_two_hands_are_matched_by_their_boxes():
    swapped = tuple(reversed(predicted("3L", "5R")))
    assert metrics_of((labelled("3L", "5R"), swapped))["class_accuracy"] == 1


def test_only_the_count_is_compared_where_no_side_is_labelled():
    metrics = metrics_of((labelled("3"), predicted("3R")), (labelled("2"), predicted("3L")))
    assert metrics["class_accuracy"] == 0.5
    assert metrics["confusion"] is metrics["side_confusion"] is metrics["side_accuracy"] is None
    assert np.array(metrics["count_confusion"])[2, 3] == 1
    assert metrics["errors"][0]["label"] == "2"


def test_confusion_matrices_count_labels_by_predictions():
    metrics = metrics_of(
        (labelled("3L"), predicted("3L")), (labelled("3L"), predicted("2R")), (labelled("0R"), predicted("0R"))
    )
    confusion = np.array(metrics["confusion"])
    assert confusion.sum() == 3
    assert confusion[CLASSES.index("3L"), CLASSES.index("2R")] == 1
    assert np.array(metrics["count_confusion"])[3].tolist() == [0, 0, 1, 1, 0, 0]
    assert metrics["side_confusion"] == [[1, 1], [0, 1]]


def test_precision_recall_and_f1_of_each_class():
    metrics = metrics_of(
        (labelled("3L"), predicted("3L")), (labelled("3L"), predicted("2L")), (labelled("2L"), predicted("2L"))
    )
    rows = {row["class"]: row for row in metrics["per_class"]}
    assert rows["3L"] == {"class": "3L", "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2}
    assert rows["2L"]["precision"] == 0.5
    assert rows["5R"]["support"] == 0


def test_calibration_error_is_the_difference_of_confidence_and_accuracy():
    ece, bins = reliability(np.full(10, 0.9), np.arange(10) < 6)
    assert ece == pytest.approx(0.3)
    assert sum(b["count"] for b in bins) == 10
    assert reliability(np.full(10, 1.0), np.ones(10, bool))[0] == 0


def test_errors_are_listed_most_confident_first():
    metrics = metrics_of(
        (labelled("3L"), predicted("2L", confidence=0.5)),
        (labelled("3L"), predicted("3L")),
        (labelled("3L"), predicted("1L", confidence=0.8)),
    )
    assert [row["file"] for row in metrics["errors"]] == ["2.png", "0.png"]
    assert metrics["errors"][0] | {"probabilities": {}} == {
        "file": "2.png", "label": "3L", "predicted": "1L", "confidence": 0.8, "probabilities": {}, "group": ""
    }  # fmt: skip
    assert metrics["errors"][0]["probabilities"]["1L"] == 0.8


def test_metrics_by_group():
    predictions = [
        FramePrediction("0.png", labelled("3L"), predicted("3L")),
        FramePrediction("1.png", labelled("3L"), predicted("2R")),
        FramePrediction("2.png", labelled("1R"), ()),
    ]
    traits = {"view": (["palm", "back", "edge"], ["palm", "palm", "back"])}
    keys = ("group", "pictures", "total_accuracy", "recall", "count_accuracy", "side_accuracy")
    rows = [("palm", 2, 0.5, 1, 0.5, 0.5), ("back", 1, 0, 0, 0, None), ("edge", 0, 0, 0, 0, None)]
    groups = metrics_by_group(predictions, traits)["view"]
    assert [tuple(row[key] for key in keys) for row in groups] == rows
    assert [row["total"]["correct"] for row in groups] == [1, 0, 0]


def test_the_interval_of_pictures_that_stand_alone_is_wilsons():
    """107 of 120: in R, prop.test(107, 120, correct = FALSE)."""
    correct = [True] * 107 + [False] * 13
    assert accuracy(correct, [""] * 120) == {"correct": 107, "units": 120, "interval": [0.8234, 0.9356]}
    assert accuracy([], []) == {"correct": 0, "units": 0, "interval": None}


def test_the_interval_of_people_is_wider_than_that_of_as_many_pictures():
    """Of ten people, all pictures of one are wrong: it might have been nobody, or three."""
    people = [f"person {i // 20}" for i in range(200)]
    correct = [person != "person 3" for person in people]
    low, high = accuracy(correct, people)["interval"]
    alone_low, alone_high = accuracy(correct, [""] * 200)["interval"]
    assert low == pytest.approx(0.7)
    assert high == 1
    assert high - low > 2 * (alone_high - alone_low)


def test_of_one_person_there_is_no_interval_and_of_people_without_errors_one_of_people():
    assert accuracy([True, True, False], ["a"] * 3) == {"correct": 2, "units": 1, "interval": None}
    assert (
        accuracy([True] * 90, [f"{i // 30}" for i in range(90)])["interval"]
        == accuracy([True] * 3, [""] * 3)["interval"]
    )


def test_a_lead_is_compared_on_the_same_pictures():
    """Both have 75%, on other pictures: nobody is ahead. Then one is, on every person."""
    pattern, people = [True, True, True, False] * 30, [f"{i // 4}" for i in range(120)]
    low, high = lead(pattern, pattern[::-1], [""] * 120)
    assert low < -0.05
    assert high > 0.05
    assert lead(pattern, [False] * 120, people) == [0.75, 0.75]
    assert lead(pattern, pattern, ["one person"] * 120) is None


def test_frames_are_grouped_by_session_and_by_the_size_of_the_hand():
    def prediction(side, session):
        frame = replace(labelled("3L", side=side), image=np.broadcast_to(np.uint8(0), (100, 160, 3)))
        return FramePrediction("1.png", frame, (), session)

    traits = session_and_size([prediction(60, "10"), prediction(40, "9"), prediction(12, "9")])
    assert traits["session"] == (["9", "10"], ["10", "9", "9"])
    sizes = ["over a half", "a third to a half", "under a fifth"]
    assert traits["hand in the picture"] == (sizes, sizes)
    assert session_and_size([prediction(60, ""), prediction(60, "")]) == {}, "nothing to compare"
    assert "session" not in session_and_size([prediction(60, str(i)) for i in range(50)]), "too many to show"


@pytest.fixture
def rendered(tmp_path):
    return write_rendered(tmp_path / "render/val", 24)


def test_the_box_of_a_rendered_hand_fits_it(rendered):
    hands = Rendered(rendered, [np.full((300, 400, 3), (10, 60, 10), np.uint8)])
    for i in range(len(hands)):
        frame = hands.frame(i)
        height, width = frame.image.shape[:2]
        x0, y0, x1, y1 = frame.boxes[0]
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        assert 0.25 <= max(x1 - x0, y1 - y0) / min(height, width) <= 0.75
        assert frame.targets[0] == i % len(CLASSES)
        # What differs from the background is the hand.
        away = np.abs(frame.image.astype(int) - frame.image[0, 0]).max(2) > 20
        x, y, w, h = cv2.boundingRect(away.astype(np.uint8))
        assert np.allclose((x, y, x + w, y + h), frame.boxes[0], atol=3)
        assert (frame.image == hands.frame(i).image).all(), "the same every time"


def test_without_backgrounds_rendered_hands_are_before_plain_walls(rendered):
    walls = [Rendered(rendered, []).frame(i).image[0] for i in range(4)]
    assert all((wall == wall[0]).all() for wall in walls)
    assert len({tuple(wall[0]) for wall in walls}) == 4


def test_rendered_hands_for_training_keep_their_mask(rendered):
    hands = Rendered(rendered)
    assert np.flatnonzero(hands.validation).tolist() == [0, 10, 20], "one in ten is held out"
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


def test_shards_without_the_visible_fraction_have_no_such_trait(rendered, tmp_path):
    shard = dict(np.load(rendered / "shard-00000.npz"))
    del shard["sight"]
    np.savez(tmp_path / "shard-00000.npz", **shard)
    older = Rendered(tmp_path)
    assert "raised fingers in sight" not in older.traits()
    assert (older.frame(1).image == Rendered(rendered).frame(1).image).all()


def test_the_same_hand_in_many_tones_has_one_place_and_background(tmp_path):
    """Nothing but the tone can make a difference."""
    rooms = [np.full((300, 400, 3), grey, np.uint8) for grey in range(60, 240)]
    hands = Rendered(write_rendered(tmp_path / "render/tones", 30, tones=True), rooms)
    corners = [int(hands.frame(i).image[0, 0, 0]) for i in range(30)]
    assert [set(corners[k : k + 10]) for k in (0, 10, 20)] == [{corners[0]}, {corners[10]}, {corners[20]}]
    assert len(set(corners)) == 3
    groups, labels = hands.traits()["skin tone"]
    assert list(hands.traits()) == ["skin tone"]
    assert labels == groups * 3


def webcam_data(folder: Path) -> Path:
    """Write two held-out frames, each with a hand that the shipped model classifies correctly."""
    frames = {}
    for name, sample in ("5_pic1.jpg", "3L_0"), ("5_pic2.jpg", "5R_0"):
        image = decode(ROOT / f"assets/samples/{sample}.jpg")
        frames[name] = (image, int(sample[0]), FingerCounter()(image).hands[0].box)
    write_webcam(folder / "people/HandsDataset", frames)
    return folder


def test_corruptions_change_pixels_and_keep_labels(tmp_path):
    source, index = open_held_out("webcam", webcam_data(tmp_path))
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
        if name in CORRUPTIONS:
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


def test_distant_hands_are_smaller_before_another_background(tmp_path):
    source, index = open_held_out("webcam", webcam_data(tmp_path))
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


def test_the_webcam_frames_are_evaluated_in_every_condition(tmp_path):
    evaluate(webcam_data(tmp_path), output=tmp_path / "metrics")
    metrics = json.loads((tmp_path / "metrics/webcam.json").read_text())
    assert [row["group"] for row in metrics["conditions"]] == list(CONDITIONS)
    assert [row["pictures"] for row in metrics["conditions"]] == [2] * len(CONDITIONS)
    recorded = metrics["conditions"][0]
    assert recorded["count_accuracy"] == 1
    assert (recorded["total_accuracy"], recorded["recall"]) == (metrics["total_accuracy"], metrics["recall"])
    assert recorded["total"] == metrics["total"] == {"correct": 2, "units": 1, "interval": None}, "one session"


def test_evaluate_writes_metrics_of_every_set(tmp_path, capsys):
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
    assert len(written["errors"]) == 12 - written["correct"]
    assert {row["file"] for row in written["errors"]} <= {f"fingers/test/{f.name}" for f in (folder / "test").iterdir()}
    rendered = json.loads((tmp_path / "metrics/rendered.json").read_text())
    assert rendered["pictures"] == 24
    assert [row["pictures"] for row in rendered["groups"]["fingers"]] == [4] * 6
    assert [row["pictures"] for row in rendered["groups"]["skin tone"]] == [1] * 10
    assert all(row["file"].startswith("render/val/") for row in rendered["errors"])
    # The hand of each error, cut out.
    pictures = [tmp_path / "metrics" / row["picture"] for row in rendered["errors"][:12]]
    assert pictures
    assert set((tmp_path / "metrics/pictures").iterdir()) == set(pictures)
    assert decode(pictures[0]).shape == (192, 192, 3)
    assert decode(pictures[0])[0, 0].tolist() == pytest.approx(BACKDROP, abs=6), "no background of another data set"
    empty = json.loads((tmp_path / "metrics/empty.json").read_text())
    assert (empty["pictures"], empty["false_alarms"], empty["alarms"]) == (1, 0, [])
    # For `dvc metrics` and `dvc plots`.
    summary = json.loads((tmp_path / "metrics/summary.json").read_text())
    assert summary["rendered"]["recall"] == pytest.approx(rendered["recall"], abs=1e-4)
    counts = pd.read_csv(tmp_path / "counts.csv")
    both = np.array(written["count_confusion"]) + rendered["count_confusion"]
    assert pd.crosstab(counts.label, counts.predicted).to_numpy().sum() == both.sum()
    assert (counts.label == counts.predicted).sum() == np.trace(both)
    assert "webcam: skipped." in capsys.readouterr().out


def test_without_a_set_its_metrics_of_this_model_are_kept_and_those_of_another_deleted(tmp_path):
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    before = metrics_of((labelled("3L"), predicted("3L")), (labelled("3L"), predicted("2L")))
    for name, sha256 in ("webcam", FingerCounter().sha256), ("digits", "another"), ("empty", "another"):
        write_json(metrics / f"{name}.json", {"model": {"sha256": sha256}, **before})
    write_rendered(tmp_path / "render/val", 1)
    evaluate(tmp_path, output=metrics)
    assert {file.stem for file in metrics.glob("*.json")} == {"webcam", "rendered", "summary"}
    summary = json.loads((metrics / "summary.json").read_text())
    assert list(summary) == ["webcam", "rendered"]
    assert summary["webcam"]["count_accuracy"] == 0.5


def test_without_any_data_all_metrics_are_kept(tmp_path):
    write_json(tmp_path / "summary.json", {"webcam": {"recall": 1}})
    write_json(tmp_path / "digits.json", {"model": {"sha256": "another"}})
    before = {file: file.read_text() for file in tmp_path.iterdir()}
    with pytest.raises(SystemExit, match=r"no data to evaluate on\. .* python -m training data$"):
        main(["evaluate", "--folder", str(tmp_path / "none"), "--output", str(tmp_path)])
    assert {file: file.read_text() for file in tmp_path.iterdir()} == before


def test_false_alarms_are_listed(tmp_path):
    room = tmp_path / "people/Human-Robot_Finger-Counting_Dataset/Backgrounds/Office/1.jpg"
    room.parent.mkdir(parents=True)
    shutil.copy(ROOT / "assets/samples/3L_0.jpg", room)
    evaluate(tmp_path, output=tmp_path / "metrics")
    empty = json.loads((tmp_path / "metrics/empty.json").read_text())
    assert empty["false_alarms"] == 1
    assert empty["alarms"][0]["hands"][0]["predicted"] == "3L"
    assert len(empty["alarms"][0]["hands"][0]["box"]) == 4


def test_faces_held_out_and_hagrid_are_evaluated(tmp_path):
    hand, grey = decode(ROOT / "assets/samples/5R_0.jpg"), np.full((120, 160, 3), 128, np.uint8)
    for name, image in {"val/23": hand, "val/43": grey, "val/13": hand, "train/7": hand}.items():
        write_image(tmp_path / f"people/EthnicityDetection/fair_face/{name}.jpg", image)
    write_image(tmp_path / gestures.PATH / "palm/1.jpg", hand)
    evaluate(tmp_path, output=tmp_path / "metrics")
    empty = json.loads((tmp_path / "metrics/empty.json").read_text())
    faces = {"group": "Faces (FairFace)", "set": "faces", "pictures": 2, "false_alarms": 1, "licence": "CC BY 4.0"}
    [row] = empty["groups"]
    assert row == faces | {"credit": row["credit"]}, "neither what is trained on nor what calibrates"
    assert "Kärkkäinen" in row["credit"]
    assert empty["alarms"][0]["file"] == "people/EthnicityDetection/fair_face/val/23.jpg"
    hagrid = json.loads((tmp_path / "metrics/hagrid.json").read_text())
    assert (hagrid["pictures"], hagrid["total_accuracy"], hagrid["total"]["correct"]) == (1, 1.0, 1)
    palm = next(row for row in hagrid["groups"]["gesture"] if row["group"] == "palm")
    assert hagrid["licence"] in hagrid["credit"]
    assert palm["shows"] == "an open hand, fingers apart"
    assert set(gestures.SHOWS) == set(gestures.GESTURES)
    assert len(hagrid["model"]["sha256"]) == 64


def test_report_has_a_row_for_each_set_with_mediapipe(tmp_path, capsys):
    both = metrics_of((labelled("3L"), predicted("3L")), (labelled("0L"), ()))
    conditions = [
        {"group": name, "total_accuracy": 0.9, "count_accuracy": 0.8, "recall": 0.7} for name in ("grey", "poor line")
    ]
    write_json(tmp_path / "webcam.json", {"title": "Webcam", "conditions": conditions, **both})
    groups = [{"group": "Faces", "pictures": 53, "false_alarms": 6}]
    write_json(tmp_path / "empty.json", {"pictures": 53, "false_alarms": 6, "groups": groups})
    gesture = {"group": "stop", "pictures": 10, "total_accuracy": 0.9, "finger_accuracy": 0.8}
    write_json(tmp_path / "hagrid.json", {"groups": {"gesture": [gesture]}, "ece": 0.048})
    left_out = {"title": "One man", **both, "side_accuracy": None}
    write_json(tmp_path / "leave-one-out.json", {"sources": {"counting": left_out}})
    modes = {"static": {"accuracy": 0.976}, "tracking": {"accuracy": 0.826}}
    sets = {"webcam": modes | {"frames": 1}, "counting-all": modes | {"frames": 2}, "digits": {"frames": 0}}
    sets["webcam-harder"] = {"conditions": {"grey": modes}}
    write_json(tmp_path / "mediapipe.json", {"modes": list(modes), "sets": sets})
    report(tmp_path)
    lines = [re.sub(" +", " ", line) for line in capsys.readouterr().out.splitlines()]
    shares = "| 2 | 100.0% (34.2-100.0) | 50.0% | {} | 50.0% | 100.0% | 0.100 | 97.6% / 82.6%{} |"
    assert "| Webcam " + shares.format("100.0%", " of 1") in lines, "it was run on one of them"
    assert "| grey | 90.0% | 80.0% | 70.0% | 97.6% | 82.6% |" in lines
    assert "| poor line | 90.0% | 80.0% | 70.0% | – | – |" in lines
    assert "False alarms: 6 of 53 pictures without hands." in lines
    assert "| Faces | 53 | 6 |" in lines
    assert "| stop | 10 | 90.0% | 80.0% |" in lines
    assert "| One man " + shares.format("–", "") in lines


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_the_error_names_a_damaged_metrics_file(command, tmp_path):
    write_rendered(tmp_path / "render/val", 1)
    (tmp_path / "webcam.json").write_text('{"pictures":')
    where = ["--folder", str(tmp_path), *(["--output", str(tmp_path)] if command == "evaluate" else [])]
    with pytest.raises(SystemExit, match=r"webcam\.json: damaged .*Delete it, and evaluate again"):
        main([command, *where])
