"""Render the bundled samples and the bundled video in front of synthetic, out-of-focus rooms."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from tqdm import tqdm

from handful.labels import COUNTS
from training.files import atomic_write
from training.render.generate import render_hand
from training.render.hand import Pose, load_rig
from training.render.sampling import (
    COMMON_GESTURES,
    HandParams,
    kelvin,
    sample_appearance,
    sample_gesture,
    sample_pose,
)
from training.render.scene import View, linear_to_srgb

SAMPLE_SIZE = 256  # pixels
VIDEO_SIZE = (480, 360)  # width, height
VIDEO_FPS = 20
TRANSITION_S = 0.3  # from one count to the next
SAMPLES_PER_CLASS = 10


def synthetic_room(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a blurred indoor scene (size, size, 3) uint8 RGB: a wall, furniture, perhaps distant lamps."""
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
    if rng.random() < 0.15:  # distant lamps, each a circle of confusion
        for _ in range(rng.integers(4, 14)):
            centre, radius = rng.uniform(0, 1, 2), rng.uniform(0.02, 0.06)
            disc = np.clip((radius - np.hypot(x - centre[0], y - centre[1])) * size / 4, 0, 1)[..., None]
            picture += disc * rng.uniform(0.05, 0.3) * kelvin(rng.uniform(2600, 6000))
    return np.round(linear_to_srgb(picture) * 255).astype(np.uint8)


def composite(rgba: np.ndarray, background: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Composite a hand over a background, with slight camera blur and noise."""
    alpha = rgba[..., 3:] / 255
    sharp = rgba[..., :3] * alpha + background * (1 - alpha)
    picture = cv2.GaussianBlur(sharp, (0, 0), rng.uniform(0.35, 0.6))
    noise = rng.normal(0, rng.uniform(0.5, 2.0), (*picture.shape[:2], 1))
    return np.clip(np.round(picture + noise), 0, 255).astype(np.uint8)


def bundled_params(count: int, right: bool, k: int) -> HandParams:
    """Return the parameters of sample k of a class: 0 is the common gesture, palm view, upright; 1 its back view."""
    rng = np.random.default_rng((7, count, right, k))
    up = next(iter(COMMON_GESTURES[count])) if k < 2 else sample_gesture(rng, count)
    tone = (3 * k + 4 * count + 5 * right) % 10 + 1  # each tone once per class
    hand = sample_appearance(rng, load_rig(), up, right, tone)
    view = replace(hand.view, yaw=0.7 * hand.view.yaw, pitch=0.6 * hand.view.pitch, tilt=0.7 * hand.view.tilt)
    if k < 2:
        view = View(k == 1, rng.uniform(-8, 8), rng.uniform(-8, 8), rng.uniform(-6, 6), 650)
    elif count == 0:
        view = replace(view, back=k % 2 == 1)
    return replace(hand, view=view)


def render_sample(count: int, right: bool, k: int) -> np.ndarray:
    """Render sample k of a class in its room: (256, 256, 3) uint8 RGB, deterministic."""
    rng = np.random.default_rng((8, count, right, k))
    margin = rng.uniform(0.1, 0.26)
    params = bundled_params(count, right, k)
    rgba = render_hand(load_rig(), params, seed=k, size=SAMPLE_SIZE, samples=36, margin=margin).rgba
    return composite(rgba, synthetic_room(rng, SAMPLE_SIZE), rng)


def write_samples(folder: Path) -> None:
    """Write the 120 samples as JPEG files, `{fingers}{L|R}_{k}.jpg`."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(count, right, k) for count in COUNTS for right in (False, True) for k in range(SAMPLES_PER_CLASS)]
    for count, right, k in tqdm(jobs, unit="sample"):
        path = folder / f"{count}{'R' if right else 'L'}_{k}.jpg"
        picture = render_sample(count, right, k)
        written = cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
        assert written, path


def interpolate(before: Pose, after: Pose, t: float) -> Pose:
    """Interpolate between two poses with smoothstep easing, t from 0 to 1."""
    t = t * t * (3 - 2 * t)
    pairs = zip(vars(before).values(), vars(after).values(), strict=True)
    return Pose(*((1 - t) * one + t * other for one, other in pairs))


def render_video() -> Iterator[np.ndarray]:
    """Yield frames (360, 480, 3) uint8 RGB of a swaying hand that counts from 0 to 5, one second each."""
    rng, rig = np.random.default_rng(10), load_rig()
    gestures = [next(iter(gestures)) for gestures in COMMON_GESTURES]
    hand = sample_appearance(rng, rig, gestures[-1], right=True, tone=5)
    poses = [sample_pose(rng, rig, hand.shape, up) for up in gestures]
    width, height = VIDEO_SIZE
    left = (width - height) // 2
    background = synthetic_room(rng, width)[:height]
    view = View(False, 0, 0, 0, 650)
    # The open hand is the largest: framing it frames all poses.
    framing = render_hand(rig, replace(hand, pose=poses[-1], view=view), 0, 32, 1, 0.15).framing
    for i in range(len(poses) * VIDEO_FPS):
        count, elapsed = divmod(i, VIDEO_FPS)
        pose = interpolate(poses[max(count - 1, 0)], poses[count], min(elapsed / (TRANSITION_S * VIDEO_FPS), 1))
        phase = 2 * np.pi * i / (len(poses) * VIDEO_FPS)
        view = View(False, 9 * np.sin(2 * phase), 4 * np.sin(3 * phase), 5 * np.sin(phase), 650)
        rgba = render_hand(rig, replace(hand, pose=pose, view=view), i, height, samples=24, framing=framing).rgba
        frame = background.copy()
        frame[:, left : left + height] = composite(rgba, frame[:, left : left + height], rng)
        yield frame


def write_video(path: Path) -> None:
    """Write the video as MP4 (H.264)."""
    frames = render_video()
    with atomic_write(path) as part, av.open(part, "w", format="mp4") as out:
        stream = out.add_stream("libx264", VIDEO_FPS, options={"crf": "27", "preset": "veryslow"})
        stream.width, stream.height, stream.pix_fmt = *VIDEO_SIZE, "yuv420p"
        for i, frame in enumerate(tqdm(frames, total=len(COUNTS) * VIDEO_FPS, unit="frame")):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = i, Fraction(1, VIDEO_FPS)
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
