"""Videos whose index would take gigabytes are recognized without FFmpeg."""

import io
import struct

import av
import numpy as np
import pytest

from benchmarks.hostile import box
from tests.builders import make_video
from web.costly_videos import is_costly_video
from web.video import BadVideo, annotate

MANY = 20_000_000


def track(handler: bytes, *tables: bytes) -> bytes:
    media = box(b"mdia", box(b"hdlr", bytes(8), handler, bytes(12)), box(b"minf", box(b"stbl", *tables)))
    return box(b"ftyp", b"isom") + box(b"moov", box(b"trak", media))


SIZES = box(b"stsz", bytes(4), struct.pack(">II", 1, MANY))
ONE_TICK, TWO_TICKS = (box(b"stts", struct.pack(">IIII", 0, 1, MANY, ticks)) for ticks in (1, 2))
SIZES_OF_A_MINUTE = box(b"stsz", bytes(4), struct.pack(">II", 1, 1800))
EDITS = box(b"edts", box(b"elst", bytes(4), struct.pack(">I", 2000), bytes(12) * 2000))
COSTLY = {
    "edits that repeat it": box(b"moov", box(b"trak", EDITS, box(b"minf", box(b"stbl", SIZES_OF_A_MINUTE)))),
    "samples of a constant size": track(b"vide", TWO_TICKS, SIZES),
    "sound of more than one tick": track(b"soun", TWO_TICKS, SIZES),
    "video of one tick": track(b"vide", ONE_TICK, SIZES),
    "sound, then video": track(b"soun", ONE_TICK, SIZES) + track(b"vide", TWO_TICKS, SIZES),
    "sound and video": track(b"soun", box(b"hdlr", bytes(8), b"vide", bytes(12)), ONE_TICK, SIZES),
    "offsets": track(b"vide", box(b"ctts", struct.pack(">IIII", 0, 1, MANY, 1))),
    "a fragment": box(b"moof", box(b"traf", box(b"trun", struct.pack(">II", 0, MANY)))),
    "a compressed index": box(b"moov", box(b"cmov", bytes(8))),
    "64-bit sizes": struct.pack(">I4sQ", 1, b"moov", 16 + len(SIZES)) + SIZES,
    "to the end": struct.pack(">I4s", 0, b"moov") + SIZES,
    "many boxes": box(b"free") * 100_002,
}


@pytest.mark.parametrize("data", COSTLY.values(), ids=COSTLY)
def test_a_costly_index_is_recognized(data):
    assert is_costly_video(io.BytesIO(data))


def test_a_video_with_a_costly_index_is_refused_before_it_is_opened():
    video = io.BytesIO(COSTLY["samples of a constant size"])
    with pytest.raises(BadVideo, match="declares more frames than can be processed") as refusal:
        next(annotate(video, io.BytesIO()))
    assert refusal.value.status == 413


def test_deep_boxes_are_costly():
    data = b""
    for _ in range(2000):
        data = box(b"moov", data)
    assert is_costly_video(io.BytesIO(data))


def sound() -> io.BytesIO:
    """Return a MOV of a minute of uncompressed sound: 2.9 million samples."""
    file = io.BytesIO()
    with av.open(file, "w", format="mov") as out:
        stream = out.add_stream("pcm_s16le", rate=48_000)
        for _ in range(60):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 48_000), np.int16), format="s16", layout="stereo")
            frame.sample_rate = 48_000
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file


@pytest.mark.parametrize(
    "make", [lambda: make_video("mp4"), lambda: make_video("mov"), lambda: make_video("webm"), sound, io.BytesIO]
)
def test_videos_of_cameras_are_not_costly(make):
    file = make()
    file.seek(0)
    assert not is_costly_video(file)
    assert file.tell() == 0


@pytest.mark.parametrize("data", [b"", b"no video", bytes(100), b"\0\0\0\x08moov\0\0\0\x09stsz"])
def test_other_files_are_not_costly(data):
    assert not is_costly_video(io.BytesIO(data))
