"""Accuracy and time compared with MediaPipe 0.10.21, the usual way to count fingers, on the same frames in one run.

MediaPipe finds landmarks of hands; counting fingers from them is left to rules, of which the worker has three. It runs
in a separate environment, as it needs an older numpy. That is created on first use (`.venv-mediapipe`, about 1 GB;
delete the folder to undo it).

Wherever there was a choice, it favours MediaPipe: its best rule is chosen for each set and mode, knowing the labels;
the rules' thresholds were tuned on these very frames; close crops are adapted to it (`pad`); its time is that of
`process` alone, without rules; and it uses as many threads as it likes, where Handful uses one. Handful gets every
picture unchanged. A frame without a detected hand counts as 0 fingers, for both, which is correct for fists.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import ROOT, Unavailable, machine, summary
from benchmarks.frames import FRAME_SETS, LabelledPicture, digest, load_frames
from handful import MODEL, FingerCounter
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

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_) -> None:
        with suppress(OSError):  # it may have ended already
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def __call__(self, image: np.ndarray, reset: bool) -> dict[str, dict]:
        """Run each mode on a picture (H, W, 3) uint8 RGB. `reset`: the picture does not follow the one before."""
        with suppress(BrokenPipeError):  # _receive raises
            self.process.stdin.write(json.dumps({"shape": image.shape, "reset": reset}).encode() + b"\n")
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


def predict_all(
    pictures: list[LabelledPicture], counter: FingerCounter, worker: Worker, border: str = ""
) -> list[dict]:
    """Run both on each picture in turn, so that whatever slows the machine slows both.

    Returns:
        A row each: {"total": the label, "condition", "handful": {"ms", "cpu_ms", "hands", "total"},
        and for each mode of MediaPipe {"ms", "cpu_ms", "hands", "totals": {rule: total}}}
    """
    rows = []
    session = None
    for i, picture in enumerate(pictures):
        image = picture.image
        adapted = pad(image, border) if border else image
        if not i:  # warm-up
            counter(image)
            worker(adapted, False)
        start, cpu = time.perf_counter(), time.process_time()
        prediction = counter(image)
        ms, cpu_ms = 1000 * (time.perf_counter() - start), 1000 * (time.process_time() - cpu)
        rows.append(
            {
                "total": picture.total,
                "condition": picture.path.parent.name,
                "handful": {"total": prediction.total, "hands": len(prediction.hands), "ms": ms, "cpu_ms": cpu_ms},
                **worker(adapted, picture.session != session),
            }
        )
        session = picture.session
    return rows


def compute_metrics(rows: list[dict], modes: list[str]) -> dict:
    """Return accuracy of the total, share of frames without a hand, and times, for the rows of `predict_all`."""
    labels = np.array([row["total"] for row in rows])

    def accuracy(totals: list[int]) -> float:
        return round(float(np.mean(labels == totals)), 4)

    def common(name: str) -> dict:
        no_hand = float(np.mean([not row[name]["hands"] for row in rows]))
        return {"no_hand": round(no_hand, 4)} | {clock: summary([row[name][clock] for row in rows]) for clock in CLOCKS}

    def ratio(mode: str, clock: str) -> float:
        # Coarse clocks may measure 0 (Windows).
        ratios = [row[mode][clock] / max(row["handful"][clock], 0.01) for row in rows]
        return round(float(np.median(ratios)), 2)

    metrics: dict = {"handful": {"accuracy": accuracy([row["handful"]["total"] for row in rows]), **common("handful")}}
    for mode in modes:
        rules = {rule: accuracy([row[mode]["totals"][rule] for row in rows]) for rule in rows[0][mode]["totals"]}
        best = max(rules, key=rules.__getitem__)
        metrics[mode] = {
            "accuracy": rules[best],
            "rule": best,
            "rules": rules,
            **common(mode),
            "times_handful": {clock: ratio(mode, clock) for clock in CLOCKS},
        }
    return metrics


def metrics_by_condition(rows: list[dict], modes: list[str]) -> dict[str, dict]:
    """Return the accuracies in each condition, MediaPipe's by the best rule for the condition."""
    metrics = {}
    for condition in dict.fromkeys(row["condition"] for row in rows):
        measured = compute_metrics([row for row in rows if row["condition"] == condition], modes)
        metrics[condition] = {name: {"accuracy": measured[name]["accuracy"]} for name in ("handful", *modes)}
    return metrics


def run(frames: int = 0) -> dict:
    """Measure every set that is there, at most so many frames of each (0: as many as the set says).

    Raises:
        Unavailable: MediaPipe cannot be installed or run here.
    """
    python = environment()
    sets: dict = {}
    with Worker(python) as worker:
        counter = FingerCounter()
        for name, frame_set in FRAME_SETS.items():
            pictures = load_frames(name, ROOT, frames)
            sets[name] = {"title": frame_set.title, "source": frame_set.credit, "frames": len(pictures)}
            if pictures:
                print(f"{frame_set.title}: {len(pictures)} frames ...", file=sys.stderr, flush=True)
                rows = predict_all(pictures, counter, worker, frame_set.border)
                sets[name] |= {"digest": digest(pictures), **compute_metrics(rows, worker.modes)}
                if frame_set.corrupted:
                    sets[name]["conditions"] = metrics_by_condition(rows, worker.modes)
        return {
            "date": date.today().isoformat(),
            "machine": machine(),
            "mediapipe": worker.versions,
            "model": {
                "sha256": counter.sha256[:12],
                "exported": counter.metadata.get("exported", ""),
            },
            "modes": worker.modes,
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
    """Return the results as tables: accuracy, times, each of MediaPipe's rules, and corrupted frames."""
    modes = results["modes"]
    names = ("Handful", *(f"MediaPipe {mode}" for mode in modes))
    sets = [measured for measured in results["sets"].values() if measured["frames"]]
    accuracy, times, rules = [], [], []
    for measured in sets:
        title, columns = measured["title"], [measured[name] for name in ("handful", *modes)]
        shares = [f"{column[key]:.1%}" for key in ("accuracy", "no_hand") for column in columns]
        accuracy.append([title, str(measured["frames"]), *shares])
        for clock, clock_name in CLOCKS.items():
            medians = [f"{column[clock]['median']:.1f}" for column in columns]
            ratios = [f"{measured[mode]['times_handful'][clock]:.1f}×" for mode in modes]
            times.append([f"{title}: {clock_name}", *medians, *ratios])
        rules.append([title, *(f"{share:.1%}" for mode in modes for share in measured[mode]["rules"].values())])
    rule_names = [f"{mode} {rule}" for mode in modes for rule in sets[0][mode]["rules"]] if sets else []
    versions = results["mediapipe"]
    texts = [
        results["machine"],
        f"MediaPipe {versions['mediapipe']} (numpy {versions['numpy']}) processes each frame alone (static), or tracks "
        "from frame to frame.\nFrames with the correct total (MediaPipe: by its best rule for the set), and frames "
        "without a detected hand:",
        markdown_table(["Set", "frames", *names, *(f"no hand: {name}" for name in names)], accuracy),
        "Median ms a frame, in turns, and the median of MediaPipe's time over Handful's for the same frame.\n"
        "On a busy machine, elapsed times are longer, most of all with MediaPipe's many threads: compare CPU times.",
        markdown_table(["Set", *names, *(f"{mode} / Handful" for mode in modes)], times),
        "MediaPipe's rules:",
        markdown_table(["Set", *rule_names], rules),
    ]
    if conditions := results["sets"].get("webcam-harder", {}).get("conditions"):
        texts.append("The webcam frames in each condition, correct totals (MediaPipe: by its best rule for each):")
        rows = [
            [title, *(f"{one['accuracy']:.1%}" for one in by_name.values())] for title, by_name in conditions.items()
        ]
        texts.append(markdown_table(["Condition", *names], rows))
    if missing := [measured["title"] for measured in results["sets"].values() if not measured["frames"]]:
        texts.append(f"Not available, skipped: {', '.join(missing)}.")
    return "\n\n".join(texts)
