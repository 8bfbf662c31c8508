"""Leave-one-out evaluation: how well models do on the people and rooms of a source they were trained without."""

import json
from pathlib import Path
from typing import Any

import yaml
from lightning import LightningDataModule, LightningModule

from handful import FingerCounter
from training.data.crops import CropDataModule
from training.data.registry import SOURCES, open_source
from training.data.scenes import SceneDataModule
from training.errors import BadData
from training.evaluation.evaluate import METRICS, SUMMARY_KEYS, predict_frames, read_json, write_json
from training.evaluation.metrics import compute_metrics
from training.export.export import export
from training.export.prune import prune
from training.lightning.classifier import ClassifierModule
from training.lightning.cli import TrainingCLI
from training.lightning.detector import DetectorModule

CANDIDATES = tuple(name for name, source in SOURCES.items() if source.leave_out)


def leave_out(
    folder: Path = Path("data"),
    sources: tuple[str, ...] = CANDIDATES,
    epochs: int = 10,
    detector_epochs: int = 5,
    scenes: int = 16_000,
    prune_frames: int = 1024,
    detector: Path = Path("training/configs/detector.yaml"),
    classifier: Path = Path("training/configs/classifier.yaml"),
    runs: Path = Path("runs/leave-out"),
    output: Path = METRICS,
) -> None:
    """For each source, train both networks without its hands and backgrounds, and evaluate them on all of it.

    Interrupted trainings are resumed, finished ones are not repeated: delete the source's folder in `runs` to do so.
    Metrics of sources that are not named are kept.

    Args:
        folder: the data sets, as `python -m training data` fetches them.
        sources: which to leave out: webcam, digits, counting.
        epochs: of the classifier; by default half as many as the model that ships.
        detector_epochs: of the detector; half as many, too.
        scenes: of an epoch of the detector.
        prune_frames: frames that `prune` is run with.
        detector: config of the detector's training; it names its sources.
        classifier: config of the classifier's training.
        runs: folder for checkpoints and models, one folder a source.
        output: folder for the metrics.

    Raises:
        BadData: a source is unknown or missing, a config names no sources, or earlier metrics are damaged.
    """
    for name in sources:
        if name not in CANDIDATES:
            raise BadData(f"{name!r} cannot be left out: choose from {', '.join(CANDIDATES)}.")
        open_source(name, folder)  # fails now, rather than after two trainings
    detector_sources, classifier_sources = read_sources(detector), read_sources(classifier)
    output.mkdir(parents=True, exist_ok=True)
    for name in sources:
        run = runs / name
        if (run / "metrics.json").exists():
            print(f"{name}: already evaluated, see {run}")
            continue
        crops = {other: count for other, count in classifier_sources.items() if other != name}
        if not (run / "handful.onnx").exists():
            others = {other: weight for other, weight in detector_sources.items() if other != name}
            shared = ["--data.folder", str(folder)]
            fit(
                *(DetectorModule, SceneDataModule, detector, run / "detector"),
                *("--trainer.max_epochs", detector_epochs, "--data.sources", json.dumps(others)),
                *("--data.scenes", scenes, *shared),
            )
            fit(
                *(ClassifierModule, CropDataModule, classifier, run / "classifier"),
                *("--trainer.max_epochs", epochs, "--data.sources", json.dumps(crops), *shared),
            )
            prune(run / "detector/best.ckpt", folder, run / "pruned.ckpt", frames=prune_frames)
            export(run / "pruned.ckpt", run / "classifier/best.ckpt", output=run / "handful.onnx")
        budget = {"epochs": epochs, "detector_epochs": detector_epochs}
        budget |= {"crops": sum(crops.values()), "scenes": scenes}
        write_json(run / "metrics.json", evaluate_source(name, folder, run / "handful.onnx") | {"budget": budget})
    file = output / "leave-one-out.json"
    rows = read_json(file)["sources"] if file.exists() else {}
    finished = {name: runs / name / "metrics.json" for name in CANDIDATES}
    rows |= {name: read_json(metrics) for name, metrics in finished.items() if metrics.exists()}
    write_json(file, {"command": "python -m training leave-out", "sources": rows})


def fit(
    module: type[LightningModule], data: type[LightningDataModule], config: Path, run: Path, *arguments: object
) -> None:
    """Train, or resume a training, in the folder `run`."""
    command = ["fit", "--config", config, "--trainer.default_root_dir", run, *arguments]
    if (last := run / "last.ckpt").exists():
        command += ["--ckpt_path", last]
    TrainingCLI(module, data, [str(part) for part in command])


def evaluate_source(name: str, folder: Path, model: Path) -> dict:
    """Return the metrics of a model on all frames of a source."""
    frames, counter = open_source(name, folder), FingerCounter(model)
    metrics = compute_metrics(predict_frames(counter, frames, range(len(frames)), folder))
    return {
        "title": SOURCES[name].title,
        "short_title": SOURCES[name].short_title,
        **{key: metrics[key] for key in ("pictures", *SUMMARY_KEYS)},
        "training commit": counter.metadata["training commit"],
    }


def read_sources(config: Path) -> Any:
    """Return `data.sources` of a training config."""
    try:
        return yaml.safe_load(config.read_text(encoding="utf-8"))["data"]["sources"]
    except (yaml.YAMLError, KeyError, TypeError):
        raise BadData(
            f"{config}: no data.sources here. For an example, see training/configs/classifier.yaml."
        ) from None
