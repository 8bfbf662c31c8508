"""Hands rendered by `python -m training.render`: what no set of photographs has. Ours, Apache-2.0."""

from pathlib import Path

import numpy as np

from training.data.frames import BadData, Frame, Frames
from training.render import load


class Rendered(Frames):
    """All 32 ways to raise fingers, both sides, palm and back, ten skin tones; on transparent ground.

    Raises:
        BadData: no shard is in the folder.
    """

    credit = "hands rendered by Handful from the generic-hand mesh of @webxr-input-profiles/assets (MIT)"

    def __init__(self, root: str | Path):
        shards = sorted(Path(root).glob("shard-*.npz"))
        if not shards:
            raise BadData(f"{root}: no rendered hands here. Make some: python -m training.render --out {root}")
        super().__init__(root, shards)
        self.hands = load(root)
        self.groups = [""] * len(self.hands)
        self.validation = np.zeros(len(self.hands), bool)

    def __len__(self) -> int:
        return len(self.hands)

    def frame(self, index: int) -> Frame:
        rgba, truth = self.hands.picture(index), self.hands.truth
        target = int(truth["count"][index]) + 6 * int(truth["right"][index])
        return Frame(rgba[..., :3], truth["box"][index][None], np.array([target]), np.ascontiguousarray(rgba[..., 3]))
