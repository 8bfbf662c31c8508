"""Data sets with boxes: object detection labels as YOLO text files or CSV tables."""

import csv
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import yaml

from training.data.frames import Frame, FrameDataset, read_rgb
from training.data.registry import Label
from training.errors import BadData

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
Hands = list[tuple[str, np.ndarray]]  # class name and box, (4,) x0, y0, x1, y1 as shares of width and height


class BoxLabelledFrames(FrameDataset):
    """Frames with a box and a class for each hand, and no masks.

    Labels are CSV tables with the columns filename,width,height,class,xmin,ymin,xmax,ymax; without `tables`, they are
    YOLO: class names in data.yaml, and for each …/images/….jpg a file …/labels/….txt, empty for a frame without hands.
    Images without labels are left out: there may be hands in them.

    Args:
        root: the data set.
        labels: label of each class name; None for one that is no hand, or two: frames with it are left out.
        group: return person or session of an image, from its file.
        validation: whether a group is held out for validation.
        tables: the folder of the images of each CSV table, both below `root`.
        exclude: whether an image is left out, from its file; images with doubtful labels, copies and the like are.
        subfolder: folder below `root` that holds the data set.
        aspect: width / height of images that were stretched into squares: square ones are stretched back.

    Raises:
        BadData: no images or labels in `root`, or labels of another form.
    """

    def __init__(
        self,
        root: str | Path,
        labels: Mapping[str, Label | None],
        group: Callable[[Path], str],
        validation: Callable[[str], bool] = lambda group: False,
        tables: Mapping[str, str] | None = None,
        exclude: Callable[[Path], bool] = lambda file: False,
        subfolder: str = "",
        aspect: float = 1,
    ):
        root = Path(root) / subfolder
        if tables is None:
            label_files, hands = read_yolo(root)
        else:
            label_files, hands = read_csv(root, tables)
        self.labels, self.hands, self.aspect = {name: label for name, label in labels.items() if label}, hands, aspect
        if unknown := {name for named in hands.values() for name, _ in named} - set(labels):
            raise BadData(f"{root}: unexpected class {min(unknown)!r}: labels are of {', '.join(labels)}.")
        labelled = [file for file in sorted(hands) if not exclude(file)]
        files = [file for file in labelled if file.exists()]
        if files and (missing := len(labelled) - len(files)):
            warnings.warn(f"{root}: {missing} of {len(labelled)} labelled images are missing.", stacklevel=2)
        files = [file for file in files if all(name in self.labels for name, _ in hands[file])]
        super().__init__(root, files, label_files)
        self.hold_out([group(file) for file in files], validation)

    def frame(self, index: int) -> Frame:
        image, hands = read_rgb(self.files[index]), self.hands[self.files[index]]
        if self.aspect != 1 and image.shape[0] == image.shape[1]:
            image = cv2.resize(
                image, (image.shape[1], round(image.shape[0] / self.aspect)), interpolation=cv2.INTER_AREA
            )
        scale = np.array([image.shape[1], image.shape[0]] * 2, np.float32)
        boxes = np.array([box for _, box in hands], np.float32).reshape(-1, 4) * scale
        labels = [self.labels[name] for name, _ in hands]
        targets = np.array([label.target for label in labels], np.int64)
        return Frame(image, boxes, targets, fingers=np.array([label.fingers for label in labels], np.int64))


def read_yolo(root: Path) -> tuple[list[Path], dict[Path, Hands]]:
    """Read YOLO labels: the label files, and the hands of each image."""
    config, hands = root / "data.yaml", {}
    label_files = sorted(root.rglob("labels/**/*.txt"))
    with label_errors(config):
        names = yaml.safe_load(config.read_text(encoding="utf-8"))["names"]
    for file in label_files:
        with label_errors(file):
            rows = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
            hands[yolo_image(file)] = [(names[int(row[0])], yolo_box(np.array(row[1:], float))) for row in rows]
    return [config, *label_files], hands


def yolo_image(file: Path) -> Path:
    """Return the image of a YOLO label file: …/images/…/x.jpg of …/labels/…/x.txt."""
    parts = list(file.parts)
    parts[len(parts) - 1 - parts[::-1].index("labels")] = "images"
    candidates = [Path(*parts).with_suffix(suffix) for suffix in SUFFIXES]
    return next((image for image in candidates if image.exists()), candidates[0])


def yolo_box(values: np.ndarray) -> np.ndarray:
    """Return the box of centre, width and height (4,), or of the corners of a polygon (2 K,), K > 2."""
    if len(values) == 4:
        return clip_box(values[:2] - values[2:] / 2, values[:2] + values[2:] / 2)
    corners = values.reshape(-1, 2)
    return clip_box(corners.min(0), corners.max(0))


def read_csv(root: Path, tables: Mapping[str, str]) -> tuple[list[Path], dict[Path, Hands]]:
    """Read CSV tables: their files, and the hands of each image."""
    hands: dict[Path, Hands] = {}
    for table, images in tables.items():
        with label_errors(root / table), (root / table).open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                width, height = float(row["width"]), float(row["height"])
                low = np.array([float(row["xmin"]) / width, float(row["ymin"]) / height])
                high = np.array([float(row["xmax"]) / width, float(row["ymax"]) / height])
                hands.setdefault(root / images / row["filename"], []).append((row["class"], clip_box(low, high)))
    return [root / table for table in tables], hands


def clip_box(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the box between two corners, (2,) each, clipped to the image.

    Raises:
        ValueError: nothing is left of it.
    """
    box = np.concatenate([np.minimum(low, high), np.maximum(low, high)]).clip(0, 1)
    if not (box[2:] > box[:2]).all():
        raise ValueError(f"empty box {box.tolist()}")
    return box


@contextmanager
def label_errors(file: Path) -> Generator[None]:
    """Name the file in errors of its labels."""
    try:
        yield
    except FileNotFoundError:
        raise BadData(f"{file}: these labels are missing. Fetch the data set with: python -m training data") from None
    except (LookupError, TypeError, ValueError, ArithmeticError, yaml.YAMLError) as error:
        raise BadData(f"{file}: unexpected labels ({error!r}). Fetch the data set again.") from None
