"""Films in, annotated films out."""

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
from web import inference as metrics
from web.cpu import available_cores

MAX_SIDE = 1280  # of what is written, and read: hands are found in far smaller pictures
MAX_PIXELS = 10_000_000  # of a frame: 4K, and a little more
MAX_BYTES = 500_000_000  # of what is written, to memory: it may be larger than what came
# The containers that strangers' bytes may reach, as FFmpeg names them: MP4 and MOV; WebM and MKV. Some of the others
# are texts that name further files, or streams in the network to wait for.
CONTAINERS = {"format_whitelist": "mov,matroska"}
# A film tells its size, but a frame inside may be larger: FFmpeg decodes none such, be it to find out what film it is.
LARGEST = {"max_pixels": str(MAX_PIXELS)}
readers = Semaphore(available_cores())  # films at once, of all visitors: each takes all that it gets of a core
PATIENCE = 3.0  # seconds for FFmpeg to open a film, and for each frame: a sound one takes a hundredth


class Source:
    """A film's bytes. Some damaged films lead FFmpeg in circles: there they end, once it has read for too long."""

    def __init__(self, file: BinaryIO):
        self.file, self.until, self.late = file, time.monotonic() + PATIENCE, False

    def in_time(self) -> bool:
        self.late = self.late or time.monotonic() > self.until
        return not self.late

    def read(self, size: int) -> bytes:
        return self.file.read(size) if self.in_time() else b""

    def seek(self, offset: int, whence: int) -> int:
        return self.file.seek(offset, whence) if self.in_time() else -1

    def tell(self) -> int:
        return self.file.tell()

    def frames(self, film: av.container.InputContainer) -> Generator[av.VideoFrame]:
        """The pictures of the film that was opened from here.

        Raises:
            TimeoutError: it was read for too long.
        """
        self.until = time.monotonic() + PATIENCE
        for frame in film.decode(film.streams.video[0]):
            yield frame
            self.until = time.monotonic() + PATIENCE  # whatever was done with the frame takes its own time
        if self.late:
            raise TimeoutError


class BadVideo(ValueError):
    """A film that is refused. The text is for the user: what is wrong, and what to do.

    Attributes:
        status: why, as an HTTP status: that of a `BadImage`.
    """

    def __init__(self, message: str, status: int = 422):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class AnnotatedFrame:
    """One frame that was read: when it is shown, how far that is through the film (0-1), and what is in it."""

    seconds: float
    progress: float
    prediction: Prediction


def annotate(source: BinaryIO, target: BinaryIO, *, gradcam: bool = False) -> Generator[AnnotatedFrame]:
    """Read a film frame by frame, and write it with what was read drawn in: MP4, H.264, without sound.

    Hands are told as on Live, smoothed over time. A caller who stops early closes the iterator: what was
    written until then is a whole film too.

    Args:
        source: an MP4, MOV or WebM file, open for reading.
        target: where the MP4 goes, open for writing and seekable.
        gradcam: draw where the model looked.

    Raises:
        BadFilm: it is no film that can be read. Frames before a broken part have been told by then.
    """
    limited = Source(source)
    try:
        with av.open(limited, "r", options=CONTAINERS | LARGEST, metadata_errors="ignore") as film:
            if not film.streams.video:
                raise BadVideo("There is no picture in this film, only sound.", 415)
            yield from _annotate(film, limited, target, gradcam)
    except (av.FFmpegError, TimeoutError) as error:
        raise BadVideo(
            "This film cannot be read, or not further: it is damaged, or no MP4, MOV or WebM. Save it anew, as MP4."
        ) from error


def _annotate(
    film: av.container.InputContainer, source: Source, target: BinaryIO, gradcam: bool
) -> Generator[AnnotatedFrame]:
    stream = film.streams.video[0]
    if stream.codec_context is None:
        raise BadVideo("Its pictures are of a kind that cannot be read. Save it as MP4 with H.264.", 415)
    stream.codec_context.options = LARGEST
    stream.thread_type = "AUTO"
    if stream.width * stream.height > MAX_PIXELS:
        raise BadVideo(f"Its pictures are {stream.width} × {stream.height} pixels. Save it as 4K or smaller.", 413)
    length = float(film.duration / av.time_base) if film.duration else 0.0
    track, start, last = Tracker(), None, -1.0
    with av.open(target, "w", format="mp4") as out:
        encoder = None
        try:
            for frame in source.frames(film):
                when = frame.time if frame.time is not None else last + 0.04
                start = when if start is None else start
                seconds = when - start
                if seconds <= last:  # some films jump back: time goes on here
                    continue
                last = seconds
                image = upright(frame)
                prediction = track(metrics.read(image, "videos"), seconds)
                if encoder is None:
                    height, width = image.shape[:2]
                    encoder = out.add_stream("libx264", rate=30, options={"crf": "23", "preset": "veryfast"})
                    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
                    encoder.time_base = encoder.codec_context.time_base = Fraction(1, 90_000)
                drawn = draw(image, prediction, gradcam=gradcam)
                if drawn.shape[:2] != (encoder.height, encoder.width):  # the size changed on the way
                    drawn = cv2.resize(drawn, (encoder.width, encoder.height))
                one = av.VideoFrame.from_ndarray(np.asarray(drawn, np.uint8), format="rgb24")
                one.pts, one.time_base = round(seconds * 90_000), Fraction(1, 90_000)
                out.mux(encoder.encode(one))
                yield AnnotatedFrame(seconds, min(seconds / length, 1.0) if length else 0.0, prediction)
                if target.tell() > MAX_BYTES:
                    large = f"With what was read drawn in, this film has more than {MAX_BYTES // 1_000_000} MB."
                    raise BadVideo(f"{large} It is read until there. Cut it, and add the rest by itself.", 413)
        finally:  # also where the film breaks off, or the caller stops
            if encoder:
                out.mux(encoder.encode())
        if encoder is None:
            raise BadVideo("There is not one picture in this film.")


def upright(frame: av.VideoFrame) -> np.ndarray:
    """The frame as it is to be shown, (H, W, 3) uint8 RGB: turned as it says, at most MAX_SIDE wide and high, even."""
    scale = min(1.0, MAX_SIDE / max(frame.width, frame.height))
    width, height = (max(2, round(side * scale) // 2 * 2) for side in (frame.width, frame.height))
    image = frame.reformat(width, height, "rgb24").to_ndarray()
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
