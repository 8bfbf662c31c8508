"""Decode a video for `web.video_process`, which starts this file: python video_worker.py JSON

It writes lines of JSON to stdout: first what the file says of its pictures, then one for each frame, followed by the
frame's data. A line with "read" asks for bytes of the file, which come to stdin after their number, as 8 bytes.
"""

import json
import os
import sys
from collections.abc import Generator
from types import ModuleType
from typing import Any

# Of the package, only what is needed: its __init__ loads onnxruntime.
sys.modules["handful"] = ModuleType("handful")
sys.modules["handful"].__path__ = [os.path.join(os.path.dirname(os.path.dirname(__file__)), "handful")]

import av  # noqa: E402
import numpy as np  # noqa: E402

from handful.decode_worker import limit_cpu_time, limit_memory, spare_server  # noqa: E402

# The only containers that untrusted bytes may reach, in FFmpeg's names: MP4 and MOV; WebM and MKV. Others are playlists
# that name further files, or network streams.
CONTAINERS = {"format_whitelist": "mov,matroska"}
HELD_FRAMES = 5  # whose pixels count for the limit of memory: a codec refers to up to 16, of fewer bytes
THREADS = 2  # each holds frames; to predict them takes longer than to decode them
SOUND_RATE = 48_000
NO_DATA = np.empty(0, np.uint8)
Item = tuple[dict[str, Any], np.ndarray]
requests, answers = sys.stdin.buffer, sys.stdout.buffer


class File:
    """The file, whose bytes the process that started this one has."""

    def __init__(self, size: int):
        self.size, self.position = size, 0

    def read(self, size: int) -> bytes:
        send({"read": size, "at": self.position})
        data = requests.read(int.from_bytes(requests.read(8), "big"))
        self.position += len(data)
        return data

    def seek(self, offset: int, whence: int) -> int:
        self.position = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence])
        return self.position

    def tell(self) -> int:
        return self.position


def main(kind: str, size: int, cpu_s: float, max_pixels: int, max_side: int) -> None:
    """Decode the "video" or the "audio" of a file of `size` bytes, to its end."""
    spare_server()
    limit_cpu_time(cpu_s)
    limit_memory(HELD_FRAMES * max_pixels)
    # A frame may be larger than the header says: FFmpeg decodes none such, not even to probe the file.
    limits = {"max_pixels": str(max_pixels)}
    try:
        with av.open(File(size), "r", options=CONTAINERS | limits, metadata_errors="ignore") as file:
            items = pictures(file, limits, max_side) if kind == "video" else sounds(file)
            for header, data in items:
                send(header, data)
                limit_cpu_time(cpu_s)
        send({"end": True})
    except (av.FFmpegError, ValueError, MemoryError) as error:  # damaged or rare
        send({"error": str(error)})


def send(header: dict[str, Any], data: np.ndarray = NO_DATA) -> None:
    answers.write(b"%b\n" % json.dumps(header | {"shape": data.shape, "dtype": data.dtype.name}).encode())
    answers.write(data.data)
    answers.flush()


def pictures(file: av.container.InputContainer, limits: dict[str, str], max_side: int) -> Generator[Item]:
    """Yield what the file says of its video, then each frame: upright RGB."""
    header: dict[str, Any] = {"has_video": bool(file.streams.video), "has_sound": bool(file.streams.audio)}
    if not file.streams.video:
        yield header, NO_DATA
        return
    stream = file.streams.video[0]
    header["has_codec"] = stream.codec_context is not None
    if not stream.codec_context:
        yield header, NO_DATA
        return
    header |= {"width": stream.width, "height": stream.height, "start": (file.start_time or 0) / av.time_base}
    # Of pictures and sound together; and of the pictures, where the file says so: MP4 does, WebM does not.
    pictures_s = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
    header |= {"duration": file.duration / av.time_base if file.duration else None, "video_duration": pictures_s}
    yield header, NO_DATA
    stream.codec_context.options = limits
    stream.thread_type, stream.codec_context.thread_count = "AUTO", THREADS
    for frame in file.decode(stream):
        image = to_upright_rgb(frame, max_side)
        duration = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else None
        yield {"time": frame.time, "duration": duration}, image


def to_upright_rgb(frame: av.VideoFrame, max_side: int) -> np.ndarray:
    """Return a frame as (H, W, 3) uint8 RGB: rotated upright, at most `max_side` on each side, of even size."""
    scale = min(1.0, max_side / max(frame.width, frame.height))
    width, height = (max(2, round(side * scale) // 2 * 2) for side in (frame.width, frame.height))
    image = frame.reformat(width, height, "rgb24").to_ndarray()
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))


def sounds(file: av.container.InputContainer) -> Generator[Item]:
    """Yield the frames of the sound: (channels, samples) float32 at `SOUND_RATE`, one channel or two."""
    stream = file.streams.audio[0]
    if not stream.codec_context:
        raise ValueError("codec")
    layout = "mono" if stream.codec_context.layout.nb_channels == 1 else "stereo"
    resampler = av.AudioResampler("fltp", layout, SOUND_RATE)
    for frame in file.decode(stream):
        if frame.pts is None:
            continue
        for part in resampler.resample(frame):
            yield {"time": part.time, "rate": SOUND_RATE, "layout": layout}, np.ascontiguousarray(part.to_ndarray())


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
