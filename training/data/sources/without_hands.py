"""Pictures without any hand: faces, people before a webcam. What is taken for a hand there teaches both networks."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from handful.labels import NO_HAND
from training.data.frames import Frame, FrameDataset, read_rgb

# Of squares at random, as shares of the shorter side: an ear, a mouth, a whole face.
SQUARE_SIDES = (0.25, 0.9)


class WithoutHands(FrameDataset):
    """Frames whose boxes are no hands, with the target `NO_HAND`: what a model took for one, and two random squares.

    The former are in `mined_table(root)`, which `python -m training mine` writes. The detector learns from the frame
    as a whole, the classifier from crops of the boxes.

    Args:
        root: the data set.
        pattern: glob pattern of the images.
        group: return person or session of an image, from its file.
        validation: whether a group is held out for validation.
        exclude: whether an image is left out, from its file, as there is a hand in it after all.

    Raises:
        BadData: no images in `root`.
    """

    def __init__(
        self,
        root: str | Path,
        pattern: str,
        group: Callable[[Path], str],
        validation: Callable[[str], bool],
        exclude: Callable[[Path], bool],
    ):
        root = Path(root)
        files = sorted(file for file in root.glob(pattern) if not exclude(file))
        table = mined_table(root)
        super().__init__(root, files, [table] if table.exists() else [])
        self.hold_out([group(file) for file in files], validation)
        self.mined = read_mined(table) if table.exists() else {}

    def frame(self, index: int) -> Frame:
        file = self.files[index]
        image, rng = read_rgb(file), np.random.default_rng(index)
        height, width = image.shape[:2]
        sides = rng.uniform(*SQUARE_SIDES, (2, 1)) * min(height, width)
        corners = rng.uniform(0, 1, (2, 2)) * ([width, height] - sides)
        squares = np.concatenate([corners, corners + sides], 1)
        boxes = np.array([*self.mined.get(file.relative_to(self.root).as_posix(), []), *squares], np.float32)
        return Frame(image, boxes, np.full(len(boxes), NO_HAND))


def mined_table(root: Path) -> Path:
    """Return the table of what a model takes for hands in a data set: data/mined/NAME.csv for data/people/NAME."""
    return root.parents[1] / "mined" / f"{root.name}.csv"


def read_mined(table: Path) -> dict[str, list[list[float]]]:
    """Read boxes, x0, y0, x1, y1 in pixels, by the file's path in the data set."""
    boxes: dict[str, list[list[float]]] = {}
    with table.open(newline="", encoding="utf-8") as lines:
        for name, *box in csv.reader(lines):
            boxes.setdefault(name, []).append([float(value) for value in box])
    return boxes
