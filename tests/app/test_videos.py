"""Videos: annotated frame by frame, stopped half-way, refused; and their page."""

import io
import re
import sys
import time
from collections.abc import Generator
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from threading import Semaphore

import av
import numpy as np
import psutil
import pytest
import streamlit as st
from PIL import Image

from handful import FINGERS
from tests.app.pages import load_page, open_page
from tests.builders import SAMPLES, add_sound, counting_on, make_video
from web import metrics, video, video_chart, video_process
from web.personal import Received
from web.video import MAX_SIDE, BadVideo, annotate


def decode_frames(file: io.BytesIO) -> list[np.ndarray]:
    file.seek(0)
    with av.open(file) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("container", ["mp4", "mov", "webm"])
def test_every_frame_is_predicted_and_annotated(container):
    target = io.BytesIO()
    frames = list(annotate(make_video(container), target))
    assert [frame.prediction.total for frame in frames][4::10] == [3, 5]
    assert np.diff([frame.seconds for frame in frames]) == pytest.approx(0.1, abs=0.002)
    assert frames[0].duration == pytest.approx(2, abs=0.05)
    assert frames[8].image.shape == (480, 640, 3)
    annotated = decode_frames(target)
    assert len(annotated) == len(frames) == 20
    assert annotated[0].shape == (480, 640, 3)
    # The blue of the caption, which is in no frame of the source.
    blue = (np.abs(annotated[8].astype(int) - (0, 98, 177)) < 25).all(2)
    assert blue.sum() > 1000


def decode_sound(file: io.BytesIO) -> np.ndarray:
    """Return the first channel of the sound, float32 at 48 kHz; empty if there is none."""
    file.seek(0)
    with av.open(file) as container:
        if not container.streams.audio:
            return np.zeros(0, np.float32)
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def loudness(sound: np.ndarray) -> float:
    return float(np.sqrt((sound**2).mean()))


@pytest.mark.parametrize(
    ("suffix", "codec", "rate"),
    [("mp4", "aac", 48_000), ("mov", "pcm_s16le", 44_100), ("webm", "libopus", 48_000), ("mkv", "flac", 16_000)],
)
def test_the_sound_is_kept(tmp_path, suffix, codec, rate):
    container = suffix if suffix == "webm" else "mp4"
    source, target = add_sound(make_video(container), tmp_path / f"video.{suffix}", codec, rate=rate), io.BytesIO()
    frames = list(annotate(io.BytesIO(source), target))
    assert (len(frames), frames[-1].is_sound_lost) == (20, False)
    sound = decode_sound(target)
    assert len(sound) / 48_000 == pytest.approx(2, abs=0.05)
    # The tone at its pitch.
    assert loudness(sound) == pytest.approx(0.3 / np.sqrt(2), rel=0.2)
    assert np.abs(np.fft.rfft(sound[:48_000])).argmax() == pytest.approx(440, abs=2)
    target.seek(0)
    with av.open(target) as video:
        start, end = (video.streams.audio[0].start_time or 0) / 48_000, video.duration / av.time_base
    assert abs(start) < 0.03
    assert end == pytest.approx(2, abs=0.1)


def test_the_sound_of_a_stopped_video_ends_with_it(tmp_path):
    source, target = add_sound(make_video(), tmp_path / "video.mp4"), io.BytesIO()
    frames = annotate(io.BytesIO(source), target)
    assert len(list(islice(frames, 7))) == 7
    frames.close()
    assert len(decode_sound(target)) / 48_000 == pytest.approx(0.7, abs=0.1)


def test_a_video_without_sound_stays_without():
    target = io.BytesIO()
    assert not list(annotate(make_video(), target))[-1].is_sound_lost
    assert not len(decode_sound(target))


def test_damaged_sound_costs_no_frame_and_is_reported(tmp_path):
    source = bytearray(add_sound(make_video(), tmp_path / "video.mkv", "flac"))
    with av.open(io.BytesIO(bytes(source))) as file:
        packets = [bytes(packet) for packet in file.demux(audio=0) if packet.size]
    for packet in packets[10:]:
        at = source.index(packet)
        source[at : at + len(packet)] = bytes(len(packet))
    frames = list(annotate(io.BytesIO(bytes(source)), io.BytesIO()))
    assert len(frames) == 20
    assert frames[-1].is_sound_lost


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_a_video_that_is_cut_in_half_says_that_the_rest_is_missing(tmp_path, suffix):
    codec = {"mp4": "aac", "webm": "libopus"}[suffix]
    video = make_video(suffix, samples=("3L_0", "5R_1") * 2)
    source = add_sound(video, tmp_path / f"video.{suffix}", codec, seconds=4)
    frames, target = [], io.BytesIO()
    with pytest.raises(BadVideo, match="The rest of the file is damaged or missing"):
        frames.extend(annotate(io.BytesIO(source[: len(source) // 2]), target))
    assert 5 < len(frames) < 35
    assert frames[0].duration == pytest.approx(4, abs=0.1)
    assert len(decode_frames(target)) == len(frames)


def test_a_video_whose_sound_goes_on_after_the_last_frame_is_complete(tmp_path):
    source = add_sound(make_video("webm"), tmp_path / "video.webm", "libopus", seconds=4)
    assert len(list(annotate(io.BytesIO(source), io.BytesIO()))) == 20


def test_a_stopped_video_is_complete_up_to_there():
    target = io.BytesIO()
    frames = annotate(make_video(), target)
    assert len(list(islice(frames, 7))) == 7
    frames.close()
    assert len(decode_frames(target)) == 7


def test_a_large_video_of_odd_size_is_scaled_down_to_an_even_size():
    target = io.BytesIO()
    list(annotate(make_video(size=(1922, 1080), samples=("3L_0",)), target))
    height, width = decode_frames(target)[0].shape[:2]
    assert max(height, width) == MAX_SIDE
    assert height % 2 == width % 2 == 0


def test_a_rotated_video_is_annotated_upright():
    target = io.BytesIO()
    frames = list(annotate(make_video(size=(480, 640), rotated=True), target))
    assert [frame.prediction.total for frame in frames][4::10] == [3, 5]
    assert (frames[0].prediction.width, frames[0].prediction.height) == (480, 640)
    assert decode_frames(target)[0].shape == (640, 480, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a video at all" * 100,
        (SAMPLES / "3L_0.jpg").read_bytes(),
        make_video().getvalue()[:3000],
        # Texts that FFmpeg takes for videos: network streams to wait for, and playlists.
        b"v=0\r\nc=IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1/video.ts\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{SAMPLES}/3L_0.jpg'\n".encode(),
    ],
    ids=["empty", "text", "image", "truncated", "SDP", "HLS", "ffconcat"],
)
def test_other_files_are_refused_at_once(data):
    start = time.monotonic()
    with pytest.raises(BadVideo, match=r"not MP4, MOV or WebM\. Save it as MP4"):
        list(annotate(io.BytesIO(data), io.BytesIO()))
    assert time.monotonic() - start < video_process.CPU_S


def test_a_file_with_only_sound_is_refused():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    with pytest.raises(BadVideo, match="only sound") as refused:
        list(annotate(io.BytesIO(file.getvalue()), io.BytesIO()))
    assert refused.value.status == 415


def test_an_unknown_codec_is_refused():
    data = make_video().getvalue().replace(b"avc1", b"zzzz")
    with pytest.raises(BadVideo, match=r"H\.264") as refused:
        list(annotate(io.BytesIO(data), io.BytesIO()))
    assert refused.value.status == 415


def test_frames_before_a_damaged_part_are_yielded_and_written():
    data = bytearray(make_video().getvalue())
    media = slice(data.index(b"mdat"), data.index(b"moov"))
    middle = (media.start + media.stop) // 2
    data[middle : media.stop] = np.random.default_rng(0).bytes(media.stop - middle)
    frames, target = [], io.BytesIO()
    with pytest.raises(BadVideo, match="The rest of the file is damaged"):
        frames.extend(annotate(io.BytesIO(data), target))
    assert 0 < len(frames) < 20
    assert len(decode_frames(target)) == len(frames)


def test_frames_before_too_large_ones_are_yielded(monkeypatch):
    monkeypatch.setattr(video, "MAX_PIXELS", 10_000)

    def packets(size: tuple[int, int], count: int, start: int) -> Generator[av.Packet]:
        encoder = av.CodecContext.create("libx264", "w")
        encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = *size, "yuv420p", Fraction(1, 10)
        for i in range(start, start + count):
            frame = av.VideoFrame.from_ndarray(np.zeros((*size[::-1], 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 10)
            yield from encoder.encode(frame)
        yield from encoder.encode()

    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = 64, 48, "yuv420p", Fraction(1, 10)
        out.start_encoding()
        for packet in (*packets((64, 48), 80, 0), *packets((160, 120), 80, 80)):
            packet.stream = stream
            out.mux(packet)
    frames = []
    with pytest.raises(BadVideo, match="The rest of the file is damaged"):
        frames.extend(annotate(io.BytesIO(file.getvalue()), io.BytesIO()))
    assert 40 < len(frames) <= 80


def test_the_output_ends_at_its_size_limit(monkeypatch):
    monkeypatch.setattr(video, "MAX_OUTPUT_BYTES", 1000)
    frames, target = [], io.BytesIO()
    with pytest.raises(BadVideo, match="ends here") as refused:
        frames.extend(annotate(make_video(samples=("3L_0",) * 6), target))
    assert refused.value.status == 413
    assert 0 < len(frames) < 60
    assert len(decode_frames(target)) == len(frames)


def test_a_video_that_makes_ffmpeg_read_for_ever_times_out(monkeypatch):
    monkeypatch.setattr(video_process, "CPU_S", 0.5)
    image = io.BytesIO()
    Image.new("RGB", (96, 96)).save(image, "HEIF")
    start = time.monotonic()
    with pytest.raises(BadVideo, match="cannot be decoded"):
        list(annotate(io.BytesIO(make_video("mov").getvalue() + image.getvalue()), io.BytesIO()))
    assert time.monotonic() - start < 10


def test_a_video_with_metadata_that_is_not_utf_8_is_annotated():
    data = make_video(samples=("3L_0",)).getvalue().replace(b"Lavf", b"\xe4\xf6\xfc.")
    assert len(list(annotate(io.BytesIO(data), io.BytesIO()))) == 10


def decoders() -> list[psutil.Process]:
    """Return the processes that decode a video."""
    return [one for one in psutil.Process().children() if str(video_process.WORKER) in one.cmdline()]


def test_untrusted_bytes_are_decoded_in_processes_that_end_with_the_video(tmp_path):
    source = io.BytesIO(add_sound(make_video(), tmp_path / "video.mp4"))
    frames = annotate(source, io.BytesIO())
    next(frames)
    processes = decoders()
    assert len(processes) == 2  # pictures, sound
    if sys.platform == "linux":
        files = Path(f"/proc/{processes[0].pid}/maps").read_text()
        assert "libavcodec" in files
        assert "onnxruntime" not in files
        assert all(0 < one.rlimit(psutil.RLIMIT_AS)[0] < 3e9 for one in processes)  # -1 is no limit
    frames.close()
    assert not any(one.is_running() for one in processes)


@pytest.mark.parametrize("end", [psutil.Process.kill, psutil.Process.suspend])
def test_a_decoder_that_ends_or_hangs_ends_the_video_there(monkeypatch, end):
    monkeypatch.setattr(video_process, "WALL_S", 2.0)
    target = io.BytesIO()
    rest = annotate(make_video(), target)
    frames = list(islice(rest, 5))
    end(*decoders())
    with pytest.raises(BadVideo, match="The rest of the file is damaged"):
        frames.extend(rest)
    assert len(frames) < 20
    assert len(decode_frames(target)) == len(frames)


# The page


def test_the_page_shows_chart_video_and_table():
    page = open_page("videos")
    assert "never stored" in page.markdown[0].value
    page.toggle[0].set_value(True).run()
    page.file_uploader[0].upload("hand.mp4", make_video().getvalue(), "video/mp4").run()
    assert not page.exception
    assert page.caption[0].value.startswith("20 frames, 1.9 seconds")
    assert [button.label for button in page.get("download_button")] == ["MP4", "CSV"]
    # Another choice is another run over the video.
    [key] = page.session_state.videos
    page.toggle[0].set_value(False).run()
    assert page.session_state.videos.keys() not in ({key}, set())
    page.file_uploader[0].set_value(None).run()
    assert not page.session_state.videos


def test_the_visitors_personal_head_predicts_the_frames():
    frames = list(annotate(make_video(samples=("3L_0",)), io.BytesIO(), personal=counting_on()))
    assert {frame.prediction.total for frame in frames} == {4}
    page = load_page("videos")
    page.session_state["personal"] = Received("an id", counting_on())
    page.run()
    page.file_uploader[0].upload("hand.mp4", make_video(samples=("3L_0",)).getvalue(), "video/mp4").run()
    assert "at most 4 fingers" in page.caption[0].value


def test_frames_without_a_hand_are_a_gap_in_chart_and_table(monkeypatch):
    charts, tables = [], []

    def record(coordinates, data, button, mimetype, file_name, **options):
        if file_name == "fingers.csv":
            tables.append(data)

    def annotate_without_hands(*files, **options):
        for frame in annotate(*files, **options):
            is_gap = 0.45 < frame.seconds < 0.75
            yield replace(frame, prediction=replace(frame.prediction, hands=())) if is_gap else frame

    monkeypatch.setattr(video, "annotate", annotate_without_hands)
    monkeypatch.setattr(video_chart, "component", lambda: lambda key, data: charts.append(data))
    monkeypatch.setattr("streamlit.elements.widgets.button.marshall_file", record)
    page = open_page("videos")
    page.file_uploader[0].upload("hand.mp4", make_video(samples=("3L_0",)).getvalue(), "video/mp4").run()
    assert not page.exception
    steps = charts[-1]["steps"]
    assert [step[1:] for step in steps[-3:]] == [(3, "left 3"), (None, ""), (3, "left 3")]
    assert steps[-2][0] == pytest.approx(0.5, abs=0.01)
    assert tables[-1].splitlines()[6] == "0.5,,,"  # an empty cell, not 0


def test_a_video_that_is_cut_in_half_says_where_it_ends(tmp_path):
    source = add_sound(make_video(samples=("3L_0", "5R_1") * 2), tmp_path / "video.mp4", seconds=4)
    page = open_page("videos")
    page.file_uploader[0].upload("hand.mp4", source[: len(source) // 2], "video/mp4").run()
    assert not page.exception
    assert re.fullmatch(
        r"Stopped at [12]\.\d of 4\.0 s\. The rest of the file is damaged or missing\.", page.warning[0].value
    )
    assert [button.label for button in page.get("download_button")] == ["MP4", "CSV"]


def test_a_video_that_was_stopped_says_where(monkeypatch):
    def annotate_until_click(*files, **options):
        yield from islice(annotate(*files, **options), 7)
        st.rerun()  # as a click on Stop does

    monkeypatch.setattr(video, "annotate", annotate_until_click)
    page = open_page("videos")
    page.file_uploader[0].upload("hand.mp4", make_video().getvalue(), "video/mp4").run()
    assert not page.exception
    assert page.warning[0].value.strip() == "Stopped at 0.6 of 2.0 s."


def test_lost_sound_is_reported(monkeypatch):
    monkeypatch.setattr(
        video, "annotate", lambda *files, **options: (replace(frame, is_sound_lost=True) for frame in annotate(*files))
    )
    page = open_page("videos")
    page.file_uploader[0].upload("hand.mp4", make_video(samples=("3L_0",)).getvalue(), "video/mp4").run()
    assert page.caption[0].value.endswith("Its sound could not be kept.")


def test_in_the_example_a_hand_counts_from_zero_to_five():
    page = open_page("videos")
    page.button[0].click().run()
    assert not page.exception
    assert page.caption[0].value.startswith("120 frames, 6.0 seconds")
    [example] = page.session_state.videos.values()
    counts = [row["fingers"] for row in example.rows]
    # One second each, of which the hand moves during the first third.
    assert [counts[20 * count + 10 : 20 * count + 20] for count in range(6)] == [[count] * 10 for count in range(6)]
    assert (example.rows[15]["raised"], example.rows[-1]["raised"]) == ("", "+".join(FINGERS))
    page.button[0].click().run()
    assert not page.session_state.videos


@pytest.mark.parametrize("data", [make_video(samples=("3L_0",)).getvalue(), b"no video"], ids=["video", "no video"])
def test_a_video_waits_for_a_slot_and_frees_it(monkeypatch, data):
    slots = Semaphore(0)
    progress = st.delta_generator.DeltaGenerator.progress

    def release_once_waiting(bar, value, text):
        if "Waiting" in text:
            slots.release()
        return progress(bar, value, text)

    monkeypatch.setattr(video, "video_slots", slots)
    monkeypatch.setattr(st.delta_generator.DeltaGenerator, "progress", release_once_waiting)
    page = open_page("videos")
    page.file_uploader[0].upload("hand.mp4", data, "video/mp4").run()
    assert bool(page.caption) != bool(page.error)
    assert slots.acquire(blocking=False)
    assert not slots.acquire(blocking=False)


def test_the_page_shows_and_counts_why_a_video_is_refused(monkeypatch):
    def count() -> float:
        labels = {"where": "videos", "kind": "too large"}
        return metrics.REGISTRY.get_sample_value("handful_refused_total", labels) or 0

    monkeypatch.setattr(video, "MAX_PIXELS", 640 * 480 - 1)
    before = count()
    page = open_page("videos")
    page.file_uploader[0].upload("hand.mp4", make_video(samples=("3L_0",)).getvalue(), "video/mp4").run()
    assert not page.exception
    assert "640 × 480 pixels" in page.error[0].value
    assert count() == before + 1


def test_a_run_survives_that_the_next_one_clears_the_results(monkeypatch):
    clicks = iter([True])

    def annotate_and_clear(*files, **options):
        for frame in annotate(*files, **options):
            if next(clicks, False):
                st.session_state.videos.clear()
            yield frame

    monkeypatch.setattr(video, "annotate", annotate_and_clear)
    page = open_page("videos")
    page.file_uploader[0].upload("hand.mp4", make_video(samples=("3L_0",)).getvalue(), "video/mp4").run()
    assert not page.exception
    assert page.caption[0].value.startswith("10 frames")


def test_a_video_stopped_before_its_first_frame_says_so(monkeypatch):
    monkeypatch.setattr(video, "annotate", lambda *files, **options: (st.rerun() for _ in [0]))
    page = open_page("videos")
    page.file_uploader[0].upload("hand.mp4", make_video(samples=("3L_0",)).getvalue(), "video/mp4").run()
    assert not page.exception
    assert "before the first frame" in page.info[0].value
