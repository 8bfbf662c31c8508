"""The Evaluation page, on the metrics of a small data set."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from streamlit.testing.v1 import AppTest

import handful
import web.widgets
from handful import CLASSES, FINGERS
from tests.app.pages import metric, open_page, probability_bars
from tests.builders import sample_png, write_fingers
from training.data.frames import Frame
from training.evaluation.metrics import FramePrediction, compute_metrics


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """The folder of a small data set."""
    write_fingers(tmp_path / "fingers", train=1, test=3)
    monkeypatch.setattr(web.widgets, "DATA", tmp_path)
    return tmp_path


def write_metrics(folder: Path, **sets: dict) -> None:
    """Write metrics files, named with dashes, and a summary that names the evaluated sets."""
    folder = folder / "metrics"
    folder.mkdir(exist_ok=True)
    for name, metrics in sets.items():
        (folder / f"{name.replace('_', '-')}.json").write_text(json.dumps(metrics))
    summary = {name.replace("_", "-"): {} for name, metrics in sets.items() if "errors" in metrics}
    (folder / "summary.json").write_text(json.dumps(summary))


@pytest.fixture
def metrics(data, tmp_path, monkeypatch) -> dict:
    """Metrics of its test split: every 3L is predicted as 2L, all else is correct."""
    predictions = []
    for path in sorted((data / "fingers/test").iterdir()):
        label = path.stem[-2:]
        frame = Frame(np.zeros((9, 9, 3), np.uint8), np.float32([[0, 0, 9, 9]]), np.array([CLASSES.index(label)]))
        probabilities = np.full(len(CLASSES), 0.01, np.float32)
        probabilities[CLASSES.index("2L" if label == "3L" else label)] = 0.89
        maps, fingers = np.zeros((len(CLASSES), 8, 8), np.float32), np.zeros(len(FINGERS), np.float32)
        hand = handful.hand_from_probabilities((0, 0, 9, 9), (0, 0, 9, 9), probabilities, maps, fingers)
        predictions.append(FramePrediction(path.relative_to(data).as_posix(), frame, (hand,)))
    metrics = {
        "set": "fingers-test",
        "title": "Small: test split",
        "short_title": "Small",
        "command": "python -m training evaluate",
        "model": {"file": "handful.onnx", "sha256": "0" * 64},
        **compute_metrics(predictions),
    }
    write_metrics(tmp_path, fingers_test=metrics)
    monkeypatch.setattr(handful, "MODEL", tmp_path / "handful.onnx")
    return metrics


def accuracy_tables(page: AppTest) -> list[list[list[str]]]:
    """Return the cells of each table, without the header."""
    return [
        [re.findall("<t[hd]>(.*?)</t[hd]>", row) for row in element.body.split("<tr>")[2:]]
        for element in page.html
        if "scores" in element.body
    ]


def test_without_metrics_it_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(handful, "MODEL", tmp_path / "handful.onnx")
    page = open_page("evaluation")
    assert "python -m training evaluate" in page.info[0].value
    assert not page.metric


def test_metrics_classes_and_errors_of_a_set(metrics):
    page = open_page("evaluation")
    assert {metric.label: metric.value for metric in page.metric} == {
        "Total correct": "91.67%",
        "Count accuracy": "91.67%",
        "Class accuracy": "91.67%",
        "Side accuracy": "100.00%",
        "Recall": "100.00%",
        "Precision": "100.00%",
        "Calibration error": f"{metrics['ece']:.2%}",
        "Pictures": "36",
    }
    assert list(page.dataframe[0].value["class"]) == list(CLASSES)
    assert {button.label for button in page.button} == {"3L, predicted 2L 89%"}
    assert "not the one that was evaluated" in page.info[0].value
    for view in "Count", "Side", "Count and side":
        page.segmented_control[0].set_value(view).run()
        page.toggle[0].set_value(view == "Side").run()
        assert not page.exception
    page.button[0].click().run()
    assert len(probability_bars(page)) == 1


def test_every_set_beside_mediapipe(metrics, tmp_path):
    sideless = {"side_accuracy": None}
    groups = {
        name: [
            {"group": group, "pictures": 9, "recall": 1, "count_accuracy": share, "side_accuracy": None}
            for group, share in (("a", 0.5), ("b", 0.75))
        ]
        for name in ("skin tone", "raised")
    }
    conditions = [
        {"group": name, "pictures": 8, "total_accuracy": share} for name, share in (("dim", 0.9), ("grey", 0.8))
    ]
    modes = {"static": {"accuracy": 0.5}, "tracking": {"accuracy": 0.6}}
    write_metrics(
        tmp_path,
        webcam=metrics
        | {"title": "Large: sessions", "short_title": "Large", "total_accuracy": 0.4}
        | {"groups": groups, "conditions": conditions}
        | sideless,
        rendered=metrics | {"title": "Middle: places", "short_title": "Middle", "total_accuracy": 0.60049} | sideless,
        fingers_test=metrics,
        empty={"pictures": 50, "false_alarms": 5, "groups": [{"group": "Faces", "pictures": 50, "false_alarms": 5}]},
        mediapipe={
            "modes": list(modes),
            "sets": {"webcam": modes, "rendered": modes, "fingers-test": {"frames": 0}, "digits-all": modes}
            | {"webcam-harder": {"conditions": {"dim": modes}}},
        },
        leave_one_out={
            "sources": {"digits": metrics | {"title": "People", "budget": {"epochs": 3, "detector_epochs": 2}}}
        },
    )
    page = open_page("evaluation")
    share, hands = "91.7%", ["91.7%", "100.0%", "100.0%", "100.0%"]
    assert accuracy_tables(page) == [
        [
            ["Large", "36", "40.0%", "<b>60.0%</b>", share, "–", "100.0%", "100.0%"],
            ["Middle", "36", "<b>60.0%</b>", "<b>60.0%</b>", share, "–", "100.0%", "100.0%"],
            ["Small", "36", share, "–", *hands],
        ],
        [["People", "36", f"<b>{share}</b>", "60.0%", *hands]],
    ]
    chart = page.get("vega_lite_chart")[0].proto
    bars = convert_arrow_bytes_to_pandas_df(chart.datasets[0].data.data if chart.datasets else chart.data.data)
    assert bars.to_numpy().tolist() == [["dim", "Handful", 0.9], ["grey", "Handful", 0.8], ["dim", "MediaPipe", 0.6]]
    assert "the same 9 hands" in " ".join(text.value for text in page.caption)
    assert any("at most 3 epochs of the classifier and 2 of the detector" in text.value for text in page.markdown)
    assert "5 of 50" in next(text.value for text in page.markdown if "False alarms" in text.value)
    assert page.selectbox[0].options == ["Large: sessions", "Middle: places", "Small: test split"]
    assert [head.value for head in page.subheader] == ["Skin tone", "All 32 finger combinations, hardest first"]
    for key in "recall", "side_accuracy":
        page.segmented_control[0].set_value(key).run()
        assert not page.exception


def test_the_learned_rule_has_a_column_and_bars(metrics, tmp_path):
    shares = {"static": {"accuracy": 0.5}, "learned": {"accuracy": 0.95}}
    empty = {"frames": 50, "handful": {"false_alarms": 1}, "static": {"false_alarms": 5}}
    conditions = [{"group": "dim", "pictures": 8, "total_accuracy": 0.9}]
    gestures = [
        {"group": name, "pictures": 9, "total_accuracy": 0.97, "finger_accuracy": 0.9}
        for name in ("counting", "fingers together", "two_up")
    ]
    write_metrics(
        tmp_path,
        webcam=metrics | {"title": "Large: sessions", "short_title": "Large", "conditions": conditions},
        fingers_test=metrics,
        mediapipe={
            "modes": ["static", "tracking"],
            "sets": {"webcam": shares, "webcam-harder": {"conditions": {"dim": shares}}, "faces": empty, "homes": empty}
            | {"hagrid": shares | {"groups": {"fingers together": {"static": {"accuracy": 0.25}}}}},
        },
        hagrid={"groups": {"gesture": gestures}},
    )
    page = open_page("evaluation")
    share, hands = "91.7%", ["91.7%", "100.0%", "100.0%", "100.0%"]
    assert accuracy_tables(page) == [
        [["Large", "36", share, "50.0%", "<b>95.0%</b>", *hands], ["Small", "36", share, "–", "–", *hands]],
        [
            ["counting", "9", "97.0%", "50.0%", "95.0%", "90.0%"],
            ["fingers together", "9", "97.0%", "25.0%", "–", "90.0%"],
            ["two up", "9", "97.0%", "–", "–", "90.0%"],
        ],
    ]
    chart = page.get("vega_lite_chart")[0].proto
    bars = convert_arrow_bytes_to_pandas_df(chart.datasets[0].data.data if chart.datasets else chart.data.data)
    assert bars["model"].tolist() == ["Handful", "MediaPipe", "MediaPipe, learned"]
    texts = " ".join(text.value for text in page.markdown)
    assert "on 100 pictures without hands: it detects a hand in **2.0%**, MediaPipe in **10.0%**" in texts
    assert "**Learned:**" in " ".join(text.value for text in page.caption)


def test_a_cell_of_the_confusion_matrix_is_chosen_in_a_box_too(metrics):
    page = open_page("evaluation")
    box = page.selectbox[1]
    assert len(box.options) == len(CLASSES), "empty cells are left out"
    box.set_value(("3L", "2L")).run()
    assert not page.exception
    assert page.selectbox[1].options[3] == "3L, predicted as 2L: 3"
    assert [button.label for button in page.button] == ["3L, predicted 2L 89%"] * 6, (
        "of the cell, and in the list below"
    )
    page.selectbox[1].set_value(("5R", "5R")).run()
    assert page.selectbox[1].options[-1] == "5R, correct: 3"
    assert [button.label for button in page.button if "correct" in button.key] == ["5 right"] * 3
    # A cell that another view does not have is deselected.
    page.segmented_control[0].set_value("Count").run()
    assert page.selectbox[1].value is None


def test_an_error_opens_where_file_names_hold_no_label(metrics, data, tmp_path):
    (data / "webcam.png").write_bytes(sample_png("3L"))
    errors = [{**metrics["errors"][0], "file": "webcam.png"}]
    write_metrics(tmp_path, webcam=metrics | {"set": "webcam", "title": "Webcam", "errors": errors})
    page = open_page("evaluation")
    page.selectbox[1].set_value(("5R", "5R")).run()
    assert any("do not list correct pictures" in caption.value for caption in page.caption)
    page.button[0].click().run()
    assert not page.exception
    assert metric(page)
    assert len(probability_bars(page)) == 1


def test_errors_are_a_table_where_the_data_set_is_missing(metrics, monkeypatch):
    monkeypatch.setattr(web.widgets, "DATA", Path("nowhere"))
    page = open_page("evaluation")
    assert not page.button
    assert list(page.dataframe[1].value["predicted"]) == ["2L"] * 3
