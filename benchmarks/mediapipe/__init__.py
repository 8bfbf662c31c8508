"""Accuracy and time compared with MediaPipe 0.10.21, the usual way to count fingers, on the same frames in one run.

MediaPipe finds landmarks of hands; counting fingers from them is left to rules. The worker has three that are written
by hand; another one is learned from pictures that Handful is trained on (`learned.py`). MediaPipe runs in a separate
environment, as it needs an older numpy. That is created on first use (`.venv-mediapipe`, about 1 GB; delete the folder
to undo it). It also keeps the landmarks that were learned from.

Wherever there was a choice, it favours MediaPipe: its best rule of the three is chosen for each set and mode, knowing
the labels; their thresholds were tuned on these very frames; close crops are adapted to it (`pad`); its time is that of
`process` alone, without rules; and it uses as many threads as it likes, where Handful uses one. Handful gets every
picture unchanged. A frame without a detected hand counts as 0 fingers, for both, which is correct for fists.

For sets that end in -all, the rule is learned without their fold of sources, as Handful is for leave-out.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from joblib import Memory

from benchmarks import ROOT, Unavailable, machine, summary
from benchmarks.frames import FRAME_SETS, LabelledPicture, digest, load_frames
from benchmarks.mediapipe.learned import Samples, collect, describe, fit, total
from handful import MODEL, FingerCounter
from training.evaluation.intervals import accuracy, lead
from training.files import atomic_write
from training.markdown import markdown_table

REQUIREMENT = "mediapipe==0.10.21"
ENVIRONMENT = ROOT / ".venv-mediapipe"
RESULTS = MODEL.parent / "metrics/mediapipe.json"  # for the Evaluation page and `python -m training report`
CLOCKS = {"ms": "elapsed", "cpu_ms": "CPU"}
PADDED_PX, PADDING_PX = 400, 200


def environment() -> Path:
    """Return the Python that has MediaPipe, whose environment is created first if needed.

    Raises:
        Unavailable: it cannot be created.
    """
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = ENVIRONMENT / REQUIREMENT  # missing in a broken or an older one, which is recreated
    if stamp.exists():
        return python
    print(f"Installing {REQUIREMENT} into {ENVIRONMENT.name}, once ...", file=sys.stderr, flush=True)
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)],
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", REQUIREMENT],
    ):
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            output = (getattr(error, "stderr", None) or getattr(error, "stdout", None) or str(error)).strip()
            raise Unavailable(
                f"{REQUIREMENT} cannot be installed (it needs Python 3.9-3.12 and a network; "
                f"this is Python {sys.version_info.major}.{sys.version_info.minor}): {output.splitlines()[-1]}"
            ) from None
    (ENVIRONMENT / ".gitignore").write_text("*\n")
    stamp.touch()
    return python


class Worker:
    """MediaPipe in another process. See worker.py for the protocol.

    Attributes:
        versions: of MediaPipe and what it runs on.
        modes: in which it runs on each picture, such as "static".
        model_bytes: size of its two models.
    """

    def __init__(self, python: Path):
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        self.process: Any = subprocess.Popen(  # Any: its pipes are not None
            # Isolated: it imports from its own environment only, whatever the folder and PYTHONPATH.
            [str(python), "-I", str(Path(__file__).with_name("worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )
        greeting = self._receive()
        self.versions: dict[str, str] = greeting["versions"]
        self.modes: list[str] = greeting["modes"]
        self.model_bytes: int = greeting["model_bytes"]

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_) -> None:
        with suppress(OSError):  # it may have ended already
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def __call__(self, image: np.ndarray, reset: bool, modes: Sequence[str] = ()) -> dict[str, dict]:
        """Run some modes on a picture (H, W, 3) uint8 RGB.

        Args:
            image: the picture.
            reset: whether it does not follow the one before.
            modes: which; () for all.
        """
        header = {"shape": image.shape, "reset": reset, "modes": list(modes or self.modes)}
        with suppress(BrokenPipeError):  # _receive raises
            self.process.stdin.write(json.dumps(header).encode() + b"\n")
            self.process.stdin.write(image.tobytes())
            self.process.stdin.flush()
        return self._receive()

    def _receive(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            output = self.errors.read().decode(errors="replace").strip() or f"exit status {self.process.returncode}"
            raise Unavailable(f"MediaPipe stopped: {output.splitlines()[-1]}")
        return json.loads(line)


def pad(image: np.ndarray, border: str) -> np.ndarray:
    """Adapt a close crop to MediaPipe, which detects hands in scenes, and misses most that fill the picture.

    It gets more contrast, a width of 400 pixels, and a border of half as much on each side: its "edges" repeated, or
    "black", whichever gave MediaPipe the higher accuracy on the set.
    """
    low, high = np.percentile(image, (2, 98))
    image = np.clip((image - low) * (255 / max(high - low, 1)), 0, 255).astype(np.uint8)
    scale = PADDED_PX / max(image.shape)
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    kind = cv2.BORDER_REPLICATE if border == "edges" else cv2.BORDER_CONSTANT
    return cv2.copyMakeBorder(image, PADDING_PX, PADDING_PX, PADDING_PX, PADDING_PX, kind)


def detect(image: np.ndarray, border: str, worker: Worker) -> list[dict]:
    """Return MediaPipe's hands in a picture, static, in its pixels; it is adapted if it has a border."""
    adapted = pad(image, border) if border else image
    hands = worker(adapted, True, ["static"])["static"]["landmarks"]
    if border:
        scale, offset = max(image.shape[:2]) / PADDED_PX, np.array([PADDING_PX, PADDING_PX, 0])
        hands = [hand | {"points": ((np.array(hand["points"]) - offset) * scale).tolist()} for hand in hands]
    return hands


def predict_all(
    pictures: list[LabelledPicture], counter: FingerCounter, worker: Worker, border: str = "", modes: Sequence[str] = ()
) -> list[dict]:
    """Run both on each picture in turn, so that whatever slows the machine slows both. MediaPipe: in all modes if ().

    Returns:
        A row each: {"total": the label, "condition", "group", "handful": {"ms", "cpu_ms", "hands", "total"},
        and for each mode of MediaPipe {"ms", "cpu_ms", "hands", "totals": {rule: total}, "landmarks"}}
    """
    rows = []
    session = None
    for i, picture in enumerate(pictures):
        image = picture.image
        adapted = pad(image, border) if border else image
        if not i:  # warm-up
            counter(image)
            worker(adapted, False, modes)
        start, cpu = time.perf_counter(), time.process_time()
        prediction = counter(image)
        ms, cpu_ms = 1000 * (time.perf_counter() - start), 1000 * (time.process_time() - cpu)
        rows.append(
            {
                "total": picture.total,
                "condition": picture.path.parent.name,
                "group": picture.group,
                "handful": {"total": prediction.total, "hands": len(prediction.hands), "ms": ms, "cpu_ms": cpu_ms},
                **worker(adapted, picture.session != session, modes),
            }
        )
        session = picture.session
    return rows


def compute_metrics(rows: list[dict], modes: Sequence[str]) -> dict:
    """Return accuracy of the total, share of frames without a hand, and times, for the rows of `predict_all`.

    Rows may have the total of the learned rule, too, as "learned". "correct", "interval" and "units" are those of
    `intervals.accuracy`; "behind" is the 95% interval of how far MediaPipe is behind Handful.
    """
    labels = np.array([row["total"] for row in rows])
    groups = [row["group"] for row in rows]
    own = labels == [row["handful"]["total"] for row in rows]

    def share(totals: list[int]) -> float:
        return round(float(np.mean(labels == totals)), 4)

    def beside(totals: list[int]) -> dict:
        correct = labels == totals
        return {"accuracy": share(totals), **accuracy(correct, groups), "behind": lead(own, correct, groups)}

    def common(name: str) -> dict:
        no_hand = float(np.mean([not row[name]["hands"] for row in rows]))
        return {"no_hand": round(no_hand, 4)} | {clock: summary([row[name][clock] for row in rows]) for clock in CLOCKS}

    def ratio(mode: str, clock: str) -> float:
        # Coarse clocks may measure 0 (Windows).
        ratios = [row[mode][clock] / max(row["handful"][clock], 0.01) for row in rows]
        return round(float(np.median(ratios)), 2)

    metrics: dict = {
        "handful": {"accuracy": round(float(np.mean(own)), 4), **accuracy(own, groups), **common("handful")}
    }
    for mode in modes:
        rules = {rule: share([row[mode]["totals"][rule] for row in rows]) for rule in rows[0][mode]["totals"]}
        best = max(rules, key=rules.__getitem__)
        metrics[mode] = {
            **beside([row[mode]["totals"][best] for row in rows]),
            "rule": best,
            "rules": rules,
            **common(mode),
            "times_handful": {clock: ratio(mode, clock) for clock in CLOCKS},
        }
    if "learned" in rows[0]:
        metrics["learned"] = beside([row["learned"] for row in rows])
    return metrics


def metrics_by_condition(
    rows: list[dict], modes: Sequence[str], groups: Mapping[str, Sequence[str]] | None = None
) -> dict[str, dict]:
    """Return pictures and accuracies in each condition or group of conditions, MediaPipe's by the best rule for it."""
    metrics: dict[str, dict] = {}
    for name, conditions in (groups or {row["condition"]: [row["condition"]] for row in rows}).items():
        if own := [row for row in rows if row["condition"] in conditions]:
            measured = compute_metrics(own, modes)
            keys = ("accuracy", "correct", "units", "interval", "behind")
            accuracies = {model: {key: one[key] for key in keys if key in one} for model, one in measured.items()}
            metrics[name] = {"frames": len(own), **accuracies}
    return metrics


def count_false_alarms(rows: list[dict], modes: Sequence[str]) -> dict[str, dict]:
    """Return in how many pictures without hands each reports one."""
    return {name: {"false_alarms": sum(row[name]["hands"] > 0 for row in rows)} for name in ("handful", *modes)}


def learn(worker: Worker) -> Samples | None:
    """Return what rules are learned from; landmarks found earlier are read from MediaPipe's environment."""
    find = Memory(ENVIRONMENT / "landmarks", verbose=0).cache(detect, ignore=["worker"])
    return collect(lambda image, border: find(image, border, worker), ROOT / "data")


def run(frames: int = 0) -> dict:
    """Measure every set that is there, at most so many frames of each (0: as many as the set says).

    Raises:
        Unavailable: MediaPipe cannot be installed or run here.
    """
    python = environment()
    sets: dict = {}
    with Worker(python) as worker:
        counter, samples = FingerCounter(), learn(worker)
        rule_without = cache(lambda fold: fit(samples, fold) if samples else None)
        for name, frame_set in FRAME_SETS.items():
            pictures = load_frames(name, ROOT, frames)
            sets[name] = {"title": frame_set.title, "source": frame_set.credit, "frames": len(pictures)}
            if not pictures:
                continue
            print(f"{frame_set.title}: {len(pictures)} frames ...", file=sys.stderr, flush=True)
            modes = [mode for mode in worker.modes if mode == "static" or not frame_set.stills]
            rows = predict_all(pictures, counter, worker, frame_set.border, modes)
            sets[name]["digest"] = digest(pictures)
            if frame_set.without_hands:
                sets[name] |= count_false_alarms(rows, modes)
                continue
            if rule := rule_without(frame_set.row.fold if frame_set.whole else ""):
                for row in rows:
                    row["learned"] = total(rule, row["static"]["landmarks"])
            sets[name] |= compute_metrics(rows, modes)
            if frame_set.corrupted:
                sets[name]["conditions"] = metrics_by_condition(rows, modes)
            if groups := frame_set.groups():
                sets[name]["groups"] = metrics_by_condition(rows, modes, groups)
        return {
            "date": date.today().isoformat(),
            "machine": machine(),
            "mediapipe": worker.versions,
            "model": {
                "sha256": counter.sha256[:12],
                "exported": counter.metadata.get("exported", ""),
            },
            "model_bytes": {"handful": counter.path.stat().st_size, "mediapipe": worker.model_bytes},
            "modes": worker.modes,
            "learned": describe(rule, samples) if samples and (rule := rule_without("")) else {},
            "sets": sets,
        }


def save(results: dict) -> None:
    """Write the results to the repository, if they are of all sets."""
    if not all(measured["frames"] for measured in results["sets"].values()):
        print(f"{RESULTS} is left unchanged: it has the results of all sets.", file=sys.stderr)
        return
    with atomic_write(RESULTS) as part:
        part.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def report(results: dict) -> str:
    """Return the results as tables: accuracy, false alarms, times, each of MediaPipe's rules, and corrupted frames."""
    modes = results["modes"]
    names = {"handful": "Handful", **{mode: f"MediaPipe {mode}" for mode in modes}}
    counting = {**names, "learned": "MediaPipe static, learned rule"}
    there = [measured for measured in results["sets"].values() if measured["frames"]]
    sets = [measured for measured in there if "accuracy" in measured["handful"]]
    measured_rules = {mode: one[mode]["rules"] for one in sets for mode in modes if mode in one}
    all_rules = [(mode, rule) for mode in modes for rule in measured_rules.get(mode, ())]
    accuracy, times, rules = [], [], []
    for measured in sets:
        title = measured["title"]
        for group, one in {"": measured, **measured.get("groups", {})}.items():
            shares = [percent(one.get(name, {}).get("accuracy")) for name in counting]
            shares += [percent(one.get(name, {}).get("no_hand")) for name in names]
            accuracy.append([f"… {group}" if group else title, str(one["frames"]), *shares])
        for clock, clock_name in CLOCKS.items():
            medians = [f"{measured[name][clock]['median']:.1f}" if name in measured else "–" for name in names]
            ratios = [f"{measured[mode]['times_handful'][clock]:.1f}×" if mode in measured else "–" for mode in modes]
            times.append([f"{title}: {clock_name}", *medians, *ratios])
        shares = [measured[mode]["rules"].get(rule) if mode in measured else None for mode, rule in all_rules]
        rules.append([title, *map(percent, shares)])
    versions = results["mediapipe"]
    texts = [
        results["machine"],
        f"MediaPipe {versions['mediapipe']} (numpy {versions['numpy']}) processes each frame alone (static), or tracks "
        "from frame to frame.\nFrames with the correct total (MediaPipe: by its best rule for the set of three "
        "written by hand, or by a learned rule),\nand frames without a detected hand:",
        markdown_table(
            ["Set", "frames", *counting.values(), *(f"no hand: {name}" for name in names.values())], accuracy
        ),
        "Median ms a frame, in turns, and the median of MediaPipe's time over Handful's for the same frame.\n"
        "On a busy machine, elapsed times are longer, most of all with MediaPipe's many threads: compare CPU times.",
        markdown_table(["Set", *names.values(), *(f"{mode} / Handful" for mode in modes)], times),
        "MediaPipe's rules:",
        markdown_table(["Set", *(f"{mode} {rule}" for mode, rule in all_rules)], rules),
    ]
    if learned := results.get("learned"):
        texts.append(
            f"The learned rule has seen {sum(learned['hands'].values()):,} hands of {len(learned['hands'])} sources; "
            f"on people and sessions left out of them, it counts {learned['cross_validation']:.1%} correctly."
        )
    if empty := [measured for measured in there if "false_alarms" in measured["handful"]]:
        texts.append("Pictures without hands in which one is reported:")
        rows = [
            [measured["title"], str(measured["frames"])]
            + [str(measured[name]["false_alarms"]) if name in measured else "–" for name in names]
            for measured in empty
        ]
        texts.append(markdown_table(["Set", "pictures", *names.values()], rows))
    if conditions := results["sets"].get("webcam-harder", {}).get("conditions"):
        texts.append("The webcam frames in each condition, correct totals (MediaPipe: by its best rule for each):")
        rows = [
            [title, *(percent(by_name.get(name, {}).get("accuracy")) for name in counting)]
            for title, by_name in conditions.items()
        ]
        texts.append(markdown_table(["Condition", *counting.values()], rows))
    if missing := [measured["title"] for measured in results["sets"].values() if not measured["frames"]]:
        texts.append(f"Not available, skipped: {', '.join(missing)}.")
    return "\n\n".join(texts)


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
