"""The Evaluation page, on the metrics of a small data set."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from streamlit.testing.v1 import AppTest

import handful
import web.evaluation_details
import web.widgets
from handful import CLASSES, FINGERS
from tests.app.pages import headline, load_page, open_page, probability_bars
from tests.builders import sample_png, write_fingers
from training.data.frames import Frame
from training.evaluation.metrics import FramePrediction, compute_metrics


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """The folder of a small data set."""
    write_fingers(tmp_path / "fingers", train=1, test=3)
    for module in (web.widgets, web.evaluation_details):
        monkeypatch.setattr(module, "DATA", tmp_path)
    return tmp_path


def write_metrics(folder: Path, **sets: dict) -> None:
    """Write metrics files, named with dashes, and a summary that names the evaluated sets."""
    folder = folder / "metrics"
    folder.mkdir(exist_ok=True)
    for name, metrics in sets.items():
        (folder / f"{name.replace('_', '-')}.json").write_text(json.dumps(metrics))
    summary = {name.replace("_", "-"): {} for name, metrics in sets.items() if "errors" in metrics and name != "hagrid"}
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
        "credit": "Fingers by Pavel Koryakin (CC0)",
        "licence": "CC0",
        "command": "python -m training evaluate",
        "model": {"file": "handful.onnx", "sha256": "0" * 64},
        **compute_metrics(predictions),
    }
    write_metrics(tmp_path, fingers_test=metrics)
    monkeypatch.setattr(handful, "MODEL", tmp_path / "handful.onnx")
    return metrics


def write_hagrid(data: Path, pictures: bool = False) -> dict:
    """Return metrics of three gestures, in pictures of strangers that are written if asked for."""
    files = [f"people/hagrid/{name}.jpg" for name in ("stop/a", "stop/b", "stop/c", "two_up/d")]
    if pictures:
        for file in files:
            (data / file).parent.mkdir(parents=True, exist_ok=True)
            (data / file).write_bytes(sample_png("5R"))
    rows = {"counting": (107, 120), "two_up": (9, 10), "stop": (7, 10), "palm": (10, 10)}
    gestures = [
        {
            "group": name,
            "pictures": n,
            "total_accuracy": k / n,
            "total": {"interval": [0.8, 0.95]},
            "finger_accuracy": 1,
        }
        for name, (k, n) in rows.items()
    ]
    for row, shows in zip(
        gestures[1:], ("two fingers", "an open hand, fingers held together", "an open hand"), strict=True
    ):
        row["shows"] = shows
    return {
        "set": "hagrid",
        "title": "Strangers",
        "short_title": "HaGRID",
        "credit": "HaGRID by Kapitanov et al. (CC BY-SA 4.0)",
        "licence": "CC BY-SA 4.0",
        "pictures": 120,
        "total_accuracy": 107 / 120,
        "total": {"correct": 107, "units": 120, "interval": [0.8234, 0.9356]},
        "groups": {"gesture": gestures},
        "errors": [
            {"file": file, "gesture": Path(file).parent.name, "label": label, "predicted": predicted}
            for file, label, predicted in zip(files, (5, 5, 5, 2), (4, 4, 3, 1), strict=True)
        ],
    }


def tables(page: AppTest, kind: str) -> list[list[list[str]]]:
    """Return the texts of the cells of each table of a class, without the header; bold ones keep their tags."""
    found = [element.body for element in page.html if f'<table class="{kind}' in element.body.replace("'", '"')]
    return [
        [
            [re.sub("<(?!/?b>)[^>]+>", " ", cell).strip() for cell in re.findall("<t[hd].*?</t[hd]>", row)]
            for row in re.findall("<tr.*?</tr>", body)[1:]
        ]
        for body in found
    ]


def rates(page: AppTest, table: int) -> dict[str, list[str]]:
    """Return the rows of one table of rates: share, interval and numbers of each name, with what comes after."""
    rows = tables(page, "rates")[table]
    return {re.sub(" +", " ", name): cells for name, _, *cells in rows}


def all_text(page: AppTest) -> str:
    return "\n".join(element.value for element in (*page.markdown, *page.caption, *page.info, *page.subheader))


def test_without_metrics_it_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(handful, "MODEL", tmp_path / "handful.onnx")
    page = open_page("evaluation")
    assert "python -m training evaluate" in page.info[0].value
    assert not page.metric


def test_it_says_what_a_personal_head_is_worth(metrics, data, tmp_path):
    def row(size: int, **errors: float) -> dict:
        errors = {"nearest neighbours": 0.1, "logistic regression": 0.06, **errors}
        return {"size": size, "sessions": 14, "learned": 9, "errors": errors, "worse": 0.1}

    write_metrics(tmp_path, fingers_test=metrics)
    curve = [row(2, shipped=0.05, personal=0.045), row(9, shipped=0.04, personal=0.03)]
    (tmp_path / "metrics/teach.json").write_text(json.dumps({"curve": curve}))
    page = open_page("evaluation")
    assert re.search(r"14 people .*4\.0%.* 9 pictures .*3\.0%.*25% fewer errors\. In 10% of", all_text(page))
    chart = page.get("vega_lite_chart")[0]
    assert "nearest neighbours" in chart.proto.spec


def test_it_opens_with_strangers_in_words_beside_mediapipe(metrics, data, tmp_path):
    results = {
        "frames": 120,
        "static": {"accuracy": 0.8583, "interval": [0.78, 0.91], "behind": [-0.02, 0.09]},
        "learned": {"accuracy": 0.8, "interval": [0.72, 0.86], "behind": [0.01, 0.17]},
    }
    cpu_ms = {"handful": {"cpu_ms": {"median": 10.1}}, "static": {"accuracy": 0.97, "cpu_ms": {"median": 31.7}}}
    write_metrics(
        tmp_path,
        fingers_test=metrics,
        hagrid=write_hagrid(data),
        mediapipe={
            "modes": ["static", "tracking"],
            "model_bytes": {"handful": 1_600_000, "mediapipe": 7_818_763},
            "sets": {"hagrid": results, "webcam-one": cpu_ms},
        },
    )
    page = open_page("evaluation")
    answer = next(element.body for element in page.html if "answer" in element.body)
    assert re.sub("<.*?>", "", answer) == "89 of 100 pictures of strangers are counted correctly."
    assert rates(page, 0) == {
        "Handful": ["89", "82–94", "107 of 120", "10 ms", "1.6 MB"],
        "MediaPipe, best rule": ["86", "78–91", "103 of 120", "32 ms", "7.8 MB"],
        "MediaPipe, learned rule": ["80", "72–86", "96 of 120", "32 ms", "7.8 MB"],
    }
    text = all_text(page)
    assert "whom the model never saw" in text
    assert "expect 82 to 94 of 100" in text
    assert "**95% interval:**" in text
    assert (
        "On so few pictures, Handful and MediaPipe with its best rule are too close to tell apart. "
        "Handful is ahead of MediaPipe with the learned rule." in text
    )


def test_it_names_the_command_that_compares_with_mediapipe(metrics, data, tmp_path):
    rows = {"modes": ["static"], "sets": {}}
    write_metrics(tmp_path, fingers_test=metrics, hagrid=write_hagrid(data), mediapipe=rows)
    page = open_page("evaluation")
    assert rates(page, 0) == {"Handful": ["89", "82–94", "107 of 120", "–", "–"]}
    assert any("`python -m benchmarks mediapipe`" in info.value for info in page.info)


def test_every_set_says_whose_hands_it_shows(metrics, data, tmp_path):
    people = metrics | {"total": {"correct": 33, "units": 30, "interval": [0.88, 0.97]}}
    modes = {"frames": 3, "static": {"accuracy": 0.5, "interval": [0.4, 0.6]}}
    write_metrics(
        tmp_path,
        webcam=metrics | {"total": {"correct": 33, "units": 4, "interval": [0.8, 1]}},
        digits=people,
        rendered=metrics,
        hagrid=write_hagrid(data),
        mediapipe={"modes": ["static"], "sets": {"webcam": modes}},
    )
    [rows] = tables(open_page("evaluation"), "rates sets")
    titles = ["Strangers at home", "Strangers, close up", "One man at his webcam", "Simulated hands"]
    assert [row[0].startswith(title) for row, title in zip(rows, titles, strict=True)] == [True] * 4
    webcam, rendered = rows[2], rows[3]
    assert "bootstrap of 4 sessions, so few that it is rough" in webcam[0]
    assert "No stranger" in webcam[0]
    assert "bootstrap of 30 people." in rows[1][0]
    assert "Rendered by computer" in rendered[0]
    assert "bootstrap" not in rendered[0], "each stands alone"
    assert [re.sub(" +", " ", cell) for cell in webcam[1:]] == ["36", "92 80–100", "50 40–60 of 3 pictures", "–"]


def test_gestures_are_listed_worst_first_with_what_was_counted(metrics, data, tmp_path):
    write_metrics(tmp_path, fingers_test=metrics, hagrid=write_hagrid(data))
    page = open_page("evaluation")
    assert rates(page, 2) == {"All gestures that people count with": ["89", "80–95", "107 of 120"]}
    assert list(rates(page, 3)) == [
        "An open hand, fingers held together counted as 4 (2×), 3",
        "Two fingers counted as 1",
    ]
    assert "All pictures of these are counted correctly: an open hand." in all_text(page)
    assert "shown where the data set is installed" in all_text(page)


def test_pictures_are_shown_with_credit_where_their_licence_allows_it(metrics, data, tmp_path):
    hagrid = write_hagrid(data, pictures=True)
    write_metrics(tmp_path, fingers_test=metrics, hagrid=hagrid)
    page = open_page("evaluation")
    buttons = [button.label for button in page.button if button.key.startswith("gesture")]
    assert buttons == ["5 counted as 4", "5 counted as 4", "5 counted as 3", "2 counted as 1"], "worst gesture first"
    assert "HaGRID by Kapitanov et al. (CC BY-SA 4.0)" in all_text(page)
    page.button[0].click().run()
    assert len(probability_bars(page)) == 1
    write_metrics(tmp_path, fingers_test=metrics, hagrid=hagrid | {"licence": "Apache-2.0"})
    page = open_page("evaluation")
    assert not [button for button in page.button if button.key.startswith("gesture")]


def test_sessions_and_people_are_named_with_what_was_counted(metrics, tmp_path):
    def session(name: str, share: float) -> dict:
        return {"group": name, "pictures": 10, "total_accuracy": share, "total": {"interval": None}}

    errors = [{**metrics["errors"][0], "label": "5", "predicted": "4L", "group": "5_"}] * 2
    webcam = metrics | {
        "errors": errors,
        "licence": "Apache-2.0",
        "groups": {"session": [session("5_", 0.8), session("new", 1)]},
    }
    digits = metrics | {"groups": {"session": [session(f"{i:03}", 0.8 if i == 7 else 1) for i in range(30)]}}
    write_metrics(tmp_path, webcam=webcam, digits=digits)
    page = open_page("evaluation")
    assert rates(page, 1) == {
        "An office, against the light of a window counted 5 as 4 (2×)": [
            "80",
            "–",
            "8 of 10",
        ],
        "New": ["100", "–", "10 of 10"],
    }
    assert "For **29 of 30** people, all pictures are correct." in all_text(page)
    assert rates(page, 2) == {"007": ["80", "–", "8 of 10"]}
    assert "and these are under Apache-2.0" in all_text(page)


def test_skin_tones_and_distances_that_are_simulated_say_so(metrics, tmp_path):
    def group(name: str, share: float = 0.9) -> dict:
        return {
            "group": name,
            "pictures": 10,
            "total_accuracy": share,
            "total": {"interval": [0.6, 0.98]},
            "recall": 0.5,
        }

    write_metrics(
        tmp_path,
        rendered=metrics | {"groups": {"skin tone": [group("1, light"), group("10, dark")]}},
        webcam=metrics
        | {
            "groups": {"hand in the picture": [group("over a half")]},
            "conditions": [group("as recorded"), group("twice as far"), group("grey")],
        },
    )
    page = open_page("evaluation")
    assert "By skin tone, simulated" in [head.value for head in page.subheader]
    found = [list(rates(page, k)) for k in range(len(tables(page, "rates")))]
    assert ["1, light", "10, dark"] in found
    assert ["Over a half"] in found
    assert ["As recorded", "Twice as far, simulated"] in found
    assert "twice as far 50%" in all_text(page)
    labels = [expander.label for expander in page.expander]
    assert "Simulated conditions: distance, light, blur" in labels


def test_false_alarms_are_shown_where_that_is_allowed_and_told_where_not(metrics, data, tmp_path):
    (data / "face.png").write_bytes(sample_png("3L"))
    hand = {"predicted": "0L", "fingers": 0, "confidence": 0.39}
    groups = [
        {"group": "Places", "set": "places", "pictures": 53, "false_alarms": 1},
        {
            "group": "Faces",
            "set": "faces",
            "pictures": 50,
            "false_alarms": 5,
            "credit": "FairFace",
            "licence": "CC BY 4.0",
        },
    ]
    alarms = [
        {"file": "background 12", "set": "places", "hands": [hand]},
        {"file": "face.png", "set": "faces", "hands": [hand | {"fingers": 1, "confidence": 0.8}]},
    ]
    without_hands = {"frames": 50, "handful": {"false_alarms": 5}, "static": {"false_alarms": 6}}
    write_metrics(
        tmp_path,
        fingers_test=metrics,
        empty={"pictures": 103, "false_alarms": 6, "groups": groups, "alarms": alarms},
        mediapipe={"modes": ["static"], "sets": {"faces": without_hands}},
    )
    page = open_page("evaluation")
    text = all_text(page)
    assert "**6 of 103** pictures without one (5.8%): Places: 1 of 53; Faces: 5 of 50." in text
    assert "Handful in **5**, MediaPipe in **6**" in text
    assert "Places, not shown: taken for 0 fingers, 39%." in text
    assert [button.label for button in page.button if button.key.startswith("alarm")] == ["1 finger, 80%"]
    assert "FairFace" in text


def test_rendered_errors_come_with_the_metrics(metrics, tmp_path):
    errors = [{**metrics["errors"][0], "picture": "pictures/7.jpg"}, metrics["errors"][1]]
    write_metrics(tmp_path, rendered=metrics | {"errors": errors})
    page = open_page("evaluation")
    assert "keeps pictures of the rendered hands" in all_text(page), "the file is missing"
    (tmp_path / "metrics/pictures").mkdir()
    (tmp_path / "metrics/pictures/7.jpg").write_bytes(sample_png("3L"))
    page = open_page("evaluation")
    assert "the room is left out here" in all_text(page)
    images = [image for element in page.get("image") for image in element.proto.imgs]
    assert "3L, predicted 2L" in [image.caption for image in images]


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
    text = all_text(page)
    for term in ("Total correct", "Count accuracy", "Class accuracy", "Recall", "Precision", "Calibration error", "F1"):
        assert f"**{term}:**" in text, "explained where it stands"
    assert list(page.dataframe[0].value["class"]) == list(CLASSES)
    assert {button.label for button in page.button} == {"3L, predicted 2L 89%"}
    assert any("not the one that was evaluated" in info.value for info in page.info)
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
            {"group": group, "pictures": 9, "recall": 1, "total_accuracy": share, "count_accuracy": share}
            | {"side_accuracy": None}
            for group, share in (("a", 0.5), ("b", 0.75))
        ]
        for name in ("skin tone", "raised")
    }
    conditions = [
        {"group": name, "pictures": 8, "total_accuracy": share, "total": {"interval": None}}
        for name, share in (("dim", 0.9), ("grey", 0.8))
    ]
    modes = {"frames": 36, "static": {"accuracy": 0.5}, "tracking": {"accuracy": 0.6}}
    write_metrics(
        tmp_path,
        webcam=metrics
        | {"title": "Large: sessions", "short_title": "Large", "total_accuracy": 0.4}
        | {"groups": groups, "conditions": conditions}
        | sideless,
        rendered=metrics | {"title": "Middle: places", "short_title": "Middle", "total_accuracy": 0.60049} | sideless,
        fingers_test=metrics,
        mediapipe={
            "modes": ["static", "tracking"],
            "sets": {"webcam": modes, "rendered": modes, "fingers-test": {"frames": 0}, "digits-all": modes}
            | {"webcam-harder": {"conditions": {"dim": modes}}},
        },
        leave_one_out={
            "sources": {"digits": metrics | {"title": "People", "budget": {"epochs": 3, "detector_epochs": 2}}}
        },
    )
    page = open_page("evaluation")
    share, hands = "91.7%", ["91.7%", "100.0%", "100.0%", "100.0%"]
    assert tables(page, "scores") == [
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
    assert "the same 9 hands" in all_text(page)
    assert any("at most 3 epochs of the classifier and 2 of the detector" in text.value for text in page.markdown)
    assert page.selectbox[0].options == ["Large: sessions", "Middle: places", "Small: test split"]
    for key in "recall", "side_accuracy":
        page.segmented_control[0].set_value(key).run()
        assert not page.exception


def test_the_learned_rule_has_a_column_and_bars(metrics, tmp_path):
    shares = {"frames": 36, "static": {"accuracy": 0.5}, "learned": {"accuracy": 0.95}}
    conditions = [{"group": "dim", "pictures": 8, "total_accuracy": 0.9}]
    write_metrics(
        tmp_path,
        webcam=metrics | {"title": "Large: sessions", "short_title": "Large", "conditions": conditions},
        fingers_test=metrics,
        mediapipe={
            "modes": ["static", "tracking"],
            "sets": {"webcam": shares, "webcam-harder": {"conditions": {"dim": shares}}},
        },
    )
    page = open_page("evaluation")
    share, hands = "91.7%", ["91.7%", "100.0%", "100.0%", "100.0%"]
    assert tables(page, "scores") == [
        [["Large", "36", share, "50.0%", "<b>95.0%</b>", *hands], ["Small", "36", share, "–", "–", *hands]]
    ]
    chart = page.get("vega_lite_chart")[0].proto
    bars = convert_arrow_bytes_to_pandas_df(chart.datasets[0].data.data if chart.datasets else chart.data.data)
    assert bars["model"].tolist() == ["Handful", "MediaPipe", "MediaPipe, learned"]
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


def test_set_view_and_cell_are_in_the_address(metrics, tmp_path):
    write_metrics(tmp_path, fingers_test=metrics, webcam=metrics | {"title": "Webcam"})
    page = open_page("evaluation")
    page.selectbox[0].set_value("webcam").run()
    page.segmented_control[0].set_value("Count").run()
    page.selectbox[1].set_value(("3", "2")).run()
    assert dict(page.query_params) == {"set": "webcam", "compare": "Count", "cell": "3-2"}
    other = load_page("evaluation")
    for name, value in {"set": "webcam", "compare": "Count", "cell": "3-2"}.items():
        other.query_params[name] = value
    other.run()
    assert not other.exception
    assert (other.selectbox[0].value, other.segmented_control[0].value) == ("webcam", "Count")
    assert other.selectbox[1].value == ("3", "2")
    page.selectbox[1].set_value(None).run()
    assert "cell" not in page.query_params
    page.selectbox[0].set_value("fingers-test").run()
    assert dict(page.query_params) == {"set": "fingers-test"}, "view and cell are of the set before"
    assert page.segmented_control[0].value == "Count and side"


@pytest.mark.parametrize("address", [{"set": "none"}, {"compare": "Weight"}, {"cell": "9L-2L"}, {"cell": "3L"}])
def test_an_address_that_names_nothing_shows_the_defaults(metrics, address):
    page = load_page("evaluation")
    for name, value in address.items():
        page.query_params[name] = value
    page.run()
    assert not page.exception
    assert (page.selectbox[0].value, page.segmented_control[0].value) == ("fingers-test", "Count and side")
    assert page.selectbox[1].value is None


def test_a_cell_without_pictures_answers(metrics, tmp_path):
    page = load_page("evaluation")
    page.query_params["cell"] = "1L-4R"
    page.run()
    assert "Of 3 hands with the label “1 finger, left hand”, **none** was predicted as “4 fingers, right hand”." in (
        all_text(page)
    )
    # Hands that another error of their picture stands for.
    write_metrics(tmp_path, fingers_test=metrics | {"errors": []})
    page = load_page("evaluation")
    page.query_params["cell"] = "3L-2L"
    page.run()
    assert not page.exception
    assert "“3 fingers, left hand”, “2 fingers, left hand” was predicted for **3**." in all_text(page)
    assert "only the most confident error is listed" in all_text(page)


def test_an_error_opens_where_file_names_hold_no_label(metrics, data, tmp_path):
    (data / "webcam.png").write_bytes(sample_png("3L"))
    errors = [{**metrics["errors"][0], "file": "webcam.png"}]
    write_metrics(tmp_path, webcam=metrics | {"set": "webcam", "title": "Webcam", "errors": errors})
    page = open_page("evaluation")
    page.selectbox[1].set_value(("5R", "5R")).run()
    assert any("do not list correct pictures" in caption.value for caption in page.caption)
    page.button[0].click().run()
    assert not page.exception
    assert headline(page) == "3 fingers · 1 hand"
    assert len(probability_bars(page)) == 1


def test_errors_are_a_table_where_the_data_set_is_missing(metrics, monkeypatch):
    monkeypatch.setattr(web.evaluation_details, "DATA", Path("nowhere"))
    page = open_page("evaluation")
    assert not page.button
    assert list(page.dataframe[1].value["predicted"]) == ["2L"] * 3


def test_errors_are_a_table_where_the_licence_does_not_allow_showing_them(metrics, tmp_path):
    write_metrics(tmp_path, fingers_test=metrics | {"licence": "Apache-2.0"})
    page = open_page("evaluation")
    assert not page.button
    assert list(page.dataframe[1].value["predicted"]) == ["2L"] * 3
