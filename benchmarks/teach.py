"""Personal heads: what a few pictures of a person's own hand are worth, to people and sessions that no training saw.

Each group of frames that is held out for validation, a person or a session, is taught with the first pictures of each
count in order of their names, and tested on the rest, with the whole model: a frame is right if its total is. A source
that `python -m training leave-out` trained a model without is tested with that model, on all of its frames.

Rooms are pictures without a hand in which the model predicts one. Seen by a shaky camera, each is taught, together with
hands of a session, and tested in another second of that camera.
"""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import ROOT, Unavailable, machine
from benchmarks.frames import spread
from benchmarks.steady import shaky_video
from handful import MODEL, FingerCounter, Prediction
from handful.labels import NO_HAND, count_of
from handful.personal import CannotLearn, Lessons, Place, fit
from training.data.backgrounds import load_backgrounds
from training.data.frames import counted
from training.data.registry import SOURCES, open_source
from training.errors import BadData
from training.evaluation.evaluate import pictures_without_hands
from training.files import atomic_write
from training.markdown import markdown_table

RESULTS = MODEL.parent / "metrics/teach.json"
SIZES = (2, 3, 5, 9, 15)  # pictures of each class that are learned from
STARTS = 3  # where in the order of names they are taken from
ROUNDS = 3
MIN_PICTURES = 18  # of a session; smaller ones of a source are put together
MAX_PICTURES = 150
MAX_TESTED = 60
ROOM_HANDS = 9  # pictures of each class that are learned with a room
NEIGHBOURS = 5
Picture = tuple[np.ndarray, int]  # (H, W, 3) uint8 RGB, and its target
ROOM_SOURCE = "webcam"  # whose hands
# "personal" is the head that a visitor gets, the shipped one where learning did not help by the visitor's own rounds;
# "always" is the fitted one.
METHODS = ("shipped", "personal", "always", "nearest neighbours", "logistic regression")


@dataclass(frozen=True)
class Session:
    """Pictures of one hand each, in order of their names."""

    source: str
    group: str
    counter: FingerCounter
    pictures: list[Picture]


def sessions(root: Path, frames: int) -> Iterator[Session]:
    """Yield the sessions of all sources that are there, of `frames` pictures at most; 0: as many as are used."""
    for name, source in SOURCES.items():
        if source.without_hands or not source.whole_frames:
            continue
        try:
            data = open_source(name, root / "data")
        except BadData as error:
            print(f"{name}: skipped. {error}", file=sys.stderr)
            continue
        left_out = root / f"runs/leave-out/{source.fold}/handful.onnx"
        counter = FingerCounter(left_out if left_out.exists() else MODEL)
        used = range(len(data)) if left_out.exists() else np.flatnonzero(data.validation).tolist()
        groups = defaultdict(list)
        for i in sorted(used, key=lambda i: (len(data.path(i).name), data.path(i).name)):
            groups[data.groups[i]].append(i)
        large = {group: indices for group, indices in groups.items() if len(indices) >= MIN_PICTURES}
        small = sorted(i for group, indices in groups.items() if group not in large for i in indices)
        for group, indices in (large | {"others": small}).items():
            pictures: list[Picture] = []
            for i in spread(indices, min(frames or MAX_PICTURES, MAX_PICTURES)):
                frame = counted(data.frame(i))
                if frame is not None and len(frame.targets) == 1:
                    pictures.append((frame.image, int(frame.targets[0])))
            several = len({count_of(target) for _, target in pictures}) > 1
            if several and len(pictures) >= min(frames or MIN_PICTURES, MIN_PICTURES):
                yield Session(name, group, counter, pictures)


def split(pictures: Sequence[Picture], size: int, start: int) -> tuple[dict[int, int], list[int]]:
    """Return the pictures to learn from, each with its round, and those to test on, by their numbers.

    Learned from are `size` neighbours of each class, or half of those that there are.
    """
    classes = defaultdict(list)
    for number, (_, target) in enumerate(pictures):
        classes[target].append(number)
    learned: dict[int, int] = {}
    tested: list[int] = []
    for numbers in classes.values():
        first = start * len(numbers) // STARTS
        numbers = numbers[first:] + numbers[:first]
        used = min(size, len(numbers) // 2)
        learned |= {number: i * min(ROUNDS, used) // used for i, number in enumerate(numbers[:used])}
        tested += numbers[used:]
    return learned, sorted(tested)


def subset(lessons: Lessons, rounds: dict[int, int]) -> Lessons:
    """Return the lessons of some pictures, by their numbers, in these rounds."""
    chosen = Lessons(lessons.counter)
    for number, picture in enumerate(rounds):
        places = [place for place in lessons.places if place.picture == picture]
        chosen.places += [place._replace(round=rounds[picture], picture=number) for place in places]
    chosen.pictures = len(rounds)
    return chosen


def train_baselines(places: Sequence[Place]) -> dict[str, Any]:
    """Return what predicts a count from features (N, 112) and knows nothing but these places."""
    features = [place.features for place in places if place.score]
    counts = [count_of(place.target) for place in places if place.score]
    models = {
        "nearest neighbours": KNeighborsClassifier(min(NEIGHBOURS, len(counts))),
        "logistic regression": LogisticRegression(max_iter=1000),
    }
    return {name: make_pipeline(StandardScaler(), model).fit(features, counts) for name, model in models.items()}


def measure(session: Session, size: int, start: int, lessons: Lessons, shipped: Sequence[Prediction]) -> dict | None:
    """Return the share of errors of each method on the pictures that were not learned from.

    Args:
        session: whose pictures.
        size: how many of each class are learned from.
        start: which.
        lessons: all pictures, in their order.
        shipped: predictions of all pictures, by the model as it is.

    Returns:
        None if they do not suffice to learn from.
    """
    learned, others = split(session.pictures, size, start)
    chosen, began = subset(lessons, learned), time.process_time()
    try:
        head = fit(chosen)
    except CannotLearn:
        return None
    seconds, baselines = time.process_time() - began, train_baselines(chosen.places)
    wrong: dict[str, list[bool]] = defaultdict(list)
    for number in spread(others, MAX_TESTED):
        image, target = session.pictures[number]
        totals = {"shipped": shipped[number].total, "always": session.counter(image, head).total}
        totals["personal"] = totals["always" if head.figures.helped else "shipped"]
        features = [hand.features for hand in shipped[number].hands]
        for name, baseline in baselines.items():
            totals[name] = int(baseline.predict(features).sum()) if features else 0
        for name, total in totals.items():
            wrong[name].append(total != count_of(target))
    errors = {name: round(float(np.mean(values)), 4) for name, values in wrong.items()}
    tested = len(wrong["shipped"])
    return {"size": size, "learned": len(learned), "tested": tested, "errors": errors, "seconds": round(seconds, 3)}


def measure_room(image: np.ndarray, session: Session, lessons: Lessons) -> dict:
    """Teach a room without a hand, and hands of a session; return the share of frames with false alarms, and of hands
    that are not predicted as labelled, before and after.
    """
    learned, tested = split(session.pictures, ROOM_HANDS, 0)
    chosen, counter = subset(lessons, learned), session.counter
    taught, seen = (list(shaky_video(image, np.random.default_rng(seed)))[::3] for seed in (0, 1))
    for number, frame in enumerate(taught):
        chosen.add(frame, NO_HAND, number % ROUNDS)
    head = fit(chosen)
    hands = [session.pictures[number] for number in spread(tested, MAX_TESTED)]
    return {
        f"{kind} {when}": round(float(np.mean(values)), 4)
        for when, used in (("before", None), ("after", head))
        for kind, values in (
            ("alarms", [bool(counter(frame, used).hands) for frame in seen]),
            ("errors", [counter(hand, used).total != count_of(target) for hand, target in hands]),
        )
    }


def run(frames: int = 0) -> dict:
    """Measure all sessions and rooms that are there."""
    results: dict = {"machine": machine(), "model": FingerCounter().sha256, "sessions": [], "rooms": []}
    for session in sessions(ROOT, frames):
        lessons = Lessons(session.counter)
        for image, target in session.pictures:
            lessons.add(image, target, round=0)
        shipped = [session.counter(image) for image, _ in session.pictures]
        measured = (measure(session, size, start, lessons, shipped) for size in SIZES for start in range(STARTS))
        row = {"source": session.source, "title": SOURCES[session.source].short_title, "group": session.group}
        row |= {"left_out": session.counter.path != MODEL, "pictures": len(session.pictures)}
        results["sessions"].append(row | {"runs": [one for one in measured if one]})
        print(f"{session.source} {session.group}: {len(session.pictures)} pictures", file=sys.stderr)
        if session.source == ROOM_SOURCE and not results["rooms"]:
            sets = pictures_without_hands(ROOT / "data", load_backgrounds(ROOT / "data", validation=True))
            rooms = [(name, image) for pictures in sets.values() for name, image in pictures]
            with_alarms = [(name, image) for name, image in rooms if session.counter(image).hands]
            results["rooms"] = [{"room": name} | measure_room(image, session, lessons) for name, image in with_alarms]
            head = fit(subset(lessons, split(session.pictures, ROOM_HANDS, 0)[0]))
            after = sum(bool(session.counter(image, head).hands) for _, image in rooms)
            results["elsewhere"] = {"pictures": len(rooms), "before": len(with_alarms), "after": after}
    if not results["sessions"]:
        raise Unavailable("no data sets are there. Fetch them: python -m training data")
    return results


def curve(results: dict) -> list[dict]:
    """Return the mean errors of all sessions by the number of pictures of each class, for a table or a plot.

    Returns:
        For each size: {"size", "sessions", "learned": pictures in all, "errors": {method: share}, "worse": share of
        runs in which the personal head made errors in over a point more of the frames than the shipped one}. All
        sizes are of the same sessions.
    """
    runs = {size: [[r for r in s["runs"] if r["size"] == size] for s in results["sessions"]] for size in SIZES}
    complete = [i for i in range(len(results["sessions"])) if all(runs[size][i] for size in SIZES)]
    rows = []
    for size in SIZES:
        used = [runs[size][i] for i in complete]
        flat = [run["errors"] for one in used for run in one]
        errors = {m: float(np.mean([np.mean([r["errors"][m] for r in one]) for one in used])) for m in METHODS}
        rows.append(
            {
                "size": size,
                "sessions": len(used),
                "learned": round(float(np.mean([run["learned"] for one in used for run in one]))),
                "errors": {method: round(share, 4) for method, share in errors.items()},
                "worse": round(float(np.mean([e["personal"] > e["shipped"] + 0.01 for e in flat])), 4),
            }
        )
    return rows


def report(results: dict) -> str:
    """Return the results as tables."""
    rows = [
        [str(row["size"]), *(f"{row['errors'][method]:.1%}" for method in METHODS), f"{row['worse']:.0%}"]
        for row in curve(results)
    ]
    tables = [results["machine"], markdown_table(["Pictures of each count", *METHODS, "worse by a point"], rows)]
    rows = []
    for session in results["sessions"]:
        nine = [run["errors"] for run in session["runs"] if run["size"] == 9]
        if nine:
            shares = [f"{np.mean([errors[method] for errors in nine]):.1%}" for method in METHODS]
            rows.append([f"{session['title']} {session['group']} ({session['pictures']})", *shares])
    tables.append(markdown_table(["Errors with nine pictures of each count", *METHODS], rows))
    if rooms := results["rooms"]:
        shares = {name: f"{np.mean([room[name] for room in rooms]):.0%}" for name in rooms[0] if name != "room"}
        tables.append(f"{len(rooms)} rooms, taught with hands: {json.dumps(shares)}")
        pictures, before, after = results["elsewhere"].values()
        tables.append(f"False alarms in {pictures} places that were not taught: {before}, with a personal head {after}")
    seconds = [run["seconds"] for session in results["sessions"] for run in session["runs"]]
    tables.append(f"Time to fit: {np.median(seconds):.2f} s, at most {max(seconds):.2f} s of one core")
    return "\n\n".join(tables)


def save(results: dict) -> None:
    """Write the results to the repository, with their means."""
    with atomic_write(RESULTS) as part:
        part.write_text(json.dumps(results | {"curve": curve(results)}, indent=1) + "\n", encoding="utf-8")
