"""How calm the count on a webcam is, and how soon it follows: frame by frame, and with a tracker.

Films are made of pictures: each stands in 640×480 for a second, 30 frames, then comes the next. No hand is quite
still, and no camera: the picture shakes, its light changes, and every frame has noise of its own. All frames go
through the real counter, and what it reads through a tracker, at 30 frames a second and, every third one, at 10.
"""

from collections.abc import Iterator, Sequence
from random import Random
from statistics import mode

import cv2
import numpy as np

from benchmarks import ROOT, machine
from benchmarks.frames import CAMERA, SETS, digest, frames
from benchmarks.speed import paste
from handful import FingerCounter, Prediction
from handful.tracking import Tracker
from training.markdown import markdown_table

RATE = 30  # frames a second
PICTURES = 30  # of each set
SETTLED = 0.4  # seconds after which a change of the count is flicker, and no new pose
# Standard deviations, as in a dim room: pixels, degrees, share of the light, grey levels.
SHAKE, TURN, LIGHT, NOISE = 4.0, 2.0, 0.12, 16.0


def film(picture: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """A second of a picture, held as still as one can: frames of (480, 640, 3) uint8 RGB."""
    still = paste([picture]) if picture.shape[0] == picture.shape[1] else cv2.resize(picture, CAMERA)
    wander = rng.normal(size=4)
    for _ in range(RATE):
        wander = 0.5 * wander + 0.75**0.5 * rng.normal(size=4)  # half of it stays from frame to frame
        place = cv2.getRotationMatrix2D((CAMERA[0] / 2, CAMERA[1] / 2), TURN * wander[0], 1)
        place[:, 2] += SHAKE * wander[1:3]
        moved = cv2.warpAffine(still, place, CAMERA, borderMode=cv2.BORDER_REPLICATE)
        lit = moved * np.float32(1 + LIGHT * wander[3]) + NOISE * rng.standard_normal(moved.shape, np.float32)
        yield lit.clip(0, 255).astype(np.uint8)


def measure(films: Sequence[tuple[int, Sequence[Prediction]]], rate: int, tracked: bool) -> dict:
    """What is told of pictures, one after another: how many fingers each shows, and its readings.

    Returns:
        `right`: share of frames whose total is right, once settled. `flicker`: changes of the total a second,
        once settled. `median` and `worst` lag: milliseconds from the last frame of a picture to the first that
        tells the total of the next, where that is another. A picture's total is here what most of its frames
        tell by themselves: the counter's mistakes are no lag. Where it is never told, the lag is a second.
    """
    tell = Tracker() if tracked else lambda prediction, seconds: prediction
    seconds, before = 0.0, None
    right, flicker, lags = [], [], []
    for fingers, predictions in films:
        totals = []
        for prediction in predictions[:: RATE // rate]:
            totals.append(tell(prediction, seconds).total)
            seconds += 1 / rate
        settled = np.array(totals[round(SETTLED * rate) :])
        right.append(np.mean(settled == fingers))
        flicker.append(np.mean(settled[1:] != settled[:-1]) * rate)
        total = mode(prediction.total for prediction in predictions)
        if before not in (None, total):
            lags.append(1000 * (totals.index(total) + 1) / rate if total in totals else 1000)
        before = total
    return {
        "right": round(float(np.mean(right)), 4),
        "flicker": round(float(np.mean(flicker)), 2),
        "median": round(float(np.median(lags))),
        "worst": round(max(lags)),
        "poses": len(lags),
    }


def run(limit: int = 0) -> dict:
    """Measure the bundled samples, shuffled, and the webcam frames in their order, where they are."""
    counter, rng = FingerCounter(), np.random.default_rng(0)
    results: dict = {"machine": machine(), "sets": {}}
    for name in "samples", "webcam":
        shown = frames(name, ROOT, min(limit or PICTURES, PICTURES))
        if not shown:
            continue
        if name == "samples":
            Random(0).shuffle(shown)
        films = [(frame.total, [counter(image) for image in film(frame.image, rng)]) for frame in shown]
        results["sets"][name] = {
            "title": SETS[name].title,
            "pictures": len(shown),
            "digest": digest(shown),
            "told": {
                f"{rate} a second, {'tracked' if tracked else 'frame by frame'}": measure(films, rate, tracked)
                for rate in (RATE, 10)
                for tracked in (False, True)
            },
        }
    return results


def report(results: dict) -> str:
    """The results as one table."""
    rows = [
        [
            f"{one['title']} ({one['pictures']}), {how}",
            f"{told['right']:.1%}",
            f"{told['flicker']:.2f}",
            f"{told['median']} / {told['worst']}",
        ]
        for one in results["sets"].values()
        for how, told in one["told"].items()
    ]
    header = ["Pictures held for a second", "total right", "changes a second", "lag ms, median / worst"]
    return "\n\n".join([results["machine"], markdown_table(header, rows)])
