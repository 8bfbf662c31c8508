"""Hands rendered by `python -m training.render`, in variety that no set of photographs has. Ours, Apache-2.0."""

from collections.abc import Sequence
from itertools import compress, product
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from handful.labels import COUNTS, FINGERS, SIDES, encode
from training.data.frames import Frame, FrameDataset
from training.data.registry import FINGERS_UNKNOWN, fingers_as_bits
from training.errors import BadData
from training.render import load_hands

VALIDATION_STRIDE = 10  # every tenth hand is held out for validation
# Options that each folder is rendered with; those to evaluate on differ from those to train on.
RENDER_OPTIONS = {
    "train": "--count 6000",
    "varied": "--count 3250 --seed 4 --people --varied",
    "signs": "--count 2000 --seed 6 --people --signs",
    "val": "--count 500 --seed 2",
    "calibration": "--count 250 --seed 3",
    "tones": "--count 500 --seed 2 --tones",
}


class Rendered(FrameDataset):
    """All 32 combinations of raised fingers, both sides, palm and back, ten skin tones.

    Args:
        root: folder of the shards.
        backgrounds: (H, W, 3) uint8 RGB each, to composite hands onto: whole frames, always the same background,
            place and size for hand i, or a plain colour if there are no backgrounds. None leaves hands on transparent
            ground.

    Raises:
        BadData: no shards in the folder.
    """

    def __init__(self, root: str | Path, backgrounds: Sequence[np.ndarray] | None = None):
        shards = sorted(Path(root).glob("shard-*.npz"))
        if not shards:
            command = f"python -m training.render {RENDER_OPTIONS.get(Path(root).name, '')} --out {root}"
            raise BadData(f"{root}: no rendered hands here. Render some: {command}")
        super().__init__(root, shards)
        self.hands, self.backgrounds = load_hands(root), backgrounds
        self.groups = [""] * len(self.hands)
        self.validation = np.arange(len(self.hands)) % VALIDATION_STRIDE == 0
        self.hides_count = hides_thumb(self.hands.labels) & self.hands.varied

    def __len__(self) -> int:
        return len(self.hands)

    def frame(self, index: int) -> Frame:
        rgba, labels = self.hands.picture(index), self.hands.labels
        count = None if self.hides_count[index] else int(labels["count"][index])
        target = encode(count, SIDES[int(labels["right"][index])])
        mask, fingers = np.ascontiguousarray(rgba[..., 3]), fingers_as_bits(compress(FINGERS, labels["raised"][index]))
        fingers = FINGERS_UNKNOWN if count is None else fingers
        hand = Frame(rgba[..., :3], labels["box"][index][None], np.array([target]), mask, np.array([fingers]))
        if self.backgrounds is None:
            return hand
        # All ten tones of a hand share one composition: nothing but the tone differs.
        rng = np.random.default_rng(index // 10 if self.hands.tones else index)
        if self.backgrounds:
            return composite_frame(hand, self.backgrounds[int(rng.integers(len(self.backgrounds)))], rng)
        colour = rng.integers(90, 200) + rng.integers(-20, 21, 3)
        return composite_frame(hand, np.tile(colour.astype(np.uint8), (480, 640, 1)), rng)

    def path(self, index: int) -> Path:
        return Path(self.root) / str(index)  # many hands share a file

    def metadata(self) -> dict[str, Any]:
        return super().metadata() | {"seeds": sorted(self.hands.seeds)}

    def traits(self) -> dict[str, tuple[list[str], list[str]]]:
        """Return what hands differ in.

        Skin tones only where nothing else differs: otherwise the hands of each tone are others by chance.
        """
        labels = self.hands.labels
        if self.hands.tones:
            tones = ["1, light", *map(str, range(2, 10)), "10, dark"]
            return {"skin tone": (tones, [tones[n - 1] for n in labels["tone"]])}
        combinations = sorted(
            (np.array(raised) for raised in product((False, True), repeat=len(FINGERS))),
            key=lambda raised: (raised.sum(), *~raised),
        )
        angles = ["under 15°", "15-30°", "over 30°"]
        shares = ["under 50%", "50-75%", "75-90%", "over 90%", "a fist"]
        # Of the raised finger that is occluded most.
        visible = np.where(labels["raised"], labels["sight"], 2).min(1)
        sight = {"raised fingers in sight": (shares, [shares[k] for k in np.digitize(visible, (0.5, 0.75, 0.9, 1.5))])}
        return {
            "fingers": (list(map(str, COUNTS)), [str(n) for n in labels["count"]]),
            "view": (["palm", "back"], np.where(labels["back"], "back", "palm").tolist()),
            "side": (list(SIDES), [SIDES[int(right)] for right in labels["right"]]),
            **{
                name: (angles, [angles[k] for k in np.digitize(np.abs(labels[key]), (15, 30))])
                for name, key in (("tilted", "tilt"), ("turned aside", "yaw"), ("leaning", "pitch"))
            },
            **({} if np.isnan(visible).any() else sight),
            "raised": ([finger_names(raised) for raised in combinations], [finger_names(r) for r in labels["raised"]]),
        }


def hides_thumb(labels: dict[str, np.ndarray]) -> np.ndarray:
    """Return which hands (N,) bool show four fingers from the back, and nothing of the thumb.

    Where the fingers touch, nobody can count them: a flat hand with its thumb out of sight means five, "stop".
    """
    four = (labels["raised"] == [False, True, True, True, True]).all(1)
    return four & labels["back"] & (labels["sight"][:, 0] < 0.1)


def finger_names(raised: np.ndarray) -> str:
    """Return the names of the fingers raised, (5,) bool: "thumb + little"."""
    return " + ".join(compress(FINGERS, raised)) or "fist"


def composite_frame(hand: Frame, background: np.ndarray, rng: np.random.Generator) -> Frame:
    """Composite a cut-out hand onto a background, (H, W, 3) uint8 RGB: a whole frame.

    The hand is inside, its longer side 25-75% of the frame's shorter one; the forearm extends to the frame's edge.
    """
    assert hand.mask is not None
    height, width = background.shape[:2]
    low, size = hand.boxes[0, :2], hand.boxes[0, 2:] - hand.boxes[0, :2]
    zoom = rng.uniform(0.25, 0.75) * min(height, width) / size.max()
    shift = rng.uniform(0, [width, height] - zoom * size) - zoom * low
    # Premultiplied alpha: interpolation at the edge then does not mix in the black beside the hand.
    alpha = hand.mask[..., None].astype(np.float32) / 255
    cutout = np.dstack([hand.image * alpha, alpha])
    matrix = np.column_stack([np.eye(2) * zoom, shift + (zoom - 1) / 2])
    warped = cv2.warpAffine(cutout, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    image = (warped[..., :3] + (1 - warped[..., 3:]) * background).round().astype(np.uint8)
    return Frame(image, (hand.boxes * zoom + np.tile(shift, 2)).astype(np.float32), hand.targets, fingers=hand.fingers)
