"""Drift: what a report finds in pictures that were changed, and what a server keeps to be compared."""

import json
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

import app
from benchmarks.app_server import running
from handful import MODEL, FingerCounter, shared_counter
from handful.images import decode
from handful.picture_stats import COLUMNS, describe
from training.cli import main
from training.evaluation.drift import compare, summarize
from training.export.quantize import graphs
from web import inference as metrics
from web import log
from web import stats_log as summary

SAMPLES = Path(__file__).parents[2] / "assets/samples"
PICTURES = sorted(SAMPLES.glob("*.jpg"))


@pytest.fixture(scope="module")
def samples() -> pd.DataFrame:
    return summarize(SAMPLES)[0]


@pytest.fixture(scope="module")
def counter() -> FingerCounter:
    return FingerCounter()


def drifted(reference: pd.DataFrame, current: pd.DataFrame) -> set[str]:
    return {one.name for one in compare(reference, current) if one.drifted}


def grow(image: np.ndarray) -> np.ndarray:
    """The same picture, far off."""
    h, w = image.shape[:2]
    return cv2.copyMakeBorder(image, h // 2, h // 2, w // 2, w // 2, cv2.BORDER_REPLICATE)


# What is told of a picture


def test_light_contrast_and_edges_are_told_apart(counter):
    flat = np.full((480, 640, 3), 100, np.uint8)
    told = describe(flat, counter(flat))
    assert tuple(told) == COLUMNS
    assert (told["brightness"], told["contrast"], told["sharpness"], told["hands"]) == (100, 0, 0, 0)
    assert told["hand_size"] is told["fingers"] is told["side"] is told["confidence"] is None
    halves = flat.copy()
    halves[:, 320:] = 140
    told = describe(halves, counter(halves))
    assert (told["brightness"], told["contrast"]) == (120, 20)


def test_numbers_hold_at_any_size(counter):
    picture = cv2.resize(decode(PICTURES[0]), (1280, 1280), interpolation=cv2.INTER_CUBIC)
    large, small = (describe(image, counter(image)) for image in (picture, cv2.resize(picture, (640, 640))))
    for name in ("brightness", "contrast", "sharpness", "hand_size"):
        assert small[name] == pytest.approx(large[name], rel=0.1), name
    for shape in ((1, 1, 3), (1, 5000, 3)):
        describe(np.zeros(shape, np.uint8), counter(np.zeros(shape, np.uint8)))


def test_a_dark_picture_is_as_sharp(counter):
    for picture in PICTURES[::12]:
        image = decode(picture)
        light, dark = (describe(one, counter(one))["sharpness"] for one in (image, image // 2))
        assert dark == pytest.approx(light, rel=0.05)


def test_of_two_hands_the_larger_one_is_told(counter):
    near, far = (decode(SAMPLES / name) for name in ("5L_0.jpg", "1R_0.jpg"))
    both = np.full((256, 512, 3), near[0, 0], np.uint8)
    both[:, :256], both[64:192, 320:448] = near, cv2.resize(far, (128, 128), interpolation=cv2.INTER_AREA)
    for image in (both, np.roll(both, 256, 1)):
        prediction = counter(image)
        assert len(prediction.hands) == 2
        told = describe(image, prediction)
        assert (told["hands"], told["fingers"], told["side"]) == (2, 5, "left")


# What drifts


def test_pictures_are_like_themselves(samples):
    assert drifted(samples, samples) == set()


def test_two_halves_of_one_set_are_alike(samples):
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
def test_what_was_changed_drifts_and_nothing_else(samples, counter, change: Callable, expected):
    images = [change(decode(picture)) for picture in PICTURES[::2]]
    changed = pd.DataFrame([describe(image, counter(image)) for image in images])
    assert drifted(samples, changed) == expected


def test_smaller_hands_drift(samples, counter):
    images = [grow(decode(picture)) for picture in PICTURES[::2]]
    assert "hand size" in drifted(samples, pd.DataFrame([describe(image, counter(image)) for image in images]))


def test_fists_alone_are_another_mix(samples):
    found = drifted(samples, samples[samples.fingers == 0])
    assert "class" in found
    assert "hands" not in found


def test_no_hands_any_more_drifts_and_what_cannot_be_compared_is_told(samples, counter, tmp_path):
    empty = np.zeros((40, 60, 3), np.uint8)
    read = pd.DataFrame([describe(empty, counter(empty))] * 40)
    read.to_csv(tmp_path / "kept.csv", index=False)
    for current in read, summarize(tmp_path / "kept.csv")[0]:
        verdicts = {one.name: one.verdict for one in compare(samples, current)}
        assert verdicts["hands"] == "drifted"
        assert verdicts["hand size"] == verdicts["confidence"] == verdicts["class"] == "too few to tell"


def test_few_pictures_are_too_few(samples):
    assert {one.verdict for one in compare(samples[:4], samples[-4:])} == {"too few to tell"}


def test_false_alarms_are_rare():
    """Numbers by chance, from one distribution: a hundredth of the reports may be wrong."""
    rng = np.random.default_rng(0)

    def chance(n: int) -> pd.DataFrame:
        hands = {"hands": rng.integers(0, 3, n), "fingers": rng.integers(0, 6, n), "side": rng.choice(["left"], n)}
        names = ("brightness", "contrast", "sharpness", "hand_size", "confidence")
        return pd.DataFrame({name: rng.random(n) for name in names} | hands)

    assert sum(bool(drifted(chance(60), chance(40))) for _ in range(50)) <= 3


# The report


def test_the_report_is_a_page_of_its_own_and_a_table(tmp_path, capsys):
    (tmp_path / "then").mkdir()
    (tmp_path / "now").mkdir()
    for picture in PICTURES[::5]:
        image = decode(picture)
        Image.fromarray(image).save(tmp_path / "then" / f"{picture.stem}.png")
        Image.fromarray(image // 2).save(tmp_path / "now" / f"{picture.stem}.png")
    (tmp_path / "now/<b>.png").write_bytes(b"no picture")
    page = tmp_path / "report.html"
    main(["drift", str(tmp_path / "then"), str(tmp_path / "now"), "--output", str(page)])
    told = capsys.readouterr()
    table = {line.split("|")[1].strip(): line.split("|")[-2].strip() for line in told.out.splitlines() if "|" in line}
    assert table["brightness"] == table["contrast"] == "drifted"
    assert table["sharpness"] == table["hands"] == table["hand size"] == "no"
    assert "<b>.png: This is not a picture" in told.err
    assert "1 of 25 could not be read" in told.err
    html = page.read_text(encoding="utf-8")
    assert "1 could not be read" in html
    assert "2 of 7 drifted: brightness, contrast." in html
    assert html.count("<svg") == 7
    assert not re.search(r"https?:|<script|<link|@import|url\(", html), "it needs nothing from elsewhere"
    assert len(html) < 100_000


def test_drift_ends_with_1_only_where_that_is_asked_for(samples, tmp_path):
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
        ("empty", "There is no picture to compare in "),
        ("broken", "There is no picture to compare in "),
        ("hand.jpg", "neither a folder of pictures nor a server's summary"),
        ("other.csv", "neither a folder of pictures nor a server's summary"),
        ("words.csv", "neither a folder of pictures nor a server's summary"),
        ("new.csv", "There is no reading yet in "),
    ],
)
def test_what_cannot_be_compared_is_refused_in_words(tmp_path, name, expected):
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


def test_a_report_that_cannot_be_written_is_told(samples, tmp_path):
    samples.to_csv(tmp_path / "then.csv", index=False)
    csv = str(tmp_path / "then.csv")
    with pytest.raises(SystemExit, match="cannot be written"):
        main(["drift", csv, csv, "--output", str(tmp_path / "no folder/page.html")])


def test_a_folder_is_read_with_the_model_that_the_server_reads_with(tmp_path, monkeypatch):
    model = onnx.load(MODEL)
    for weights in (weights for graph in graphs(model.graph) for weights in graph.initializer):
        if weights.name.startswith("detector.head.2.bias"):
            weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights) - 20, weights.name))
    onnx.save(model, tmp_path / "blind.onnx")
    shutil.copy(PICTURES[0], tmp_path)
    for name, hands in (str(tmp_path / "blind.onnx"), 0), ("", 1):
        monkeypatch.setenv("HANDFUL_MODEL", name)
        shared_counter.cache_clear()
        assert summarize(tmp_path)[0]["hands"].tolist() == [hands]


# What the server keeps


@pytest.fixture
def keep(monkeypatch):
    """The API of an app with HANDFUL_SUMMARY set, or not."""

    def start(file: Path | None) -> TestClient:
        if file:
            monkeypatch.setenv("HANDFUL_SUMMARY", str(file))
        else:
            monkeypatch.delenv("HANDFUL_SUMMARY", raising=False)
        summary.table.cache_clear()
        return TestClient(app.api)

    yield start
    summary.table.cache_clear()


def post(client: TestClient, picture: Path = PICTURES[0]) -> None:
    assert client.post("/predict", files={"file": (picture.name, picture.read_bytes())}).status_code == 200


def test_nothing_is_kept_unless_asked_for(keep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    post(keep(None))
    assert not any(tmp_path.iterdir())


def test_a_request_leaves_its_numbers_and_nothing_else(keep, tmp_path, counter, monkeypatch):
    monkeypatch.setattr(summary, "EVERY", 0)
    kept = tmp_path / "summary.csv"
    client = keep(kept)
    for picture in PICTURES[::3]:
        post(client, picture)
    table = pd.read_csv(kept)
    assert tuple(table) == ("time", "where", *COLUMNS)
    assert set(table["where"]) == {"api"}
    assert len(table) == 40
    image = decode(PICTURES[0])
    assert table[list(COLUMNS)].iloc[0].to_dict() == describe(image, counter(image))
    assert PICTURES[0].stem not in kept.read_text()
    # The report reads it, and finds the same pictures in it.
    main(["drift", str(SAMPLES), str(kept), "--output", str(tmp_path / "report.html")])
    assert "0 of 7 drifted" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_rows_come_now_and_then_and_a_restart_writes_no_second_header(keep, tmp_path, monkeypatch):
    monkeypatch.setattr(summary, "EVERY", 60)  # a slow machine may take over a second
    kept = tmp_path / "summary.csv"
    for _ in range(2):
        client = keep(kept)
        for _ in range(3):
            post(client)
    header, *rows = kept.read_text().splitlines()
    assert header.startswith("time,where,")
    assert len(rows) == 2
    assert all(",api,256,256," in row for row in rows)


def test_threads_write_whole_rows_and_a_full_file_starts_anew(keep, tmp_path, monkeypatch):
    monkeypatch.setattr(summary, "EVERY", 0)
    monkeypatch.setattr(summary, "MOST", 3000)
    image = decode(PICTURES[0])
    keep(tmp_path / "summary.csv")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: metrics.read(image, "live"), range(100)))
    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == ["summary.csv", "summary.csv.1"]
    for name in files:
        assert (tmp_path / name).stat().st_size <= 3000
        table = pd.read_csv(tmp_path / name)
        assert tuple(table) == ("time", "where", *COLUMNS)
        assert set(table["fingers"]) == {0}
        assert not table.isna().any(axis=None)


@pytest.mark.parametrize("name", ["no folder/summary.csv", "/dev/full"])
def test_where_it_cannot_be_written_the_log_says_so_once(keep, tmp_path, capsys, monkeypatch, name):
    if name == "/dev/full" and not Path(name).exists():
        pytest.skip("only Linux has a full disk at hand")
    monkeypatch.setattr(summary, "EVERY", 0)
    log.start()  # now: to the stderr that is looked at here
    client = keep(tmp_path / name)
    for _ in range(3):
        post(client)
    warnings = [line for line in map(json.loads, capsys.readouterr().err.splitlines()) if line["level"] == "WARNING"]
    assert len(warnings) == 1
    assert "cannot be written" in warnings[0]["event"]


@pytest.mark.slow
def test_the_whole_app_keeps_a_row_and_says_so(tmp_path):
    kept = tmp_path / "summary.csv"
    with running(tmp_path / "log", HANDFUL_SUMMARY=str(kept)) as address:
        assert '"summary": true' in (tmp_path / "log").read_text()
        assert httpx.post(f"{address}/api/predict", files={"file": PICTURES[0].read_bytes()}).status_code == 200
    [row] = pd.read_csv(kept).to_dict("records")
    assert (row["where"], row["fingers"], row["side"]) == ("api", 0, "left")
