"""Test whether pictures have changed since a reference: their light, their hands, the model's predictions.

With scipy's tests and a page of our own: Evidently 0.7.23, made for this, cannot be imported beside pandas 3, and would
install 38 packages of 440 MB, a web server and telemetry among them.
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

from handful.cli import find_pictures
from handful.counter import shared_counter
from handful.images import BadImage, decode
from handful.labels import CLASSES, COUNTS, SIDES, encode
from handful.picture_stats import COLUMNS, compute_stats
from training.errors import BadData
from training.files import atomic_write
from training.markdown import markdown_table

FEATURES = {
    "brightness": "mean of grey, 0–255",
    "contrast": "standard deviation of grey",
    "sharpness": "strength of edges, relative to the contrast",
    "hands": "hands in a picture",
    "hand_size": "box of the largest hand, as a fraction of the picture",
    "confidence": "of the largest hand",
}
MIN_EFFECT = 0.1  # smaller differences do not matter: "small" (w of Cohen, 1988), at most a tenth of the pictures
FALSE_ALARM_RATE = 0.01  # of reports on sets that do not differ
BINS = 20


@dataclass(frozen=True)
class Comparison:
    """One feature of two sets of pictures.

    Attributes:
        name: of the feature.
        meaning: what it is.
        typical: its median, or the most common class, in reference and current.
        test: name of the statistic.
        statistic: 0 (same distribution) to 1 (no overlap).
        threshold: the feature has drifted above it. From 1 on, there are too few pictures.
        histogram: (label, share of reference, share of current) of each bin.
    """

    name: str
    meaning: str
    typical: tuple[str, ...]
    test: str
    statistic: float
    threshold: float
    histogram: list[tuple[str, float, float]]

    @property
    def drifted(self) -> bool:
        return self.statistic > self.threshold

    @property
    def verdict(self) -> str:
        return "too few pictures" if self.threshold >= 1 else "drifted" if self.drifted else "no"


def drift(reference: Path, current: Path, output: Path = Path("drift.html"), fail: bool = False) -> None:
    """Test whether pictures differ from a reference, and print a table; the report is a page that works offline.

    Args:
        reference: pictures on which the model works well: a server's summary (HANDFUL_SUMMARY), or a folder, on which
            the model of HANDFUL_MODEL is run.
        current: the pictures to compare, likewise.
        output: the report, an HTML file.
        fail: exit with status 1 if a feature has drifted.

    Raises:
        BadData: one of the two cannot be read, or the report cannot be written.
    """
    sets = [(path, *load_stats(path)) for path in (reference, current)]
    comparisons = compare(*(frame for _, frame, _ in sets))
    drifted = [comparison.name for comparison in comparisons if comparison.drifted]
    verdict = f"{len(drifted)} of {len(comparisons)} drifted" + (": " + ", ".join(drifted) if drifted else "") + "."
    header = ["Feature", "Reference", "Current", "Statistic", "Threshold", "Drifted"]
    rows = [[c.name, *c.typical, f"{c.statistic:.3f}", f"{c.threshold:.3f}", c.verdict] for c in comparisons]
    print(markdown_table(header, rows))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("drift.html").render(
        sets=sets,
        comparisons=comparisons,
        verdict=verdict,
        min_effect=MIN_EFFECT,
        false_alarm_rate=FALSE_ALARM_RATE,
    )
    try:
        with atomic_write(output) as part:
            part.write_text(page, encoding="utf-8")
    except OSError as error:
        raise BadData(f"The report cannot be written to {output}: {error.strerror}") from error
    print(f"{verdict} Report: {output}")
    if fail and drifted:
        sys.exit(1)


def load_stats(path: Path) -> tuple[pd.DataFrame, int]:
    """Return `COLUMNS` of the pictures in a folder, or of a server's summary, and how many could not be read.

    Raises:
        BadData: it is neither, or empty.
    """
    if not path.is_dir():
        dtypes = dict.fromkeys(COLUMNS, float) | {"side": str}
        try:
            frame = pd.read_csv(path, usecols=list(COLUMNS), dtype=dtypes)
        except FileNotFoundError:
            raise BadData(f"No such file or folder: {path}") from None
        except (OSError, ValueError) as error:
            raise BadData(f"{path} is neither a folder of pictures nor a server's summary: {error}") from error
        if frame.empty:
            raise BadData(f"There are no predictions yet in {path}.")
        return frame, 0
    counter, rows, failed = shared_counter(), [], 0
    for file, problem in tqdm(list(find_pictures(path)), str(path), unit=" pictures"):
        try:
            if problem:
                raise BadImage(problem)
            image = decode(file)
            rows.append(compute_stats(image, counter(image)))
        except BadImage as error:
            failed += 1
            tqdm.write(f"{file}: {error}", file=sys.stderr)
    if not rows:
        raise BadData(f"There are no readable pictures in {path}.")
    if failed:
        print(f"{failed} of {failed + len(rows)} pictures could not be read in {path}.", file=sys.stderr)
    return pd.DataFrame(rows, columns=COLUMNS), failed


def compare(reference: pd.DataFrame, current: pd.DataFrame) -> list[Comparison]:
    """Compare each of `FEATURES`, and the distribution of classes.

    Features are compared by the Kolmogorov-Smirnov statistic, classes by Cramér's V. The threshold is `MIN_EFFECT`, or
    higher if so few pictures differ by that much by chance: `FALSE_ALARM_RATE` holds for all comparisons together.
    """
    alpha = FALSE_ALARM_RATE / (len(FEATURES) + 1)  # Bonferroni
    return [
        *(compare_feature(reference[name], current[name], name, alpha) for name in FEATURES),
        compare_classes(reference, current, alpha),
    ]


def compare_feature(reference: pd.Series, current: pd.Series, name: str, alpha: float) -> Comparison:
    """Compare a numeric feature; missing values are left out."""
    a, b = reference.dropna().to_numpy(float), current.dropna().to_numpy(float)
    statistic, threshold = 0.0, math.inf
    if a.size and b.size:
        statistic = float(stats.ks_2samp(a, b, method="asymp").statistic)
        # By the asymptotic distribution: slightly too high, which is safe, for few pictures.
        threshold = max(MIN_EFFECT, stats.kstwobign.isf(alpha) * math.sqrt(1 / a.size + 1 / b.size))
    medians = tuple(f"{np.median(values):.3g}" if values.size else "–" for values in (a, b))
    shares = histogram(a, b, integers=name == "hands")
    return Comparison(
        name.replace("_", " "), FEATURES[name], medians, "Kolmogorov–Smirnov", statistic, threshold, shares
    )


def compare_classes(reference: pd.DataFrame, current: pd.DataFrame, alpha: float) -> Comparison:
    """Compare the classes of the largest hands."""
    counts = np.stack([count_classes(reference), count_classes(current)])
    statistic, threshold = 0.0, math.inf
    if counts.any(1).all():
        table = counts[:, counts.any(0)]
        result = stats.chi2_contingency(table, correction=False)
        # With two rows, Cramér's V is the square root of chi-squared over the number of hands.
        statistic = math.sqrt(result.statistic / table.sum())
        threshold = max(MIN_EFFECT, math.sqrt(stats.chi2.isf(alpha, max(1, result.dof)) / table.sum()))
    typical = tuple(CLASSES[row.argmax()] if row.any() else "–" for row in counts)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    bins = list(zip(CLASSES, *shares.tolist(), strict=True))
    return Comparison("class", "count and side of the largest hand", typical, "Cramér’s V", statistic, threshold, bins)


def count_classes(frame: pd.DataFrame) -> np.ndarray:
    """Return how many of the largest hands have each of `CLASSES`: (12,) int."""
    hands = frame[frame["fingers"].isin(COUNTS) & frame["side"].isin(SIDES)]
    classes = [encode(int(count), side) for count, side in zip(hands["fingers"], hands["side"], strict=True)]
    return np.bincount(np.array(classes, int), minlength=len(CLASSES))


def histogram(reference: np.ndarray, current: np.ndarray, integers: bool) -> list[tuple[str, float, float]]:
    """Return the lower edge of each bin, and its shares of two sets of values; one bin a number for integers."""
    both = np.concatenate([reference, current])
    if not both.size:
        return []
    low, high = np.percentile(both, (0.5, 99.5))  # outliers are counted in the first and last bins
    edges = np.arange(both.max() + 2) if integers else np.linspace(low, high, BINS + 1)
    clipped = (values.clip(edges[0], edges[-1]) for values in (reference, current))
    shares = [np.histogram(values, edges)[0] / max(1, values.size) for values in clipped]
    return [(f"{edge:.3g}", a, b) for edge, a, b in zip(edges[:-1], *shares, strict=True)]
