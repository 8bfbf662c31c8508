"""What happens to the frames of a webcam, and what they tell over time."""

import time
from collections import deque
from dataclasses import replace
from threading import Timer
from typing import Any, NamedTuple

import av
from streamlit_webrtc import VideoProcessorBase

from handful import Prediction
from handful.overlay import draw
from handful.tracking import Tracker
from web import inference as metrics
from web.log import LOG

# Seconds over which frames are counted, and after which the last one is old.
WINDOW = 2
HISTORY = 30  # seconds of counts that are kept
ALONE = 5  # seconds without a hand after which a visitor may want help
DARK = 35  # mean of green, 0-255, under which a room is too dark: hands are lost in the camera's noise
GIVE_UP = 60  # seconds after which a connection that has not come is let go of
EDGE = 0.01  # share of the frame that is its edge


class Latest(NamedTuple):
    """The last frame that was read: what is told with it, when, and how many a second there were."""

    prediction: Prediction
    when: float
    rate: float

    @property
    def old(self) -> bool:
        """Whether the stream has stopped since."""
        return time.monotonic() - self.when > WINDOW


class Stream:
    """The frames of one camera, one after the other.

    Attributes:
        sure: hands that are less sure than this, 0-1, are not told.
        began: when it was made, on the clock of `time.monotonic`.
        latest: what was read last. It is replaced as a whole: other threads may read it any time.
        history: (seconds, total) of each frame of the last half minute.
    """

    def __init__(self) -> None:
        self.sure = 0.0
        self.began = time.monotonic()
        self.latest: Latest | None = None
        self.history: deque[tuple[float, int]] = deque()
        self._tracker = Tracker()
        self._light = 255.0
        self._seen: float | None = None  # when a hand was told last; at first, when the stream began

    def follow(self, prediction: Prediction, seconds: float, light: float) -> Prediction:
        """Tell calmly what is in the stream now.

        Args:
            reading: what was read in the newest frame.
            seconds: when that frame came, on a clock of the stream's own.
            light: mean of the frame's green, 0-255.
        """
        if self.history and seconds < self.history[-1][0]:  # the camera was started anew
            self.history.clear()
            self._seen = None
        prediction = self._tracker(prediction, seconds)
        prediction = replace(prediction, hands=tuple(hand for hand in prediction.hands if hand.confidence >= self.sure))
        if prediction.hands or self._seen is None:
            self._seen = seconds
        self._light = light
        self.history.append((seconds, prediction.total))
        while self.history[0][0] < seconds - HISTORY:
            self.history.popleft()
        recent = sum(when >= seconds - WINDOW for when, _ in self.history)
        span = min(WINDOW, seconds - self.history[0][0])
        self.latest = Latest(prediction, time.monotonic(), (recent - 1) / span if span else 0.0)
        return prediction

    @property
    def advice(self) -> str:
        """What would help the visitor now, in words; "" where nothing is amiss."""
        if not self.latest:
            return ""
        prediction = self.latest.prediction
        if self._light < DARK:
            return "It is too dark to read well. Turn on a light, or face the window."
        if any(cut_off(hand.box, prediction.width, prediction.height) for hand in prediction.hands):
            return "The hand is cut off. Move it into the picture."
        if not prediction.hands and self._seen is not None and self.history[-1][0] - self._seen >= ALONE:
            return "No hand for a while. Hold one up, fingers apart, a forearm's length from the camera."
        return ""


def cut_off(box: tuple[float, float, float, float], width: int, height: int) -> bool:
    """Whether a hand reaches the frame's left, upper or right edge. At the lower one, that is its arm."""
    x0, y0, x1, _ = box
    return x0 <= EDGE * width or y0 <= EDGE * height or x1 >= (1 - EDGE) * width


class Camera(VideoProcessorBase):
    """Reads the frames of one stream on the server, in a thread of the stream's own.

    streamlit-webrtc hands that thread the newest frame each time it is free. The frames that came
    meanwhile are dropped: none waits here to be read. It is a stream from its first frame on, as a
    connection that fails brings none, and never ends.

    Attributes:
        mirror: show the frames as a mirror does.
        gradcam: show where the model looks.
        stream: what the frames tell.
    """

    def __init__(self) -> None:
        self.mirror = True
        self.gradcam = False
        self.stream = Stream()
        self._began: float | None = None
        self._readings = 0

    def recv(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Read a frame, and draw what was read."""
        now = metrics.last_frames[self] = time.monotonic()
        if self._began is None:
            self._began = now
            LOG.info("camera began", extra={"cameras": metrics.streams()})
        image = frame.to_ndarray(format="rgb24")
        # As the camera sees it: in a mirror, a left hand is a right one.
        prediction = metrics.read(image, "live")
        self._readings += 1
        prediction = self.stream.follow(prediction, now, float(image[::4, ::4, 1].mean()))
        picture = draw(image, prediction, gradcam=self.gradcam, mirror=self.mirror)
        return av.VideoFrame.from_ndarray(picture, format="rgb24")

    async def recv_queued(self, frames: list[av.VideoFrame]) -> list[av.VideoFrame]:
        """Read the newest of the frames that came since the last one was read."""
        metrics.DROPPED.inc(len(frames) - 1)
        return await super().recv_queued(frames)

    def on_ended(self) -> None:
        if self._began is None:
            return
        metrics.last_frames.pop(self, None)
        seconds = round(time.monotonic() - self._began, 1)
        self._began = None
        LOG.info("camera ended", extra={"seconds": seconds, "readings": self._readings, "cameras": metrics.streams()})


def give_up(worker: Any) -> None:
    """Let go of a connection, streamlit-webrtc's `WebRtcWorker`, that does not come in time.

    To a browser that names no address of its own, nothing ever fails: sockets, a thread and the visit would be kept
    for ever, of visitors who left long ago, too.
    """

    def look() -> None:
        if worker and worker.pc.connectionState != "connected":
            worker.stop()

    timer = Timer(GIVE_UP, look)
    timer.daemon = True
    timer.start()
