"""Predictions of a webcam stream over time, and the processor that runs the model on the server."""

import time
from collections import deque
from dataclasses import replace
from threading import Timer
from typing import Any, NamedTuple

import av
from streamlit_webrtc import VideoProcessorBase

from handful import Box, Prediction
from handful.overlay import draw
from handful.tracking import Tracker
from web import inference, metrics
from web.log import LOG
from web.streamlit_patches import webrtc_worker

RATE_WINDOW_S = 2  # frames are counted over it; a stream without a frame for longer is stalled
HISTORY_S = 30
NO_HAND_HINT_S = 5  # without a hand for so long, the page shows a hint
DARK_LEVEL = 35  # mean of green, 0-255; in a darker room, hands drown in the camera's noise
CONNECT_TIMEOUT_S = 60
EDGE_MARGIN = 0.01  # share of the frame's width or height


class Latest(NamedTuple):
    """The latest frame's prediction, its time on the clock of `time.monotonic`, and the frames per second."""

    prediction: Prediction
    time: float
    fps: float

    @property
    def stalled(self) -> bool:
        """Whether the stream has stopped since."""
        return time.monotonic() - self.time > RATE_WINDOW_S


class Stream:
    """The predictions of one camera, tracked from frame to frame.

    Attributes:
        min_confidence: hands below it, 0-1, are left out.
        created: on the clock of `time.monotonic`.
        latest: replaced as a whole: other threads may read it at any time.
        history: (seconds, total fingers) of each frame of the last `HISTORY_S`.
    """

    def __init__(self) -> None:
        self.min_confidence = 0.0
        self.created = time.monotonic()
        self.latest: Latest | None = None
        self.history: deque[tuple[float, int]] = deque()
        self._tracker = Tracker()
        self._brightness = 255.0
        self._last_hand = 0.0  # when there was a hand last; at first, when the stream started

    def update(self, prediction: Prediction, seconds: float, brightness: float) -> Prediction:
        """Update the stream with its newest frame and return the smoothed prediction.

        Args:
            prediction: of the frame alone.
            seconds: when the frame came, on the stream's clock.
            brightness: mean of the frame's green channel, 0-255.
        """
        if self.history and seconds < self.history[-1][0]:  # the camera was restarted
            self.history.clear()
        prediction = self._tracker(prediction, seconds)
        hands = tuple(hand for hand in prediction.hands if hand.confidence >= self.min_confidence)
        prediction = replace(prediction, hands=hands)
        if hands or not self.history:
            self._last_hand = seconds
        self._brightness = brightness
        self.history.append((seconds, prediction.total))
        while self.history[0][0] < seconds - HISTORY_S:
            self.history.popleft()
        recent = sum(when >= seconds - RATE_WINDOW_S for when, _ in self.history)
        span = min(RATE_WINDOW_S, seconds - self.history[0][0])
        self.latest = Latest(prediction, time.monotonic(), (recent - 1) / span if span else 0.0)
        return prediction

    @property
    def hint(self) -> str:
        """What the visitor can do for better predictions, or ""."""
        if not self.latest:
            return ""
        prediction = self.latest.prediction
        if self._brightness < DARK_LEVEL:
            return "It is too dark. Turn on a light, or face a window."
        if any(is_cut_off(hand.box, prediction.width, prediction.height) for hand in prediction.hands):
            return "Your hand is cut off. Move it fully into view."
        if not prediction.hands and self.history[-1][0] - self._last_hand >= NO_HAND_HINT_S:
            return "No hand seen for a while. Hold one up, about an arm's length from the camera."
        return ""


def is_cut_off(box: Box, width: int, height: int) -> bool:
    """Return whether a box touches the frame's left, upper or right edge; at the lower one, that is its arm."""
    x0, y0, x1, _ = box
    return x0 <= EDGE_MARGIN * width or y0 <= EDGE_MARGIN * height or x1 >= (1 - EDGE_MARGIN) * width


class WebcamProcessor(VideoProcessorBase):
    """Run the model on the frames of one WebRTC stream, in the stream's thread.

    streamlit-webrtc passes the newest frame each time that the thread is free; frames that came meanwhile are dropped.
    A stream counts as active from its first frame on: a connection that fails brings none, and never ends.

    Attributes:
        mirror: flip the frames that are sent back.
        gradcam: draw Grad-CAM heatmaps.
        stream: the predictions so far.
    """

    def __init__(self) -> None:
        self.mirror = True
        self.gradcam = False
        self.stream = Stream()
        self._started: float | None = None
        self._frames = 0

    def recv(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Run the model on a frame and return it with the prediction drawn in."""
        now = metrics.last_frame_times[self] = time.monotonic()
        if self._started is None:
            self._started = now
            LOG.info("stream started", extra={"streams": metrics.active_streams()})
        image = frame.to_ndarray(format="rgb24")
        # Not mirrored: mirroring would swap left and right hands.
        prediction = inference.predict(image, "live")
        self._frames += 1
        prediction = self.stream.update(prediction, now, float(image[::4, ::4, 1].mean()))
        annotated = draw(image, prediction, gradcam=self.gradcam, mirror=self.mirror)
        return av.VideoFrame.from_ndarray(annotated, format="rgb24")

    async def recv_queued(self, frames: list[av.VideoFrame]) -> list[av.VideoFrame]:
        """Process the newest of the queued frames, and count the others as dropped."""
        metrics.DROPPED_FRAMES.inc(len(frames) - 1)
        return await super().recv_queued(frames)

    def on_ended(self) -> None:
        if self._started is None:
            return
        metrics.last_frame_times.pop(self, None)
        seconds = round(time.monotonic() - self._started, 1)
        self._started = None
        extra = {"seconds": seconds, "frames": self._frames, "streams": metrics.active_streams()}
        LOG.info("stream ended", extra=extra)


def stop_if_not_connected(context: Any) -> None:
    """Stop the connection of a streamlit-webrtc context unless it is up within `CONNECT_TIMEOUT_S`.

    With a browser that offers no candidates, ICE never fails: the sockets, the thread and the session of a visitor who
    left long ago would stay for ever.
    """
    worker = webrtc_worker(context)

    def stop() -> None:
        if worker and worker.pc.connectionState != "connected":
            worker.stop()

    timer = Timer(CONNECT_TIMEOUT_S, stop)
    timer.daemon = True
    timer.start()
