"""Flicker and lag of a webcam's count, without and with a tracker.

Videos are made of pictures: each is shown for a second, 30 frames at 640×480, then comes the next. No hand is quite
still, and no camera: the picture shakes, its brightness changes, and each frame has its own noise. The counter predicts
each frame, and the tracker smooths the predictions, at 30 frames a second and, of every third frame, at 10.
"""

from collections.abc import Iterator, Sequence
from random import Random
from statistics import mode

import cv2
import numpy as np

from benchmarks import ROOT, machine
from benchmarks.frames import FRAME_SETS, WEBCAM_SIZE, digest, load_frames
from benchmarks.speed import place_side_by_side
from handful import FingerCounter, Prediction
from handful.tracking import Tracker
from training.markdown import markdown_table

FPS = 30
MAX_PICTURES = 30  # of each set
SETTLING_S = 0.4  # a change of the count later than this is flicker, not a new pose
# Standard deviations, as in a dim room.
SHIFT_PX, ROTATION_DEG, BRIGHTNESS, NOISE = 4.0, 2.0, 0.12, 16.0


def shaky_video(picture: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield a second of a picture in a hand-held camera: frames of (480, 640, 3) uint8 RGB."""
    square = picture.shape[0] == picture.shape[1]
    still = place_side_by_side([picture]) if square else cv2.resize(picture, WEBCAM_SIZE)
    jitter = rng.normal(size=4)
    for _ in range(FPS):
        jitter = 0.5 * jitter + 0.75**0.5 * rng.normal(size=4)  # correlated from frame to frame, of unit variance
        matrix = cv2.getRotationMatrix2D((WEBCAM_SIZE[0] / 2, WEBCAM_SIZE[1] / 2), ROTATION_DEG * jitter[0], 1)
        matrix[:, 2] += SHIFT_PX * jitter[1:3]
        moved = cv2.warpAffine(still, matrix, WEBCAM_SIZE, borderMode=cv2.BORDER_REPLICATE)
        noise = NOISE * rng.standard_normal(moved.shape, np.float32)
        yield (moved * np.float32(1 + BRIGHTNESS * jitter[3]) + noise).clip(0, 255).astype(np.uint8)


def measure(videos: Sequence[tuple[int, Sequence[Prediction]]], fps: int, tracked: bool) -> dict:
    """Return accuracy, flicker and lag of the total over consecutive videos, each with its label and predictions.

    Returns:
        `accuracy`: share of frames with the correct total, after `SETTLING_S`. `flicker`: changes of the total a
        second, after `SETTLING_S`. `median` and `worst` lag: milliseconds from the last frame of a video to the first
        with the total of the next, if that is another; a second if there is none. The total of a video is here the
        most frequent one of its untracked frames, so that errors of the counter do not count as lag. `poses`: number
        of lags.
    """
    smooth = Tracker() if tracked else lambda prediction, seconds: prediction
    seconds, previous = 0.0, None
    accuracy, flicker, lags = [], [], []
    for label, predictions in videos:
        totals = []
        for prediction in predictions[:: FPS // fps]:
            totals.append(smooth(prediction, seconds).total)
            seconds += 1 / fps
        settled = np.array(totals[round(SETTLING_S * fps) :])
        accuracy.append(np.mean(settled == label))
        flicker.append(np.mean(settled[1:] != settled[:-1]) * fps)
        total = mode(prediction.total for prediction in predictions)
        if previous not in (None, total):
            lags.append(1000 * (totals.index(total) + 1) / fps if total in totals else 1000)
        previous = total
    return {
        "accuracy": round(float(np.mean(accuracy)), 4),
        "flicker": round(float(np.mean(flicker)), 2),
        "median": round(float(np.median(lags))),
        "worst": round(max(lags)),
        "poses": len(lags),
    }


def run(frames: int = 0) -> dict:
    """Measure the bundled samples, shuffled, and the webcam frames in their order, if they are there."""
    counter, rng = FingerCounter(), np.random.default_rng(0)
    results: dict = {"machine": machine(), "sets": {}}
    for name in "samples", "webcam":
        pictures = load_frames(name, ROOT, min(frames or MAX_PICTURES, MAX_PICTURES))
        if not pictures:
            continue
        if name == "samples":
            Random(0).shuffle(pictures)
        videos = [(one.total, [counter(image) for image in shaky_video(one.image, rng)]) for one in pictures]
        results["sets"][name] = {
            "title": FRAME_SETS[name].title,
            "pictures": len(pictures),
            "digest": digest(pictures),
            "modes": {
                f"{fps} a second, {'tracked' if tracked else 'frame by frame'}": measure(videos, fps, tracked)
                for fps in (FPS, 10)
                for tracked in (False, True)
            },
        }
    return results


def report(results: dict) -> str:
    """Return the results as a table."""
    rows = [
        [
            f"{one['title']} ({one['pictures']}), {name}",
            f"{measured['accuracy']:.1%}",
            f"{measured['flicker']:.2f}",
            f"{measured['median']} / {measured['worst']}",
        ]
        for one in results["sets"].values()
        for name, measured in one["modes"].items()
    ]
    header = ["Pictures shown for a second", "total correct", "changes a second", "lag ms, median / worst"]
    return "\n\n".join([results["machine"], markdown_table(header, rows)])
