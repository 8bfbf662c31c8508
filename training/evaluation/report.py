"""The results tables of docs/benchmarks.md and the model card, from the metrics files."""

from pathlib import Path

from training.data.registry import HELD_OUT
from training.errors import BadData
from training.evaluation.evaluate import METRICS, read_json
from training.markdown import markdown_table

COLUMNS = {
    "total_accuracy": "Total correct",
    "count_accuracy": "Per-hand count accuracy",
    "side_accuracy": "Side accuracy",
    "recall": "Recall",
    "precision": "Precision",
}
CONDITION_KEYS = ("total_accuracy", "count_accuracy", "recall")


def report(folder: Path = METRICS) -> None:
    """Print the metrics as Markdown tables: held-out sets, corrupted frames, gestures, false alarms, sources left out.

    Totals have their 95% interval, in percent, where `evaluate` wrote one.

    Args:
        folder: the metrics of `python -m training evaluate`, `python -m training leave-out` and
            `python -m benchmarks mediapipe`.

    Raises:
        BadData: there are none, or a file is damaged.
    """
    metrics = {file.stem: read_json(file) for file in folder.glob("*.json")}
    if not metrics:
        raise BadData(f"{folder}: no metrics here. Create them: python -m training evaluate")
    mediapipe = metrics.get("mediapipe", {"modes": [], "sets": {}})
    modes, others = mediapipe["modes"], mediapipe["sets"]
    other_column = [f"MediaPipe, total correct ({' / '.join(modes)})"] if modes else []
    columns = ["Pictures", *COLUMNS.values(), "ECE", *other_column]

    def row(title: str, own: dict, name: str) -> list[str]:
        shares = [total(own), *(percent(own[key]) for key in list(COLUMNS)[1:])]
        cells = [title, f"{own['pictures']:,}", *shares, f"{own['ece']:.3f}"]
        return cells + [mediapipe_cell(own, others.get(name, {}), modes)] * bool(modes)

    rows = [row(metrics[name]["title"], metrics[name], name) for name in HELD_OUT if name in metrics]
    print("\n" + markdown_table(["Held-out set", *columns], rows))
    if conditions := metrics.get("webcam", {}).get("conditions"):
        other_conditions = others.get("webcam-harder", {}).get("conditions", {})
        rows = []
        for own in conditions:
            other = other_conditions.get(own["group"], {})
            cells = [percent(other[mode]["accuracy"] if mode in other else None) for mode in modes]
            rows.append([own["group"], total(own), *(percent(own[key]) for key in CONDITION_KEYS[1:]), *cells])
        mode_columns = [f"MediaPipe, total correct ({mode})" for mode in modes]
        header = ["The webcam frames", *(COLUMNS[key] for key in CONDITION_KEYS), *mode_columns]
        print("\n" + markdown_table(header, rows))
    if hagrid := metrics.get("hagrid"):
        rows = [
            [r["group"], str(r["pictures"]), total(r), percent(r["finger_accuracy"])]
            for r in hagrid["groups"]["gesture"]
        ]
        print("\n" + markdown_table(["HaGRID", "Pictures", "Total correct", "Fingers correct"], rows))
        print(f"\nHaGRID, counting gestures: ECE {hagrid['ece']:.3f}")
    if empty := metrics.get("empty"):
        print(f"\nFalse alarms: {empty['false_alarms']} of {empty['pictures']} pictures without hands.")
        rows = [[r["group"], str(r["pictures"]), str(r["false_alarms"])] for r in empty["groups"]]
        print("\n" + markdown_table(["Pictures without hands", "Pictures", "False alarms"], rows))
    if left_out := metrics.get("leave-one-out"):
        rows = [row(own["title"], own, f"{name}-all") for name, own in left_out["sources"].items()]
        print("\n" + markdown_table(["Source left out", *columns], rows))


def total(own: dict) -> str:
    """Return the share of correct totals, with its 95% interval if that is known: "97.6% (95.1-99.2)"."""
    interval = own.get("total", {}).get("interval")
    return percent(own["total_accuracy"]) + (f" ({100 * interval[0]:.1f}-{100 * interval[1]:.1f})" if interval else "")


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def mediapipe_cell(own: dict, other: dict, modes: list[str]) -> str:
    """Return MediaPipe's accuracies on a set, and on how many of its pictures if not on all."""
    accuracies = " / ".join(percent(other[mode]["accuracy"]) for mode in modes if mode in other)
    if accuracies and other["frames"] != own["pictures"]:
        accuracies += f" of {other['frames']:,}"
    return accuracies or "–"
