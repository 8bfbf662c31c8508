"""Whether the pictures of now are like those of before: their light, their hands, and what is read in them.

With scipy's tests and a page of our own. Evidently 0.7.23, made for this, cannot be imported beside pandas 3, and would
bring 38 packages of 440 MB, a web server and telemetry among them.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from scipy import stats
from tqdm import tqdm

from handful import CLASSES, shared_counter
from handful.cli import find_pictures
from handful.images import BadImage, decode
from handful.picture_stats import COLUMNS, compute_stats
from training.errors import BadData
from training.markdown import markdown_table

NUMBERS = {
    "brightness": "mean of grey, 0–255",
    "contrast": "standard deviation of grey",
    "sharpness": "strength of edges, as a share of the contrast",
    "hands": "in a picture",
    "hand_size": "largest hand's box, as a share of the picture",
    "confidence": "in the largest hand",
}
SMALL = 0.1  # smaller differences do not matter: a tenth of the pictures at most is another (w of Cohen, 1988: "small")
FALSE_ALARM = 0.01  # of reports on sets that do not differ, at most so many tell of drift
BINS = 20


@dataclass(frozen=True)
class Comparison:
    """One number of two sets of pictures.

    Attributes:
        name: of the number, and `meaning`, what it is.
        typical: the median, or the commonest class, of reference and current.
        test: what `statistic` is, 0 (alike) to 1 (nothing in common).
        threshold: where drift begins. Past 1 there are too few pictures to tell.
        bars: the shares of pictures in each bin, (label, reference, current).
    """

    name: str
    meaning: str
    typical: tuple[str, ...]
    test: str
    statistic: float
    threshold: float
    bars: list[tuple[str, float, float]]

    @property
    def drifted(self) -> bool:
        return self.statistic > self.threshold

    @property
    def verdict(self) -> str:
        return "too few to tell" if self.threshold >= 1 else "drifted" if self.drifted else "no"


def drift(reference: Path, current: Path, output: Path = Path("drift.html"), fail: bool = False) -> None:
    """Tell whether the pictures of now are like those of before, as a table and as a page that needs no network.

    Args:
        reference: pictures that are read as well as they should be: a server's summary (HANDFUL_SUMMARY), or a folder,
            which is read as a server reads, with the model that HANDFUL_MODEL names.
        current: the pictures in question: the same.
        output: the page.
        fail: end with status 1 where something drifted.
    """
    sets = [(path, *summarize(path)) for path in (reference, current)]
    compared = compare(*(frame for _, frame, _ in sets))
    drifted = [one.name for one in compared if one.drifted]
    verdict = f"{len(drifted)} of {len(compared)} drifted" + (": " + ", ".join(drifted) if drifted else "") + "."
    header = ["Number", "Reference", "Current", "Statistic", "Threshold", "Drifted"]
    rows = [[one.name, *one.typical, f"{one.statistic:.3f}", f"{one.threshold:.3f}", one.verdict] for one in compared]
    print(markdown_table(header, rows))
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    ).get_template("drift.html")
    told = page.render(sets=sets, compared=compared, verdict=verdict, small=SMALL, false_alarm=FALSE_ALARM)
    try:
        output.write_text(told, encoding="utf-8")
    except OSError as error:
        raise BadData(f"The report cannot be written to {output}: {error.strerror}") from error
    print(f"{verdict} Report: {output}")
    if fail and drifted:
        sys.exit(1)


def summarize(path: Path) -> tuple[pd.DataFrame, int]:
    """What a folder's pictures, or the rows of a server's summary, are: `COLUMNS`, and how many could not be read.

    Raises:
        BadData: there is nothing of either kind.
    """
    if not path.is_dir():
        kinds = dict.fromkeys(COLUMNS, float) | {"side": str}
        try:
            frame = pd.read_csv(path, usecols=list(COLUMNS), dtype=kinds)
        except FileNotFoundError:
            raise BadData(f"No such file or folder: {path}") from None
        except (OSError, ValueError) as error:
            raise BadData(f"{path} is neither a folder of pictures nor a server's summary: {error}") from error
        if frame.empty:
            raise BadData(f"There is no reading yet in {path}.")
        return frame, 0
    counter, rows, refused = shared_counter(), [], 0
    for file, problem in tqdm(list(find_pictures(path)), f"Reading {path}", unit=" pictures"):
        try:
            if problem:
                raise BadImage(problem)
            image = decode(file)
            rows.append(compute_stats(image, counter(image)))
        except BadImage as error:
            refused += 1
            tqdm.write(f"{file}: {error}", file=sys.stderr)
    if not rows:
        raise BadData(f"There is no picture to compare in {path}.")
    if refused:
        print(f"{refused} of {refused + len(rows)} could not be read in {path}.", file=sys.stderr)
    return pd.DataFrame(rows, columns=COLUMNS), refused


def compare(reference: pd.DataFrame, current: pd.DataFrame) -> list[Comparison]:
    """Each of `NUMBERS`, and the mix of classes.

    Numbers are compared by the Kolmogorov-Smirnov statistic, the mix by Cramér's V. Drift begins at `SMALL`, or higher,
    where so few pictures differ by as much by chance: `FALSE_ALARM` is of all comparisons together.
    """
    alpha = FALSE_ALARM / (len(NUMBERS) + 1)  # Bonferroni
    compared = []
    for column, meaning in NUMBERS.items():
        one, other = (frame[column].dropna().to_numpy(float) for frame in (reference, current))
        statistic, threshold = 0.0, math.inf
        if one.size and other.size:
            statistic = float(stats.ks_2samp(one, other, method="asymp").statistic)
            # By its asymptotic distribution: a little too high for few pictures, which is the safe side.
            threshold = max(SMALL, stats.kstwobign.isf(alpha) * math.sqrt(1 / one.size + 1 / other.size))
        medians = tuple(f"{np.median(values):.3g}" if values.size else "–" for values in (one, other))
        shares = bars(one, other, whole=column == "hands")
        name = column.replace("_", " ")
        compared.append(Comparison(name, meaning, medians, "Kolmogorov–Smirnov", statistic, threshold, shares))

    one, other = (count_classes(frame) for frame in (reference, current))
    statistic, threshold = 0.0, math.inf
    if one.any() and other.any():
        there = np.stack([one, other])[:, (one + other) > 0]
        found = stats.chi2_contingency(there, correction=False)
        # Of two rows, Cramér's V is the root of chi-squared over the number of hands.
        statistic = math.sqrt(found.statistic / there.sum())
        threshold = max(SMALL, math.sqrt(stats.chi2.isf(alpha, max(1, found.dof)) / there.sum()))
    most = tuple(CLASSES[counts.argmax()] if counts.any() else "–" for counts in (one, other))
    shares = list(zip(CLASSES, *((counts / max(1, counts.sum())).tolist() for counts in (one, other)), strict=True))
    meaning = "fingers and side of the largest hand"
    return [*compared, Comparison("class", meaning, most, "Cramér’s V", statistic, threshold, shares)]


def count_classes(frame: pd.DataFrame) -> np.ndarray:
    """How many largest hands are of each of `CLASSES`: (12,) int."""
    hands = frame[frame["fingers"].between(0, 5)]
    return np.bincount((hands["fingers"] + 6 * (hands["side"] == "right")).astype(int), minlength=len(CLASSES))


def bars(one: np.ndarray, other: np.ndarray, whole: bool) -> list[tuple[str, float, float]]:
    """Histograms of two sets of numbers: the lower end of each bin, and the shares in it."""
    both = np.concatenate([one, other])
    if not both.size:
        return []
    low, high = np.percentile(both, (0.5, 99.5))  # the few that are further out are counted in the last bins
    edges = np.arange(both.max() + 2) if whole else np.linspace(low, high, BINS + 1)
    shares = [np.histogram(values.clip(edges[0], edges[-1]), edges)[0] / max(1, values.size) for values in (one, other)]
    return [(f"{start:.3g}", then, now) for start, then, now in zip(edges[:-1], *shares, strict=True)]
