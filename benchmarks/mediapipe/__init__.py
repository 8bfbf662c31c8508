"""Handful beside MediaPipe 0.10.21, the usual way to count fingers: the same frames, in one run.

MediaPipe finds landmarks of hands; counting fingers on them is left to rules, of which the worker
has three. It runs in an environment of its own, as it needs an older numpy. That is made on first
use (`.venv-mediapipe`, about 1 GB; delete the folder to undo it).

Where there was a choice, MediaPipe got the better part: its best rule is picked for each set and
mode, knowing the answers; the rules' thresholds were tried out on these very frames; close crops
are made fit for it (`favour`); its time is that of `process` alone, without rules; and it uses as
many threads as it likes, where Handful uses one. Handful gets every picture as it is. A frame
without a hand counts as 0 fingers, for both: right where fists are shown.
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

from benchmarks import ROOT, machine, summary
from benchmarks.frames import SETS, Frame, digest, frames
from handful import MODEL, FingerCounter
from training.markdown import markdown_table

REQUIREMENT = "mediapipe==0.10.21"
ENVIRONMENT = ROOT / ".venv-mediapipe"
# Where the Evaluation page finds them.
RESULTS = MODEL.parent / "metrics/mediapipe.json"
RULES = ("upright", "distance", "angles")
MODES = ("static", "tracking")


class NoMediaPipe(RuntimeError):
    """MediaPipe cannot be installed or run here. The text says why."""


def environment() -> Path:
    """The Python that has MediaPipe: makes its environment first where there is none.

    Raises:
        NoMediaPipe: it cannot be made.
    """
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = ENVIRONMENT / REQUIREMENT  # a broken or older one is made anew
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
            told = (getattr(error, "stderr", None) or getattr(error, "stdout", None) or str(error)).strip()
            raise NoMediaPipe(
                f"{REQUIREMENT} cannot be installed (it needs Python 3.9-3.12 and a network; "
                f"this is Python {sys.version_info.major}.{sys.version_info.minor}): {told.splitlines()[-1]}"
            ) from None
    (ENVIRONMENT / ".gitignore").write_text("*\n")
    stamp.touch()
    return python


class Worker:
    """MediaPipe in a process of its own. See worker.py for what goes to and fro."""

    def __init__(self, python: Path):
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        self.process: Any = subprocess.Popen(  # its pipes are there
            # Isolated: what is imported is what its environment holds, whatever the folder and PYTHONPATH.
            [str(python), "-I", str(Path(__file__).with_name("worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )
        self.versions: dict[str, str] = self._answer()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_) -> None:
        with suppress(OSError):  # it may be gone already
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()

    def __call__(self, image: np.ndarray, reset: bool) -> dict[str, dict]:
        """Read a picture (H, W, 3) uint8 RGB. `reset`: it does not follow the one before."""
        with suppress(BrokenPipeError):  # the answer tells
            self.process.stdin.write(json.dumps({"shape": image.shape, "reset": reset}).encode() + b"\n")
            self.process.stdin.write(image.tobytes())
            self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            told = self.errors.read().decode(errors="replace").strip() or f"exit status {self.process.returncode}"
            raise NoMediaPipe(f"MediaPipe stopped: {told.splitlines()[-1]}")
        return json.loads(line)


def favour(image: np.ndarray, border: str) -> np.ndarray:
    """Make a close crop fit for MediaPipe, which looks for hands in scenes and misses most that fill the picture.

    Stretched contrast, 400 pixels wide, and a border of half as much all round, "edges" (drawn out)
    or "black", as each set was read best.
    """
    low, high = np.percentile(image, (2, 98))
    image = np.clip((image - low) * (255 / max(high - low, 1)), 0, 255).astype(np.uint8)
    scale = 400 / max(image.shape)
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    drawn = cv2.BORDER_REPLICATE if border == "edges" else cv2.BORDER_CONSTANT
    return cv2.copyMakeBorder(image, 200, 200, 200, 200, drawn)


def read(frames: list[Frame], counter, worker, border: str = "") -> list[dict]:
    """Read every frame with both, one after the other, so that whatever slows the machine slows both."""
    rows = []
    session = None
    for i, frame in enumerate(frames):
        image = frame.image
        given = favour(image, border) if border else image
        if not i:
            counter(image)  # first calls are slow: not counted
            worker(given, False)
        start, cpu = time.perf_counter(), time.process_time()
        prediction = counter(image)
        ms, cpu_ms = 1000 * (time.perf_counter() - start), 1000 * (time.process_time() - cpu)
        ours = {"count": prediction.total, "hands": len(prediction.hands), "ms": ms, "cpu_ms": cpu_ms}
        about = {"total": frame.total, "condition": frame.path.parent.name}
        rows.append(about | {"handful": ours} | worker(given, frame.session != session))
        session = frame.session
    return rows


def measure(rows: list[dict]) -> dict:
    """Shares of frames whose total is told exactly, and times, of what `read` gave."""
    truth = np.array([row["total"] for row in rows])

    def share(who: str, what: str) -> float:
        return round(float(np.mean(truth == [row[who][what] for row in rows])), 4)

    def common(who: str) -> dict:
        no_hand = float(np.mean([not row[who]["hands"] for row in rows]))
        return {"no_hand": round(no_hand, 4)} | {
            clock: summary([row[who][clock] for row in rows]) for clock in ("ms", "cpu_ms")
        }

    def ratio(who: str, clock: str) -> float:
        # A clock of coarse steps may tell 0 (Windows).
        return round(float(np.median([row[who][clock] / max(row["handful"][clock], 0.01) for row in rows])), 2)

    measured: dict = {"handful": {"accuracy": share("handful", "count"), **common("handful")}}
    for mode in MODES:
        rules = {rule: share(mode, rule) for rule in RULES}
        best = max(rules, key=rules.__getitem__)
        measured[mode] = {
            "accuracy": rules[best],
            "rule": best,
            "rules": rules,
            **common(mode),
            "times_handful": {clock: ratio(mode, clock) for clock in ("ms", "cpu_ms")},
        }
    return measured


def by_condition(rows: list[dict]) -> dict[str, dict]:
    """Shares of frames whose total is told exactly in each condition, by each reader; by the best rule for it."""
    told = {}
    for condition in dict.fromkeys(row["condition"] for row in rows):
        measured = measure([row for row in rows if row["condition"] == condition])
        told[condition] = {who: {"accuracy": measured[who]["accuracy"]} for who in ("handful", *MODES)}
    return told


def run(limit: int = 0) -> dict:
    """Measure every set that is there, at most `limit` frames of each (0: as many as the set says).

    Raises:
        NoMediaPipe: MediaPipe cannot be installed or run here.
    """
    python = environment()
    results: dict = {}
    with Worker(python) as worker:
        # The counter as it is meant to be used: one thread a reading.
        counter = FingerCounter()
        for name, frame_set in SETS.items():
            found = frames(name, ROOT, limit)
            results[name] = {"title": frame_set.title, "source": frame_set.source, "frames": len(found)}
            if found:
                print(f"{frame_set.title}: {len(found)} frames ...", file=sys.stderr, flush=True)
                results[name] |= {"digest": digest(found)}
                rows = read(found, counter, worker, frame_set.favour)
                results[name] |= measure(rows)
                if name == "webcam-harder":
                    results[name]["conditions"] = by_condition(rows)
        return {
            "date": date.today().isoformat(),
            "machine": machine(),
            "mediapipe": worker.versions,
            "model": {
                "sha256": counter.sha256[:12],
                "exported": counter.metadata.get("exported", ""),
            },
            "modes": MODES,
            "sets": results,
        }


def report(results: dict) -> str:
    """The results as tables: counts and times side by side, and each of MediaPipe's rules."""
    counts, times, rules, missing = [], [], [], []
    harder = results["sets"].get("webcam-harder", {}).get("conditions", {})
    conditions = [[name, *(f"{reader['accuracy']:.1%}" for reader in told.values())] for name, told in harder.items()]
    for measured in results["sets"].values():
        if not measured["frames"]:
            missing.append(measured["title"])
            continue
        title, ours = measured["title"], [measured[who] for who in ("handful", *MODES)]
        shares = [f"{reader[what]:.1%}" for what in ("accuracy", "no_hand") for reader in ours]
        counts.append([title, str(measured["frames"]), *shares])
        for clock, name in ("ms", "passed"), ("cpu_ms", "of CPU"):
            medians = [f"{reader[clock]['median']:.1f}" for reader in ours]
            times.append(
                [f"{title}: {name}", *medians, *(f"{measured[m]['times_handful'][clock]:.1f}×" for m in MODES)]
            )
        rules.append([title, *(f"{measured[mode]['rules'][rule]:.1%}" for mode in MODES for rule in RULES)])
    readers = ("Handful", "MediaPipe", "MP tracking")
    none = ("no hand: Handful", "MediaPipe", "MP tracking")
    versions = results["mediapipe"]
    texts = [
        results["machine"],
        f"MediaPipe {versions['mediapipe']} (numpy {versions['numpy']}) reads each frame alone, or tracks from frame "
        "to frame.\nFrames whose total is exact (MediaPipe: by its best rule for the set), and frames without a hand:",
        markdown_table(["Set", "frames", *readers, *none], counts),
        "Median ms a frame, in turns, and the median of MediaPipe's time over Handful's for the same frame.\n"
        "On a busy machine more time passes, most of all for MediaPipe's many threads: there, compare ms of CPU.",
        markdown_table(["Set", *readers, "MP / H", "MP tracking / H"], times),
        "MediaPipe's rules:",
        markdown_table(["Set", *(f"{mode} {rule}" for mode in MODES for rule in RULES)], rules),
    ]
    if conditions:
        texts.append(
            "The same webcam frames in harder conditions; exact totals (MediaPipe: by its best rule for each):"
        )
        texts.append(markdown_table(["Condition", *readers], conditions))
    if missing:
        texts.append(f"Not here, left out: {', '.join(missing)}.")
    return "\n\n".join(texts)
