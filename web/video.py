"""Annotate videos."""

import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from threading import Semaphore
from typing import BinaryIO

import av
import cv2
import numpy as np

from handful import Prediction
from handful.overlay import draw
from handful.personal import PersonalHead
from handful.tracking import Tracker
from web import inference
from web.costly_videos import is_costly_video
from web.cpu import available_cores

MAX_SIDE = 1280  # pixels, of the output and of the model's input: hands are detected in far smaller frames
MAX_PIXELS = 10_000_000  # of a frame: a little more than 4K
MAX_OUTPUT_BYTES = 500_000_000  # the output is in memory, and may be larger than the input
# The only containers that untrusted bytes may reach, in FFmpeg's names: MP4 and MOV; WebM and MKV. Others are playlists
# that name further files, or network streams.
CONTAINERS = {"format_whitelist": "mov,matroska"}
# A frame may be larger than the header says: FFmpeg decodes none such, not even to probe the file.
DECODER_LIMITS = {"max_pixels": str(MAX_PIXELS)}
CUT_OFF = "The rest of the file is damaged or missing."
READ_TIMEOUT_S = 3.0  # for FFmpeg to open a video, and for each frame: an intact one takes a hundredth
MISSING_S = 0.5  # of the end, from which on a video is incomplete: less is rounding
UNKNOWN_FRAME_S = 0.04  # duration of a frame without a timestamp
LOST_SOUND = (av.FFmpegError, ValueError, TimeoutError)  # what damaged or rare sound raises
video_slots = Semaphore(available_cores())  # videos at once, of all visitors: each takes a whole core


class TimeLimitedReader:
    """A video's bytes, with an end after `READ_TIMEOUT_S`: some damaged videos make FFmpeg read for ever.

    Several may read the same file: each has its own position.
    """

    def __init__(self, file: BinaryIO):
        self.file, self.position, self.timed_out = file, 0, False
        self.restart()

    def restart(self) -> None:
        """Start the time limit anew."""
        self.deadline = time.monotonic() + READ_TIMEOUT_S

    def in_time(self) -> bool:
        self.timed_out = self.timed_out or time.monotonic() > self.deadline
        return not self.timed_out

    def read(self, size: int) -> bytes:
        if not self.in_time():
            return b""
        self.file.seek(self.position)
        data = self.file.read(size)
        self.position += len(data)
        return data

    def seek(self, offset: int, whence: int) -> int:
        if not self.in_time():
            return -1
        self.file.seek(self.position)
        self.position = self.file.seek(offset, whence)
        return self.position

    def tell(self) -> int:
        return self.position

    def open(self) -> av.container.InputContainer:
        """Open the video with FFmpeg."""
        return av.open(self, "r", options=CONTAINERS | DECODER_LIMITS, metadata_errors="ignore")

    def frames(self, video: av.container.InputContainer) -> Generator[av.VideoFrame]:
        """Decode the frames of the video that was opened from this reader.

        Raises:
            TimeoutError: a frame took too long.
        """
        self.restart()
        for frame in video.decode(video.streams.video[0]):
            yield frame
            self.restart()  # the caller's time does not count
        if self.timed_out:
            raise TimeoutError


class Sound:
    """The sound of a video, encoded anew for the annotated one.

    It is read from the file a second time, always as far as the annotated frames are, so that nothing needs to be held
    in memory however far apart a file has its pictures and its sound.

    Attributes:
        is_lost: the file has sound that could not be kept, or not to its end.
    """

    def __init__(self, source: BinaryIO, out: av.container.OutputContainer, start: float):
        """Open the sound, and add a stream to `out` if there is any.

        Args:
            source: the video file.
            out: the annotated video.
            start: time of the first video frame in the file, in seconds.
        """
        self.out, self.start, self.is_lost = out, start, False
        self.reader = TimeLimitedReader(source)
        self.encoder: av.AudioCodecContext | av.AudioStream | None = None
        self.frames: Iterator[tuple[float, av.AudioFrame]] = iter(())
        self.next: tuple[float, av.AudioFrame] | None = None  # with its time in the annotated video
        self.end = 0.0  # of the frames so far, in the annotated video
        try:
            file = self.reader.open()
            if not file.streams.audio:
                return
            self.frames = self.decode(file)
            self.next = next(self.frames, None)
        except LOST_SOUND:
            self.is_lost = True
        if self.next:
            layout = "mono" if self.next[1].layout.nb_channels == 1 else "stereo"
            self.encoder = out.add_stream("aac", rate=48_000, layout=layout)

    def decode(self, file: av.container.InputContainer) -> Generator[tuple[float, av.AudioFrame]]:
        """Decode the frames from `start` on, whose times grow."""
        previous = -1
        for frame in file.decode(file.streams.audio[0]):
            if not self.reader.in_time():
                break
            if frame.pts is None or frame.time_base is None:
                continue
            frame.pts -= round(self.start / frame.time_base)
            if frame.pts > previous:
                previous = frame.pts
                seconds = float(frame.pts * frame.time_base)
                self.end = seconds + frame.samples / frame.sample_rate
                yield seconds, frame
        if self.reader.timed_out:
            raise TimeoutError

    def write(self, seconds: float) -> None:
        """Write the sound up to a time of the annotated video."""
        self.reader.restart()
        try:
            while self.encoder and self.next and self.next[0] < seconds:
                self.out.mux(self.encoder.encode(self.next[1]))
                self.next = next(self.frames, None)
        except LOST_SOUND:  # damaged, or with another sampling rate from here on
            self.is_lost, self.next = True, None

    def finish(self, seconds: float) -> None:
        """Write the rest of the sound up to a time, and what the encoder still holds."""
        self.write(seconds)
        with suppress(*LOST_SOUND):
            if self.encoder:
                self.out.mux(self.encoder.encode(None))

    def read_to_end(self) -> float:
        """Return the time at which the sound in the file ends, in seconds of the annotated video."""
        self.reader.restart()
        with suppress(*LOST_SOUND):
            for _ in self.frames:
                pass
        return self.end


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
    """A frame of a video.

    Attributes:
        seconds: since the first frame.
        duration: of the video, in seconds; 0 if the file does not say.
        prediction: for the frame, tracked over time.
        image: (H, W, 3) uint8 RGB, annotated.
        is_sound_lost: the file has sound that the annotated video lacks from here on.
    """

    seconds: float
    duration: float
    prediction: Prediction
    image: np.ndarray
    is_sound_lost: bool


def annotate(
    source: BinaryIO, target: BinaryIO, *, gradcam: bool = False, personal: PersonalHead | None = None
) -> Generator[AnnotatedFrame]:
    """Run the model on every frame of a video and write the annotated video: MP4, H.264, with the sound as AAC.

    Predictions are tracked over time, as on Live. A caller who stops early closes the iterator: what was written until
    then is a complete video.

    Args:
        source: a seekable MP4, MOV or WebM file, open for reading.
        target: a seekable binary file for the MP4.
        gradcam: draw Grad-CAM heatmaps.
        personal: the visitor's personal head.

    Raises:
        BadVideo: the video cannot be decoded, or not beyond the frames yielded so far, or it ends too early.
    """
    if is_costly_video(source):
        raise BadVideo("This video declares more frames than can be processed. Save it again as MP4.", 413)
    reader = TimeLimitedReader(source)
    try:
        with reader.open() as video:
            if not video.streams.video:
                raise BadVideo("This file has only sound, no video.", 415)
            yield from _annotate(video, reader, source, target, gradcam, personal)
    except (av.FFmpegError, TimeoutError) as error:
        raise BadVideo(
            CUT_OFF
            if target.tell()
            else "This video cannot be decoded: it is damaged or cut off, or not MP4, MOV or WebM. Save it as MP4."
        ) from error


def _annotate(
    video: av.container.InputContainer,
    reader: TimeLimitedReader,
    source: BinaryIO,
    target: BinaryIO,
    gradcam: bool,
    personal: PersonalHead | None,
) -> Generator[AnnotatedFrame]:
    stream = video.streams.video[0]
    if stream.codec_context is None:
        raise BadVideo("The codec of this video is not supported. Save it as MP4 with H.264.", 415)
    stream.codec_context.options = DECODER_LIMITS
    stream.thread_type = "AUTO"
    if stream.width * stream.height > MAX_PIXELS:
        raise BadVideo(f"This video has {stream.width} × {stream.height} pixels. Save it in 4K or smaller.", 413)
    # Of the pictures, where the file says so: MP4 does, WebM only has that of pictures and sound together.
    durations = [float(video.duration / av.time_base)] if video.duration else []
    if stream.duration and stream.time_base:
        durations.append(float(stream.duration * stream.time_base))
    duration = max(min(durations, default=0.0), 0.0)
    track, start, previous, frame_seconds = Tracker(), None, -UNKNOWN_FRAME_S, 0.0
    with av.open(target, "w", format="mp4") as out:
        encoder, sound = None, None
        try:
            for frame in reader.frames(video):
                seconds = previous + UNKNOWN_FRAME_S
                if frame.time is not None:
                    start = frame.time - seconds if start is None else start
                    seconds = frame.time - start
                if seconds <= previous:  # some videos jump back in time
                    continue
                frame_seconds, previous = seconds - previous, seconds
                if frame.duration and frame.time_base:
                    frame_seconds = float(frame.duration * frame.time_base)
                image = to_upright_rgb(frame)
                prediction = track(inference.predict(image, "videos", personal), seconds)
                if encoder is None or sound is None:
                    height, width = image.shape[:2]
                    encoder = out.add_stream("libx264", rate=30, options={"crf": "23", "preset": "veryfast"})
                    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
                    encoder.time_base = encoder.codec_context.time_base = Fraction(1, 90_000)
                    sound = Sound(source, out, start or 0.0)
                    if not stream.duration and duration:
                        duration -= (start or 0.0) - (video.start_time or 0) / av.time_base
                annotated = draw(image, prediction, gradcam=gradcam)
                if annotated.shape[:2] != (encoder.height, encoder.width):  # the size changed on the way
                    annotated = cv2.resize(annotated, (encoder.width, encoder.height))
                output = av.VideoFrame.from_ndarray(np.asarray(annotated, np.uint8), format="rgb24")
                output.pts, output.time_base = round(seconds * 90_000), Fraction(1, 90_000)
                out.mux(encoder.encode(output))
                sound.write(seconds)
                yield AnnotatedFrame(seconds, duration, prediction, annotated, sound.is_lost)
                if target.tell() > MAX_OUTPUT_BYTES:
                    limit = MAX_OUTPUT_BYTES // 1_000_000
                    message = (
                        f"The annotated video reached {limit} MB and ends here. Cut the rest off, and add it alone."
                    )
                    raise BadVideo(message, 413)
        finally:  # also where the video is damaged, or the caller stops
            if encoder:
                out.mux(encoder.encode())
            if sound:
                sound.finish(previous + frame_seconds)
        if encoder is None or sound is None:
            raise BadVideo("This video has no frames.")
        reached = previous + frame_seconds
        if not stream.duration:  # the sound may go on after the last frame
            reached = max(reached, sound.read_to_end())
        if duration - reached > MISSING_S:
            raise BadVideo(CUT_OFF)


def to_upright_rgb(frame: av.VideoFrame) -> np.ndarray:
    """Return a frame as (H, W, 3) uint8 RGB: rotated upright, at most `MAX_SIDE` on each side, of even size."""
    scale = min(1.0, MAX_SIDE / max(frame.width, frame.height))
    width, height = (max(2, round(side * scale) // 2 * 2) for side in (frame.width, frame.height))
    image = frame.reformat(width, height, "rgb24").to_ndarray()
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
