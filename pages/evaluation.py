"""Evaluation page: metrics of the model on data that it was not trained on."""

import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import altair as alt
import pandas as pd
import streamlit as st

from handful import CLASSES, COUNTS, MODEL, SIDES, shared_counter
from handful.labels import decode, describe
from web.widgets import DATA, PRIMARY_COLOR, label_from_name, open_prediction, show_gallery

METRICS = MODEL.parent / "metrics"
MAX_THUMBNAILS = 12
MEDIAPIPE_COLOR = "#9a9a9a"
LEARNED_COLOR = "#b59a6a"
SELECTED_COLOR = "#f0904d"
GRID_COLOR = "#80808040"
COLUMNS = {
    "count_accuracy": "Count",
    "side_accuracy": "Side",
    "recall": "Recall",
    "precision": "Precision",
}
GROUP_METRICS = {"count_accuracy": "Count accuracy", "side_accuracy": "Side accuracy", "recall": "Recall"}


class ConfusionView(NamedTuple):
    """A confusion matrix: counts with a row per label and a column per prediction."""

    matrix: list[list[int]]
    labels: list[str]
    label_of: Callable[[str], str]  # from a class, such as "3L", to one of `labels`


Cell = tuple[str, str]  # label, predicted


def show_page() -> None:
    st.title("Evaluation")
    metrics = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in METRICS.glob("*.json")}
    sets = {name: metrics[name] for name in metrics.get("summary", {}) if name in metrics}  # in its order
    if not sets:
        st.info("There are no metrics yet. `make evaluate` or `python -m training evaluate` creates them.")
        return
    mediapipe = metrics.get("mediapipe", {"modes": [], "sets": {}})
    show_overview(sets, metrics.get("empty"), mediapipe)
    if conditions := metrics.get("webcam", {}).get("conditions"):
        st.header("Harder conditions")
        st.write(
            f"The same {conditions[0]['pictures']:,} webcam frames, changed to look as if taken from farther away, in "
            "other light, out of focus, or sent over a slow connection. Share of pictures with the correct total:"
        )
        show_conditions(conditions, mediapipe)
    if hagrid := metrics.get("hagrid"):
        show_gestures(hagrid["groups"]["gesture"], mediapipe)
    if left_out := metrics.get("leave-one-out"):
        show_leave_one_out(left_out["sources"], mediapipe)

    st.header("Details of one set")
    name = st.selectbox("Evaluated on", sets, format_func=lambda name: sets[name]["title"])
    chosen = sets[name]
    if chosen["model"]["sha256"] != shared_counter().sha256:
        st.info("The running model is not the one that was evaluated.", icon=":material/swap_horiz:")
    show_metrics(chosen)
    if groups := chosen.get("groups"):
        show_groups(groups)
    show_confusion(chosen)
    show_classes(chosen)
    st.header("Most confident errors")
    if chosen["errors"]:
        show_errors(chosen["errors"][:MAX_THUMBNAILS], "confident")
    else:
        st.success("There are no errors in this set.")
    with st.expander("Model and evaluation"):
        show_provenance(chosen)


def percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{share:.{digits}%}"


def best_mode(results: dict, modes: Sequence[str]) -> float | None:
    """Return the accuracy of MediaPipe's better mode, if it was run on this set."""
    return max((results[mode]["accuracy"] for mode in modes if mode in results), default=None)


def learned_accuracy(results: dict) -> float | None:
    """Return the accuracy of MediaPipe with the learned rule, if it was run on this set."""
    return results["learned"]["accuracy"] if "learned" in results else None


def show_overview(sets: dict[str, dict], empty: dict | None, mediapipe: dict) -> None:
    st.write("How often the model is correct on people, rooms and sessions that it was not trained on:")
    show_accuracy_table([(row["short_title"], name, row) for name, row in sets.items()], mediapipe)
    learned = (
        "**Learned:** the same with a rule learned from its landmarks of our training pictures. "
        if any("learned" in results for results in mediapipe["sets"].values())
        else ""
    )
    st.caption(
        "**Total:** pictures whose predicted fingers add up to the correct total. **MediaPipe:** its total on the same "
        "pictures (on every twelfth of Kaggle Fingers), with the best of three finger rules and the better of its two "
        f"modes. {learned}**Count:** labelled hands that are detected with the correct number of fingers. **Side:** "
        "detected hands that are correctly left or right. **Recall:** labelled hands that are detected. **Precision:** "
        "detections that are hands. Kaggle Fingers is the exception: its test pictures are much like its training "
        "pictures."
    )
    if empty:
        share = empty["false_alarms"] / empty["pictures"]
        st.write(
            f"False alarms: it detects a hand in **{empty['false_alarms']} of {empty['pictures']}** pictures without "
            f"hands ({share:.0%}): "
            + "; ".join(
                f"{group['group']}: {group['false_alarms']} of {group['pictures']}" for group in empty["groups"]
            )
            + "."
        )
    without_hands = [one for one in mediapipe["sets"].values() if "false_alarms" in one.get("static", {})]
    if pictures := sum(one["frames"] for one in without_hands):
        own, other = (
            sum(one[name]["false_alarms"] for one in without_hands) / pictures for name in ("handful", "static")
        )
        st.write(
            f"Beside MediaPipe, on {pictures:,} pictures without hands: it detects a hand in **{own:.1%}**, MediaPipe "
            f"in **{other:.1%}**."
        )


def show_accuracy_table(rows: list[tuple[str, str, dict]], mediapipe: dict) -> None:
    """Show a table of (title, name among MediaPipe's sets, metrics)."""
    has_learned = any("learned" in mediapipe["sets"].get(name, {}) for _, name, _ in rows)
    html = ""
    for title, name, row in rows:
        results = mediapipe["sets"].get(name, {})
        shares = [row["total_accuracy"], best_mode(results, mediapipe["modes"])]
        if has_learned:
            shares.append(learned_accuracy(results))
        totals = [percent(share) for share in shares]
        if len(known := [round(share, 3) for share in shares if share is not None]) > 1:
            # The best one is bold; all of them, if they round to the same.
            totals = [f"<b>{text}</b>" if text == percent(max(known)) else text for text in totals]
        cells = [f"{row['pictures']:,}", *totals, *(percent(row[key]) for key in COLUMNS)]
        html += f"<tr><th>{title}</th>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    names = ("", "Pictures", "Total", "Media&shy;Pipe", *["Learned"] * has_learned, *COLUMNS.values())
    head = "".join(f"<th>{name}</th>" for name in names)
    st.html(f'<table class="scores"><thead><tr>{head}</tr></thead><tbody>{html}</tbody></table>')


def show_gestures(rows: list[dict], mediapipe: dict) -> None:
    """Show the accuracies of each gesture and group of gestures, beside MediaPipe's where they are known."""
    st.header("People at home, by gesture")
    st.write(
        "Pictures of HaGRID: hundreds of people whom the model never met, at home, before their own cameras. None was "
        "used for training, or to choose anything."
    )
    others = mediapipe["sets"].get("hagrid", {})
    groups = {"counting": others, **others.get("groups", {})}
    html = ""
    for row in rows:
        other = groups.get(row["group"], {})
        shares = row["total_accuracy"], best_mode(other, mediapipe["modes"]), learned_accuracy(other)
        cells = [str(row["pictures"]), *map(percent, shares), percent(row["finger_accuracy"])]
        html += f"<tr><th>{row['group'].replace('_', ' ')}</th>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>"
    names = ("", "Pictures", "Total", "Media&shy;Pipe", "Learned", "Fingers")
    head = "".join(f"<th>{name}</th>" for name in names)
    st.html(f'<table class="scores"><thead><tr>{head}</tr></thead><tbody>{html}</tbody></table>')
    st.caption(
        "**Learned:** MediaPipe's landmarks with a rule learned from our training pictures. **Fingers:** pictures in "
        "which exactly the right fingers are raised, not only as many."
    )


def label_axis() -> alt.Axis:
    return alt.Axis(labelLimit=220, labelFlush=False, labelBound=False, ticks=False, domain=False)


def show_conditions(conditions: list[dict], mediapipe: dict) -> None:
    """Draw the total accuracy of the same frames in each condition, beside MediaPipe's where it is known."""
    others = mediapipe["sets"].get("webcam-harder", {}).get("conditions", {})
    colors_of = {"Handful": PRIMARY_COLOR, "MediaPipe": MEDIAPIPE_COLOR, "MediaPipe, learned": LEARNED_COLOR}
    models = list(colors_of)
    bars = [(row["group"], models[0], row["total_accuracy"]) for row in conditions]
    bars += [(condition, models[1], best_mode(other, mediapipe["modes"])) for condition, other in others.items()]
    bars += [(name, models[2], learned_accuracy(other)) for name, other in others.items() if "learned" in other]
    models = [model for model in models if any(model == bar[1] for bar in bars)]
    base = alt.Chart(pd.DataFrame(bars, columns=["condition", "model", "share"])).encode(
        alt.Y(
            "condition:N",
            sort=[row["group"] for row in conditions],
            title=None,
            axis=label_axis(),
            scale=alt.Scale(paddingInner=0.3),
        ),
        alt.YOffset("model:N", sort=models),
        alt.X("share:Q", scale=alt.Scale(domain=[0, 1.1]), axis=None),
        tooltip=["condition:N", "model:N", alt.Tooltip("share:Q", format=".1%")],
    )
    colors = alt.Scale(domain=models, range=[colors_of[model] for model in models])
    legend = alt.Legend(title=None, orient="top") if others else None
    marks = base.mark_bar(opacity=0.75, cornerRadiusEnd=3).encode(alt.Color("model:N", scale=colors, legend=legend))
    text = base.mark_text(align="left", dx=5, color="gray").encode(alt.Text("share:Q", format=".0%"))
    st.altair_chart((marks + text).properties(height=alt.Step(15, **{"for": "offset"})).configure_view(stroke=None))


def show_leave_one_out(sources: dict[str, dict], mediapipe: dict) -> None:
    st.header("Leave-one-out")
    epochs, detector_epochs = (
        max(row["budget"][key] for row in sources.values()) for key in ("epochs", "detector_epochs")
    )
    st.write(
        "Models that were trained without any picture of one source, evaluated on all of that source. Their trainings "
        f"are short: at most {epochs} epochs of the classifier and {detector_epochs} of the detector."
    )
    show_accuracy_table([(row["title"], f"{name}-all", row) for name, row in sources.items()], mediapipe)


def show_metrics(metrics: dict) -> None:
    with st.grid(5, min_column_width=130):
        st.metric(
            "Total correct",
            percent(metrics["total_accuracy"], 2),
            help="Pictures whose predicted fingers add up to the correct total; with no hand detected, it is 0.",
        )
        st.metric(
            "Count accuracy",
            percent(metrics["count_accuracy"], 2),
            help="Labelled hands that are detected with the correct number of fingers.",
        )
        if metrics["side_accuracy"] is not None:  # some sets label only the count
            st.metric(
                "Class accuracy",
                percent(metrics["class_accuracy"], 2),
                help="Labelled hands that are detected with the correct count and side.",
            )
            st.metric(
                "Side accuracy",
                percent(metrics["side_accuracy"], 2),
                help="Detected hands that are correctly left or right.",
            )
        st.metric(
            "Recall",
            percent(metrics["recall"], 2),
            help="Labelled hands that are detected: the boxes have an IoU of 0.5 or more.",
        )
        st.metric("Precision", percent(metrics["precision"], 2), help="Detections that are hands.")
        st.metric(
            "Calibration error",
            percent(metrics["ece"], 2),
            help="Expected calibration error (ECE): mean difference of confidence and accuracy (Guo et al., 2017).",
        )
        st.metric("Pictures", f"{metrics['pictures']:,}", help=f"{len(metrics['errors']):,} of them are incorrect.")


def show_groups(groups: dict[str, list[dict]]) -> None:
    """Show the metrics of groups of hands, as three columns of charts, and those of all finger combinations."""
    st.header("By kind of hand")
    key = st.segmented_control(
        "Metric", list(GROUP_METRICS), default="count_accuracy", format_func=GROUP_METRICS.__getitem__, required=True
    )
    if tones := groups.get("skin tone"):
        st.caption(
            f"Skin tone: the same {tones[0]['pictures']:,} hands in every tone. The other charts show each hand once."
        )
    columns, heights = st.columns(3, gap="medium"), [0, 0, 0]
    for name, rows in groups.items():
        if name != "raised":
            shortest = heights.index(min(heights))
            heights[shortest] += len(rows) + 3
            with columns[shortest]:
                st.subheader(name.capitalize())
                show_group_chart(rows, key)
    st.subheader("All 32 finger combinations, hardest first")
    combinations = sorted(groups["raised"], key=lambda row: row[key] or 0)
    for column, half in zip(st.columns(2, gap="medium"), (combinations[:16], combinations[16:]), strict=True):
        with column:
            show_group_chart(half, key)


def show_group_chart(rows: list[dict], key: str) -> None:
    """Draw one of `GROUP_METRICS` of each group as bars."""
    shown = [row for row in rows if row["pictures"] and row[key] is not None]
    base = alt.Chart(pd.DataFrame(shown, columns=["group", "pictures", *GROUP_METRICS])).encode(
        alt.Y("group:N", sort=None, title=None, axis=label_axis()),
        alt.X(f"{key}:Q", scale=alt.Scale(domain=[0, 1.2]), axis=None),
        tooltip=[
            "group:N",
            "pictures:Q",
            *(alt.Tooltip(f"{k}:Q", title=v, format=".1%") for k, v in GROUP_METRICS.items()),
        ],
    )
    bars = base.mark_bar(color=PRIMARY_COLOR, opacity=0.75, height=12, cornerRadiusEnd=3)
    text = base.mark_text(align="left", dx=5, color="gray").encode(alt.Text(f"{key}:Q", format=".0%"))
    st.altair_chart((bars + text).properties(height=alt.Step(20)).configure_view(stroke=None))


def show_confusion(metrics: dict) -> None:
    """Show a confusion matrix, and the pictures of the cell that is chosen in it."""
    st.header("Confusion matrix")
    views = {"Count": ConfusionView(metrics["count_confusion"], [str(n) for n in COUNTS], lambda label: label[0])}
    if metrics["side_accuracy"] is not None:
        views["Count and side"] = ConfusionView(metrics["confusion"], list(CLASSES), str)
        views["Side"] = ConfusionView(
            metrics["side_confusion"], list(SIDES), lambda label: str(decode(CLASSES.index(label))[1])
        )
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        name = st.segmented_control("Compare", list(views), default=list(views)[len(views) // 2], required=True)
        as_shares = st.toggle("Percentages")
    view = views[name]
    left, right = st.columns([3, 2], gap="medium")
    with left:
        draw_confusion(view, as_shares)
    with right:
        # A keyboard cannot choose a cell of the chart.
        cells = {
            (label, predicted): count
            for label, row in zip(view.labels, view.matrix, strict=True)
            for predicted, count in zip(view.labels, row, strict=True)
            if count
        }

        def describe_cell(cell: Cell) -> str:
            label, predicted = cell
            outcome = "correct" if label == predicted else f"predicted as {predicted}"
            return f"{label}, {outcome}: {cells[cell]:,}"

        cell = st.selectbox(
            "Pictures of the cell",
            list(cells),
            index=None,
            format_func=describe_cell,
            key="cell",
            placeholder="Choose a cell, here or in the matrix",
        )
        if cell:
            show_cell(metrics, view, cell)


def draw_confusion(view: ConfusionView, as_shares: bool) -> None:
    """Draw a confusion matrix. Clicking a cell chooses it in the select box "cell"."""
    cells = pd.DataFrame(
        [
            {"label": label, "predicted": predicted, "hands": count, "share": count / max(sum(row), 1)}
            for label, row in zip(view.labels, view.matrix, strict=True)
            for predicted, count in zip(view.labels, row, strict=True)
        ]
    )
    chosen = alt.selection_point("cell", fields=["label", "predicted"])
    base = alt.Chart(cells).encode(
        alt.X("predicted:N", sort=view.labels, title="predicted", axis=alt.Axis(labelAngle=0, orient="top")),
        alt.Y("label:N", sort=view.labels, title="label"),
        tooltip=["label", "predicted", "hands", alt.Tooltip("share", format=".1%")],
    )
    # Opacity is the square root of the share, so that 1% is visible.
    heat = base.mark_rect(color=PRIMARY_COLOR, cursor="pointer").encode(
        fillOpacity=alt.FillOpacity("share:Q", scale=alt.Scale(type="sqrt", domain=[0, 1], range=[0, 1]), legend=None),
        stroke=alt.condition(chosen, alt.value(SELECTED_COLOR), alt.value(GRID_COLOR), empty=False),
        strokeWidth=alt.condition(chosen, alt.value(3), alt.value(1), empty=False),
    )
    text = (
        base.transform_filter("datum.hands > 0")
        .mark_text()
        .encode(
            alt.Text("share:Q", format=".0%") if as_shares else alt.Text("hands:Q", format="d"),
            color=alt.condition("datum.share > 0.2", alt.value("white"), alt.value("gray")),
        )
    )
    chart = alt.layer(heat.add_params(chosen), text).properties(height=60 + 34 * len(view.labels))
    key = f"confusion {len(view.labels)}"

    def choose() -> None:
        points = st.session_state[key].selection["cell"]
        st.session_state["cell"] = (points[0]["label"], points[0]["predicted"]) if points else None

    st.altair_chart(chart, on_select=choose, key=key)


def show_cell(metrics: dict, view: ConfusionView, cell: Cell) -> None:
    """Show pictures of a cell of a confusion matrix."""
    label, predicted = cell
    if label != predicted:
        # Without probabilities, it is a missed hand or a false alarm, which is in no cell.
        errors = [error for error in metrics["errors"] if error["probabilities"]]
        in_cell = [
            error for error in errors if (view.label_of(error["label"]), view.label_of(error["predicted"])) == cell
        ]
        if in_cell:
            show_errors(in_cell[:MAX_THUMBNAILS], "cell")
        return
    incorrect = {Path(error["file"]).name for error in metrics["errors"]}
    correct = (
        path
        for path in sorted((DATA / metrics["set"].replace("-", "/", 1)).glob("*.*"))  # fingers-test: fingers/test
        if (name := label_from_name(path)) and view.label_of(name) == label and path.name not in incorrect
    )
    paths = list(islice(correct, MAX_THUMBNAILS))
    if clicked := show_gallery(paths, [describe(label_from_name(path)) for path in paths], "correct"):
        open_prediction(clicked)
    if not paths:
        st.caption(
            "The metrics do not list correct pictures. Those of Kaggle Fingers are shown where the data set is "
            "installed: `python -m training data` fetches it."
        )


def show_classes(metrics: dict) -> None:
    st.header("Classes and calibration")
    left, right = st.columns(2, gap="medium")
    with left:
        share = st.column_config.NumberColumn(format="percent")
        st.dataframe(
            pd.DataFrame(metrics["per_class"]),
            column_config={"precision": share, "recall": share, "f1": share},
            hide_index=True,
            height="content",
        )
        st.caption(
            "Of detected hands. **Precision:** hands predicted as a class that are labelled so. **Recall:** hands "
            "labelled with a class that are predicted so. **F1:** their harmonic mean. **Support:** labelled hands."
        )
    with right:
        draw_reliability(metrics["reliability"])
        st.caption(
            "Accuracy of the predictions in each range of confidence. On the dashed line, a prediction with 80% "
            "confidence is correct in 80% of cases."
        )


def draw_reliability(bins: list[dict]) -> None:
    """Draw a reliability diagram: accuracy (bars) over confidence, and the line of perfect calibration."""
    filled = pd.DataFrame([entry for entry in bins if entry["count"]])
    axis = alt.Axis(format="%", tickCount=5)
    bars = (
        alt.Chart(filled)
        .mark_bar(color=PRIMARY_COLOR, opacity=0.85)
        .encode(
            alt.X("low:Q", title="confidence", axis=axis, scale=alt.Scale(domain=[0, 1])),
            alt.X2("high"),
            alt.Y("accuracy:Q", title="accuracy", axis=axis, scale=alt.Scale(domain=[0, 1])),
            alt.Y2Datum(0),
            tooltip=["count", alt.Tooltip("confidence", format=".1%"), alt.Tooltip("accuracy", format=".1%")],
        )
    )
    line = alt.Chart(pd.DataFrame({"at": [0, 1]})).mark_line(strokeDash=[4, 4], color="gray").encode(x="at", y="at")
    st.altair_chart((bars + line).properties(height=300))


def show_errors(errors: list[dict], key: str) -> None:
    """Show incorrect pictures, or a table of them where the data set is not installed."""
    paths = [DATA / error["file"] for error in errors]
    if all(path.is_file() for path in paths):
        captions = [
            f"{error['label']}, predicted {error['predicted']}"
            + (f" {error['confidence']:.0%}" if error["confidence"] else "")
            for error in errors
        ]
        if clicked := show_gallery(paths, captions, key):
            open_prediction(clicked)
    else:
        st.dataframe(
            pd.DataFrame(errors)[["file", "label", "predicted", "confidence"]],
            column_config={"confidence": st.column_config.NumberColumn(format="percent")},
            hide_index=True,
        )


def show_provenance(metrics: dict) -> None:
    model = metrics["model"]
    configs = {"config": "Training of the classifier", "detector config": "Training of the detector"}
    rows = {key: value for key, value in model.items() if key not in configs} | {
        "sha256": model["sha256"][:16] + " …",
        "classes": " ".join(metrics["classes"]),
        "evaluated by": metrics["command"],
    }
    st.table(pd.Series(rows, name="model"))
    for key, title in configs.items():
        if key in model:
            st.caption(title)
            st.code(model[key], language="yaml")


show_page()
