"""Hard negatives: what a model takes for a hand in pictures without one, for the next training."""

import csv
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from handful import MODEL
from training.data.registry import SOURCES, open_without_hands
from training.data.sources.without_hands import mined_table, read_mined
from training.errors import BadData
from training.export.export import load_cascade
from training.files import atomic_write

# Score from which on a candidate is mined: far below the threshold of a hand, as the next model may rate it higher.
LEAST_SCORE = 0.2


def mine(folder: Path = Path("data"), model: Path = MODEL) -> None:
    """Run a model on all pictures without hands, and add what it takes for hands to the tables of earlier runs.

    Pictures that are held out for validation are not used.

    Args:
        folder: the data sets, as `python -m training data` fetches them.
        model: the ONNX file.

    Raises:
        BadModel: `model` is not a model of Handful.
        BadData: no pictures without hands are there.
    """
    torch.set_num_threads(1)  # for single frames, more of them wait for each other
    cascade = load_cascade(model, threshold=LEAST_SCORE, other_threshold=LEAST_SCORE, beside_threshold=LEAST_SCORE)
    sources = open_without_hands(folder)
    if not sources:
        raise BadData(f"{folder}: no pictures without hands here. Fetch some: python -m training data")
    for name, frames in sources.items():
        root = folder / SOURCES[name].path
        table = mined_table(root)
        mined = read_mined(table) if table.exists() else {}
        for i in tqdm(np.flatnonzero(~frames.validation).tolist(), name, unit=" pictures"):
            boxes, *_ = cascade(torch.from_numpy(np.ascontiguousarray(frames.frame(i).image)))
            key = frames.path(i).relative_to(root).as_posix()
            known = mined.get(key, [])
            if merged := known + [box for box in boxes.round().tolist() if box not in known]:
                mined[key] = merged
        table.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(table) as part, part.open("w", newline="", encoding="utf-8") as out:
            csv.writer(out, lineterminator="\n").writerows(
                [key, *map(round, box)] for key, boxes in mined.items() for box in boxes
            )
        print(f"{table}: {sum(map(len, mined.values()))} boxes in {len(mined)} of {len(frames)} pictures")
