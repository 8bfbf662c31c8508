"""Boxes for data sets that have none: found by an exported model, with the label of each picture to hold it to.

The tables are part of the code (training/data/lists): everyone trains on the same boxes, and can look at them before.
"""

import csv
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from handful import MODEL
from handful.labels import COUNTS, marginal_over_sides
from training.data.frames import read_rgb
from training.errors import BadData
from training.export.export import load_cascade
from training.files import atomic_write

LEAST_SCORE = 0.15  # from which on a hand is a candidate: the label decides among them
COLUMNS = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")


def box(
    root: Path,
    pattern: str,
    counts: dict[str, int],
    output: Path,
    stride: int = 1,
    excluded: Path | None = None,
    least: float = 0.4,
    model: Path = MODEL,
) -> None:
    """Write a table with the box of the hand in each picture that shows one, for `BoxLabelledFrames`.

    Of the hands that the model finds, even with a low score, the one that most likely has the labelled count is taken:
    hands at rest are not. A picture without one is left out.

    Args:
        root: the data set.
        pattern: glob pattern of its pictures; the folder of each is its class.
        counts: raised fingers of each class; pictures of other classes are not read.
        output: the table, as CSV.
        stride: use every n-th picture of a class, in the order of their names.
        excluded: a file with the names of pictures that are not used, one a line.
        least: score times the probability of the labelled count, from which on a hand is taken.
        model: the ONNX file.

    Raises:
        BadData: no pictures.
    """
    names = set(excluded.read_text(encoding="utf-8").split()) if excluded else set()
    files = []
    for name in counts:
        own = [file for file in sorted(root.glob(pattern)) if file.parent.name == name and file.name not in names]
        files += own[::stride]
    if not files:
        raise BadData(f"{root}: no pictures match {pattern} in the folders {', '.join(counts)}.")
    torch.set_num_threads(1)  # for single frames, more of them wait for each other
    cascade = load_cascade(model, threshold=LEAST_SCORE, other_threshold=LEAST_SCORE, beside_threshold=LEAST_SCORE)
    rows, missed = [], 0
    for file in tqdm(files, "Boxes", unit=" pictures"):
        image = read_rgb(file)
        boxes, _, scores, probabilities, *_ = cascade(torch.from_numpy(np.ascontiguousarray(image)))
        likely = scores * marginal_over_sides(probabilities)[:, COUNTS.index(counts[file.parent.name])]
        if not len(likely) or likely.max() < least:
            missed += 1
            continue
        best = boxes[likely.argmax()].round().int().tolist()
        name = file.relative_to(root).as_posix()
        rows.append((name, image.shape[1], image.shape[0], file.parent.name, *best))
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as part, part.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out, lineterminator="\n").writerows([COLUMNS, *rows])
    print(f"{output}: {len(rows)} boxes; no hand with the labelled count in {missed} pictures")
