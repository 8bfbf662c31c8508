"""Places without hands: what hands are put into, and what must not be taken for one."""

from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np

from training.data import panoramas
from training.data.frames import FrameDataset, read_rgb
from training.data.sources.finger_counting import rooms
from training.data.sources.hands_dataset import HandsDataset
from training.data.sources.own_hand import OwnHand

EVERY = 6  # frames of a session are much alike: one in so many is enough


def places(
    folder: Path, validation: bool = False, sources: Collection[str] = ("counting", "webcam")
) -> list[np.ndarray]:
    """Rooms, views and webcam frames whose hands are covered, each (H, W, 3) uint8 RGB; from the sets that are there.

    Args:
        folder: the data folder.
        validation: frames of the sessions kept for validation, and every fourth room, instead of the others and of
            the views into panoramas.
        sources: what may be taken from; a source that a training leaves out gives it no places either.
    """
    found = []
    counting, webcam = folder / "people/Human-Robot_Finger-Counting_Dataset", folder / "people/HandsDataset"
    if "counting" in sources and counting.is_dir():
        found += [read_rgb(file) for i, file in enumerate(rooms(counting)) if (i % 4 == 0) == validation]
    people: list[FrameDataset] = [HandsDataset(webcam)] if "webcam" in sources and webcam.is_dir() else []
    if "own" in sources:
        people.append(OwnHand(folder / "own"))
    for frames in people:
        for i in np.flatnonzero(frames.validation == validation)[::EVERY]:
            frame = frames.frame(i)
            found.append(without_hands(frame.image, frame.boxes))
    if not validation:
        found += panoramas.views(folder / "panoramas")
    return found


def without_hands(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """A frame whose hands are covered by what surrounds them: a place that has people in it, but no hand."""
    image = image.copy()
    for x0, y0, x1, y1 in boxes:
        w, h = x1 - x0, y1 - y0
        x0, y0 = max(0, int(x0 - 0.15 * w)), max(0, int(y0 - 0.15 * h))
        x1, y1 = min(image.shape[1], int(x1 + 0.15 * w)), min(image.shape[0], int(y1 + 0.3 * h))
        mask = np.zeros(image.shape[:2], np.uint8)
        mask[y0:y1, x0:x1] = 255
        small = cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        small_mask = cv2.resize(mask, small.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        filled = cv2.resize(cv2.inpaint(small, small_mask, 5, cv2.INPAINT_TELEA), image.shape[1::-1])
        grain = np.random.default_rng(0).normal(0, 4, image.shape)
        image[mask > 0] = (filled + grain).clip(0, 255).astype(np.uint8)[mask > 0]
    return image
