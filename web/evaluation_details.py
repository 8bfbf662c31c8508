"""Parts of the Evaluation page: tables, charts and the confusion matrix of each set."""

import os
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import pandas as pd
import streamlit as st

import handful
from handful import CLASSES, COUNTS, SIDES, shared_counter
from handful.labels import decode, describe
from web.widgets import DATA, PRIMARY_COLOR, THUMBNAIL_COLUMNS, fingers_in_words, label_from_name, show_gallery

MAX_THUMBNAILS = 12
MEDIAPIPE_COLOR = "#8a8a8a"
LEARNED_COLOR = "#b0853f"
SELECTED_COLOR = "#f0904d"
GRID_COLOR = "#80808040"
# What `python -m benchmarks teach` measures: name on the page, colour, dashes.
TEACH_METHODS = {
    "personal": ("personal head", PRIMARY_COLOR, [1, 0]),
    "shipped": ("as shipped", MEDIAPIPE_COLOR, [6, 3]),
    "logistic regression": ("logistic regression", "#7b78c4", [2, 2]),
    "nearest neighbours": ("nearest neighbours", LEARNED_COLOR, [8, 3, 2, 3]),
}
TEACH_SIZE = 9  # pictures of each count that the words are of
COLUMNS = {
    "count_accuracy": "Count",
    "side_accuracy": "Side",
    "recall": "Recall",
    "precision": "Precision",
}
GROUP_METRICS = {"count_accuracy": "Count accuracy", "side_accuracy": "Side accuracy", "recall": "Recall"}
SHOWABLE = ("CC", "public domain")  # licences under which a picture may be shown, with credit


class ConfusionView(NamedTuple):
    """A confusion matrix: counts with a row per label and a column per prediction."""

    matrix: list[list[int]]
    labels: list[str]
    label_of: Callable[[str], str]  # from a class, such as "3L", to one of `labels`
    words: Callable[[str], str]  # of a label, such as "3 fingers"


Cell = tuple[str, str]  # label, predicted


def percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{share:.{digits}%}"


def best_mode(results: dict, modes: Sequence[str]) -> dict | None:
    """Return the results of MediaPipe's better mode, if it was run on this set."""
    measured = [results[mode] for mode in modes if mode in results]
    return max(measured, key=lambda result: result["accuracy"]) if measured else None


def accuracy_of(results: dict | None) -> float | None:
    return results["accuracy"] if results else None


def may_show(row: dict) -> bool:
    """Return whether pictures of a set may be shown: if its licence says so, which is in its metrics."""
    return row["licence"].startswith(SHOWABLE)


def show_accuracy_table(rows: list[tuple[str, str, dict]], mediapipe: dict) -> None:
    """Show a table of (title, name among MediaPipe's sets, metrics), and explain its columns."""
    has_learned = any("learned" in mediapipe["sets"].get(name, {}) for _, name, _ in rows)
    html = ""
    for title, name, row in rows:
        results = mediapipe["sets"].get(name, {})
        shares = [row["total_accuracy"], accuracy_of(best_mode(results, mediapipe["modes"]))]
        if has_learned:
            shares.append(accuracy_of(results.get("learned")))
        totals = [percent(share) for share in shares]
        if len(known := [round(share, 3) for share in shares if share is not None]) > 1:
            # The best one is bold; all of them, if they round to the same.
            totals = [f"<b>{text}</b>" if text == percent(max(known)) else text for text in totals]
        cells = [f"{row['pictures']:,}", *totals, *(percent(row[key]) for key in COLUMNS)]
        html += f"<tr><th>{title}</th>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    names = ("", "Pictures", "Total", "Media&shy;Pipe", *["Learned"] * has_learned, *COLUMNS.values())
    head = "".join(f"<th>{name}</th>" for name in names)
    st.html(f'<table class="scores"><thead><tr>{head}</tr></thead><tbody>{html}</tbody></table>')
    learned = "**Learned:** the same with the learned rule. " if has_learned else ""
    st.caption(
        "**Total:** pictures whose predicted fingers add up to the labelled ones. **MediaPipe:** its totals, with its "
        f"best rule and in the better of its two modes. {learned}**Count:** labelled hands that are detected with the "
        "correct number of fingers. **Side:** detected hands that are correctly named left or right. **Recall:** "
        "labelled hands that are detected. **Precision:** detections that are hands."
    )


def group_axis(title: str | None = None) -> alt.Axis:
    return alt.Axis(title=title, labelLimit=220, labelFlush=False, labelBound=False, ticks=False, domain=False)


def share_axis(title: str) -> alt.Axis:
    return alt.Axis(title=title, format="%", values=[0, 0.5, 1], grid=False, ticks=False, domain=False)


def draw_bars(base: alt.Chart, share: str, height: alt.Step, color: Any) -> None:
    """Draw a chart of shares as horizontal bars, each with its percentage behind it."""
    bars = base.mark_bar(opacity=0.75, cornerRadiusEnd=3).encode(color=color)
    text = base.mark_text(align="left", dx=5, color="gray").encode(alt.Text(f"{share}:Q", format=".0%"))
    st.altair_chart((bars + text).properties(height=height).configure_view(stroke=None))


def show_conditions(conditions: list[dict], mediapipe: dict) -> None:
    """Draw the total accuracy of the same frames in each simulated condition, beside MediaPipe's where it is known."""
    st.write(
        f"The same {conditions[0]['pictures']:,} webcam frames, changed by the computer to look as if taken from "
        "farther away, in other light, out of focus, or sent over a slow connection. No camera took them like that."
    )
    others = mediapipe["sets"].get("webcam-harder", {}).get("conditions", {})
    colors_of = {"Handful": PRIMARY_COLOR, "MediaPipe": MEDIAPIPE_COLOR, "MediaPipe, learned": LEARNED_COLOR}
    models = list(colors_of)
    bars = [(row["group"], models[0], row["total_accuracy"]) for row in conditions]
    bars += [(name, models[1], accuracy_of(best_mode(other, mediapipe["modes"]))) for name, other in others.items()]
    bars += [(name, models[2], accuracy_of(other["learned"])) for name, other in others.items() if "learned" in other]
    models = [model for model in models if any(model == bar[1] for bar in bars)]
    base = alt.Chart(pd.DataFrame(bars, columns=["condition", "model", "share"])).encode(
        alt.Y(
            "condition:N",
            sort=[row["group"] for row in conditions],
            axis=group_axis("simulated condition"),
            scale=alt.Scale(paddingInner=0.3),
        ),
        alt.YOffset("model:N", sort=models),
        alt.X("share:Q", scale=alt.Scale(domain=[0, 1.1]), axis=share_axis("pictures with the correct total")),
        tooltip=["condition:N", "model:N", alt.Tooltip("share:Q", format=".1%")],
    )
    colors = alt.Scale(domain=models, range=[colors_of[model] for model in models])
    legend = alt.Legend(title=None, orient="top", columns=1) if others else None  # in one row, a phone cuts it off
    draw_bars(base, "share", alt.Step(15, **{"for": "offset"}), alt.Color("model:N", scale=colors, legend=legend))


def show_leave_one_out(sources: dict[str, dict], mediapipe: dict) -> None:
    epochs, detector_epochs = (
        max(row["budget"][key] for row in sources.values()) for key in ("epochs", "detector_epochs")
    )
    continued = any("start" in row["budget"] for row in sources.values())
    st.write(
        "Other models, trained without any picture of one source and evaluated on all of it: its people, rooms and "
        f"cameras are unknown to them. Their trainings are short: at most {epochs} epochs of the classifier and "
        f"{detector_epochs} of the detector"
        + ("; those of the newer sources went on from an early model for one epoch." if continued else ".")
    )
    show_accuracy_table([(row["title"], f"{name}-all", row) for name, row in sources.items()], mediapipe)


def choose_set(sets: dict[str, dict]) -> str:
    """Show the box of sets, which is in the address, and return the chosen one."""
    if "set" not in st.session_state:
        requested = st.query_params.get("set")
        st.session_state.set = requested if requested in sets else next(iter(sets))

    def store() -> None:
        st.query_params["set"] = st.session_state.set
        st.query_params.pop("compare", None)
        st.session_state.pop("compare", None)  # each set has its own default
        choose_cell(None)

    return st.selectbox("Evaluated on", sets, format_func=lambda name: sets[name]["title"], key="set", on_change=store)


def choose_cell(cell: Cell | None) -> None:
    """Choose a cell of the confusion matrix, in the box and in the address."""
    st.session_state.cell = cell
    if cell:
        st.query_params["cell"] = "-".join(cell)
    else:
        st.query_params.pop("cell", None)


def show_set(sets: dict[str, dict]) -> None:
    """Show all that is known of one set."""
    metrics = sets[choose_set(sets)]
    if metrics["model"]["sha256"] != shared_counter().sha256:
        st.info("The running model is not the one that was evaluated.", icon=":material/swap_horiz:")
    show_metrics(metrics)
    if "raised" in (groups := metrics.get("groups", {})):
        show_groups(groups)
    show_confusion(metrics)
    show_classes(metrics)
    st.subheader("Most confident errors")
    if metrics["errors"]:
        show_errors(metrics, metrics["errors"][:MAX_THUMBNAILS], "confident")
    else:
        st.success("There are no errors in this set.")


def show_metrics(metrics: dict) -> None:
    with st.grid(5, min_column_width=130):
        st.metric("Total correct", percent(metrics["total_accuracy"], 2))
        st.metric("Count accuracy", percent(metrics["count_accuracy"], 2))
        if metrics["side_accuracy"] is not None:  # some sets label only the count
            st.metric("Class accuracy", percent(metrics["class_accuracy"], 2))
            st.metric("Side accuracy", percent(metrics["side_accuracy"], 2))
        st.metric("Recall", percent(metrics["recall"], 2))
        st.metric("Precision", percent(metrics["precision"], 2))
        st.metric("Calibration error", percent(metrics["ece"], 2))
        st.metric("Pictures", f"{metrics['pictures']:,}")
    sides = (
        "**Class accuracy:** labelled hands that are detected with the correct count and side. **Side accuracy:** "
        "detected hands that are correctly named left or right. "
        if metrics["side_accuracy"] is not None
        else ""
    )
    st.caption(
        "**Total correct:** pictures whose predicted fingers add up to the labelled ones; with no hand detected, the "
        "sum is 0. **Count accuracy:** labelled hands that are detected with the correct number of fingers. "
        f"{sides}**Recall:** labelled hands that are detected: the two boxes share at least half of the area that they "
        "cover together. **Precision:** detections that are hands. **Calibration error:** how far confidence and "
        "accuracy are apart on average; at 0%, predictions of 80% confidence are correct in 80% of cases (expected "
        f"calibration error, Guo et al., 2017). Of the pictures, {len(metrics['errors']):,} are incorrect in some way."
    )


def show_groups(groups: dict[str, list[dict]]) -> None:
    """Show the metrics of groups of rendered hands, as three columns of charts, and those of finger combinations."""
    st.subheader("By kind of hand")
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
                st.markdown(f"**{name.capitalize()}**")
                show_group_chart(rows, key)
    st.markdown("**All 32 finger combinations, hardest first**")
    combinations = sorted(groups["raised"], key=lambda row: row[key] or 0)
    for column, half in zip(st.columns(2, gap="medium"), (combinations[:16], combinations[16:]), strict=True):
        with column:
            show_group_chart(half, key)


def show_group_chart(rows: list[dict], key: str) -> None:
    """Draw one of `GROUP_METRICS` of each group as bars."""
    shown = [row for row in rows if row["pictures"] and row[key] is not None]
    base = alt.Chart(pd.DataFrame(shown, columns=["group", "pictures", *GROUP_METRICS])).encode(
        alt.Y("group:N", sort=None, axis=group_axis(), scale=alt.Scale(paddingInner=0.4)),
        alt.X(f"{key}:Q", scale=alt.Scale(domain=[0, 1.2]), axis=share_axis(GROUP_METRICS[key].lower())),
        tooltip=[
            "group:N",
            "pictures:Q",
            *(alt.Tooltip(f"{k}:Q", title=v, format=".1%") for k, v in GROUP_METRICS.items()),
        ],
    )
    draw_bars(base, key, alt.Step(20), alt.value(PRIMARY_COLOR))


def confusion_views(metrics: dict) -> dict[str, ConfusionView]:
    """Return the confusion matrices of a set: of counts and, where sides are labelled, of classes and of sides."""

    def fingers(label: str) -> str:
        return fingers_in_words(int(label[0]))

    views = {
        "Count": ConfusionView(metrics["count_confusion"], [str(n) for n in COUNTS], lambda label: label[0], fingers)
    }
    if metrics["side_accuracy"] is not None:
        views["Count and side"] = ConfusionView(
            metrics["confusion"], list(CLASSES), str, lambda label: f"{fingers(label)}, {side_of(label)} hand"
        )
        views["Side"] = ConfusionView(metrics["side_confusion"], list(SIDES), side_of, lambda side: f"a {side} hand")
    return views


def side_of(label: str) -> str:
    return str(decode(CLASSES.index(label))[1])


def show_confusion(metrics: dict) -> None:
    """Show a confusion matrix, and the pictures of the cell that is chosen in it; view and cell are in the address."""
    st.subheader("Confusion matrix")
    st.caption(
        "A row for each label, a column for each prediction: on the diagonal are the hands that were predicted as "
        "labelled. Hands that were missed, and detections that are no hands, are in no cell."
    )
    views = confusion_views(metrics)
    if "compare" not in st.session_state or st.session_state.compare not in views:
        requested = st.query_params.get("compare")
        st.session_state.compare = requested if requested in views else list(views)[len(views) // 2]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        st.segmented_control("Compare", list(views), required=True, key="compare", on_change=store_view)
        as_shares = st.toggle("Percentages")
    view = views[st.session_state.compare]
    if "cell" not in st.session_state:
        st.session_state.cell = tuple(st.query_params.get("cell", "").split("-"))
    cell = st.session_state.cell
    if not (cell and len(cell) == 2 and set(cell) <= set(view.labels)):
        cell = st.session_state.cell = None  # another view has no such cell
    left, right = st.columns([3, 2], gap="medium")
    with left:
        draw_confusion(view, as_shares)
    with right:
        # A keyboard cannot choose a cell of the chart.
        cells = {
            (label, predicted): hands
            for label, row in zip(view.labels, view.matrix, strict=True)
            for predicted, hands in zip(view.labels, row, strict=True)
            if hands or (label, predicted) == cell
        }

        def describe_cell(cell: Cell) -> str:
            label, predicted = cell
            outcome = "correct" if label == predicted else f"predicted as {predicted}"
            return f"{label}, {outcome}: {cells[cell]:,}"

        cell = st.selectbox(
            "Hands of the cell",
            list(cells),
            format_func=describe_cell,
            key="cell",
            index=None,
            placeholder="Choose a cell, here or in the matrix",
            on_change=lambda: choose_cell(st.session_state.cell),
        )
        if cell:
            show_cell(metrics, view, cell, cells[cell])


def store_view() -> None:
    st.query_params["compare"] = st.session_state.compare
    choose_cell(None)


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
        choose_cell((points[0]["label"], points[0]["predicted"]) if points else None)

    st.altair_chart(chart, on_select=choose, key=key)


def show_cell(metrics: dict, view: ConfusionView, cell: Cell, hands: int) -> None:
    """Say what a cell of a confusion matrix holds, and show its pictures where that is possible."""
    label, predicted = map(view.words, cell)
    labelled = sum(view.matrix[view.labels.index(cell[0])])
    outcome = "this was predicted" if label == predicted else f"“{predicted}” was predicted"
    if not hands:
        st.write(f"Of {labelled:,} hands with the label “{label}”, **none** was predicted as “{predicted}”.")
        return
    st.write(f"Of {labelled:,} hands with the label “{label}”, {outcome} for **{hands:,}**.")
    if label != predicted:
        # Without probabilities, it is a missed hand or a false alarm, which is in no cell.
        errors = [
            error
            for error in metrics["errors"]
            if error["probabilities"] and (view.label_of(error["label"]), view.label_of(error["predicted"])) == cell
        ]
        if errors:
            show_errors(metrics, errors[:MAX_THUMBNAILS], "cell")
        else:
            st.caption("Of each picture, only the most confident error is listed: these are in pictures with another.")
        return
    incorrect = {Path(error["file"]).name for error in metrics["errors"]}
    correct = (
        path
        for path in sorted((DATA / metrics["set"].replace("-", "/", 1)).glob("*.*"))  # fingers-test: fingers/test
        if (name := label_from_name(path))
        and view.label_of(name) == cell[0]
        and path.name not in incorrect
        and path.is_file()
    )
    paths = list(islice(correct, MAX_THUMBNAILS))  # of Kaggle Fingers, which is CC0
    show_gallery(paths, [describe(label_from_name(path)) for path in paths], "correct")
    if not paths:
        st.caption(
            "The metrics do not list correct pictures. Those of Kaggle Fingers are shown where the data set is "
            "installed: `python -m training data` fetches it."
        )


def show_classes(metrics: dict) -> None:
    st.subheader("Classes and calibration")
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


def show_teach(curve: list[dict]) -> None:
    """Show in words and as a chart what personal heads are worth, by how many pictures they were fitted to.

    Args:
        curve: see `benchmarks.teach.curve`.
    """
    row = next((one for one in curve if one["size"] == TEACH_SIZE), curve[-1])
    errors = row["errors"]
    gain = 1 - errors["personal"] / errors["shipped"] if errors["shipped"] else 0.0
    st.write(
        f"On the Teach page, a visitor shows a hand and gets a personal head. Tried on {row['sessions']} people and "
        f"sessions that were not trained on: as shipped, the model counts **{errors['shipped']:.1%}** of their frames "
        f"wrong; with a personal head of {row['size']} pictures of each count, **{errors['personal']:.1%}**, "
        f"{abs(gain):.0%} {'fewer' if gain >= 0 else 'more'} errors. In {row['worse']:.0%} of the trials it was "
        "worse than before, by more than one frame in a hundred."
    )
    rows = [
        {"size": one["size"], "method": name, "errors": one["errors"][key]}
        for one in curve
        for key, (name, *_) in TEACH_METHODS.items()
    ]
    names, colors, dashes = zip(*TEACH_METHODS.values(), strict=True)
    sizes = [one["size"] for one in curve]
    method = alt.Legend(title=None, orient="top", symbolType="stroke", symbolSize=200, columns=2, columnPadding=6)
    chart = (
        alt.Chart(pd.DataFrame(rows))
        .mark_line(point=True, strokeWidth=2.5)
        .encode(
            alt.X("size:Q", title="pictures of each count", axis=alt.Axis(values=sizes, grid=False)),
            alt.Y("errors:Q", title="frames counted wrong", axis=alt.Axis(format=".0%", tickCount=5)),
            alt.Color("method:N", scale=alt.Scale(domain=names, range=colors), legend=method),
            alt.StrokeDash("method:N", scale=alt.Scale(domain=names, range=dashes), legend=method),
            tooltip=["method", "size", alt.Tooltip("errors", format=".1%")],
        )
    )
    st.altair_chart(chart.properties(height=400))
    st.caption(
        "**Personal head:** where it did not help in the visitor's own rounds, the model stays as shipped. **Logistic "
        "regression** and **nearest neighbours** know nothing but these pictures. Each point is the mean of all people "
        "and sessions. The more pictures are learned from, the fewer are left to be counted, so the line of the "
        "shipped model moves, too."
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


def show_errors(row: dict, errors: list[dict], key: str) -> None:
    """Show incorrect pictures of a set, or a table of them where its licence or their absence does not allow that.

    Rendered hands are shown as far as they come with the metrics, and in the table.
    """
    paths = [DATA / error["file"] for error in errors]
    if may_show(row) and all(map(os.path.isfile, paths)):
        captions = [
            f"{error['label']}, predicted {error['predicted']}"
            + (f" {error['confidence']:.0%}" if error.get("confidence") else "")
            for error in errors
        ]
        show_gallery(paths, captions, key)
        st.caption(f"Pictures: {row['credit']}.")
    else:
        show_rendered(errors)
        st.dataframe(
            pd.DataFrame(errors)[["file", "label", "predicted", "confidence"]],
            column_config={"confidence": st.column_config.NumberColumn(format="percent")},
            hide_index=True,
        )


def show_rendered(errors: list[dict]) -> bool:
    """Show the rendered hands of errors that come with the metrics, and return whether there are any."""
    folder = handful.MODEL.parent / "metrics"
    with_picture = [error for error in errors if (folder / error.get("picture", "none")).is_file()]
    if with_picture:
        with st.grid(THUMBNAIL_COLUMNS, min_column_width=96, gap="xsmall"):
            for error in with_picture[:MAX_THUMBNAILS]:
                caption = f"{error['label']}, predicted {error['predicted']}"
                st.image(folder / error["picture"], caption, width="stretch", alt=f"Rendered hand, {caption}")
    return bool(with_picture)


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
            st.code(model[key], language="yaml", wrap_lines=True)  # no region to scroll that a keyboard cannot reach
