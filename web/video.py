"""Annotate videos."""

from collections.abc import Generator
from contextlib import ExitStack, closing, suppress
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
from web.video_process import DecodeError, decode

MAX_SIDE = 1280  # pixels, of the output and of the model's input: hands are detected in far smaller frames
MAX_PIXELS = 10_000_000  # of a frame: a little more than 4K
MAX_OUTPUT_BYTES = 500_000_000  # the output is in memory, and may be larger than the input
CUT_OFF = "The rest of the file is damaged or missing."
MISSING_S = 0.5  # of the end, from which on a video is incomplete: less is rounding
UNKNOWN_FRAME_S = 0.04  # duration of a frame without a timestamp
video_slots = Semaphore(available_cores())  # videos at once, of all visitors: each takes a whole core


class Sound:
    """The sound of a video, encoded anew for the annotated one.

    It is read from the file a second time, always as far as the annotated frames are, so that nothing needs to be held
    in memory however far apart a file has its pictures and its sound.

    Attributes:
        is_lost: the file has sound that could not be kept, or not to its end.
    """

    def __init__(self, source: BinaryIO, out: av.container.OutputContainer, start: float):
        """Open the sound, and add a stream to `out`.

        Args:
            source: a video file that has sound.
            out: the annotated video.
            start: time of the first video frame in the file, in seconds.
        """
        self.out, self.start, self.is_lost = out, start, False
        self.frames = self.decode(source)
        self.encoder: av.AudioStream | None = None
        self.next: av.AudioFrame | None = None
        self.end = 0.0  # of the frames so far, in seconds of the annotated video
        try:
            self.next = next(self.frames, None)
        except DecodeError:
            self.is_lost = True
        if self.next:
            self.encoder = out.add_stream("aac", rate=self.next.sample_rate, layout=self.next.layout.name)

    def decode(self, source: BinaryIO) -> Generator[av.AudioFrame]:
        """Decode the frames from `start` on, whose times grow."""
        previous = -1
        with closing(decode(source, "audio", max_pixels=MAX_PIXELS, max_side=MAX_SIDE)) as frames:
            for header, samples in frames:
                rate = header["rate"]
                pts = round((header["time"] - self.start) * rate)
                if pts > previous:
                    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=header["layout"])
                    frame.pts, frame.sample_rate, frame.time_base = pts, rate, Fraction(1, rate)
                    previous, self.end = pts, (pts + frame.samples) / rate
                    yield frame

    def write(self, seconds: float) -> None:
        """Write the sound up to a time of the annotated video."""
        try:
            while self.encoder and self.next and (self.next.time or 0.0) < seconds:
                self.out.mux(self.encoder.encode(self.next))
                self.next = next(self.frames, None)
        except (DecodeError, av.FFmpegError, ValueError):  # damaged from here on, or jumps that AAC cannot have
            self.is_lost, self.next = True, None

    def finish(self, seconds: float) -> None:
        """Write the rest of the sound up to a time, and what the encoder still holds."""
        self.write(seconds)
        with suppress(av.FFmpegError, ValueError):
            if self.encoder:
                self.out.mux(self.encoder.encode(None))

    def read_to_end(self) -> float:
        """Return the time at which the sound in the file ends, in seconds of the annotated video."""
        with suppress(DecodeError):
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
    try:
        with closing(decode(source, "video", max_pixels=MAX_PIXELS, max_side=MAX_SIDE)) as frames:
            yield from _annotate(frames, source, target, gradcam, personal)
    except DecodeError as error:
        raise BadVideo(
            CUT_OFF
            if target.tell()
            else "This video cannot be decoded: it is damaged or cut off, or not MP4, MOV or WebM. Save it as MP4."
        ) from error


def _annotate(
    frames: Generator[tuple[dict, np.ndarray]],
    source: BinaryIO,
    target: BinaryIO,
    gradcam: bool,
    personal: PersonalHead | None,
) -> Generator[AnnotatedFrame]:
    file, _ = next(frames)
    if not file["has_video"]:
        raise BadVideo("This file has only sound, no video.", 415)
    if not file["has_codec"]:
        raise BadVideo("The codec of this video is not supported. Save it as MP4 with H.264.", 415)
    if file["width"] * file["height"] > MAX_PIXELS:
        raise BadVideo(f"This video has {file['width']} × {file['height']} pixels. Save it in 4K or smaller.", 413)
    duration = max(min((file[key] for key in ("duration", "video_duration") if file[key]), default=0.0), 0.0)
    track, start, previous, frame_seconds = Tracker(), None, -UNKNOWN_FRAME_S, 0.0
    with av.open(target, "w", format="mp4") as out, ExitStack() as stack:
        encoder, sound = None, None
        try:
            for header, image in frames:
                seconds = previous + UNKNOWN_FRAME_S
                if header["time"] is not None:
                    start = header["time"] - seconds if start is None else start
                    seconds = header["time"] - start
                if seconds <= previous:  # some videos jump back in time
                    continue
                frame_seconds, previous = header["duration"] or seconds - previous, seconds
                prediction = track(inference.predict(image, "videos", personal), seconds)
                if encoder is None:
                    height, width = image.shape[:2]
                    encoder = out.add_stream("libx264", rate=30, options={"crf": "23", "preset": "veryfast"})
                    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
                    encoder.time_base = encoder.codec_context.time_base = Fraction(1, 90_000)
                    if file["has_sound"]:
                        sound = Sound(source, out, start or 0.0)
                        stack.callback(sound.frames.close)
                    if not file["video_duration"] and duration:
                        duration -= (start or 0.0) - file["start"]
                annotated = draw(image, prediction, gradcam=gradcam)
                if annotated.shape[:2] != (encoder.height, encoder.width):  # the size changed on the way
                    annotated = cv2.resize(annotated, (encoder.width, encoder.height))
                output = av.VideoFrame.from_ndarray(np.asarray(annotated, np.uint8), format="rgb24")
                output.pts, output.time_base = round(seconds * 90_000), Fraction(1, 90_000)
                out.mux(encoder.encode(output))
                if sound:
                    sound.write(seconds)
                yield AnnotatedFrame(seconds, duration, prediction, annotated, bool(sound and sound.is_lost))
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
        if encoder is None:
            raise BadVideo("This video has no frames.")
        reached = previous + frame_seconds
        if sound and not file["video_duration"]:  # it may go on after the last frame
            reached = max(reached, sound.read_to_end())
        if duration - reached > MISSING_S:
            raise BadVideo(CUT_OFF)
