"""Data sets with a folder per class and one hand an image, before a plain background."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from training.data.frames import Frame, FrameDataset, read_rgb
from training.data.masks import one_hand_frame, segment_light_wall
from training.data.registry import Label


class OneHandFolder(FrameDataset):
    """One hand an image, its class the name of its folder; mask and box are segmented.

    Args:
        root: the data set.
        pattern: glob pattern of the images below `root`, {} for the class name: "images/{}/*.jpg".
        labels: label of each class name; other folders are not read.
        group: return person or session of an image, from its file and its position among the sorted files of its class.
        validation: whether a group is held out for validation.
        relabel: class name of single images, by file name, that are in the wrong folder.

    Raises:
        BadData: no images in `root`.
    """

    def __init__(
        self,
        root: str | Path,
        pattern: str,
        labels: Mapping[str, Label],
        group: Callable[[Path, int], str],
        validation: Callable[[str], bool] = lambda group: False,
        relabel: Mapping[str, str] | None = None,
    ):
        folders = {name: sorted(Path(root).glob(pattern.format(name))) for name in labels}
        super().__init__(root, [file for files in folders.values() for file in files])
        self.labels = labels
        names = [(relabel or {}).get(file.name, name) for name, files in folders.items() for file in files]
        self.image_labels = [labels[name] for name in names]
        self.hold_out([group(file, k) for files in folders.values() for k, file in enumerate(files)], validation)

    def frame(self, index: int) -> Frame:
        image = read_rgb(self.files[index])
        mask, skin = self.segment(image)
        return one_hand_frame(image, mask, self.image_labels[index], skin)

    def segment(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the mask of hand, forearm and sleeve, and that of bare skin if it differs: (H, W) uint8 each."""
        return segment_light_wall(image), None
