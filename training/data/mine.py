"""Hard negatives: what a model takes for a hand in pictures without one, for the next training."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from handful import MODEL, FingerCounter
from training.data.registry import SOURCES, open_source
from training.data.sources.without_hands import mined_table, read_mined
from training.errors import BadData
from training.export.export import export, stored_config
from training.files import atomic_write

# Scores from which on a candidate is mined: far below the threshold of a hand, as the next model may rate it higher.
LEAST_SCORE = 0.2


def mine(folder: Path = Path("data"), model: Path = MODEL, runs: Path = Path("runs/mine")) -> None:
    """Run a model on all pictures without hands, and add what it takes for hands to the tables of earlier runs.

    Pictures that are held out for validation are not used.

    Args:
        folder: the data sets, as `python -m training data` fetches them.
        model: the ONNX file.
        runs: folder for a copy of the model with low thresholds.

    Raises:
        BadModel: `model` is not a model of Handful.
        BadData: no pictures without hands are there.
    """
    runs.mkdir(parents=True, exist_ok=True)
    config, eager = runs / "cascade.yaml", runs / "handful.onnx"
    replace(stored_config(model), threshold=LEAST_SCORE, other_threshold=LEAST_SCORE).save(config)
    export(model, model, config, eager)
    counter, found = FingerCounter(eager), False
    for name, source in SOURCES.items():
        if not source.without_hands:
            continue
        try:
            frames = open_source(name, folder)
        except BadData as error:
            print(f"{name}: skipped. {error}")
            continue
        found = True
        table = mined_table(folder / source.path)
        boxes = read_mined(table) if table.exists() else {}
        for i in tqdm(np.flatnonzero(~frames.validation), name, unit=" pictures"):
            key = frames.path(i).relative_to(folder / source.path).as_posix()
            known = boxes.get(key, [])
            new = [[float(round(x)) for x in hand.box] for hand in counter(frames.frame(i).image).hands]
            if merged := [*known, *(box for box in new if box not in known)]:
                boxes[key] = merged
        table.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(table) as part, part.open("w", newline="", encoding="utf-8") as out:
            csv.writer(out, lineterminator="\n").writerows(
                [key, *map(round, box)] for key in boxes for box in boxes[key]
            )
        print(f"{table}: {sum(map(len, boxes.values()))} boxes in {len(boxes)} of {len(frames)} pictures")
    if not found:
        raise BadData(f"{folder}: no pictures without hands here. Fetch some: python -m training data")
