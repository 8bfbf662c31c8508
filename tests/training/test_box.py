"""Boxes for data sets that have none."""

import csv

import numpy as np
import pytest

from handful import FingerCounter
from handful.images import decode
from tests.builders import SAMPLES, write_image
from training.data.box import COLUMNS, box
from training.errors import BadData


def test_the_hand_with_the_labelled_count_is_boxed(tmp_path):
    three, fist = decode(SAMPLES / "3L_0.jpg"), decode(SAMPLES / "0L_0.jpg")
    both = np.hstack([three, fist])  # one shows the number, the other is at rest
    for name, image in {"three/1": both, "three/2": three, "three/3": three, "fist/1": both, "five/1": both}.items():
        write_image(tmp_path / f"hands/{name}.jpg", image)
    write_image(tmp_path / "hands/three/4.jpg", np.full((100, 100, 3), 128, np.uint8))
    (tmp_path / "excluded.txt").write_text("2.jpg\n")
    table = tmp_path / "lists/boxes.csv"
    box(tmp_path, "hands/*/*.jpg", {"three": 3, "fist": 0}, table, excluded=tmp_path / "excluded.txt")
    header, *rows = csv.reader(table.open())
    assert tuple(header) == COLUMNS
    assert [row[0] for row in rows] == ["hands/three/1.jpg", "hands/three/3.jpg", "hands/fist/1.jpg"]
    left, right = FingerCounter()(both).hands
    for row, hand in zip(rows, (left, left, right), strict=True):
        if row[0] != "hands/three/3.jpg":
            assert list(map(int, row[4:])) == pytest.approx(hand.box, abs=3)


def test_a_stride_and_missing_pictures(tmp_path):
    for k in range(4):
        write_image(tmp_path / f"three/{k}.jpg", decode(SAMPLES / "3L_0.jpg"))
    box(tmp_path, "*/*.jpg", {"three": 3}, tmp_path / "boxes.csv", stride=3)
    assert [row[0] for row in csv.reader((tmp_path / "boxes.csv").open())][1:] == ["three/0.jpg", "three/3.jpg"]
    with pytest.raises(BadData, match="no pictures match"):
        box(tmp_path, "*.png", {"three": 3}, tmp_path / "boxes.csv")
