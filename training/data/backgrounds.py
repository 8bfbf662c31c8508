"""Background images without hands: what hands are composited onto, and where none may be detected."""

from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np

from training.data import panoramas
from training.data.frames import read_rgb
from training.data.registry import SOURCES, open_source

FRAME_STRIDE = 6  # frames of a session are near duplicates
VALIDATION_STRIDE = 4  # every fourth background image is held out
MAX_WITHOUT_HANDS = 150  # of a source of pictures without hands, evenly spread: rooms are not to be outnumbered


def load_backgrounds(
    folder: Path, validation: bool = False, sources: Collection[str] = ("counting", "webcam")
) -> list[np.ndarray]:
    """Load all backgrounds of the sources that are in the data folder, each (H, W, 3) uint8 RGB.

    These are images that come with a source, frames with the hands inpainted, frames of people without hands, and views
    into panoramas.

    Args:
        folder: the data folder.
        validation: load the part that is held out for validation; panoramas are for training only.
        sources: what to take them from; a training must not take any from a source that it leaves out.
    """
    rows = [source for source in SOURCES.values() if source.name in sources and (folder / source.path).is_dir()]
    images = []
    for source in rows:
        if source.backgrounds:
            files = background_files(folder / source.path, source.backgrounds)
            images += [read_rgb(file) for i, file in enumerate(files) if (i % VALIDATION_STRIDE == 0) == validation]
    for source in rows:
        if source.inpaint:
            frames = open_source(source.name, folder)
            for i in np.flatnonzero(frames.validation == validation)[::FRAME_STRIDE]:
                frame = frames.frame(i)
                images.append(inpaint_hands(frame.image, frame.boxes))
    for source in rows:
        if source.without_hands:
            frames = open_source(source.name, folder)
            index = np.flatnonzero(frames.validation == validation)
            index = index[np.linspace(0, len(index) - 1, min(MAX_WITHOUT_HANDS, len(index))).astype(int)]
            images += [frames.frame(i).image for i in index]
    if not validation:
        images += panoramas.views(folder / "panoramas")
    return images


def background_files(root: Path, pattern: str) -> list[Path]:
    """Return the files below `root` that match, numbered names in order of their numbers."""
    return sorted(root.glob(pattern), key=lambda file: (len(file.stem), file.stem))


def inpaint_hands(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Replace the hands in a frame, (H, W, 3) uint8 RGB with boxes (K, 4), by what surrounds them."""
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
        noise = np.random.default_rng(0).normal(0, 4, image.shape)
        image[mask > 0] = (filled + noise).clip(0, 255).astype(np.uint8)[mask > 0]
    return image
