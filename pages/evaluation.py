"""How well the model does, on pictures that it was not trained on."""

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import altair as alt
import pandas as pd
import streamlit as st

from handful import MODEL, SIDES, shared_counter
from web.widgets import DATA, open_picture, show_gallery, truth, words

METRICS = MODEL.parent / "metrics"
# In the order of the page: nearest to a visitor's own room first.
SETS = {
    "webcam": "Webcam frames",
    "digits": "Close crops",
    "rendered": "Rendered hands",
    "fingers-test": "Kaggle Fingers",
}
MODES = ("static", "tracking")  # of MediaPipe
SHOWN = 12


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def show_scores(rows: list[tuple[str, str, dict]]) -> None:
    """A table of (what was read, its name among MediaPipe's results, its measures)."""
    html = ""
    for title, name, row in rows:
        other = theirs.get(name, {})
        best = max((other[mode]["accuracy"] for mode in MODES if mode in other), default=None)
        total = row["total_accuracy"]
        ours, them = percent(total), percent(best)
        if best is not None:
            # The better of two stands out; both do where they read alike.
            ours, them = (
                told if round(mine, 3) < round(yours, 3) else f"<b>{told}</b>"
                for told, mine, yours in ((ours, total, best), (them, best, total))
            )
        rest = (row["fingers_accuracy"], row["side_accuracy"], row["recall"], row["precision"])
        cells = [f"{row['pictures']:,}", ours, them, *map(percent, rest)]
        html += f"<tr><th>{title}</th>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    heads = ("Pictures", "Total", "Media&shy;Pipe", "Count", "Side", "Found", "Truly hands")
    head = "<th></th>" + "".join(f"<th>{name}</th>" for name in heads)
    st.html(f'<table class="scores"><thead><tr>{head}</tr></thead><tbody>{html}</tbody></table>')


def show_conditions(rows: list[dict]) -> None:
    """Bars: totals of the same frames in each condition, beside those of MediaPipe's better mode, if known."""
    harder = theirs.get("webcam-harder", {}).get("conditions", {})
    totals = [{"condition": row["group"], "reader": "Handful", "share": row["total"]} for row in rows]
    for condition, other in harder.items():
        best = max(other[mode]["accuracy"] for mode in MODES)
        totals.append({"condition": condition, "reader": "MediaPipe", "share": best})
    readers = ["Handful", "MediaPipe"]
    base = alt.Chart(pd.DataFrame(totals)).encode(
        alt.Y(
            "condition:N",
            sort=[row["group"] for row in rows],
            title=None,
            axis=alt.Axis(labelLimit=220, labelFlush=False, labelBound=False, ticks=False, domain=False),
            scale=alt.Scale(paddingInner=0.3),
        ),
        alt.YOffset("reader:N", sort=readers),
        alt.X("share:Q", scale=alt.Scale(domain=[0, 1.1]), axis=None),
        tooltip=["condition:N", "reader:N", alt.Tooltip("share:Q", format=".1%")],
    )
    colors = alt.Scale(domain=readers, range=["#0f8a80", "#9a9a9a"])
    legend = alt.Legend(title=None, orient="top") if harder else None
    bars = base.mark_bar(opacity=0.75, cornerRadiusEnd=3).encode(alt.Color("reader:N", scale=colors, legend=legend))
    text = base.mark_text(align="left", dx=5, color="gray").encode(alt.Text("share:Q", format=".0%"))
    st.altair_chart((bars + text).properties(height=alt.Step(15, **{"for": "offset"})).configure_view(stroke=None))


def show_groups(rows: list[dict], key: str) -> None:
    """Bars: how well the hands of each group are read, `key` being "count", "side" or "found"."""
    shown = [row for row in rows if row["pictures"] and row[key] is not None]
    base = alt.Chart(pd.DataFrame(shown, columns=["group", "pictures", *SHARES])).encode(
        alt.Y(
            "group:N",
            sort=None,
            title=None,
            axis=alt.Axis(labelLimit=220, labelFlush=False, labelBound=False, ticks=False, domain=False),
        ),
        alt.X(f"{key}:Q", scale=alt.Scale(domain=[0, 1.2]), axis=None),
        tooltip=["group:N", "pictures:Q", *(alt.Tooltip(f"{k}:Q", format=".1%") for k in SHARES)],
    )
    bars = base.mark_bar(color="#0f8a80", opacity=0.75, height=12, cornerRadiusEnd=3)
    text = base.mark_text(align="left", dx=5, color="gray").encode(alt.Text(f"{key}:Q", format=".0%"))
    st.altair_chart((bars + text).properties(height=alt.Step(20)).configure_view(stroke=None))


# What is told of each group of hands, and in words.
SHARES = {"count": "Count right", "side": "Side right", "found": "Found"}


def show_confusion(matrix: list[list[int]], labels: list[str], shares: bool) -> None:
    """Draw a confusion matrix. A click on a cell chooses it in the box named "cell"."""
    cells = pd.DataFrame(
        [
            {"truth": there, "told": told, "pictures": count, "share": count / max(sum(row), 1)}
            for there, row in zip(labels, matrix, strict=True)
            for told, count in zip(labels, row, strict=True)
        ]
    )
    chosen = alt.selection_point("cell", fields=["truth", "told"])
    base = alt.Chart(cells).encode(
        alt.X("told:N", sort=labels, title="told", axis=alt.Axis(labelAngle=0, orient="top")),
        alt.Y("truth:N", sort=labels, title="truth"),
        tooltip=["truth", "told", "pictures", alt.Tooltip("share", format=".1%")],
    )
    # Clear where there is nothing, and the root of the share: one picture in a hundred is to be seen.
    heat = base.mark_rect(color="#0f8a80", cursor="pointer").encode(
        fillOpacity=alt.FillOpacity("share:Q", scale=alt.Scale(type="sqrt", domain=[0, 1], range=[0, 1]), legend=None),
        stroke=alt.condition(chosen, alt.value("#f0904d"), alt.value("#80808040"), empty=False),
        strokeWidth=alt.condition(chosen, alt.value(3), alt.value(1), empty=False),
    )
    text = (
        base.transform_filter("datum.pictures > 0")
        .mark_text()
        .encode(
            alt.Text("share:Q", format=".0%") if shares else alt.Text("pictures:Q", format="d"),
            color=alt.condition("datum.share > 0.2", alt.value("white"), alt.value("gray")),
        )
    )
    chart = alt.layer(heat.add_params(chosen), text).properties(height=60 + 34 * len(labels))
    key = f"confusion {len(labels)}"

    def choose() -> None:
        points = st.session_state[key].selection["cell"]
        st.session_state["cell"] = (points[0]["truth"], points[0]["told"]) if points else None

    st.altair_chart(chart, on_select=choose, key=key)


def describe(cell: tuple[str, str]) -> str:
    """What happened to the hands of a cell of the matrix, and to how many."""
    there, told = cell
    count = matrix[labels.index(there)][labels.index(told)]
    return f"{there}, and told so: {count:,}" if there == told else f"{there}, but told {told}: {count:,}"


def show_mistakes(entries: list[dict], key: str) -> None:
    """Show wrong pictures, or their names where the data set is not here. The surest come first."""
    pictures = [DATA / entry["file"] for entry in entries]
    if all(picture.is_file() for picture in pictures):
        captions = [
            f"{entry['truth']}, told {entry['predicted']}"
            + (f" {entry['confidence']:.0%}" if entry["confidence"] else "")
            for entry in entries
        ]
        if clicked := show_gallery(pictures, captions, key):
            open_picture(clicked)
    else:
        st.dataframe(
            pd.DataFrame(entries)[["file", "truth", "predicted", "confidence"]],
            column_config={"confidence": st.column_config.NumberColumn(format="percent")},
            hide_index=True,
        )


def show_reliability(bins: list[dict]) -> None:
    """Draw how often the model is right (bars) where it is so sure (the line: as often as it says)."""
    filled = pd.DataFrame([entry for entry in bins if entry["count"]])
    axis = alt.Axis(format="%", tickCount=5)
    bars = (
        alt.Chart(filled)
        .mark_bar(opacity=0.85)
        .encode(
            alt.X("low:Q", title="confidence", axis=axis, scale=alt.Scale(domain=[0, 1])),
            alt.X2("high"),
            alt.Y("accuracy:Q", title="right", axis=axis, scale=alt.Scale(domain=[0, 1])),
            alt.Y2Datum(0),
            tooltip=["count", alt.Tooltip("confidence", format=".1%"), alt.Tooltip("accuracy", format=".1%")],
        )
    )
    line = alt.Chart(pd.DataFrame({"at": [0, 1]})).mark_line(strokeDash=[4, 4], color="gray").encode(x="at", y="at")
    st.altair_chart((bars + line).properties(height=300))


st.title("Evaluation")
measures = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in METRICS.glob("*.json")}
sets = {name: measures[name] for name in SETS if name in measures}
if not sets:
    st.info("Nothing has been measured yet. `make evaluate` or `python -m training evaluate` does that.")
    st.stop()
theirs = measures.get("mediapipe", {"sets": {}})["sets"]
st.write("How often it is right about people, rooms and sessions that it never saw in training.")
show_scores([(SETS[name], name, row) for name, row in sets.items()])
st.caption(
    "Total: the fingers of a picture add up. MediaPipe: its totals on the same pictures (of Kaggle Fingers every "
    "twelfth), by the best of three finger rules "
    "and the better of its two modes. Count and Found: of the hands that are there; Side: of those found; Truly hands: "
    "of what is found. The exception is Kaggle Fingers, whose pictures are much like those it trained on."
)
if empty := measures.get("empty"):
    share = empty["with_hands"] / empty["pictures"]
    st.write(
        f"False alarms: in **{empty['with_hands']} of {empty['pictures']}** places without hands ({share:.0%}) "
        "it sees one."
    )
if conditions := measures.get("webcam", {}).get("conditions"):
    st.header("In harder conditions")
    st.write(
        f"The same {conditions[0]['pictures']:,} webcam frames, as they would look from farther away, in other light, "
        "out of focus or over a poor line: shares of totals that are right."
    )
    show_conditions(conditions)
if left_out := measures.get("leave-one-out"):
    st.header("A source left out")
    epochs, detector_epochs = (
        max(row["budget"][key] for row in left_out["sources"].values()) for key in ("epochs", "detector_epochs")
    )
    st.write(
        "How a model that knows nothing of a source, neither hands nor rooms, reads all of it. "
        f"These trainings are short: at most {epochs} epochs of the classifier, {detector_epochs} of the detector."
    )
    show_scores([(row["title"], f"{name}-all", row) for name, row in left_out["sources"].items()])

st.header("One set")
measured = sets[st.selectbox("Measured on", sets, format_func=lambda name: sets[name]["title"])]
wrong = measured["wrong"]
if measured["model"]["sha256"] != shared_counter().sha256:
    st.info("The model that reads here now is another than the one measured here.", icon=":material/swap_horiz:")

sided = measured["side_accuracy"] is not None  # some sets tell only the count
with st.grid(5, min_column_width=130):
    st.metric(
        "Total", f"{measured['total_accuracy']:.2%}", help="Share of pictures whose total is right; nothing found is 0."
    )
    st.metric("Fingers", f"{measured['fingers_accuracy']:.2%}", help="Share of the hands whose count is right.")
    if sided:
        st.metric("Fingers and side", f"{measured['accuracy']:.2%}", help="Share of the hands whose class is right.")
        st.metric("Side", f"{measured['side_accuracy']:.2%}", help="Share of hands found whose side is right.")
    st.metric("Found", f"{measured['recall']:.2%}", help="Share of the hands that are found (IoU of 0.5 or more).")
    st.metric("Truly hands", f"{measured['precision']:.2%}", help="Share of what is found that is a hand.")
    st.metric(
        "Calibration error",
        f"{measured['ece']:.2%}",
        help="How far confidence lies from accuracy, on average (ECE: Guo et al., 2017).",
    )
    st.metric("Pictures", f"{measured['pictures']:,}", help=f"{len(wrong):,} of them are wrong.")

if groups := measured.get("groups"):
    st.header("Which hands")
    key = st.segmented_control(
        "Share of hands", list(SHARES), default="count", format_func=SHARES.__getitem__, required=True
    )
    if tones := groups.get("skin tone"):
        same = f"the same {tones[0]['pictures']:,} hands"
        st.caption(f"Of every skin tone, {same}, all else alike; in the other charts, each hand once.")
    columns, filled = st.columns(3, gap="medium"), [0, 0, 0]
    for name, rows in groups.items():
        if name != "raised":
            shortest = filled.index(min(filled))
            filled[shortest] += len(rows) + 3
            with columns[shortest]:
                st.subheader(name.capitalize())
                show_groups(rows, key)
    st.subheader("The 32 ways to raise fingers, the hardest first")
    ways = sorted(groups["raised"], key=lambda row: row[key] or 0)
    for column, half in zip(st.columns(2, gap="medium"), (ways[:16], ways[16:]), strict=True):
        with column:
            show_groups(half, key)

st.header("Confusion")
# What can be compared: its name, its counts, its labels, and which of them a class has.
views: dict[str, tuple[list[list[int]], list[str], Callable[[str], str]]] = {
    "Fingers": (measured["fingers_confusion"], list("012345"), lambda label: label[0]),
}
if sided:
    views["12 classes"] = (measured["confusion"], measured["classes"], str)
    views["Side"] = (measured["side_confusion"], list(SIDES), lambda label: words(label).split()[1])
with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
    view = st.segmented_control("Compare", list(views), default="12 classes" if sided else "Fingers", required=True)
    shares = st.toggle("Shares, not counts")
matrix, labels, part = views[view]
left, right = st.columns([3, 2], gap="medium")
with left:
    show_confusion(matrix, labels, shares)
with right:
    # A box too: a keyboard has no way into the drawing.
    cells = [
        (there, told)
        for there, row in zip(labels, matrix, strict=True)
        for told, count in zip(labels, row, strict=True)
        if count
    ]
    cell = st.selectbox(
        "Pictures of the cell",
        cells,
        index=None,
        format_func=describe,
        key="cell",
        placeholder="Choose one, here or in the matrix",
    )
    if cell and cell[0] == cell[1]:
        mistaken = {Path(entry["file"]).name for entry in wrong}
        found = (
            picture
            for picture in sorted((DATA / measured["set"].replace("-", "/", 1)).glob("*.*"))
            if truth(picture) and part(truth(picture)) == cell[0] and picture.name not in mistaken
        )
        pictures = list(islice(found, SHOWN))
        if clicked := show_gallery(pictures, [words(truth(picture)) for picture in pictures], "right"):
            open_picture(clicked)
        if not pictures:
            st.caption(
                "What was told right is not listed, only counted. It can be shown of Kaggle Fingers alone, where that "
                "data set is: `python -m training data` fetches it."
            )
    elif cell:
        # Missed hands have no class that was told, and no cell.
        misread = [entry for entry in wrong if entry["probabilities"]]
        entries = [entry for entry in misread if (part(entry["truth"]), part(entry["predicted"])) == cell]
        if entries:
            show_mistakes(entries[:SHOWN], "cell")

st.header("Classes")
table, reliability = st.columns(2, gap="medium")
with table:
    share = st.column_config.NumberColumn(format="percent")
    st.dataframe(
        pd.DataFrame(measured["per_class"]),
        column_config={"precision": share, "recall": share, "f1": share},
        hide_index=True,
        height="content",
    )
with reliability:
    show_reliability(measured["reliability"])
    st.caption("How often it is right, where it is so sure. On the dashed line, confidence can be taken at its word.")

st.header("Surest mistakes")
if wrong:
    show_mistakes(wrong[:SHOWN], "surest")
else:
    st.success("Not a single picture of this set is wrong.")

with st.expander("The model, and how it was measured"):
    model = measured["model"]
    trainings = {"config": "The classifier's training", "detector config": "The detector's training"}
    about = {key: told for key, told in model.items() if key not in trainings} | {
        "sha256": model["sha256"][:16] + " …",
        "classes": " ".join(measured["classes"]),
        "measured by": measured["command"],
    }
    st.table(pd.Series(about, name="model"))
    for key, title in trainings.items():
        if key in model:
            st.caption(title)
            st.code(model[key], language="yaml")
