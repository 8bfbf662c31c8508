"""HandsDataset: frames of a webcam, a man who shows 0-5 fingers of one or two hands, his face in view.

    <folder>/images/{train,test}/<session>_pic<number>.jpg
    <folder>/data/{train,test}_labels.csv     filename,width,height,class,xmin,ymin,xmax,ymax

Source: github.com/SubhiH/HandsDataset, by SubhiH Apache-2.0.
"""

import csv
import warnings
from pathlib import Path

import numpy as np

from handful.labels import SIDE_UNKNOWN
from training.data.frames import Frame, FrameDataset, fetch_archive, read_rgb
from training.errors import BadData

REPOSITORY = "SubhiH/HandsDataset"
COMMIT = "1841136c67a4a796f9b21a16bd21f723e69755a7"
SPLITS = ("train", "test")
# Recording sessions kept for validation: rooms and light that training does not see.
VALIDATION = ("5_", "26_", "35_", "pic")


class HandsDataset(FrameDataset):
    """HandsDataset: frames with one or two hands, 0-5 fingers each, boxes around hands. No masks.

    The side is not told. Both published splits are used and split anew by recording session: theirs
    puts neighbouring frames of one session on both sides. Pictures that the lists do not name are
    left out: nobody said that there is no hand in them. So are a dozen single photos on white (Hand_…):
    they seem to come from the set 11k Hands, which is for academic use only.

    >>> pictures = HandsDataset("data/webcam")
    >>> frame = pictures[0]
    >>> frame.image.shape, frame.boxes.shape, frame.targets - SIDELESS
    ((600, 800, 3), (1, 4), array([4]))

    Raises:
        BadData: no pictures or labels in `root`, a label of another form, or a picture that cannot be read.
    """

    credit = "HandsDataset by SubhiH, github.com/SubhiH/HandsDataset (Apache-2.0)"

    def __init__(self, root: str | Path):
        # Boxes as shares of the picture's width and height: copies of the set come in other sizes.
        self.labels: dict[Path, list[tuple[int, list[float]]]] = {}
        for split in SPLITS:
            for file, fingers, box in read_labels(Path(root), split):
                self.labels.setdefault(file, []).append((fingers, box))
        labelled = sorted(file for file in self.labels if not file.name.startswith("Hand_"))
        files = [file for file in labelled if file.exists()]
        if missing := len(labelled) - len(files):
            warnings.warn(f"{root}: {missing} of {len(labelled)} pictures with labels are not there.", stacklevel=2)
        super().__init__(root, files, [table(Path(root), split) for split in SPLITS])
        self.groups = [session(file.name) for file in self.files]
        self.validation = np.array([group in VALIDATION for group in self.groups])

    def frame(self, index: int) -> Frame:
        image = read_rgb(self.files[index])
        fingers, boxes = zip(*self.labels[self.files[index]], strict=True)
        scale = np.array([image.shape[1], image.shape[0]] * 2, np.float32)
        return Frame(image, np.array(boxes, np.float32) * scale, SIDE_UNKNOWN + np.array(fingers))


def session(name: str) -> str:
    """The recording session of a picture: its name up to "pic". Single photos are sessions of their own."""
    if name.startswith("pic"):
        return "pic"
    return name.partition("pic")[0] if "pic" in name else Path(name).stem


def table(root: Path, split: str) -> Path:
    """The labels of a split."""
    return root / "data" / f"{split}_labels.csv"


def read_labels(root: Path, split: str) -> list[tuple[Path, int, list[float]]]:
    """One split's hands: the picture, the fingers, and the box as shares of the picture (x0, y0, x1, y1)."""
    file, hands = table(root, split), []
    try:
        with file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                width, height = float(row["width"]), float(row["height"])
                x0, x1 = sorted(min(max(float(row[k]) / width, 0), 1) for k in ("xmin", "xmax"))
                y0, y1 = sorted(min(max(float(row[k]) / height, 0), 1) for k in ("ymin", "ymax"))
                fingers = int(row["class"].removesuffix("-hand"))
                if fingers not in range(6) or x0 == x1 or y0 == y1:
                    raise ValueError(row)
                hands.append((root / "images" / split / row["filename"], fingers, [x0, y0, x1, y1]))
    except FileNotFoundError:
        raise BadData(f"{file}: this list of labels is missing. Fetch the set, or name its folder.") from None
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise BadData(f"{file}: not labels of HandsDataset ({error!r}). Fetch the set again.") from None
    return hands


def fetch(folder: Path) -> None:
    """Download pictures and labels, at a set commit, into `folder`.

    Raises:
        BadData: no network, no room, or a broken archive; the text says what to do.
    """
    wanted = tuple(f"images/{split}/" for split in SPLITS)
    fetch_archive(
        REPOSITORY,
        COMMIT,
        folder,
        lambda path: path.endswith("_labels.csv") or (path.startswith(wanted) and path.endswith(".jpg")),
    )
