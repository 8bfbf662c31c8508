"""The tables of README and model card, from what was measured."""

from pathlib import Path

from benchmarks.mediapipe import MODES
from training.errors import BadData
from training.evaluation.evaluate import METRICS, TITLES, written
from training.markdown import markdown_table

COLUMNS = ("Pictures", "Total right", "Count of a hand", "Side", "Hands found", "Truly hands", "ECE")
MEDIAPIPE = f"MediaPipe, total right ({' / '.join(MODES)})"


def report(folder: Path = METRICS) -> None:
    """Print the measures as Markdown: held-out sets, harder conditions, places without hands, sources left out.

    Args:
        folder: the measures, as `python -m training evaluate`, `python -m training leave-out` and
            `python -m benchmarks mediapipe` leave them.

    Raises:
        BadData: there are none, or some are damaged.
    """
    measured = {file.stem: written(file) for file in folder.glob("*.json")}
    if not measured:
        raise BadData(f"{folder}: nothing was measured here. Measure: python -m training evaluate")
    theirs = measured.get("mediapipe", {"sets": {}})["sets"]

    def shares(one: dict, name: str) -> list[str]:
        keys = ("total_accuracy", "fingers_accuracy", "side_accuracy", "recall", "precision")
        other = theirs.get(name, {})
        modes = " / ".join(f"{other[mode]['accuracy']:.1%}" for mode in MODES if mode in other)
        if modes and other["frames"] != one["pictures"]:
            modes += f" of {other['frames']:,}"
        told = ["–" if one[key] is None else f"{one[key]:.1%}" for key in keys]
        return [f"{one['pictures']:,}", *told, f"{one['ece']:.3f}", modes or "–"]

    rows = [[measured[name]["title"], *shares(measured[name], name)] for name in TITLES if name in measured]
    print("\n" + markdown_table(["Held-out set", *COLUMNS, MEDIAPIPE], rows))
    if conditions := measured.get("webcam", {}).get("conditions"):
        harder = theirs.get("webcam-harder", {}).get("conditions", {})
        rows = []
        for row in conditions:
            ours = [f"{row[key]:.1%}" for key in ("total", "count", "found")]
            other = harder.get(row["group"], {})
            rows.append([row["group"], *ours, *(f"{other[m]['accuracy']:.1%}" if m in other else "–" for m in MODES)])
        columns = ("Total right", "Count of a hand", "Hands found", *(f"MediaPipe, total right ({m})" for m in MODES))
        print("\n" + markdown_table(["The webcam frames", *columns], rows))
    if empty := measured.get("empty"):
        print(f"\nIn {empty['pictures']} places without hands, a hand was seen in {empty['with_hands']}.")
    if left_out := measured.get("leave-one-out"):
        rows = [[one["title"], *shares(one, f"{name}-all")] for name, one in left_out["sources"].items()]
        print("\n" + markdown_table(["Source left out", *COLUMNS, MEDIAPIPE], rows))
