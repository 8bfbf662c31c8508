"""The bundled samples, in rooms made of colour and blur: ten pictures of each class, and a film."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from tqdm import tqdm

from training.files import atomic_write
from training.render import sample as chance
from training.render.draw import draw_hand
from training.render.hand import Pose, load_rig
from training.render.scene import View, gamma

SIZE = 256  # pixels
FRAME, RATE = (480, 360), 20  # of the film: width and height, frames a second
MOVE = 0.3  # seconds from a count of the film to the next


def room(rng: np.random.Generator, size: int) -> np.ndarray:
    """An out-of-focus indoor scene (size, size, 3) uint8 RGB: a wall, furniture, perhaps points of light."""
    x, y = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size))
    hue, dark = rng.uniform(-1, 1), rng.uniform(0.12, 0.62)
    wall = dark * (1 + 0.18 * np.array([hue, 0.1 * rng.normal(), -hue]))
    slope = rng.normal(0, 0.35, 2)
    picture = wall * (1 + slope[0] * (x - 0.5) + slope[1] * (y - 0.5))[..., None]
    for _ in range(rng.integers(2, 7)):  # furniture, a window, a picture on the wall
        left, top = rng.uniform(-0.2, 1, 2)
        width, height = rng.uniform(0.08, 0.6, 2)
        colour = np.clip(dark * np.exp(rng.normal(0, 0.5)) * (1 + 0.13 * rng.normal(0, 1, 3)), 0.01, 0.95)
        inside = (x > left) & (x < left + width) & (y > top) & (y < top + height)
        picture[inside] = colour
    picture[:] = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.035, 0.09) * size, borderType=cv2.BORDER_REFLECT)
    if rng.random() < 0.15:  # lamps far away, each a disc of confusion
        for _ in range(rng.integers(4, 14)):
            centre, radius = rng.uniform(0, 1, 2), rng.uniform(0.02, 0.06)
            disc = np.clip((radius - np.hypot(x - centre[0], y - centre[1])) * size / 4, 0, 1)[..., None]
            picture += disc * rng.uniform(0.05, 0.3) * chance.kelvin(rng.uniform(2600, 6000))
    return np.round(gamma(picture) * 255).astype(np.uint8)


def paste(rgba: np.ndarray, background: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lays the hand over the background, with a little of a camera's blur and noise."""
    alpha = rgba[..., 3:] / 255
    sharp = rgba[..., :3] * alpha + background * (1 - alpha)
    picture = cv2.GaussianBlur(sharp, (0, 0), rng.uniform(0.35, 0.6))
    noise = rng.normal(0, rng.uniform(0.5, 2.0), (*picture.shape[:2], 1))
    return np.clip(np.round(picture + noise), 0, 255).astype(np.uint8)


def sample_hand(count: int, right: bool, k: int) -> chance.Hand:
    """Sample number k of a class: 0 is the usual gesture, palm to the camera, upright; 1 is the same from behind."""
    rng = np.random.default_rng((7, count, right, k))
    up = next(iter(chance.USUAL[count])) if k < 2 else chance.sample_gesture(rng, count)
    tone = (3 * k + 4 * count + 5 * right) % 10 + 1  # over k, every tone once
    hand = chance.dress(rng, load_rig(), up, right, tone)
    view = replace(hand.view, yaw=0.7 * hand.view.yaw, pitch=0.6 * hand.view.pitch, tilt=0.7 * hand.view.tilt)
    if k < 2:
        view = View(k == 1, rng.uniform(-8, 8), rng.uniform(-8, 8), rng.uniform(-6, 6), 650)
    elif count == 0:
        view = replace(view, back=k % 2 == 1)
    return replace(hand, view=view)


def draw_sample(count: int, right: bool, k: int) -> np.ndarray:
    """Sample number k of a class, in its room: (256, 256, 3) uint8 RGB, the same every time."""
    rng = np.random.default_rng((8, count, right, k))
    margin = rng.uniform(0.1, 0.26)
    rgba = draw_hand(load_rig(), sample_hand(count, right, k), seed=k, size=SIZE, samples=36, margin=margin).rgba
    return paste(rgba, room(rng, SIZE), rng)


def write_samples(folder: Path) -> None:
    """Renders the 120 samples as JPEG, `{fingers}{L|R}_{k}.jpg`."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(count, right, k) for count in range(6) for right in (False, True) for k in range(10)]
    for count, right, k in tqdm(jobs, unit="sample"):
        path = folder / f"{count}{'R' if right else 'L'}_{k}.jpg"
        picture = draw_sample(count, right, k)
        done = cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
        assert done, path


def between(before: Pose, after: Pose, way: float) -> Pose:
    """A pose on the way, 0 … 1, from one to another, with a soft start and end."""
    way = way * way * (3 - 2 * way)
    pairs = zip(vars(before).values(), vars(after).values(), strict=True)
    return Pose(*((1 - way) * one + way * other for one, other in pairs))


def draw_film(samples: int = 24) -> Iterator[np.ndarray]:
    """A hand that counts from none to five, a second each, and sways: frames (360, 480, 3) uint8 RGB."""
    rng, rig = np.random.default_rng(10), load_rig()
    usual = [next(iter(ways)) for ways in chance.USUAL]
    hand = chance.dress(rng, rig, usual[-1], right=True, tone=5)
    poses = [chance.sample_pose(rng, rig, hand.shape, up) for up in usual]
    width, height = FRAME
    left = (width - height) // 2
    wall = room(rng, width)[:height]
    view = View(False, 0, 0, 0, 650)
    # The open hand is the largest: what shows it shows all.
    camera = draw_hand(rig, replace(hand, pose=poses[-1], view=view), 0, 32, 1, 0.15).camera
    for i in range(len(poses) * RATE):
        count, since = divmod(i, RATE)
        pose = between(poses[max(count - 1, 0)], poses[count], min(since / (MOVE * RATE), 1))
        turn = 2 * np.pi * i / (len(poses) * RATE)
        view = View(False, 9 * np.sin(2 * turn), 4 * np.sin(3 * turn), 5 * np.sin(turn), 650)
        rgba = draw_hand(rig, replace(hand, pose=pose, view=view), i, height, samples, camera=camera).rgba
        frame = wall.copy()
        frame[:, left : left + height] = paste(rgba, frame[:, left : left + height], rng)
        yield frame


def write_film(path: Path) -> None:
    """Renders the film as MP4, H.264."""
    frames = draw_film()
    with atomic_write(path) as part, av.open(part, "w", format="mp4") as out:
        stream = out.add_stream("libx264", RATE, options={"crf": "27", "preset": "veryslow"})
        stream.width, stream.height, stream.pix_fmt = *FRAME, "yuv420p"
        for i, frame in enumerate(tqdm(frames, total=len(chance.USUAL) * RATE, unit="frame")):
            one = av.VideoFrame.from_ndarray(frame, format="rgb24")
            one.pts, one.time_base = i, Fraction(1, RATE)
            out.mux(stream.encode(one))
        out.mux(stream.encode())
