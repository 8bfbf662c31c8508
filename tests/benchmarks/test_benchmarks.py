"""The benchmarks run and count correctly; how long anything takes is not asserted."""

import io
import json
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

import benchmarks
from benchmarks import Unavailable, api, app_server, largest, live, load, soak, speed, start, steady, streams, summary
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.app_server import run_app
from handful import CLASSES, FINGERS, Hand, Prediction
from handful.images import decode
from web.video import annotate


def test_summary_is_the_median_and_the_tails():
    assert summary(range(101)) == {"p5": 5, "median": 50, "p95": 95}


def test_the_command_runs_all_default_benchmarks_although_one_is_unavailable(monkeypatch, capsys):
    calls = []

    class FakeBenchmark:
        report = staticmethod(lambda results: f"table of {results}")

        def __init__(self, module: str):
            self.name = module.removeprefix("benchmarks.")

        def run(self, **options):
            if self.name == "mediapipe":
                raise Unavailable("no network")
            calls.append((self.name, options))
            return self.name

    monkeypatch.setattr("benchmarks.__main__.import_module", FakeBenchmark)
    assert main(["--frames", "3", "--python", "python3"]) == 0
    assert dict(calls) == {
        "speed": {},
        "live": {},
        "load": {},
        "api": {},
        "steady": {"frames": 3},
        "start": {"python": "python3"},
    }
    captured = capsys.readouterr()
    assert "table of steady" in captured.out
    assert captured.err == "mediapipe is not available: no network\n"
    assert main(["mediapipe"]) == 1


def test_every_benchmark_of_the_command_is_a_module():
    modules = {path.stem for path in Path(benchmarks.__file__).parent.glob("*.py")} | {"mediapipe"}
    assert set(BENCHMARKS) <= modules


# speed


def test_cases_are_called_in_turns():
    calls = []
    results = speed.in_turns({name: lambda name=name: calls.append(name) or len(calls) for name in "ab"}, 3)
    assert len(results["a"]) == len(results["b"]) == 3
    assert all(set(calls[i : i + 2]) == {"a", "b"} for i in range(0, 8, 2))


@pytest.mark.parametrize("count", [1, 2])
def test_pictures_side_by_side_fill_a_webcam_frame(count):
    frame = speed.place_side_by_side([np.full((5, 5, 3), 10 + 10 * i, np.uint8) for i in range(count)])
    assert frame.shape == (480, 640, 3)
    assert set(np.unique(frame)) == {10 + 10 * i for i in range(count)}


@pytest.mark.slow
def test_speed_runs(capsys, tmp_path, monkeypatch):
    run = speed.run
    monkeypatch.setattr(speed, "run", lambda: run(rounds=1, starts=1, predictions=4))
    assert main(["speed", "--json", str(tmp_path / "speed.json")]) == 0
    results = json.loads((tmp_path / "speed.json").read_text())["speed"]
    text = capsys.readouterr().out
    assert all(f"| {name} " in text for name in results["milliseconds"])
    assert list(results["predictions_a_second"]) == ["1", "2", "4"]


# steady


def predicted(fingers: int) -> Prediction:
    box, probabilities = (0, 0, 8, 8), np.eye(len(CLASSES), dtype=np.float32)[fingers]
    maps, raised = np.zeros((len(CLASSES), 2, 2)), np.zeros(len(FINGERS))
    hand = Hand(box, box, fingers, "left", 1.0, probabilities, maps, raised)
    return Prediction((hand,), 8, 8, 1.0)


def test_a_shaky_video_is_a_second_of_different_frames():
    frames = list(steady.shaky_video(np.full((64, 64, 3), 100, np.uint8), np.random.default_rng(0)))
    assert len(frames) == steady.FPS
    assert {(frame.shape, frame.dtype.name) for frame in frames} == {((480, 640, 3), "uint8")}
    assert np.mean(frames) == pytest.approx(100, abs=10)
    assert np.std([frame.mean() for frame in frames]) > 3


def test_the_tracker_removes_flicker_and_adds_lag():
    """Two, then five fingers, which are predicted from the fifth frame on, except three in the last but one."""
    five = [predicted(2)] * 4 + [predicted(5)] * 24 + [predicted(3), predicted(5)]
    videos = [(2, [predicted(2)] * 30), (5, five)]
    untracked = steady.measure(videos, 30, tracked=False)
    flicker = 2 / (17 / 30) / 2  # two changes in one of two videos
    assert untracked == {"accuracy": 0.9722, "flicker": round(flicker, 2), "median": 167, "worst": 167, "poses": 1}
    tracked = steady.measure(videos, 30, tracked=True)
    assert (tracked["flicker"], tracked["accuracy"]) == (0, 1)
    assert 167 < tracked["worst"] < 300
    # The frame with three fingers is not among every third.
    assert steady.measure(videos, 10, tracked=False)["flicker"] == 0


def test_wrong_predictions_are_no_lag():
    videos = [(count, [predicted(min(count, 3))] * 30) for count in (2, 3, 4)]
    measured = steady.measure(videos, 30, tracked=False)
    assert (measured["poses"], measured["worst"], measured["accuracy"]) == (1, 33, 0.6667)


@pytest.mark.slow
def test_steady_runs(capsys, tmp_path):
    assert main(["steady", "--frames", "2", "--json", str(tmp_path / "steady.json")]) == 0
    results = json.loads((tmp_path / "steady.json").read_text())["steady"]["sets"]["samples"]
    assert results["pictures"] == 2
    text = capsys.readouterr().out
    assert all(f"| Rendered samples (2), {mode} " in text for mode in results["modes"])


# load


def test_load_measures_rate_and_age_of_two_cameras(tmp_path):
    with run_app(tmp_path / "log") as address:
        row = load.measure(address, streams=2, seconds=2)
    assert (row["streams"], row["served"]) == (2, 2)
    assert 0 < row["slowest"] <= row["median"] <= load.FPS + 1
    assert 0 < row["age_ms"]["median"] <= row["age_ms"]["p95"] < 20_000
    assert load.report({"machine": "m", "rows": [row]})


# The app as a server


def test_the_delay_of_a_pose_ends_with_its_own_picture_beside_its_number():
    frames = live.FRAMES_OF_A_POSE
    totals = [3, 1, 7]
    seen = [[1000 * pose + 10 * k, (pose % 3) * frames + k] for pose in range(4) for k in range(20)]
    shown = [
        [1100, "1", "left · 1 (9%)", 3, 1],  # the picture is still the one before
        [1250, "1", "left · 1 (9%)", frames + 2, 2],
        [1300, "1", "left · 1 (9%)", frames + 3, 3],
        [2400, "1", "left · 1 (9%)", 2 * frames + 1, 4],  # never 7
    ]
    assert live.delays(seen, shown, totals) == [250, 1000]


def test_what_changes_apart_is_counted():
    together = [[0, "5", "left · 2 (9%) and right · 3 (8%)", 0, 1], [0, "–", "No hand in view", 0, 2]]
    assert live.count_splits(together) == 0
    # Within an animation frame, only the last state is seen.
    assert live.count_splits([[0, "4", "left · 5 (9%)", 0, 3], [0, "5", "left · 5 (9%)", 0, 3]]) == 0
    assert live.count_splits([*together, [0, "4", "left · 5 (9%)", 0, 3]]) == 1


def test_live_reports_delays_splits_and_cpu():
    row = {"delay_ms": {"median": 210, "worst": 400, "poses": 11}, "splits": 0, "rate": "20 fps", "core": 0.061}
    row["first_number_ms"] = {"at once": 1500, "after reading": 300}
    text = live.report({"machine": "m", "rows": {"Server": row}})
    assert re.search(r"\| Server +\| +210 / 400 \(11\) \| +300 / 1500 \| +0 \| +20 fps \| +6% \|", text)


def test_every_pose_of_the_video_is_counted_and_numbered(tmp_path):
    assert live.write_video(tmp_path / "camera.mjpeg") == [3, 1, 7, 4, 2, 3, 5, 1]


def measure_start(folder: Path) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "RUNS", 1)
        return start.run(sys.executable)


@pytest.mark.background(work=measure_start)
def test_a_start_is_measured_until_the_page_is_there(background_result, monkeypatch, capsys):
    monkeypatch.setattr(start, "run", lambda python: background_result)
    assert main(["start"]) == 0
    text = capsys.readouterr().out
    answers, page = (float(re.search(rf"\| {row} .*?([\d.]+) \|", text)[1]) for row in ("answers", "shows Live"))
    assert 0.1 < answers < page < 60


def test_the_api_is_measured_with_concurrent_clients(tmp_path):
    with run_app(tmp_path / "log") as address:
        row = api.measure(address, clients=2, seconds=1)
    assert row["clients"] == 2
    assert row["requests_a_second"] > 0
    assert 0 < row["ms"]["median"] <= row["ms"]["p95"]
    assert row["rejected"] == 0
    assert row["cpu_ms"] > 1
    assert api.report({"machine": "m", "rows": [row]})


def test_soak_samples_memory_threads_and_sockets_of_a_process():
    before = soak.process_usage(psutil.Process())
    with socket.create_server(("127.0.0.1", 0)):
        assert soak.process_usage(psutil.Process())["sockets"] == before["sockets"] + 1
    assert 10 < before["mb"] < 10_000
    assert before["threads"] >= 1
    results = dict.fromkeys(("idle", "warm", "late", "max", "end"), before)
    results |= {"machine": "m", "visitors": 2, "failed": 1, "minutes": 1}
    assert "2 visitors in 1 minutes, for 1 of whom no result appeared within a minute" in soak.report(results)


def test_soak_reports_what_an_attack_leaves():
    assert re.search(
        r"\| an attack +\| +230 \| +\+15% \|", soak.report({"machine": "m", "mb": {"fresh": 200, "an attack": 230}})
    )


def test_streams_report_growth_and_what_cycles_leave():
    memory = {"server_mb": 270, "tab_mb": 90}
    usage = {"threads": 9, "sockets": 8, "mb": 220}
    results = {"machine": "m", "minutes": 5, "streams": {"Server": {"rate": "20 fps", "warm": memory, "late": memory}}}
    text = streams.report(results | {"cycles": {"Server": {"before": usage, "after": usage | {"sockets": 9}}}})
    assert "270 → 270" in text
    assert "8 → 9" in text


def test_soak_reports_medians_of_fifths_of_the_time():
    samples = [{"seconds": 10 * k, "mb": 300 + k + (50 if k % 5 == 0 else 0), "threads": 20} for k in range(50)]
    assert soak.median_of_fifth(samples, 1, 500) == {"mb": 316, "threads": 20}
    assert soak.median_of_fifth(samples, 4, 500) == {"mb": 346, "threads": 20}


def test_the_memory_of_a_server_is_that_of_its_decoders_too():
    code = "block = b'1' * 80_000_000; print(flush=True); open(0).read()"

    def start() -> subprocess.Popen:  # in a thread, as decoders are replaced in one
        return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    with ThreadPoolExecutor(1) as thread, app_server.watch_memory(psutil.Process()) as samples:
        with thread.submit(start).result() as process:
            process.stdout.readline()
            time.sleep(0.1)
            assert process.pid in [child.pid for child in psutil.Process().children()]
            process.stdin.close()
        assert max(samples) >= samples[0] + 70
    assert app_server.server_mb(psutil.Process()) < samples[0] + 40


def test_the_largest_files_can_be_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(largest, "PICTURE_SIZE", (80, 60))
    assert {decode(file).shape for file in largest.encode_pictures().values()} == {(60, 80, 3), (80, 60, 3)}
    monkeypatch.setattr(largest, "VIDEO_BYTES", 2_000_000)
    largest.write_noisy_video(tmp_path / "video.mp4")
    assert 2_000_000 <= (tmp_path / "video.mp4").stat().st_size < 4_000_000
    frame = next(annotate((tmp_path / "video.mp4").open("rb"), io.BytesIO()))
    assert [(hand.side, hand.fingers) for hand in frame.prediction.hands] == [("left", 3)]


def test_largest_reports_pictures_and_videos():
    row = {"picture": "JPEG", "file_mb": 1.2, "seconds": 1.5, "peak_mb": 500, "retained_mb": 3}
    videos = {"visitors": 3, "file_mb": 190, "seconds": 60}
    videos["mb"] = {"before": 300, "max": 900, "done": 800, "left": 310}
    text = largest.report({"machine": "m", "pictures": [row], "videos": videos})
    assert "3 videos of 190 MB at once, processed in 60 s" in text
