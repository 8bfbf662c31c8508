"""Webcam streams: their predictions over time, and the processor that runs on the server."""

import asyncio
import time

import av
import numpy as np
import pytest
from aiortc import MediaStreamTrack
from streamlit_webrtc.process import AsyncVideoProcessTrack

from handful import Prediction, shared_counter
from handful.overlay import draw
from tests.app.frames import IMAGE, feed, make_hand, make_prediction, video_frame
from web import inference, metrics
from web.cpu import available_cores
from web.webcam import DARK_LEVEL, Stream, WebcamProcessor


def test_the_history_holds_the_last_30_seconds():
    stream = Stream()
    feed(stream, make_prediction(make_hand("2L")), 0, 20)
    feed(stream, make_prediction(make_hand("2L"), make_hand("5R", (420.0, 100.0, 600.0, 400.0))), 20.05, 20)
    seconds, totals = zip(*stream.history, strict=True)
    assert seconds[0] == pytest.approx(seconds[-1] - 30, abs=0.1)
    assert set(totals) == {2, 7}


def test_the_history_of_a_restarted_camera_is_empty():
    stream = Stream()
    feed(stream, make_prediction(make_hand("2L")), 0, 20)
    stream.update(make_prediction(), 0.0, 120)
    assert list(stream.history) == [(0.0, 0)]


def test_hands_below_the_minimum_confidence_are_left_out():
    stream = Stream()
    uncertain = make_prediction(make_hand("2L", confidence=0.6))
    assert stream.update(uncertain, 0, 120).total == 2
    stream.min_confidence = 0.9
    assert stream.update(uncertain, 0.1, 120).hands == ()


def test_fps_is_measured_over_a_moving_window(monkeypatch):
    stream = Stream()
    stream.update(make_prediction(), 100.0, 120)
    assert stream.latest.fps == 0
    for frame in range(1, 21):
        stream.update(make_prediction(), 100 + frame / 10, 120)
    assert stream.latest.fps == pytest.approx(10)
    for frame in range(1, 61):
        stream.update(make_prediction(), 102 + frame / 20, 120)
    assert stream.latest.fps == pytest.approx(20)


def test_a_stream_without_new_frames_is_stalled(monkeypatch):
    stream = Stream()
    stream.update(make_prediction(), 0, 120)
    assert not stream.latest.stalled
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3)
    assert stream.latest.stalled


@pytest.mark.parametrize(
    ("prediction", "brightness", "hint"),
    [
        (make_prediction(make_hand("3R")), 120, ""),
        (make_prediction(), 120, "No hand seen for a while"),
        (make_prediction(make_hand("3R")), DARK_LEVEL - 1, "too dark"),
        (make_prediction(make_hand("3R", (0.0, 100.0, 200.0, 400.0))), 120, "cut off"),
        (make_prediction(make_hand("3R", (200.0, 2.0, 400.0, 300.0))), 120, "cut off"),
        (make_prediction(make_hand("3R", (500.0, 100.0, 640.0, 400.0))), 120, "cut off"),
        # At the lower edge, that is the arm.
        (make_prediction(make_hand("3R", (200.0, 200.0, 400.0, 480.0))), 120, ""),
    ],
)
def test_a_hint_says_what_to_do_for_better_predictions(prediction, brightness, hint):
    stream = Stream()
    assert stream.hint == ""
    feed(stream, prediction, 0, 6, brightness)
    assert hint in stream.hint
    assert bool(stream.hint) == bool(hint)


def test_the_hint_about_a_missing_hand_comes_after_five_seconds():
    stream = Stream()
    feed(stream, make_prediction(make_hand("3R")), 0, 3)
    feed(stream, make_prediction(), 3, 4.5)
    assert stream.hint == ""
    feed(stream, make_prediction(), 7.5, 1)
    assert "No hand" in stream.hint


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("gradcam", [True, False])
def test_a_frame_is_predicted_as_it_is_and_annotated_mirrored(mirror, gradcam):
    processor = WebcamProcessor()
    processor.mirror, processor.gradcam = mirror, gradcam
    annotated = processor.recv(video_frame(IMAGE)).to_ndarray(format="rgb24")
    expected = shared_counter()(IMAGE)
    assert processor.stream.latest.prediction.to_dict() | {"ms": 0} == expected.to_dict() | {"ms": 0}
    assert (annotated == draw(IMAGE, expected, gradcam=gradcam, mirror=mirror)).all()


class NumberedFrames(MediaStreamTrack):
    """Frames whose colour is their number."""

    kind = "video"
    number = 0

    async def recv(self) -> av.VideoFrame:
        await asyncio.sleep(0.01)
        self.number += 1
        return video_frame(np.full((48, 64, 3), self.number, np.uint8))


def test_a_slow_model_drops_frames_and_never_falls_behind(monkeypatch):
    track = NumberedFrames()
    behind: list[int] = []

    def predict_slowly(image: np.ndarray) -> Prediction:
        behind.append(track.number - image[0, 0, 0])
        # For ten frames, however slow this machine is right now.
        end = track.number + 10
        while track.number < end and track.readyState == "live":
            time.sleep(0.001)
        return Prediction((), 64, 48, 1)

    monkeypatch.setattr(inference, "shared_counter", lambda: predict_slowly)
    dropped = metrics.DROPPED_FRAMES._value.get()

    async def watch() -> None:
        processed = AsyncVideoProcessTrack(track, WebcamProcessor())
        for _ in range(100):
            await processed.recv()
        track.stop()

    asyncio.run(watch())
    assert 2 <= len(behind) <= 11
    assert max(behind) <= 2  # a queue would be 90 behind at the end
    assert metrics.DROPPED_FRAMES._value.get() > dropped


def test_a_stream_is_active_while_frames_come(monkeypatch):
    processor = WebcamProcessor()
    assert metrics.active_streams() == 0  # a connection that fails brings no frame, and never ends
    processor.on_ended()
    assert metrics.active_streams() == 0
    for _ in range(2):
        processor.recv(video_frame(IMAGE))
    assert metrics.active_streams() == 1
    assert metrics.REGISTRY.get_sample_value("handful_streams") == 1
    # A visitor who closes the page leaves a connection that stays for half a minute.
    now = time.monotonic()
    with monkeypatch.context() as later:
        later.setattr(time, "monotonic", lambda: now + 3)
        assert metrics.active_streams() == 0
        processor.recv(video_frame(IMAGE))
        assert metrics.active_streams() == 1
    for _ in range(2):
        processor.on_ended()
    assert metrics.active_streams() == 0


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 64), ("200000 100000", 2), ("50000 100000", 1), (None, 64)]
)
def test_a_container_has_the_cores_of_its_quota(monkeypatch, tmp_path, quota, cores):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)))
    monkeypatch.setattr("web.cpu.CGROUP_CPU_MAX", tmp_path / "cpu.max")
    if quota:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert available_cores() == cores
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {5})
    assert available_cores() == 1
