"""How models read people and rooms that they know nothing of: a source left out of training, one after the other."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from lightning import LightningDataModule, LightningModule

from handful import FingerCounter
from training.data import CropDataModule, open_source
from training.data.scenes import SceneDataModule
from training.errors import BadData
from training.evaluation.evaluate import METRICS, measure, read, write, written
from training.export.cascade import export
from training.export.prune import prune
from training.lightning.classifier import ClassifierModule
from training.lightning.cli import CLI
from training.lightning.detector import DetectorModule

TITLES = {
    "webcam": "Webcam frames (HandsDataset)",
    "digits": "Close crops (Sign-Language-Digits)",
    "counting": "One man's hands (Finger-Counting Set1)",
}
MEASURES = ("pictures", "total_accuracy", "fingers_accuracy", "side_accuracy", "recall", "precision", "ece")


def leave_out(
    folder: Path = Path("data"),
    sources: tuple[str, ...] = tuple(TITLES),
    epochs: int = 10,
    detector_epochs: int = 5,
    scenes: int = 16_000,
    seen: int = 1024,
    detector: Path = Path("training/configs/detector.yaml"),
    classifier: Path = Path("training/configs/classifier.yaml"),
    runs: Path = Path("runs/leave-out"),
    output: Path = METRICS,
) -> None:
    """For each source, train both networks without its hands and places, and measure them on all of it.

    A training that was cut off goes on; one that is done, or whose source was measured, is not done again: delete its
    folder in `runs` to do so. Of sources that are not left out here, what was measured before stays.

    Args:
        folder: the data sets, as `python -m training data` leaves them.
        sources: which to leave out: webcam, digits, counting.
        epochs: of the classifier's training, half of the real one.
        detector_epochs: of the detector's, half too.
        scenes: of the detector's epochs.
        seen: frames that the detector is shown to be made narrow.
        detector: configuration of the detector's training; it names its sources.
        classifier: the same of the classifier's.
        runs: folder for checkpoints and models, a folder a source.
        output: folder for the measures.

    Raises:
        BadData: one of `sources` is none that is measured, or is not there; a configuration names no sources; what was
            measured before is damaged.
    """
    for name in sources:
        if name not in TITLES:
            raise BadData(f"{name!r} cannot be left out and measured: choose from {', '.join(TITLES)}.")
        open_source(name, folder)  # what is wrong with it is told now, not after two trainings
    output.mkdir(parents=True, exist_ok=True)
    budget = {"epochs": epochs, "detector_epochs": detector_epochs}
    found_in, learned = sources_of(detector), sources_of(classifier)

    def fit(
        kind: type[LightningModule],
        data: type[LightningDataModule],
        config: Path,
        to: Path,
        rest: object,
        length: int,
        *more: str,
    ) -> None:
        arguments = ["fit", "--config", str(config), "--data.folder", str(folder), "--data.sources", json.dumps(rest)]
        arguments += more
        arguments += ["--trainer.max_epochs", str(length), "--checkpoint.dirpath", str(to)]
        if (last := to / "last.ckpt").exists():
            arguments += ["--ckpt_path", str(last)]
        CLI(kind, data, [*arguments, "--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", str(to)])

    for name in sources:
        run = runs / name
        if (run / "measured.json").exists():
            print(f"{name}: measured before, in {run}")
            continue
        rest = {other: crops for other, crops in learned.items() if other != name}
        others = [other for other in found_in if other != name]
        if not (run / "handful.onnx").exists():
            fit(
                DetectorModule,
                SceneDataModule,
                detector,
                run / "detector",
                others,
                detector_epochs,
                "--data.scenes",
                str(scenes),
            )
            fit(ClassifierModule, CropDataModule, classifier, run / "classifier", rest, epochs)
            prune(run / "detector/best.ckpt", folder, run / "pruned.ckpt", seen=seen)
            export(run / "pruned.ckpt", run / "classifier/best.ckpt", run / "handful.onnx")
        source, counter = open_source(name, folder), FingerCounter(run / "handful.onnx")
        measured = measure(read(counter, source, np.arange(len(source)), folder))
        write(
            run / "measured.json",
            {"title": TITLES[name]}
            | {key: measured[key] for key in MEASURES}
            | {"budget": budget | {"crops": sum(rest.values()), "scenes": scenes}}
            | {"training commit": counter.metadata["training commit"]},
        )
    measures = {name: runs / name / "measured.json" for name in TITLES}
    done = {name: written(file) for name, file in measures.items() if file.exists()}
    file = output / "leave-one-out.json"
    before = written(file)["sources"] if file.exists() else {}
    write(file, {"command": "python -m training leave-out", "sources": before | done})


def sources_of(config: Path) -> Any:
    """What a training's configuration names to learn from."""
    try:
        return yaml.safe_load(config.read_text(encoding="utf-8"))["data"]["sources"]
    except (yaml.YAMLError, KeyError, TypeError):
        raise BadData(f"{config}: this names no sources to learn from (data.sources), see training/*.yaml.") from None
