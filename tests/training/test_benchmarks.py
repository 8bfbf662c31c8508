"""The benchmarks run and count right; how long anything takes is not asserted."""

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import benchmarks.__main__ as cli
from benchmarks import ROOT, api, largest, live, load, mediapipe, soak, speed, start, steady, summary
from benchmarks.app_server import running
from benchmarks.frames import SETS, Frame, digest, frames
from handful import Hand, Prediction
from handful.images import decode
from tests.builders import write_fingers
from training.data import open_source
from training.data.corruptions import CONDITIONS
from training.evaluation.evaluate import held_out
from training.markdown import markdown_table
from web.video import annotate


def picture(path, color=100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (color, color, color)).save(path)


# Frames


def test_of_a_set_that_is_not_there_the_way_to_it_is_told(tmp_path, capsys):
    assert all(frames(name, tmp_path) == [] for name in SETS)
    assert "Fingers test: left out. " in (told := capsys.readouterr().err)
    assert "python -m training data" in told


def test_bundled_samples_tell_their_fingers():
    assert {frame.total for frame in frames("samples", ROOT)} == {0, 1, 2, 3, 4, 5}


def test_fingers_are_sampled_evenly(tmp_path):
    files = sorted((write_fingers(tmp_path / "data/fingers", train=1, test=1) / "test").iterdir())
    found = frames("fingers-test", tmp_path, 6)
    assert [frame.path for frame in found] == [files[k] for k in (0, 2, 4, 7, 9, 11)]
    assert [frame.total for frame in found] == [int(frame.path.stem[-2]) for frame in found]
    assert len(frames("fingers-test", tmp_path)) == 12


def test_webcam_frames_are_those_that_evaluate_reads_in_order_of_time(tmp_path):
    """Within a session, whatever the split; without the photographs that nobody trains on or measures with."""
    folder = tmp_path / "data/people/HandsDataset"
    header = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    train = [("5_pic00002.jpg", 4), ("5_pic00002.jpg", 5), ("2_pic00001.jpg", 3), ("Hand_0000002.jpg", 5)]
    test = [("5_pic00001.jpg", 0), ("pic00001.jpg", 2), ("25_pic00001.jpg", 2)]
    (folder / "data").mkdir(parents=True)
    for split, hands in ("train", train), ("test", test):
        rows = "".join(f"{name},8,8,{fingers}-hand,1,2,3,4\n" for name, fingers in hands)
        (folder / f"data/{split}_labels.csv").write_text(header + rows)
        for name, _ in hands:
            picture(folder / f"images/{split}/{name}")
    assert [(frame.path.parent.name, frame.path.name, frame.total) for frame in frames("webcam", tmp_path)] == [
        ("test", "5_pic00001.jpg", 0),
        ("train", "5_pic00002.jpg", 9),
        ("test", "pic00001.jpg", 2),
    ]
    both = frames("webcam-all", tmp_path)
    assert len(both) == len(open_source("webcam", tmp_path / "data")) == 5
    assert {len({frame.session for frame in both if frame.path.name.startswith(name)}) for name in ("5_", "pic")} == {1}
    assert len({frame.session for frame in both}) == 4


def test_finger_counting_is_in_order_of_number(tmp_path):
    folder = tmp_path / "data/people/Human-Robot_Finger-Counting_Dataset/Raw_Images/Human/Set1"
    for name in "0/imbk.jpg", "1/one_10.jpg", "1/one_2.jpg", "3/three_1.jpg":
        picture(folder / name)
    found = [(frame.path.name, frame.session) for frame in frames("counting-all", tmp_path)]
    assert found == [("one_2.jpg", "1"), ("one_10.jpg", "1"), ("three_1.jpg", "3")]


def test_rendered_hands_are_read_in_the_frames_that_evaluate_makes(tmp_path):
    shutil.copytree(ROOT / "training/tiny_data/render/train", tmp_path / "data/render/val")
    found = frames("rendered", tmp_path, 6)
    source, index = held_out("rendered", tmp_path / "data")
    for frame in found:
        own = source.frame(index[int(frame.path.stem)])
        assert frame.total == own.targets[0] % 6
        assert np.array_equal(frame.image, own.image)
    assert len({frame.total for frame in found}) > 1
    assert len({frame.session for frame in found}) == 6, "none follows another"


def test_harder_webcam_frames_follow_each_other_in_each_condition(tmp_path):
    folder = tmp_path / "data/people/HandsDataset"
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for name, fingers in ("5_pic2.jpg", 4), ("5_pic1.jpg", 3), ("26_pic1.jpg", 1):
        picture(folder / f"images/train/{name}", 100 + fingers)
        rows.append(f"{name},8,8,{fingers}-hand,1,2,3,4")
    (folder / "data").mkdir(parents=True)
    (folder / "data/train_labels.csv").write_text("\n".join(rows))
    (folder / "data/test_labels.csv").write_text(rows[0])
    found = frames("webcam-harder", tmp_path)
    assert len(found) == 3 * len(CONDITIONS)
    assert {frame.path.parent.name for frame in found} == set(CONDITIONS)
    dim = [frame for frame in found if frame.path.parent.name == "a fifth of the light"]
    assert [(frame.path.name, frame.total) for frame in dim] == [
        ("26_pic1.jpg", 1),
        ("5_pic1.jpg", 3),
        ("5_pic2.jpg", 4),
    ]
    assert len({frame.session for frame in dim}) == 2
    assert len({frame.session for frame in found}) == 2 * len(CONDITIONS), "none goes on in another condition"
    assert [frame.image.mean() for frame in dim] == pytest.approx([20.2, 20.6, 20.8], abs=1.5)
    assert digest(dim) == digest(frames("webcam-harder", tmp_path)[found.index(dim[0]) :][:3])


def test_webcam_frames_of_one_hand_are_as_large_as_webcams_make_them(tmp_path):
    folder = tmp_path / "data/people/HandsDataset"
    rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    rows += [f"{name},8,8,3-hand,1,2,3,4" for name in ("5_pic1.jpg", "5_pic2.jpg", "5_pic2.jpg", "26_pic1.jpg")]
    for name in ("5_pic1.jpg", "5_pic2.jpg", "26_pic1.jpg"):
        picture(folder / f"images/train/{name}")
    (folder / "data").mkdir(parents=True)
    (folder / "data/train_labels.csv").write_text("\n".join(rows))
    (folder / "data/test_labels.csv").write_text(rows[0])
    found = frames("webcam-one", tmp_path)
    assert [(frame.path.name, frame.total) for frame in found] == [("26_pic1.jpg", 3), ("5_pic1.jpg", 3)]
    assert {frame.image.shape for frame in found} == {(480, 640, 3)}


def test_digest_names_the_frames(tmp_path):
    picture(tmp_path / "a.png")
    before = digest([Frame(tmp_path / "a.png", 1)])
    assert re.fullmatch("[0-9a-f]{12}", before)
    assert digest([Frame(tmp_path / "a.png", 2)]) != before
    picture(tmp_path / "a.png", 101)
    assert digest([Frame(tmp_path / "a.png", 1)]) != before


# Numbers and tables


def test_table_lines_up():
    assert markdown_table(["a", "ms"], [["one", "1.5"], ["b", "10.25"]]).splitlines() == [
        "| a   |    ms |",
        "| :-- | ----: |",
        "| one |   1.5 |",
        "| b   | 10.25 |",
    ]


def test_summary_is_median_and_tails():
    assert summary(range(101)) == {"p5": 5, "median": 50, "p95": 95}


def test_cases_take_turns():
    calls = []
    taken = speed.in_turns({name: lambda name=name: calls.append(name) or len(calls) for name in "ab"}, 3)
    assert len(taken["a"]) == len(taken["b"]) == 3
    assert all(set(calls[i : i + 2]) == {"a", "b"} for i in range(0, 8, 2))


@pytest.mark.parametrize("count", [1, 2])
def test_pasted_frames_have_the_size_asked_for(count):
    pictures = [np.full((5, 5, 3), 10 + 10 * i, np.uint8) for i in range(count)]
    frame = speed.paste(pictures)
    assert frame.shape == (480, 640, 3)
    assert set(np.unique(frame)) == {10 + 10 * i for i in range(count)}


@pytest.mark.slow
def test_speed_is_told(capsys, tmp_path, monkeypatch):
    run = speed.run
    monkeypatch.setattr(speed, "run", lambda: run(rounds=1, starts=1, predictions=4))
    assert cli.main(["speed", "--json", str(tmp_path / "speed.json")]) == 0
    told = json.loads((tmp_path / "speed.json").read_text())["speed"]
    text = capsys.readouterr().out
    assert all(f"| {name} " in text for name in told["milliseconds"])
    assert list(told["readings_a_second"]) == ["1", "2", "4"]


# Steady


def read(fingers: int) -> Prediction:
    box, probabilities = (0, 0, 8, 8), np.eye(12, dtype=np.float32)[fingers]
    return Prediction((Hand(box, box, fingers, "left", 1.0, probabilities, np.zeros((12, 2, 2))),), 8, 8, 1.0)


def test_a_film_is_a_second_of_frames_that_are_not_the_same():
    shown = list(steady.film(np.full((64, 64, 3), 100, np.uint8), np.random.default_rng(0)))
    assert len(shown) == steady.RATE
    assert {(frame.shape, frame.dtype.name) for frame in shown} == {((480, 640, 3), "uint8")}
    assert np.mean(shown) == pytest.approx(100, abs=10)
    assert np.std([frame.mean() for frame in shown]) > 3


def test_flicker_and_lag_are_counted_in_time():
    """Two, then five fingers, as read in the fifth frame first, and three in the last but one."""
    films = [(2, [read(2)] * 30), (5, [read(2)] * 4 + [read(5)] * 24 + [read(3), read(5)])]
    alone = steady.measure(films, 30, tracked=False)
    flicker = 2 / (17 / 30) / 2  # of the two pictures, one
    assert alone == {"right": 0.9722, "flicker": round(flicker, 2), "median": 167, "worst": 167, "poses": 1}
    tracked = steady.measure(films, 30, tracked=True)
    assert (tracked["flicker"], tracked["right"]) == (0, 1)
    assert 167 < tracked["worst"] < 300
    # Every third frame: that with three fingers is not among them.
    assert steady.measure(films, 10, tracked=False)["flicker"] == 0


def test_what_is_misread_is_no_lag():
    told = steady.measure([(count, [read(min(count, 3))] * 30) for count in (2, 3, 4)], 30, tracked=False)
    assert (told["poses"], told["worst"], told["right"]) == (1, 33, 0.6667)


@pytest.mark.slow
def test_steadiness_is_told(capsys, tmp_path):
    assert cli.main(["steady", "--frames", "2", "--json", str(tmp_path / "steady.json")]) == 0
    told = json.loads((tmp_path / "steady.json").read_text())["steady"]["sets"]["samples"]
    assert told["pictures"] == 2
    text = capsys.readouterr().out
    assert all(f"| Rendered samples (2), {how} " in text for how in told["told"])


# MediaPipe


class FakeWorker:
    """Stands in for MediaPipe: finds what `hands` says, and remembers what it was given."""

    def __init__(self, *_):
        self.versions = {"mediapipe": "0", "numpy": "0", "opencv": "0"}
        self.given = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __call__(self, image, reset):
        self.given.append((image.shape, reset))
        found = {"ms": 20.0, "cpu_ms": 30.0, "hands": 1, "upright": 2, "distance": 1, "angles": 0}
        return {"static": found, "tracking": found | {"hands": 0, "upright": 0, "distance": 0}}


def counter(image) -> Prediction:
    hand = Hand((0, 0, 8, 8), (0, 0, 8, 8), 1, "left", 1.0, np.zeros(12), np.zeros((12, 2, 2)))
    return Prediction((hand,), 8, 8, 1.0)


def test_frames_are_read_by_both(tmp_path):
    shown = []
    for name, total, session in ("a", 1, "x"), ("b", 1, "x"), ("c", 2, "y"):
        picture(tmp_path / f"{name}.png")
        shown.append(Frame(tmp_path / f"{name}.png", total, session))
    worker = FakeWorker()
    measured = mediapipe.measure(mediapipe.read(shown, counter, worker))
    # One call to warm up; tracking starts anew with each session.
    assert worker.given == [((8, 8, 3), reset) for reset in (False, True, False, True)]
    assert (measured["handful"]["accuracy"], measured["handful"]["no_hand"]) == (0.6667, 0)
    assert measured["static"]["rules"] == {"upright": 0.3333, "distance": 0.6667, "angles": 0}
    assert (measured["static"]["accuracy"], measured["static"]["rule"]) == (0.6667, "distance")
    assert (measured["tracking"]["accuracy"], measured["tracking"]["no_hand"]) == (0, 1)


def test_each_condition_has_its_own_share_and_best_rule(tmp_path):
    shown = []
    for condition, total in ("grey", 1), ("grey", 2), ("poor line", 2), ("poor line", 2):
        picture(file := tmp_path / condition / f"{len(shown)}.png")
        shown.append(Frame(file, total, condition))
    told = mediapipe.by_condition(mediapipe.read(shown, counter, FakeWorker()))
    assert {name: {who: share["accuracy"] for who, share in readers.items()} for name, readers in told.items()} == {
        "grey": {"handful": 0.5, "static": 0.5, "tracking": 0},
        "poor line": {"handful": 0, "static": 1, "tracking": 0},
    }


@pytest.mark.parametrize("border", ["edges", "black"])
def test_close_crops_are_made_fit(border):
    image = np.zeros((100, 100, 3), np.uint8)
    image[:, 50:] = 90
    fit = mediapipe.favour(image, border)
    assert fit.shape == (800, 800, 3)
    assert fit.dtype == np.uint8
    assert fit[400, 590].min() == 255  # stretched
    assert fit[400, 799].min() == (255 if border == "edges" else 0)


def test_sets_that_are_missing_are_told(tmp_path, monkeypatch, capsys):
    picture(tmp_path / "assets/samples/1L_0.jpg")
    monkeypatch.setattr(mediapipe, "ROOT", tmp_path)
    monkeypatch.setattr(mediapipe, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(mediapipe, "environment", lambda: None)
    monkeypatch.setattr(mediapipe, "Worker", FakeWorker)
    assert cli.main(["mediapipe", "--frames", "3"]) == 0
    assert not (tmp_path / "results.json").exists()  # a quick look changes no committed numbers
    assert cli.main(["mediapipe", "--json", str(tmp_path / "numbers.json")]) == 0
    assert not (tmp_path / "results.json").exists(), "nor do numbers of a part of the sets"
    results = json.loads((tmp_path / "numbers.json").read_text())["mediapipe"]
    assert results["sets"]["samples"]["frames"] == 1
    assert results["sets"]["webcam"]["frames"] == 0
    text = capsys.readouterr().out
    assert "Not here, left out: Fingers test, Webcam frames, Webcam frames of one hand, 640×480, Webcam" in text
    assert str(tmp_path) not in json.dumps(results)
    monkeypatch.setattr(mediapipe, "SETS", {"samples": SETS["samples"]})
    assert cli.main(["mediapipe"]) == 0
    assert list(json.loads((tmp_path / "results.json").read_text())["sets"]) == ["samples"]


def test_without_mediapipe_the_reason_is_told(tmp_path, monkeypatch, capsys):
    def no_network(command, **_):
        raise subprocess.CalledProcessError(1, command, "", "first\nERROR: No matching distribution found")

    monkeypatch.setattr(mediapipe, "ENVIRONMENT", tmp_path / "environment")
    monkeypatch.setattr(subprocess, "run", no_network)
    assert cli.main(["mediapipe"]) == 1
    error = capsys.readouterr().err
    assert "No comparison with MediaPipe: mediapipe==0.10.21 cannot be installed" in error
    assert error.endswith("ERROR: No matching distribution found\n")


def test_a_frame_s_number_is_read_back():
    frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    for number in (0, 1, 77, 2**16 - 1):
        assert load.number_of(load.numbered(frame, number)) == number


def test_two_cameras_are_read_at_once_over_webrtc():
    """Real connections: every stream is read, and the age of a reading is that of its frame."""
    row = load.measure(streams=2, seconds=4)
    assert row["streams"] == 2
    assert 0 < row["slowest"] <= row["median"] <= load.RATE + 1
    assert 0 < row["age_ms"]["median"] <= row["age_ms"]["p95"] < 20_000  # a number misread is minutes off
    assert load.report({"machine": "m", "rows": [row]})


def test_live_is_measured_in_both_ways():
    numbers = {
        "machine": "m",
        "rows": {"By the server": {"rate": {"lowest": 18, "median": 20}, "ms": 7, "core": 0.061}},
    }
    assert re.search(r"\| By the server +\| +20 \| +18 \| +7 \| +6% \|", live.report(numbers))
    assert list(live.WAYS.values()) == ["/", "/?read=browser"]


def started(folder: Path) -> dict:
    """The numbers of a start, measured once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "RUNS", 1)
        return start.run(sys.executable)


@pytest.mark.ahead(work=started)
def test_a_start_is_measured_until_the_page_is_there(ahead, monkeypatch, capsys):
    monkeypatch.setattr(start, "run", lambda python: ahead)
    assert cli.main(["start"]) == 0
    told = capsys.readouterr().out
    answers, shown = (float(re.search(rf"\| {row} .*?([\d.]+) \|", told)[1]) for row in ("answers", "shows Live"))
    assert 0.1 < answers < shown < 60


def test_the_api_is_asked_by_many_at_once(tmp_path):
    with running(tmp_path / "log") as address:
        row = api.measure(address, clients=2, seconds=1)
    assert row["clients"] == 2
    assert row["requests_a_second"] > 0
    assert 0 < row["ms"]["median"] <= row["ms"]["p95"]
    assert row["sent_away"] == 0
    assert api.report({"machine": "m", "rows": [row]})


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="what a process holds is told by Linux")
def test_what_a_process_holds_is_told():
    before = soak.held(os.getpid())
    with socket.socket():
        assert soak.held(os.getpid())["sockets"] == before["sockets"] + 1
    assert 10 < before["mb"] < 10_000
    assert before["threads"] >= 1
    numbers = dict.fromkeys(("idle", "warm", "late", "most", "end"), before)
    numbers |= {"visitors": 2, "lost": 1, "minutes": 1}
    told = soak.report({"machine": "m", **numbers})
    assert "2 visitors in 1 minutes, 1 of them saw nothing within a minute" in told


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the most that a process held, Linux forgets")
def test_the_most_that_a_process_held_is_told_anew():
    held = np.ones(100_000_000, np.uint8)
    assert largest.resident(os.getpid(), most=True) >= largest.resident(os.getpid())
    del held
    largest.forget_most(os.getpid())
    before = largest.resident(os.getpid(), most=True)
    held = np.ones(50_000_000, np.uint8)
    assert largest.resident(os.getpid(), most=True) >= before + 40
    del held
    assert largest.resident(os.getpid(), most=True) >= before + 40 > largest.resident(os.getpid())


def test_the_largest_files_are_what_they_are_called(tmp_path, monkeypatch):
    monkeypatch.setattr(largest, "SIZE", (80, 60))
    assert {decode(file).shape for file in largest.pictures().values()} == {(60, 80, 3), (80, 60, 3)}
    monkeypatch.setattr(largest, "FILM", 2_000_000)
    largest.write_film(tmp_path / "film.mp4")
    assert 2_000_000 <= (tmp_path / "film.mp4").stat().st_size < 4_000_000
    frame = next(annotate((tmp_path / "film.mp4").open("rb"), io.BytesIO()))
    assert [(hand.side, hand.fingers) for hand in frame.prediction.hands] == [("left", 3)]
    row = {"picture": "JPEG", "file_mb": 1.2, "seconds": 1.5, "more_mb": 500, "kept_mb": 3}
    films = {"visitors": 3, "file_mb": 190, "seconds": 60}
    films["mb"] = {"before": 300, "most": 900, "all read": 800, "left": 310}
    told = largest.report({"machine": "m", "pictures": [row], "films": films})
    assert "3 films of 190 MB at once, read in 60 s" in told


def test_what_a_server_holds_is_told_by_fifths_of_the_time():
    """It goes up and down with its visitors: one reading may say anything."""
    notes = [{"seconds": 10 * k, "mb": 300 + k + (50 if k % 5 == 0 else 0), "threads": 20} for k in range(50)]
    assert soak.middle(notes, 1, 500) == {"mb": 316, "threads": 20}
    assert soak.middle(notes, 4, 500) == {"mb": 346, "threads": 20}


def test_all_are_the_default_and_mediapipe_may_be_missing(tmp_path, monkeypatch, capsys):
    def missing(limit):
        raise mediapipe.NoMediaPipe("no network")

    numbers = {"machine": "m", "milliseconds": {}, "cpu_milliseconds": {}, "readings_a_second": {}, "model_bytes": 1}
    monkeypatch.setattr(speed, "run", lambda: numbers)
    monkeypatch.setattr(steady, "run", lambda limit: {"machine": "m", "sets": {}})
    monkeypatch.setattr(start, "run", lambda python: {"machine": python, "milliseconds": {}})
    monkeypatch.setattr(live, "run", lambda: {"machine": "m", "rows": {}})
    monkeypatch.setattr(load, "run", lambda: {"machine": "m", "rows": []})
    monkeypatch.setattr(api, "run", lambda: {"machine": "m", "rows": []})
    monkeypatch.setattr(mediapipe, "run", missing)
    assert cli.main([]) == 0
    assert capsys.readouterr().err == "No comparison with MediaPipe: no network\n"


def test_a_worker_that_stops_tells_why(tmp_path, monkeypatch):
    monkeypatch.setattr(mediapipe, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "worker.py").write_text("raise SystemExit('libGL.so.1 is missing')")
    with pytest.raises(mediapipe.NoMediaPipe, match=re.escape("MediaPipe stopped: libGL.so.1 is missing")):
        mediapipe.Worker(sys.executable)


def test_the_worker_speaks_lines_of_json(tmp_path, monkeypatch):
    """The real protocol, with a worker that needs no MediaPipe."""
    monkeypatch.setattr(mediapipe, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "worker.py").write_text(
        "import json, math, sys\n"
        "print(json.dumps({'mediapipe': '1'}), flush=True)\n"
        "while line := sys.stdin.buffer.readline():\n"
        "    header = json.loads(line)\n"
        "    pixels = sys.stdin.buffer.read(math.prod(header['shape']))\n"
        "    print(json.dumps({'sum': sum(pixels), **header}), flush=True)\n"
    )
    with mediapipe.Worker(sys.executable) as worker:
        assert worker.versions == {"mediapipe": "1"}
        image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
        assert worker(image, True) == {"sum": 1770, "shape": [4, 5, 3], "reset": True}
        assert worker(image, False)["reset"] is False
    assert worker.process.returncode == 0


def test_committed_results_have_no_paths():
    if not mediapipe.RESULTS.exists():
        pytest.skip("not measured yet")
    results = json.loads(mediapipe.RESULTS.read_text())
    assert list(results["sets"]) == list(SETS)
    assert not re.search(r'"(/|[A-Z]:\\)', mediapipe.RESULTS.read_text())
    assert mediapipe.report(results)
