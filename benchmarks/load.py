"""How many cameras this machine reads at once.

Clients in a process of their own send films of 640×480 at 20 frames a second over WebRTC (aiortc, loopback), just as
browsers do; the server reads and draws them with the very code of Live, and sends them back. Every frame carries
its number in black and white squares, so that the age of a reading is known: from the moment a client had the frame
to the moment the server had read it. Clients encode and decode on the same cores: a server of its own holds more.
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
from web.webcam import Camera

STREAMS = (1, 2, 4, 6, 8)
SECONDS = 12.0  # of each; the first third, in which the network is felt out, is not counted
RATE = 20
SQUARE, BITS = 32, 16


def numbered(frame: np.ndarray, number: int) -> np.ndarray:
    """A frame with a number written along its upper edge in squares, which survive a video codec."""
    frame = frame.copy()
    for bit in range(BITS):
        frame[:SQUARE, SQUARE * bit : SQUARE * (bit + 1)] = 255 * (number >> bit & 1)
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number that `numbered` wrote."""
    middle = frame[SQUARE // 2, SQUARE // 2 : SQUARE * BITS : SQUARE, 1]
    return sum(int(level > 127) << bit for bit, level in enumerate(middle))


class Film(MediaStreamTrack):
    """A hand that moves, in real time."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        picture = cv2.resize(decode(ROOT / "assets/samples/3L_0.jpg"), (400, 400))
        self.frame = np.full((480, 640, 3), 150, np.uint8)
        self.frame[60:460, 120:520] = picture
        self.number, self.start = 0, time.monotonic()

    async def recv(self) -> av.VideoFrame:
        await asyncio.sleep(max(0.0, self.start + self.number / RATE - time.monotonic()))
        self.number = round((time.monotonic() - self.start) * RATE) + 1
        shown = numbered(np.roll(self.frame, self.number % 40, 1), self.number)
        frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
        frame.pts, frame.time_base = self.number * 90_000 // RATE, Fraction(1, 90_000)
        return frame


async def connect(connection: Connection, own: RTCPeerConnection) -> None:
    """Send an offer, take the answer."""
    await own.setLocalDescription(await own.createOffer())
    connection.send(own.localDescription.sdp)
    answer = await asyncio.to_thread(connection.recv)
    await own.setRemoteDescription(RTCSessionDescription(answer, "answer"))


def clients(connection: Connection, streams: int, seconds: float) -> None:
    """Send so many films, one connection each. Tells when each began."""

    async def run() -> None:
        peers, films, sinks = [], [], []
        for _ in range(streams):
            peer, film, sink = RTCPeerConnection(), Film(), MediaBlackhole()
            peer.addTrack(film)
            peer.on("track", sink.addTrack)
            await connect(connection, peer)
            await sink.start()
            peers.append(peer)
            films.append(film)
            sinks.append(sink)
        connection.send([film.start for film in films])
        await asyncio.sleep(seconds)
        for peer in peers:
            await peer.close()

    asyncio.run(run())


class Watched(Camera):
    """Live's own camera, which also notes when it had read which frame."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[tuple[float, int]] = []

    def recv(self, frame: av.VideoFrame) -> av.VideoFrame:
        drawn = super().recv(frame)
        self.read.append((time.monotonic(), number_of(frame.to_ndarray(format="rgb24"))))
        return drawn


async def serve(connection: Connection, streams: int, seconds: float) -> tuple[list[Watched], list[float]]:
    """Read what clients send. Returns the cameras and when each client's film began."""
    peers, cameras = [], []
    for _ in range(streams):
        peer, camera = RTCPeerConnection(), Watched()

        def answer(track: MediaStreamTrack, peer: RTCPeerConnection = peer, camera: Watched = camera) -> None:
            peer.addTrack(AsyncVideoProcessTrack(track, camera))

        peer.on("track", answer)
        offer = await asyncio.to_thread(connection.recv)
        await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        connection.send(peer.localDescription.sdp)
        peers.append(peer)
        cameras.append(camera)
    starts = await asyncio.to_thread(connection.recv)
    await asyncio.sleep(seconds)
    for peer in peers:
        await peer.close()
    return cameras, starts


def measure(streams: int, seconds: float) -> dict:
    """Readings a second of the slowest and of the median stream, and the age of readings in ms."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=clients, args=(there, streams, seconds), daemon=True)
    process.start()
    cpu = time.process_time()
    cameras, starts = asyncio.run(serve(here, streams, seconds))
    cpu = time.process_time() - cpu
    process.join(20)
    rates, ages = [], []
    for camera, start in zip(cameras, starts, strict=True):
        settled = [(when, number) for when, number in camera.read if when > camera.read[0][0] + seconds / 3]
        span = settled[-1][0] - settled[0][0]
        rates.append((len(settled) - 1) / span)
        ages += [1000 * (when - start - (number - 1) / RATE) for when, number in settled]
    return {
        "streams": streams,
        "slowest": round(min(rates), 1),
        "median": round(float(np.median(rates)), 1),
        "age_ms": dict(zip(("median", "p95"), np.percentile(ages, (50, 95)).round().tolist(), strict=True)),
        "cpu_share": round(cpu / seconds / (os.cpu_count() or 1), 2),
    }


def run() -> dict:
    """Measure one number of streams after the other."""
    return {"machine": machine(), "rows": [measure(streams, SECONDS) for streams in STREAMS]}


def report(numbers: dict) -> str:
    """The numbers as a table."""
    rows = [
        [
            str(row["streams"]),
            f"{row['slowest']:.1f}",
            f"{row['median']:.1f}",
            f"{row['age_ms']['median']:.0f}",
            f"{row['age_ms']['p95']:.0f}",
            f"{row['cpu_share']:.0%}",
        ]
        for row in numbers["rows"]
    ]
    head = ["Cameras", "Readings/s, slowest", "median", "Age ms, median", "p95", "CPU of the server"]
    return f"{numbers['machine']}\n\n" + markdown_table(head, rows)
