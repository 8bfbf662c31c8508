"""Films: read frame by frame, drawn upon, stopped half-way, refused."""

import io
import struct
import time
from fractions import Fraction
from itertools import islice
from pathlib import Path
from threading import Semaphore

import av
import cv2
import numpy as np
import pytest
import streamlit as st
from PIL import Image
from streamlit.testing.v1 import AppTest

import web.video
from handful.images import decode
from web import inference as metrics
from web.video import MAX_SIDE, BadVideo, annotate

ROOT = Path(__file__).parents[2]
PARTS = ("3L_0", "5R_1")  # the hands that a film shows, a second each


def film(kind: str = "mp4", size: tuple[int, int] = (640, 480), parts=PARTS, turned: bool = False) -> io.BytesIO:
    """A film with a second, 10 frames, of each sample; `turned` as a phone stores it, lying on its side."""
    file = io.BytesIO()
    codec = {"mp4": "libx264", "mov": "libx264", "webm": "libvpx"}[kind]
    with av.open(file, "w", format=kind) as out:
        stream = out.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = *(size[::-1] if turned else size), "yuv420p"
        for k, name in enumerate(parts):
            picture = decode(ROOT / f"assets/samples/{name}.jpg")
            side = min(size)
            left, top = (size[0] - side) // 2, (size[1] - side) // 2
            image = np.full((size[1], size[0], 3), 150, np.uint8)
            image[top : top + side, left : left + side] = cv2.resize(picture, (side, side))
            if turned:
                image = np.ascontiguousarray(np.rot90(image))
            for i in range(10):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = 10 * k + i, Fraction(1, 10)
                out.mux(stream.encode(frame))
        out.mux(stream.encode())
    if turned:  # the track's matrix: a quarter turn to the right
        matrix = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, size[0] << 16, 0, 1 << 30)
        file.seek(file.getvalue().index(b"tkhd") + 4 + 40)
        file.write(matrix)
    file.seek(0)
    return file


def frames_of(file: io.BytesIO) -> list[np.ndarray]:
    file.seek(0)
    with av.open(file) as read:
        return [frame.to_ndarray(format="rgb24") for frame in read.decode(video=0)]


@pytest.mark.parametrize("kind", ["mp4", "mov", "webm"])
def test_every_frame_is_read_and_drawn(kind):
    target = io.BytesIO()
    frames = list(annotate(film(kind), target))
    assert [frame.prediction.total for frame in frames][4::10] == [3, 5]
    assert np.diff([frame.seconds for frame in frames]) == pytest.approx(0.1, abs=0.002)
    assert frames[0].progress < 0.1
    assert frames[-1].progress > 0.9
    written = frames_of(target)
    assert len(written) == len(frames) == 20
    assert written[0].shape == (480, 640, 3)
    # The caption's blue, which is in no frame of the film.
    blue = (np.abs(written[8].astype(int) - (0, 98, 177)) < 25).all(2)
    assert blue.sum() > 1000


def test_a_film_that_is_stopped_is_a_whole_film_until_there():
    target = io.BytesIO()
    frames = annotate(film(), target)
    assert len(list(islice(frames, 7))) == 7
    frames.close()
    assert len(frames_of(target)) == 7


def test_a_large_film_becomes_smaller_and_an_odd_one_even():
    target = io.BytesIO()
    list(annotate(film(size=(1922, 1080), parts=("3L_0",)), target))
    height, width = frames_of(target)[0].shape[:2]
    assert max(height, width) == MAX_SIDE
    assert height % 2 == width % 2 == 0


def test_a_phone_s_film_stands_upright():
    target = io.BytesIO()
    frames = list(annotate(film(size=(480, 640), turned=True), target))
    assert [frame.prediction.total for frame in frames][4::10] == [3, 5]
    assert (frames[0].prediction.width, frames[0].prediction.height) == (480, 640)
    assert frames_of(target)[0].shape == (640, 480, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a film at all" * 100,
        (ROOT / "assets/samples/3L_0.jpg").read_bytes(),
        film().getvalue()[:3000],
        # Texts that FFmpeg takes for films: streams to wait for, and lists of further files.
        b"v=0\r\nc=IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1/film.ts\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{ROOT}/assets/samples/3L_0.jpg'\n".encode(),
    ],
    ids=["nothing", "text", "picture", "beginning", "SDP", "HLS", "ffconcat"],
)
def test_what_is_no_film_is_refused_at_once_in_words(data):
    start = time.monotonic()
    with pytest.raises(BadVideo, match=r"no MP4, MOV or WebM\. Save it anew"):
        list(annotate(io.BytesIO(data), io.BytesIO()))
    assert time.monotonic() - start < web.video.PATIENCE


def test_sound_alone_is_refused():
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


def test_pictures_of_an_unknown_kind_are_refused():
    data = film("mp4").getvalue().replace(b"avc1", b"zzzz")
    with pytest.raises(BadVideo, match=r"H\.264") as refused:
        list(annotate(io.BytesIO(data), io.BytesIO()))
    assert refused.value.status == 415


def test_a_film_that_breaks_off_tells_and_writes_what_came_before():
    data = bytearray(film().getvalue())
    pictures = slice(data.index(b"mdat"), data.index(b"moov"))
    middle = (pictures.start + pictures.stop) // 2
    data[middle : pictures.stop] = np.random.default_rng(0).bytes(pictures.stop - middle)
    told, target = [], io.BytesIO()
    with pytest.raises(BadVideo, match="not further"):
        told.extend(annotate(io.BytesIO(data), target))
    assert 0 < len(told) < 20
    assert len(frames_of(target)) == len(told)


def test_a_film_whose_frames_become_too_large_is_read_until_there(monkeypatch):
    monkeypatch.setitem(web.video.LARGEST, "max_pixels", "10000")

    def packets(size, count, start):
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
    told = []
    with pytest.raises(BadVideo, match="not further"):
        told.extend(annotate(io.BytesIO(file.getvalue()), io.BytesIO()))
    assert 40 < len(told) <= 80


def test_a_film_that_becomes_too_large_is_written_until_there(monkeypatch):
    monkeypatch.setattr(web.video, "MAX_BYTES", 1000)
    told, target = [], io.BytesIO()
    with pytest.raises(BadVideo, match="It is read until there") as refused:
        told.extend(annotate(film(parts=("3L_0",) * 6), target))
    assert refused.value.status == 413
    assert 0 < len(told) < 60
    assert len(frames_of(target)) == len(told)


def test_a_film_that_leads_ffmpeg_in_circles_is_let_go_of(monkeypatch):
    monkeypatch.setattr(web.video, "PATIENCE", 0.5)
    picture = io.BytesIO()
    Image.new("RGB", (96, 96)).save(picture, "HEIF")
    start = time.monotonic()
    with pytest.raises(BadVideo, match="cannot be read"):
        list(annotate(io.BytesIO(film("mov").getvalue() + picture.getvalue()), io.BytesIO()))
    assert time.monotonic() - start < 5


def test_a_film_whose_title_is_not_utf_8_is_read():
    data = film(parts=("3L_0",)).getvalue().replace(b"Lavf", b"\xe4\xf6\xfc.")
    assert len(list(annotate(io.BytesIO(data), io.BytesIO()))) == 10


def test_the_page_shows_count_film_and_table():
    page = AppTest.from_file(ROOT / "pages/videos.py", default_timeout=60).run()
    assert "kept nowhere" in page.markdown[0].value
    page.toggle[0].set_value(True).run()
    page.file_uploader[0].upload("hand.mp4", film().getvalue(), "video/mp4").run()
    assert not page.exception
    assert page.caption[0].value.startswith("20 frames, 1.9 seconds")
    assert page.get("vega_lite_chart")
    assert [button.label for button in page.get("download_button")] == ["MP4", "CSV"]
    # Another choice would throw all this away.
    assert page.toggle[0].disabled
    assert page.toggle[0].value
    assert page.session_state.films
    page.file_uploader[0].set_value(None).run()
    assert not page.session_state.films
    assert not page.toggle[0].disabled


def test_who_has_no_film_takes_the_example_in_which_a_hand_counts_from_none_to_five():
    page = AppTest.from_file(ROOT / "pages/videos.py", default_timeout=60).run()
    page.button[0].click().run()
    assert not page.exception
    assert page.caption[0].value.startswith("120 frames, 6.0 seconds")
    (example,) = page.session_state.films.values()
    told = [row["fingers"] for row in example["rows"]]
    # A second each, the first third of it on the way from the one before.
    assert [told[20 * count + 10 : 20 * count + 20] for count in range(6)] == [[count] * 10 for count in range(6)]
    page.button[0].click().run()
    assert not page.session_state.films
    assert not page.toggle[0].disabled


@pytest.mark.parametrize("data", [film(parts=("3L_0",)).getvalue(), b"no film"], ids=["film", "no film"])
def test_no_more_films_are_read_at_once_than_there_are_cores_and_others_are_told(monkeypatch, data):
    others = Semaphore(0)
    progress = st.delta_generator.DeltaGenerator.progress

    def told(bar, value, text):
        if "Others' films" in text:
            others.release()  # one of them has ended
        return progress(bar, value, text)

    monkeypatch.setattr(web.video, "readers", others)
    monkeypatch.setattr(st.delta_generator.DeltaGenerator, "progress", told)
    page = AppTest.from_file(ROOT / "pages/videos.py", default_timeout=20).run()
    page.file_uploader[0].upload("hand.mp4", data, "video/mp4").run()
    assert bool(page.caption) != bool(page.error)
    assert others.acquire(blocking=False)
    assert not others.acquire(blocking=False)


def test_the_page_tells_and_counts_what_is_wrong_with_a_film(monkeypatch):
    def count() -> float:
        labels = {"where": "videos", "kind": "too large"}
        return metrics.REGISTRY.get_sample_value("handful_refused_total", labels) or 0

    monkeypatch.setattr(web.video, "MAX_PIXELS", 640 * 480 - 1)
    before = count()
    page = AppTest.from_file(ROOT / "pages/videos.py", default_timeout=60).run()
    page.file_uploader[0].upload("hand.mp4", film(parts=("3L_0",)).getvalue(), "video/mp4").run()
    assert not page.exception
    assert "640 × 480 pixels" in page.error[0].value
    assert count() == before + 1


def test_a_film_s_run_ends_well_where_a_click_has_begun_another(monkeypatch):
    clicks = iter([True])

    def clicked(*films, gradcam):
        for frame in annotate(*films, gradcam=gradcam):
            if next(clicks, False):
                st.session_state.films.clear()  # as the other run does
            yield frame

    monkeypatch.setattr(web.video, "annotate", clicked)
    page = AppTest.from_file(ROOT / "pages/videos.py", default_timeout=60).run()
    page.file_uploader[0].upload("hand.mp4", film(parts=("3L_0",)).getvalue(), "video/mp4").run()
    assert not page.exception
    assert page.caption[0].value.startswith("10 frames")


def test_a_film_that_is_stopped_before_its_first_frame_is_told_so(monkeypatch):
    monkeypatch.setattr(web.video, "annotate", lambda *films, gradcam: (st.rerun() for _ in [0]))
    page = AppTest.from_file(ROOT / "pages/videos.py", default_timeout=60).run()
    page.file_uploader[0].upload("hand.mp4", film(parts=("3L_0",)).getvalue(), "video/mp4").run()
    assert not page.exception
    assert "before its first frame" in page.info[0].value


@pytest.mark.parametrize(("name", "megabytes"), [("videos", 200), ("pictures", 20)])
def test_a_page_tells_how_large_a_file_may_be(name, megabytes):
    page = AppTest.from_file(ROOT / f"pages/{name}.py", default_timeout=60).run()
    assert page.file_uploader[0].proto.max_upload_size_mb == megabytes
