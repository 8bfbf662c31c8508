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
from training.export.export import export, load_exported
from training.export.prune import prune
from training.lightning.classifier import ClassifierModule
from training.lightning.cli import TrainingCLI
from training.lightning.detector import DetectorModule

DETECTOR = [Path("training/configs/detector.yaml")]
CLASSIFIER = [Path("training/configs/classifier.yaml")]
CANDIDATES = tuple(name for name, source in SOURCES.items() if source.fold)


def leave_out(
    folder: Path = Path("data"),
    sources: tuple[str, ...] = CANDIDATES,
    epochs: int = 10,
    detector_epochs: int = 5,
    scenes: int = 16_000,
    prune_frames: int = 1024,
    detector: list[Path] = DETECTOR,
    classifier: list[Path] = CLASSIFIER,
    start: Path | None = None,
    runs: Path = Path("runs/leave-out"),
    output: Path = METRICS,
) -> None:
    """Train both networks without the hands and backgrounds of a fold of sources, and evaluate them on all of each.

    Interrupted trainings are resumed, finished ones are not repeated: delete the fold's folder in `runs` to do so.
    Metrics of sources that are not named are kept.

    Args:
        folder: the data sets, as `python -m training data` fetches them.
        sources: which to evaluate; those of the same fold (see the registry of sources) are left out together.
        epochs: of the classifier; by default half as many as a model from scratch.
        detector_epochs: of the detector; half as many, too.
        scenes: of an epoch of the detector.
        prune_frames: frames that `prune` is run with.
        detector: configs of the detector's training, each on top of those before; the first names its sources.
        classifier: configs of the classifier's training.
        start: exported model that both trainings go on from and that knows none of the sources; nothing is pruned then.
        runs: folder for checkpoints and models, one folder a fold.
        output: folder for the metrics.

    Raises:
        BadData: a source is unknown, missing or known to `start`, a config names no sources, or earlier metrics are
            damaged.
        BadModel: `start` is not a model of Handful.
    """
    for name in sources:
        if name not in CANDIDATES:
            raise BadData(f"{name!r} cannot be left out: choose from {', '.join(CANDIDATES)}.")
        open_source(name, folder)  # fails now, rather than after two trainings
    detector_sources, classifier_sources = read_sources(detector[0]), read_sources(classifier[0])
    network = [] if start is None else ["--model.network.init_args.model", start]
    parent = {"data": []} if start is None else load_exported(start, ClassifierModule)[1]
    output.mkdir(parents=True, exist_ok=True)
    for fold in dict.fromkeys(SOURCES[name].fold for name in sources):
        run, left_out = runs / fold, [name for name in CANDIDATES if SOURCES[name].fold == fold]
        if learned := [name for name in left_out if SOURCES[name].credit in parent["data"]]:
            raise BadData(
                f"{start} has learned from {', '.join(learned)}: trainings without them cannot go on from it."
            )
        run.mkdir(parents=True, exist_ok=True)
        crops = {name: count for name, count in classifier_sources.items() if name not in left_out}
        if not (run / "handful.onnx").exists():
            others = {name: weight for name, weight in detector_sources.items() if name not in left_out}
            shared = ["--data.folder", folder, *network]
            fit(
                *(DetectorModule, SceneDataModule, detector, run / "detector"),
                *("--trainer.max_epochs", detector_epochs, "--data.sources", json.dumps(others)),
                *("--data.scenes", scenes, *shared),
            )
            fit(
                *(ClassifierModule, CropDataModule, classifier, run / "classifier"),
                *("--trainer.max_epochs", epochs, "--data.sources", json.dumps(crops), *shared),
            )
            share = {} if start is None else {"time_share": 1.0}  # pruned before
            prune(run / "detector/best.ckpt", folder, run / "pruned.ckpt", frames=prune_frames, **share)
            export(run / "pruned.ckpt", run / "classifier/best.ckpt", output=run / "handful.onnx")
        budget = {"epochs": epochs, "detector_epochs": detector_epochs, "crops": sum(crops.values()), "scenes": scenes}
        budget |= {} if start is None else {"start": parent["training commit"]}
        for name in (name for name in left_out if name in sources):
            if (metrics := metrics_file(runs, name)).exists():
                print(f"{name}: already evaluated, see {metrics}")
            else:
                write_json(metrics, evaluate_source(name, folder, run / "handful.onnx") | {"budget": budget})
    file = output / "leave-one-out.json"
    rows = read_json(file)["sources"] if file.exists() else {}
    finished = {name: metrics_file(runs, name) for name in CANDIDATES}
    rows |= {name: read_json(metrics) for name, metrics in finished.items() if metrics.exists()}
    write_json(file, {"command": "python -m training leave-out", "sources": rows})


def metrics_file(runs: Path, source: str) -> Path:
    """Return the file with the metrics of a source that was left out."""
    return runs / SOURCES[source].fold / f"{source}.json"


def fit(
    module: type[LightningModule], data: type[LightningDataModule], configs: list[Path], run: Path, *arguments: object
) -> None:
    """Train, or resume a training, in the folder `run`."""
    layers = [part for config in configs for part in ("--config", config)]
    command = ["fit", *layers, "--trainer.default_root_dir", run, *arguments]
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
        **{key: metrics[key] for key in ("pictures", "total", *SUMMARY_KEYS)},
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
