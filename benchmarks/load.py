"""How many WebRTC streams this machine serves at once.

Clients in a separate process send videos of 640×480 at 20 frames a second over WebRTC (aiortc, loopback), as browsers
do. The server predicts and draws with the code of Live, and sends the frames back. Each frame carries its number in
black and white squares, so that the age of a prediction is known: from the moment a client had the frame to the moment
of its prediction. Clients encode and decode on the same cores, so a server with its cores to itself serves more.
"""

import asyncio
import multiprocessing
import os
import time
from fractions import Fraction
from multiprocessing.connection import Connection

import av
import cv2
import numpy as np
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaBlackhole
from streamlit_webrtc.process import AsyncVideoProcessTrack

from benchmarks import ROOT, machine
from handful.images import decode
from training.markdown import markdown_table
from web.webcam import WebcamProcessor

STREAMS = (1, 2, 4, 6, 8)
SECONDS = 12.0  # for each; the first third, in which WebRTC probes the bandwidth, is not counted
FPS = 20
CONNECT_TIMEOUT_S = 30
SQUARE_PX, BITS = 32, 16


def write_number(frame: np.ndarray, number: int) -> np.ndarray:
    """Return a copy of a frame with a number in squares along its upper edge, which survive a video codec."""
    frame = frame.copy()
    for bit in range(BITS):
        frame[:SQUARE_PX, SQUARE_PX * bit : SQUARE_PX * (bit + 1)] = 255 * (number >> bit & 1)
    return frame


def read_number(frame: np.ndarray) -> int:
    """Return the number that `write_number` wrote."""
    centres = frame[SQUARE_PX // 2, SQUARE_PX // 2 : SQUARE_PX * BITS : SQUARE_PX, 1]
    return sum(int(level > 127) << bit for bit, level in enumerate(centres))


class NumberedVideo(MediaStreamTrack):
    """A hand that moves, in real time, with numbered frames."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        picture = cv2.resize(decode(ROOT / "assets/samples/3L_0.jpg"), (400, 400))
        self.image = np.full((480, 640, 3), 150, np.uint8)
        self.image[60:460, 120:520] = picture
        self.number, self.start = 0, time.monotonic()

    async def recv(self) -> av.VideoFrame:
        await asyncio.sleep(max(0.0, self.start + self.number / FPS - time.monotonic()))
        self.number = round((time.monotonic() - self.start) * FPS) + 1
        image = write_number(np.roll(self.image, self.number % 40, 1), self.number)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = self.number * 90_000 // FPS, Fraction(1, 90_000)
        return frame


async def connect(connection: Connection, peer: RTCPeerConnection) -> None:
    """Send an offer and apply the answer."""
    await peer.setLocalDescription(await peer.createOffer())
    connection.send(peer.localDescription.sdp)
    answer = await asyncio.to_thread(connection.recv)
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))


def send_videos(connection: Connection, streams: int) -> None:
    """Send so many videos, one connection each, and their start times through the pipe; until its other end answers."""

    async def run() -> None:
        peers, videos = [], []
        for _ in range(streams):
            peer, video, sink = RTCPeerConnection(), NumberedVideo(), MediaBlackhole()
            peer.addTrack(video)
            peer.on("track", sink.addTrack)
            await connect(connection, peer)
            await sink.start()
            peers.append(peer)
            videos.append(video)
        connection.send([video.start for video in videos])
        await asyncio.to_thread(connection.recv)
        for peer in peers:
            await peer.close()

    asyncio.run(run())


class TimedProcessor(WebcamProcessor):
    """Live's processor, which also records the time and the number of each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[tuple[float, int]] = []

    def recv(self, frame: av.VideoFrame) -> av.VideoFrame:
        drawn = super().recv(frame)
        self.frames.append((time.monotonic(), read_number(frame.to_ndarray(format="rgb24"))))
        return drawn


async def serve(connection: Connection, streams: int, seconds: float) -> tuple[list[TimedProcessor], list[float]]:
    """Process the clients' videos, for so many seconds from when all have arrived.

    Returns:
        A processor for each video, and when it started.

    Raises:
        TimeoutError: a video does not arrive.
    """
    peers, processors = [], []
    for _ in range(streams):
        peer, processor = RTCPeerConnection(), TimedProcessor()

        def on_track(
            track: MediaStreamTrack, peer: RTCPeerConnection = peer, processor: TimedProcessor = processor
        ) -> None:
            peer.addTrack(AsyncVideoProcessTrack(track, processor))

        peer.on("track", on_track)
        offer = await asyncio.to_thread(connection.recv)
        await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        connection.send(peer.localDescription.sdp)
        peers.append(peer)
        processors.append(processor)
    starts = await asyncio.to_thread(connection.recv)
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        while not all(processor.frames for processor in processors):
            await asyncio.sleep(0.05)
    await asyncio.sleep(seconds)
    connection.send("stop")
    for peer in peers:
        await peer.close()
    return processors, starts


def measure(streams: int, seconds: float) -> dict:
    """Return the frame rates of the slowest and of the median stream, and the age of predictions in ms."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=send_videos, args=(theirs, streams), daemon=True)
    process.start()
    cpu = time.process_time()
    processors, starts = asyncio.run(serve(ours, streams, seconds))
    cpu = time.process_time() - cpu
    process.join(20)
    rates, ages = [], []
    for processor, start in zip(processors, starts, strict=True):
        warm = [(when, number) for when, number in processor.frames if when > processor.frames[0][0] + seconds / 3]
        rates.append((len(warm) - 1) / (warm[-1][0] - warm[0][0]))
        ages += [1000 * (when - start - (number - 1) / FPS) for when, number in warm]
    return {
        "streams": streams,
        "slowest": round(min(rates), 1),
        "median": round(float(np.median(rates)), 1),
        "age_ms": dict(zip(("median", "p95"), np.percentile(ages, (50, 95)).round().tolist(), strict=True)),
        "cpu_share": round(cpu / seconds / (os.cpu_count() or 1), 2),
    }


def run() -> dict:
    """Measure each number of streams in turn."""
    return {"machine": machine(), "rows": [measure(streams, SECONDS) for streams in STREAMS]}


def report(results: dict) -> str:
    """Return the results as a table."""
    rows = [
        [
            str(row["streams"]),
            f"{row['slowest']:.1f}",
            f"{row['median']:.1f}",
            f"{row['age_ms']['median']:.0f}",
            f"{row['age_ms']['p95']:.0f}",
            f"{row['cpu_share']:.0%}",
        ]
        for row in results["rows"]
    ]
    header = ["Streams", "Frames/s, slowest", "median", "Age ms, median", "p95", "CPU of the server"]
    return f"{results['machine']}\n\n" + markdown_table(header, rows)
