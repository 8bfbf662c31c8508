"""What happens to the frames of a webcam."""

import time
from collections import deque
from typing import NamedTuple

import av
from streamlit_webrtc import VideoProcessorBase

from model import Reading, shared_counter
from model.overlay import draw
from model.tracking import Tracker

# Seconds over which frames are counted, and after which the last one is old.
WINDOW = 2


class Latest(NamedTuple):
    """The last frame that was read: what is told with it, when, and how many a second there were."""

    reading: Reading
    when: float
    rate: float

    @property
    def old(self) -> bool:
        """Whether the stream has stopped since."""
        return time.monotonic() - self.when > WINDOW


class Camera(VideoProcessorBase):
    """Reads the frames of one stream, in a thread of the stream's own.

    streamlit-webrtc hands that thread the newest frame each time it is free. The frames that came
    meanwhile are dropped, so what is told is never behind.

    Attributes:
        mirror: show the frames as a mirror does.
        gradcam: show where the model looks.
        latest: what was read last. It is replaced as a whole: other threads may read it any time.
    """

    def __init__(self) -> None:
        self.mirror = True
        self.gradcam = False
        self.latest: Latest | None = None
        self._times: deque[float] = deque()
        self._tracker = Tracker()

    def recv(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Read a frame, and draw what was read."""
        image = frame.to_ndarray(format="rgb24")
        # As the camera sees it: in a mirror, a left hand is a right one.
        reading = shared_counter()(image)
        now = time.monotonic()
        reading = self._tracker(reading, now)
        self._times.append(now)
        while self._times[0] < now - WINDOW:
            self._times.popleft()
        span = now - self._times[0]
        self.latest = Latest(reading, now, (len(self._times) - 1) / span if span else 0.0)
        picture = draw(image, reading, gradcam=self.gradcam, mirror=self.mirror)
        return av.VideoFrame.from_ndarray(picture, format="rgb24")
