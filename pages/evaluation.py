"""Evaluation page: how good the model is on strangers, where it fails, and all measurements behind that."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from itertools import chain

import streamlit as st

from handful import MODEL
from web.evaluation_details import (
    MAX_THUMBNAILS,
    best_mode,
    may_show,
    show_accuracy_table,
    show_conditions,
    show_leave_one_out,
    show_provenance,
    show_rendered,
    show_set,
    show_teach,
)
from web.rates import Rate, interval_of_100, of_100, rate, show_comparison, show_rates
from web.widgets import DATA, fingers_in_words, show_gallery

METRICS = MODEL.parent / "metrics"
MAX_ROWS = 8  # of people or sessions; more are summed up
# Whose hands each set shows, in words, and what intervals are drawn of: pictures of one are alike.
SETS = {
    "hagrid": (
        "Strangers at home",
        "People in front of their own cameras, at home. The model was neither trained on these pictures nor tuned "
        "to them.",
        "pictures",
    ),
    "digits": (
        "Strangers, close up",
        "Students whom the model never saw, in front of the same wall as others that it was trained on.",
        "people",
    ),
    "webcam": (
        "One man at his webcam",
        "No stranger: the model was trained on other sessions of this man. These sessions and rooms are new to it.",
        "sessions",
    ),
    "rendered": (
        "Simulated hands",
        "Rendered by computer, in all 32 combinations of fingers, most of which nobody shows.",
        "pictures",
    ),
    "fingers-test": (
        "Kaggle Fingers",
        "Hands against a dark background. Easy: most of these pictures have a near copy among the training pictures.",
        "clips",
    ),
}
# Of HaGRID, in the order that they are shown in; all other rows are single gestures.
GROUPS = {
    "counting": "All gestures that people count with",
    "fingers spread": "… with fingers apart",
    "fingers together": "… with fingers held together",
    "other signs": "Other signs",
}
SESSIONS = {
    "5_": "an office, against the light of a window",
    "26_": "two hands under ceiling lights, partly very dark",
    "35_": "in front of a light wall",
    "pic": "an open hand that turns and moves",
}
RUN_EVALUATE = "Run `python -m training evaluate`"
RUN_BENCHMARK = "Run `python -m benchmarks mediapipe`"


def show_page() -> None:
    st.title("Evaluation")
    metrics = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in METRICS.glob("*.json")}
    sets = {name: metrics[name] for name in metrics.get("summary", {}) if name in metrics}  # in its order
    hagrid = metrics.get("hagrid")
    if not sets and not hagrid:
        st.info("There are no metrics yet. `make evaluate` or `python -m training evaluate` creates them.")
        return
    mediapipe = metrics.get("mediapipe", {"modes": [], "sets": {}})
    if hagrid:
        show_answer(hagrid, mediapipe)
    else:
        st.info(
            f"{RUN_EVALUATE} with HaGRID in the data folder: it shows strangers. `python -m training data` fetches it."
        )
    show_every_set(sets | ({"hagrid": hagrid} if hagrid else {}), mediapipe)
    st.header("Where it fails")
    if hagrid:
        show_gestures(hagrid)
    if "webcam" in sets:
        show_sessions(sets["webcam"], "webcam")
    if "digits" in sets:
        show_sessions(sets["digits"], "digits")
    if "rendered" in sets:
        show_tones(sets["rendered"])
    if "webcam" in sets:
        show_distances(sets["webcam"])
    if empty := metrics.get("empty"):
        show_false_alarms(empty, mediapipe)
    if "rendered" in sets:
        show_rendered_errors(sets["rendered"])

    if teach := metrics.get("teach"):
        st.header("Taught with your own hand")
        show_teach(teach["curve"])

    st.header("All measurements")
    with st.expander("Counts, sides, recall and precision of every set", icon=":material/table_chart:"):
        show_accuracy_table([(row["short_title"], name, row) for name, row in sets.items()], mediapipe)
    if conditions := metrics.get("webcam", {}).get("conditions"):
        with st.expander("Simulated conditions: distance, light, blur", icon=":material/wb_twilight:"):
            show_conditions(conditions, mediapipe)
    if left_out := metrics.get("leave-one-out"):
        with st.expander("Trained without a source, evaluated on it (leave-one-out)", icon=":material/group_off:"):
            show_leave_one_out(left_out["sources"], mediapipe)
    if sets:
        asked = not {"set", "cell", "compare"}.isdisjoint(st.query_params)
        with st.expander("One set in detail", asked, icon=":material/grid_on:"):
            show_set(sets)
        with st.expander("Model and evaluation", icon=":material/info:"):
            show_provenance(next(iter(sets.values())))


def show_answer(hagrid: dict, mediapipe: dict) -> None:
    """Show how many of a hundred strangers' pictures are right, beside MediaPipe, with speed and size."""
    other = mediapipe["sets"].get("hagrid", {})
    with st.container(border=True, key="answer"):
        st.html(
            f"<p class='answer'><strong>{of_100(hagrid['total_accuracy'])}</strong> of 100 pictures of strangers are "
            "counted correctly.</p>"
        )
        st.write(
            f"Measured on {hagrid['pictures']} pictures of people at home, in front of their own cameras, whom the "
            "model never saw (HaGRID: ten pictures of each of twelve gestures that people count with). "
            f"On other strangers, expect {interval_of_100(hagrid['total']['interval'], ' to ')} of 100."
        )
        show_rates(rates_beside(hagrid, other, mediapipe), columns=("CPU time of a frame", "Size of the models"))
        st.caption(
            "**95% interval:** among all strangers, the share may be another one; of 100 intervals made in this way, "
            "95 contain it (Wilson’s formula; each picture counts as another person). "
            "**MediaPipe Hands** finds 21 points of a hand and leaves counting to a rule. **Best rule:** the best of "
            "three common ones on these very pictures. **Learned rule:** trained, as Handful is, on our pictures. "
            "**CPU time:** of a webcam frame with one hand, 640 × 480 pixels, measured in turns on one machine."
        )
        if verdicts := compare(other, mediapipe["modes"]):
            st.write(verdicts)
        else:
            st.info(f"{RUN_BENCHMARK} for the comparison with MediaPipe.")


def rates_beside(row: dict, other: dict, mediapipe: dict) -> list[Rate]:
    """Return the rates of Handful and of MediaPipe's rules on one set, with CPU times and sizes as further cells."""
    times, sizes = mediapipe["sets"].get("webcam-one", {}), mediapipe.get("model_bytes", {})

    def cells(model: str, mode: dict) -> tuple[str, str]:
        ms, size = mode.get("cpu_ms", {}).get("median"), sizes.get(model)
        return (f"{ms:.0f} ms" if ms else "–", f"{size / 1e6:.1f} MB" if size else "–")

    rivals = best_mode(times, mediapipe["modes"]) or {}
    rates = [rate("Handful", row, cells=cells("handful", times.get("handful", {})))]
    for name, result in (("best rule", best_mode(other, mediapipe["modes"])), ("learned rule", other.get("learned"))):
        if result:
            model = "learned" if name == "learned rule" else "mediapipe"
            interval = result.get("interval")
            shown = Rate(f"MediaPipe, {name}", result["accuracy"], other["frames"], interval, "", model)
            rates.append(shown._replace(cells=cells("mediapipe", rivals)))
    return rates


def compare(other: dict, modes: list[str]) -> str:
    """Return in words whether Handful is ahead of MediaPipe on the same pictures; "" if that was not measured."""

    def verdict(behind: list[float]) -> str:
        low, high = behind
        if low > 0:
            return "Handful is ahead of MediaPipe with {}"
        if high < 0:
            return "Handful is behind MediaPipe with {}"
        return "On so few pictures, Handful and MediaPipe with {} are too close to tell apart"

    rivals = {"its best rule": best_mode(other, modes), "the learned rule": other.get("learned")}
    verdicts = defaultdict(list)
    for name, result in rivals.items():
        if result and result.get("behind"):
            verdicts[verdict(result["behind"])].append(name)
    return " ".join(f"{words.format(' or '.join(names))}." for words, names in verdicts.items())


def show_every_set(sets: dict[str, dict], mediapipe: dict) -> None:
    """Show the rates of every set, with whose hands it shows."""
    st.header("Strangers, acquaintances, simulations")
    st.write(
        "In how many of 100 pictures do the counted fingers add up correctly? That depends on whose hands they are:"
    )
    rows = []
    for name in [*(name for name in SETS if name in sets), *(name for name in sets if name not in SETS)]:
        row = sets[name]
        title, whose, unit = SETS.get(name, (row["short_title"], row["title"], "pictures"))
        if (units := row["total"]["units"]) != row["pictures"]:
            whose += f" Interval: bootstrap of {units:,} {unit}" + (", so few that it is rough." if units < 10 else ".")
        other = mediapipe["sets"].get(name, {})
        by_model = {one.model: one for one in rates_beside(row, other, mediapipe)}
        rows.append((title, whose, [by_model.get(model) for model in ("handful", "mediapipe", "learned")]))
    show_comparison(rows, ("Handful", "MediaPipe, best rule", "MediaPipe, learned rule"))
    st.caption(
        "Below each share, its 95% interval: by Wilson’s formula where every picture stands alone. Pictures of one "
        "person, session or clip are alike, and say less than as many different ones: there, whole people, sessions or "
        "clips are drawn again and again (bootstrap). MediaPipe’s intervals are made in the same way."
    )


def wrong(errors: Iterable[dict], with_label: bool = True) -> str:
    """Return what was counted instead, most frequent first, without sides: "5 as 4 (3×), 3 as 4", or "4 (4×)"."""

    def count(label: str | int) -> str:
        return str(label).replace("L", "").replace("R", "")

    counts = Counter(
        (f"{count(error['label'])} as " if with_label else "") + count(error["predicted"]) for error in errors
    )
    return ", ".join(text + (f" ({times}×)" if times > 1 else "") for text, times in counts.most_common())


def show_gestures(hagrid: dict) -> None:
    """Show the rate of each gesture, worst first, and pictures of the errors where they may be shown."""
    st.subheader("By gesture, strangers at home")
    rows = [row for row in hagrid["groups"]["gesture"] if row["pictures"]]
    single = sorted((row for row in rows if row["group"] not in GROUPS), key=lambda row: row["total_accuracy"])
    errors = {row["group"]: [error for error in hagrid["errors"] if error["gesture"] == row["group"]] for row in single}
    show_rates([rate(GROUPS[row["group"]], row) for row in rows if row["group"] in GROUPS], "Gestures")
    show_rates(
        [
            rate(row["shows"].capitalize(), row, f"counted as {wrong(errors[row['group']], with_label=False)}")
            for row in single
            if errors[row["group"]]
        ],
        "Gesture, worst first",
    )
    if correct := [row["shows"] for row in single if not errors[row["group"]]]:
        st.write(f"All pictures of these are counted correctly: {'; '.join(correct)}.")
    st.caption(
        "Nobody counts with the other signs, such as a thumb that points down, but their raised fingers can be "
        "counted. With ten pictures of a gesture, intervals are wide: compare groups rather than gestures."
    )
    worst_first = list(chain.from_iterable(errors.values()))
    show_pictures(hagrid, worst_first, "gesture", lambda error: f"{error['label']} counted as {error['predicted']}")


def show_pictures(row: dict, errors: list[dict], key: str, caption: Callable[[dict], str]) -> None:
    """Show pictures of errors as buttons, with their credit, if their licence allows it, or say why there are none."""
    if not may_show(row):
        return
    errors = [error for error in errors if os.path.isfile(DATA / error["file"])][:MAX_THUMBNAILS]
    if not errors:
        st.caption("The pictures are shown where the data set is installed: `python -m training data` fetches it.")
        return
    show_gallery([DATA / error["file"] for error in errors], [caption(error) for error in errors], key)
    st.caption(f"Click a picture for its prediction. {row['credit']}.")


def show_sessions(metrics: dict, name: str) -> None:
    """Show the rate of each session or person of a set, with what was counted instead."""
    rows = metrics.get("groups", {}).get("session")
    if not rows:
        return
    title, _, unit = SETS[name]
    one = "person" if unit == "people" else "session"
    st.subheader(f"By {one}, {title[0].lower()}{title[1:]}")
    if len(rows) > MAX_ROWS:
        wrong_rows = [row for row in rows if row["total_accuracy"] < 1]
        st.write(f"For **{len(rows) - len(wrong_rows)} of {len(rows)}** {unit}, all pictures are correct.")
        rows = wrong_rows[:MAX_ROWS]
    rates = []
    for row in rows:
        errors = wrong(error for error in metrics["errors"] if error["group"] == row["group"])
        session = SESSIONS.get(row["group"], row["group"]).capitalize()
        rates.append(rate(session, row, f"counted {errors}" if errors else ""))
    if rates:
        show_rates(rates, one.capitalize())
    st.caption(
        f"Pictures of one {one} are alike, so there is no interval. They are not shown here: only pictures under a "
        f"Creative Commons licence are, and these are under {metrics['licence']}."
    )


def show_tones(rendered: dict) -> None:
    if tones := rendered.get("groups", {}).get("skin tone"):
        st.subheader("By skin tone, simulated")
        show_rates([rate(row["group"], row) for row in tones], "Monk Skin Tone")
        st.caption(
            f"The same {tones[0]['pictures']} rendered hands in each of the ten tones of the Monk scale, with the same "
            "pose, light and place. Photographs come without labels of skin tone: how it does on real hands is not "
            "known."
        )


def show_distances(webcam: dict) -> None:
    sizes = webcam.get("groups", {}).get("hand in the picture")
    far = [row for row in webcam.get("conditions", ()) if "as far" in row["group"] or row["group"] == "as recorded"]
    if not sizes and not far:
        return
    st.subheader("By distance")
    if sizes:
        show_rates([rate(row["group"].capitalize(), row) for row in sizes], "Hand’s share of the picture’s height")
        st.caption("Webcam frames as recorded, not simulated: a hand farther away takes up less of the picture.")
    if far:
        simulated = {row["group"]: ", simulated" if "as far" in row["group"] else "" for row in far}
        show_rates([rate(row["group"].capitalize() + simulated[row["group"]], row) for row in far], "Distance")
        st.caption(
            "The same frames, scaled down by the computer and put into a larger room. A fist that is missed adds "
            "nothing to a sum, and counts as correct here. Hands with a box that fits, with at least half of the area "
            "in common: " + ", ".join(f"{row['group']} {row['recall']:.0%}" for row in far) + "."
        )


def show_false_alarms(empty: dict, mediapipe: dict) -> None:
    """Show how often a hand is reported where there is none, and pictures of that where they may be shown."""
    st.subheader("Hands where there are none")
    share = empty["false_alarms"] / max(empty["pictures"], 1)
    st.write(
        f"A hand is reported in **{empty['false_alarms']} of {empty['pictures']}** pictures without one ({share:.1%}): "
        + "; ".join(f"{group['group']}: {group['false_alarms']} of {group['pictures']}" for group in empty["groups"])
        + "."
    )
    without_hands = [one for one in mediapipe["sets"].values() if "false_alarms" in one.get("static", {})]
    if pictures := sum(one["frames"] for one in without_hands):
        own, other = (sum(one[name]["false_alarms"] for one in without_hands) for name in ("handful", "static"))
        st.write(f"On the {pictures} that MediaPipe was run on, too: Handful in **{own}**, MediaPipe in **{other}**.")

    def caption(alarm: dict) -> str:
        hand = max(alarm["hands"], key=lambda hand: hand["confidence"])
        return f"{fingers_in_words(hand['fingers'])}, {hand['confidence']:.0%}"

    for group in empty["groups"]:
        alarms = [alarm for alarm in empty["alarms"] if alarm["set"] == group["set"]]
        if alarms and "licence" in group:
            show_pictures(group, alarms, f"alarm {group['set']}", caption)
        elif alarms:  # rooms are made of frames of other sets
            st.write(f"{group['group']}, not shown: taken for {'; '.join(map(caption, alarms))}.")


def show_rendered_errors(metrics: dict) -> None:
    """Show the rendered hands that were predicted worst, which come with the metrics."""
    st.subheader("Simulated hands")
    if not show_rendered(metrics["errors"]):
        st.caption(f"{RUN_EVALUATE}: it keeps pictures of the rendered hands that were predicted worst.")
        return
    st.caption(
        "Labels are fingers and side: 3L is three fingers of a left hand. The model saw each hand in a room, smaller; "
        "the room is left out here."
    )


show_page()
