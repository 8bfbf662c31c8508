"""Drift: what the report finds in changed pictures, and the summary that a server writes for it."""

import json
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import httpx
import numpy as np
import onnx
import pandas as pd
import pytest
from PIL import Image
from starlette.testclient import TestClient

from benchmarks.app_server import run_app
from handful import MODEL, FingerCounter, shared_counter
from handful.images import decode
from handful.picture_stats import COLUMNS, compute_stats
from training.cli import main
from training.evaluation.drift import compare, load_stats
from training.export.quantize import with_subgraphs
from web import inference, log, stats_log
from web.api import api

SAMPLES = Path(__file__).parents[2] / "assets/samples"
PICTURES = sorted(SAMPLES.glob("*.jpg"))


@pytest.fixture(scope="module")
def samples() -> pd.DataFrame:
    return load_stats(SAMPLES)[0]


@pytest.fixture(scope="module")
def counter() -> FingerCounter:
    return FingerCounter()


def drifted(reference: pd.DataFrame, current: pd.DataFrame) -> set[str]:
    return {comparison.name for comparison in compare(reference, current) if comparison.drifted}


def zoom_out(image: np.ndarray) -> np.ndarray:
    """Return the picture as if taken from farther away."""
    h, w = image.shape[:2]
    return cv2.copyMakeBorder(image, h // 2, h // 2, w // 2, w // 2, cv2.BORDER_REPLICATE)


# Statistics of a picture


def test_brightness_and_contrast_are_independent(counter):
    flat = np.full((480, 640, 3), 100, np.uint8)
    statistics = compute_stats(flat, counter(flat))
    assert tuple(statistics) == COLUMNS
    assert (statistics["brightness"], statistics["contrast"], statistics["sharpness"], statistics["hands"]) == (
        100,
        0,
        0,
        0,
    )
    assert statistics["hand_size"] is statistics["fingers"] is statistics["side"] is statistics["confidence"] is None
    halves = flat.copy()
    halves[:, 320:] = 140
    statistics = compute_stats(halves, counter(halves))
    assert (statistics["brightness"], statistics["contrast"]) == (120, 20)


def test_statistics_do_not_depend_on_the_size(counter):
    picture = cv2.resize(decode(PICTURES[0]), (1280, 1280), interpolation=cv2.INTER_CUBIC)
    large, small = (compute_stats(image, counter(image)) for image in (picture, cv2.resize(picture, (640, 640))))
    for name in ("brightness", "contrast", "sharpness", "hand_size"):
        assert small[name] == pytest.approx(large[name], rel=0.1), name
    for shape in ((1, 1, 3), (1, 5000, 3)):
        compute_stats(np.zeros(shape, np.uint8), counter(np.zeros(shape, np.uint8)))


def test_a_dark_picture_is_equally_sharp(counter):
    for picture in PICTURES[::12]:
        image = decode(picture)
        light, dark = (compute_stats(one, counter(one))["sharpness"] for one in (image, image // 2))
        assert dark == pytest.approx(light, rel=0.05)


def test_statistics_are_of_the_larger_of_two_hands(counter):
    near, far = (decode(SAMPLES / name) for name in ("5L_0.jpg", "1R_0.jpg"))
    both = np.full((256, 512, 3), near[0, 0], np.uint8)
    both[:, :256], both[64:192, 320:448] = near, cv2.resize(far, (128, 128), interpolation=cv2.INTER_AREA)
    for image in (both, np.roll(both, 256, 1)):
        prediction = counter(image)
        assert len(prediction.hands) == 2
        statistics = compute_stats(image, prediction)
        assert (statistics["hands"], statistics["fingers"], statistics["side"]) == (2, 5, "left")


# Comparisons


def test_identical_sets_do_not_drift(samples):
    assert drifted(samples, samples) == set()


def test_two_halves_of_one_set_do_not_drift(samples):
    assert drifted(samples[::2], samples[1::2]) == set()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda image: (image * 0.5).astype(np.uint8), {"brightness", "contrast"}),
        (lambda image: (image * 0.7 + 50).astype(np.uint8), {"contrast"}),
        (lambda image: cv2.GaussianBlur(image, (0, 0), 2), {"sharpness"}),
    ],
    ids=["dark", "hazy", "blurred"],
)
def test_only_what_was_changed_drifts(samples, counter, change: Callable, expected):
    images = [change(decode(picture)) for picture in PICTURES[::2]]
    changed = pd.DataFrame([compute_stats(image, counter(image)) for image in images])
    assert drifted(samples, changed) == expected


def test_smaller_hands_drift(samples, counter):
    images = [zoom_out(decode(picture)) for picture in PICTURES[::2]]
    assert "hand size" in drifted(samples, pd.DataFrame([compute_stats(image, counter(image)) for image in images]))


def test_fists_only_are_another_distribution_of_classes(samples):
    found = drifted(samples, samples[samples.fingers == 0])
    assert "class" in found
    assert "hands" not in found


def test_no_hands_is_drift_and_their_features_cannot_be_compared(samples, counter, tmp_path):
    empty = np.zeros((40, 60, 3), np.uint8)
    rows = pd.DataFrame([compute_stats(empty, counter(empty))] * 40)
    rows.to_csv(tmp_path / "summary.csv", index=False)
    for current in rows, load_stats(tmp_path / "summary.csv")[0]:
        verdicts = {comparison.name: comparison.verdict for comparison in compare(samples, current)}
        assert verdicts["hands"] == "drifted"
        assert verdicts["hand size"] == verdicts["confidence"] == verdicts["class"] == "too few pictures"


def test_few_pictures_are_too_few(samples):
    assert {comparison.verdict for comparison in compare(samples[:4], samples[-4:])} == {"too few pictures"}


def test_false_alarms_are_rare():
    """Of random numbers from one distribution, one report in a hundred may find drift."""
    rng = np.random.default_rng(0)

    def random_stats(n: int) -> pd.DataFrame:
        hands = {"hands": rng.integers(0, 3, n), "fingers": rng.integers(0, 6, n), "side": rng.choice(["left"], n)}
        names = ("brightness", "contrast", "sharpness", "hand_size", "confidence")
        return pd.DataFrame({name: rng.random(n) for name in names} | hands)

    assert sum(bool(drifted(random_stats(60), random_stats(40))) for _ in range(50)) <= 3


# The report


def test_the_report_is_a_self_contained_page_and_a_table(tmp_path, capsys):
    (tmp_path / "then").mkdir()
    (tmp_path / "now").mkdir()
    for picture in PICTURES[::5]:
        image = decode(picture)
        Image.fromarray(image).save(tmp_path / "then" / f"{picture.stem}.png")
        Image.fromarray(image // 2).save(tmp_path / "now" / f"{picture.stem}.png")
    (tmp_path / "now/<b>.png").write_bytes(b"no picture")
    page = tmp_path / "report.html"
    main(["drift", str(tmp_path / "then"), str(tmp_path / "now"), "--output", str(page)])
    printed = capsys.readouterr()
    lines = [line.split("|") for line in printed.out.splitlines() if "|" in line]
    table = {line[1].strip(): line[-2].strip() for line in lines}
    assert table["brightness"] == table["contrast"] == "drifted"
    assert table["sharpness"] == table["hands"] == table["hand size"] == "no"
    assert "<b>.png: This is not a picture" in printed.err
    assert "1 of 25 pictures could not be read" in printed.err
    html = page.read_text(encoding="utf-8")
    assert "1 could not be read" in html
    assert "2 of 7 drifted: brightness, contrast." in html
    assert html.count("<svg") == 7
    assert not re.search(r"https?:|<script|<link|@import|url\(", html), "it loads nothing"
    assert len(html) < 100_000


def test_drift_exits_with_1_only_with_fail(samples, tmp_path):
    samples.to_csv(tmp_path / "then.csv", index=False)
    samples.assign(brightness=samples.brightness / 2).to_csv(tmp_path / "now.csv", index=False)
    then, now, page = (str(tmp_path / name) for name in ("then.csv", "now.csv", "page.html"))
    main(["drift", then, now, "--output", page])
    main(["drift", then, then, "--output", page, "--fail", "true"])
    with pytest.raises(SystemExit, match="1"):
        main(["drift", then, now, "--output", page, "--fail", "true"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nothing", "No such file or folder: "),
        ("empty", "There are no readable pictures in "),
        ("broken", "There are no readable pictures in "),
        ("hand.jpg", "neither a folder of pictures nor a server's summary"),
        ("other.csv", "neither a folder of pictures nor a server's summary"),
        ("words.csv", "neither a folder of pictures nor a server's summary"),
        ("new.csv", "There are no predictions yet in "),
    ],
)
def test_the_error_names_a_file_that_cannot_be_compared(tmp_path, name, expected):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/one.png").write_bytes(b"no picture")
    (tmp_path / "hand.jpg").write_bytes(PICTURES[0].read_bytes())
    (tmp_path / "other.csv").write_text("file,total\nhand.jpg,3\n")
    (tmp_path / "words.csv").write_text(",".join(COLUMNS) + "\n" + ",".join("words" for _ in COLUMNS) + "\n")
    (tmp_path / "new.csv").write_text(",".join(COLUMNS) + "\n")
    with pytest.raises(SystemExit) as refused:
        main(["drift", str(tmp_path / name), str(SAMPLES)])
    assert expected in str(refused.value)
    assert name in str(refused.value)


def test_a_report_that_cannot_be_written_is_an_error(samples, tmp_path):
    samples.to_csv(tmp_path / "then.csv", index=False)
    csv = str(tmp_path / "then.csv")
    with pytest.raises(SystemExit, match="cannot be written"):
        main(["drift", csv, csv, "--output", str(tmp_path / "no folder/page.html")])


def test_a_folder_is_compared_with_the_model_of_the_server(tmp_path, monkeypatch):
    model = onnx.load(MODEL)
    for weights in (weights for graph in with_subgraphs(model.graph) for weights in graph.initializer):
        if weights.name.startswith("detector.head.2.bias"):
            weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights) - 20, weights.name))
    onnx.save(model, tmp_path / "blind.onnx")
    shutil.copy(PICTURES[0], tmp_path)
    for name, hands in (str(tmp_path / "blind.onnx"), 0), ("", 1):
        monkeypatch.setenv("HANDFUL_MODEL", name)
        shared_counter.cache_clear()
        assert load_stats(tmp_path)[0]["hands"].tolist() == [hands]


# The summary of a server


@pytest.fixture
def start_api(monkeypatch):
    """Return a function that starts the API with HANDFUL_SUMMARY set, or unset."""

    def start(file: Path | None) -> TestClient:
        if file:
            monkeypatch.setenv("HANDFUL_SUMMARY", str(file))
        else:
            monkeypatch.delenv("HANDFUL_SUMMARY", raising=False)
        stats_log.stats_file.cache_clear()
        return TestClient(api)

    yield start
    stats_log.stats_file.cache_clear()


def post(client: TestClient, picture: Path = PICTURES[0]) -> None:
    assert client.post("/predict", files={"file": (picture.name, picture.read_bytes())}).status_code == 200


def test_without_the_variable_no_summary_is_written(start_api, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    post(start_api(None))
    assert not any(tmp_path.iterdir())


def test_a_request_adds_its_statistics_and_nothing_else(start_api, tmp_path, counter, monkeypatch):
    monkeypatch.setattr(stats_log, "ROW_INTERVAL_S", 0)
    file = tmp_path / "summary.csv"
    client = start_api(file)
    for picture in PICTURES[::3]:
        post(client, picture)
    table = pd.read_csv(file)
    assert tuple(table) == ("time", "where", *COLUMNS)
    assert set(table["where"]) == {"api"}
    assert len(table) == 40
    image = decode(PICTURES[0])
    assert table[list(COLUMNS)].iloc[0].to_dict() == compute_stats(image, counter(image))
    assert PICTURES[0].stem not in file.read_text()
    # Compared with the same pictures, it has not drifted.
    main(["drift", str(SAMPLES), str(file), "--output", str(tmp_path / "report.html")])
    assert "0 of 7 drifted" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_rows_are_rate_limited_and_a_restart_writes_no_second_header(start_api, tmp_path, monkeypatch):
    monkeypatch.setattr(stats_log, "ROW_INTERVAL_S", 60)  # a slow machine may take over a second
    file = tmp_path / "summary.csv"
    for _ in range(2):
        client = start_api(file)
        for _ in range(3):
            post(client)
    header, *rows = file.read_text().splitlines()
    assert header.startswith("time,where,")
    assert len(rows) == 2
    assert all(",api,256,256," in row for row in rows)


def test_threads_write_whole_rows_and_a_full_file_is_rotated(start_api, tmp_path, monkeypatch):
    monkeypatch.setattr(stats_log, "ROW_INTERVAL_S", 0)
    monkeypatch.setattr(stats_log, "MAX_FILE_BYTES", 3000)
    image = decode(PICTURES[0])
    start_api(tmp_path / "summary.csv")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: inference.predict(image, "live"), range(100)))
    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == ["summary.csv", "summary.csv.1"]
    for name in files:
        assert (tmp_path / name).stat().st_size <= 3000
        table = pd.read_csv(tmp_path / name)
        assert tuple(table) == ("time", "where", *COLUMNS)
        assert set(table["fingers"]) == {0}
        assert not table.isna().any(axis=None)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["no folder/summary.csv", "/dev/full", "pipe"])
def test_a_summary_that_cannot_be_written_is_logged_once(start_api, tmp_path, capsys, monkeypatch, name):
    if name == "/dev/full" and not Path(name).exists():
        pytest.skip("only Linux has /dev/full")
    if name == "pipe":
        getattr(os, "mkfifo", pytest.skip)(tmp_path / name)
    monkeypatch.setattr(stats_log, "ROW_INTERVAL_S", 0)
    log.start()  # to the captured stderr
    client = start_api(tmp_path / name)
    for _ in range(3):
        post(client)
    warnings = [line for line in map(json.loads, capsys.readouterr().err.splitlines()) if line["level"] == "WARNING"]
    assert len(warnings) == 1
    assert "cannot be written" in warnings[0]["event"]
    assert "exc_info" not in warnings[0]


@pytest.mark.slow
def test_the_app_writes_a_summary_and_logs_that_it_does(tmp_path):
    file = tmp_path / "summary.csv"
    with run_app(tmp_path / "log", HANDFUL_SUMMARY=str(file)) as address:
        assert '"summary": true' in (tmp_path / "log").read_text()
        assert httpx.post(f"{address}/api/predict", files={"file": PICTURES[0].read_bytes()}).status_code == 200
    [row] = pd.read_csv(file).to_dict("records")
    assert (row["where"], row["fingers"], row["side"]) == ("api", 0, "left")
