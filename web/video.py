"""Annotate videos."""

import time
from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from threading import Semaphore
from typing import BinaryIO

import av
import cv2
import numpy as np

from handful import Prediction
from handful.overlay import draw
from handful.tracking import Tracker
from web import inference
from web.cpu import available_cores

MAX_SIDE = 1280  # pixels, of the output and of the model's input: hands are detected in far smaller frames
MAX_PIXELS = 10_000_000  # of a frame: a little more than 4K
MAX_OUTPUT_BYTES = 500_000_000  # the output is in memory, and may be larger than the input
# The only containers that untrusted bytes may reach, in FFmpeg's names: MP4 and MOV; WebM and MKV. Others are playlists
# that name further files, or network streams.
CONTAINERS = {"format_whitelist": "mov,matroska"}
# A frame may be larger than the header says: FFmpeg decodes none such, not even to probe the file.
DECODER_LIMITS = {"max_pixels": str(MAX_PIXELS)}
READ_TIMEOUT_S = 3.0  # for FFmpeg to open a video, and for each frame: an intact one takes a hundredth
UNKNOWN_FRAME_S = 0.04  # duration of a frame without a timestamp
video_slots = Semaphore(available_cores())  # videos at once, of all visitors: each takes a whole core


class TimeLimitedReader:
    """A video's bytes, with an end after `READ_TIMEOUT_S`: some damaged videos make FFmpeg read for ever."""

    def __init__(self, file: BinaryIO):
        self.file, self.deadline, self.timed_out = file, time.monotonic() + READ_TIMEOUT_S, False

    def in_time(self) -> bool:
        self.timed_out = self.timed_out or time.monotonic() > self.deadline
        return not self.timed_out

    def read(self, size: int) -> bytes:
        return self.file.read(size) if self.in_time() else b""

    def seek(self, offset: int, whence: int) -> int:
        return self.file.seek(offset, whence) if self.in_time() else -1

    def tell(self) -> int:
        return self.file.tell()

    def frames(self, video: av.container.InputContainer) -> Generator[av.VideoFrame]:
        """Decode the frames of the video that was opened from this reader.

        Raises:
            TimeoutError: a frame took too long.
        """
        self.deadline = time.monotonic() + READ_TIMEOUT_S
        for frame in video.decode(video.streams.video[0]):
            yield frame
            self.deadline = time.monotonic() + READ_TIMEOUT_S  # the caller's time does not count
        if self.timed_out:
            raise TimeoutError


class BadVideo(ValueError):
    """A video that is refused. The message is for the user: what is wrong, and what to do.

    Attributes:
        status: an HTTP status, as of `BadImage`.
    """

    def __init__(self, message: str, status: int = 422):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class AnnotatedFrame:
    """A frame's prediction, its time, and the share of the video that is done, 0-1."""

    seconds: float
    progress: float
    prediction: Prediction


def annotate(source: BinaryIO, target: BinaryIO, *, gradcam: bool = False) -> Generator[AnnotatedFrame]:
    """Run the model on every frame of a video and write the annotated video: MP4, H.264, without sound.

    Predictions are tracked over time, as on Live. A caller who stops early closes the iterator: what was written until
    then is a complete video.

    Args:
        source: an MP4, MOV or WebM file, open for reading.
        target: a seekable binary file for the MP4.
        gradcam: draw Grad-CAM heatmaps.

    Raises:
        BadVideo: the video cannot be decoded, or not beyond the frames yielded so far.
    """
    reader = TimeLimitedReader(source)
    try:
        with av.open(reader, "r", options=CONTAINERS | DECODER_LIMITS, metadata_errors="ignore") as video:
            if not video.streams.video:
                raise BadVideo("This file has only sound, no video.", 415)
            yield from _annotate(video, reader, target, gradcam)
    except (av.FFmpegError, TimeoutError) as error:
        raise BadVideo(
            "This video cannot be decoded, or only in part: it is damaged, or not MP4, MOV or WebM. Save it as MP4."
        ) from error


def _annotate(
    video: av.container.InputContainer, reader: TimeLimitedReader, target: BinaryIO, gradcam: bool
) -> Generator[AnnotatedFrame]:
    stream = video.streams.video[0]
    if stream.codec_context is None:
        raise BadVideo("The codec of this video is not supported. Save it as MP4 with H.264.", 415)
    stream.codec_context.options = DECODER_LIMITS
    stream.thread_type = "AUTO"
    if stream.width * stream.height > MAX_PIXELS:
        raise BadVideo(f"This video has {stream.width} × {stream.height} pixels. Save it in 4K or smaller.", 413)
    duration = float(video.duration / av.time_base) if video.duration else 0.0
    track, start, previous = Tracker(), None, -UNKNOWN_FRAME_S
    with av.open(target, "w", format="mp4") as out:
        encoder = None
        try:
            for frame in reader.frames(video):
                seconds = previous + UNKNOWN_FRAME_S
                if frame.time is not None:
                    start = frame.time - seconds if start is None else start
                    seconds = frame.time - start
                if seconds <= previous:  # some videos jump back in time
                    continue
                previous = seconds
                image = to_upright_rgb(frame)
                prediction = track(inference.predict(image, "videos"), seconds)
                if encoder is None:
                    height, width = image.shape[:2]
                    encoder = out.add_stream("libx264", rate=30, options={"crf": "23", "preset": "veryfast"})
                    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
                    encoder.time_base = encoder.codec_context.time_base = Fraction(1, 90_000)
                annotated = draw(image, prediction, gradcam=gradcam)
                if annotated.shape[:2] != (encoder.height, encoder.width):  # the size changed on the way
                    annotated = cv2.resize(annotated, (encoder.width, encoder.height))
                output = av.VideoFrame.from_ndarray(np.asarray(annotated, np.uint8), format="rgb24")
                output.pts, output.time_base = round(seconds * 90_000), Fraction(1, 90_000)
                out.mux(encoder.encode(output))
                yield AnnotatedFrame(seconds, min(seconds / duration, 1.0) if duration else 0.0, prediction)
                if target.tell() > MAX_OUTPUT_BYTES:
                    limit = MAX_OUTPUT_BYTES // 1_000_000
                    message = (
                        f"The annotated video reached {limit} MB and ends here. Cut the rest off, and add it alone."
                    )
                    raise BadVideo(message, 413)
        finally:  # also where the video is damaged, or the caller stops
            if encoder:
                out.mux(encoder.encode())
        if encoder is None:
            raise BadVideo("This video has no frames.")


def to_upright_rgb(frame: av.VideoFrame) -> np.ndarray:
    """Return a frame as (H, W, 3) uint8 RGB: rotated upright, at most `MAX_SIDE` on each side, of even size."""
    scale = min(1.0, MAX_SIDE / max(frame.width, frame.height))
    width, height = (max(2, round(side * scale) // 2 * 2) for side in (frame.width, frame.height))
    image = frame.reformat(width, height, "rgb24").to_ndarray()
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
