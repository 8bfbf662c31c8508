"""The export: detector and classifier become the one ONNX file that the app runs."""

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx
import torch
import wandb
import yaml
from lightning import LightningModule
from onnx import helper

from handful import CLASSES, MODEL
from handful.model_store import BadModel
from handful.personal import HEADS
from training.export import onnx_weights
from training.export.cascade import OPSET, Cascade
from training.export.config import CascadeConfig
from training.export.onnx_if import lower_to_if
from training.export.quantize import quantize
from training.files import atomic_write
from training.lightning.checkpoint import load_checkpoint, load_network
from training.lightning.classifier import ClassifierModule
from training.lightning.detector import DetectorModule

GONE = ("refine_low", "refine_high", "refine_size", "refine_margin", "refine_scale")  # fields of older models' configs


def export(
    detector: Path = Path("runs/pruned.ckpt"),
    classifier: Path = Path("runs/classifier/best.ckpt"),
    cascade: Path | None = None,
    output: Path = MODEL,
    quantized: bool = True,
    log: bool = False,
) -> None:
    """Write two networks and the cascade around them as one ONNX file.

    Args:
        detector: checkpoint of `python -m training prune` or `detector fit`, or an ONNX file whose detector is kept.
        classifier: checkpoint of `python -m training fit`, or an ONNX file too.
        cascade: thresholds, scales and temperature, as `python -m training calibrate` writes them; without it, those
            of the ONNX file that a network comes from, or else the defaults.
        output: the ONNX file.
        quantized: weights in 8 bits; false keeps float32, to compare with.
        log: also log the file to Weights & Biases, as an artifact.

    Raises:
        BadData, BadModel: a file is missing, damaged, or of the other network.
    """
    detector_network, detector_provenance = load(detector, DetectorModule, DETECTOR_COMMAND)
    classifier_network, provenance = load(classifier, ClassifierModule, CLASSIFIER_COMMAND)
    config = CascadeConfig.load(cascade) if cascade else stored_config(classifier, detector)
    metadata = {
        "name": "Handful",
        "training commit": provenance["training commit"],
        "detector training commit": detector_provenance["training commit"],
        "data": "; ".join(dict.fromkeys(detector_provenance["data"] + provenance["data"])),
        "licence": "Apache-2.0",
        "exported": datetime.now(UTC).date().isoformat(),
        "versions": provenance["versions"],
        "config": provenance["config"],
        "detector config": detector_provenance["config"],
    }
    model = to_onnx(Cascade(detector_network, classifier_network, provenance["size"], config), metadata)
    if quantized:
        quantize(model)
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as part:
        onnx.save(model, part)
    print(f"{output}: {output.stat().st_size / 1e6:.2f} MB")
    if log:
        with wandb.init(project="handful", job_type="export", config=metadata | asdict(config)) as run:
            run.log_artifact(output, name="handful", type="model")


DETECTOR_COMMAND = "detector fit --config training/configs/detector.yaml, then prune"
CLASSIFIER_COMMAND = "fit --config training/configs/classifier.yaml"


def load(file: Path, kind: type[LightningModule], command: str) -> tuple[Any, dict]:
    """Load the network of a kind from a checkpoint or an ONNX file, and its provenance.

    Raises:
        BadData, BadModel: there is none, and the command that trains one is named, or it is of the other kind.
    """
    if file.suffix == ".onnx":
        return load_exported(file, kind)
    provenance = load_checkpoint(file, command)["provenance"]
    return load_network(file, kind), provenance


def load_cascade(model: Path, **changes: float) -> Cascade:
    """Load an exported model in PyTorch, with other values of some fields of its `CascadeConfig`.

    Raises:
        BadModel: `model` is not a model of Handful.
    """
    detector, _ = load_exported(model, DetectorModule)
    classifier, provenance = load_exported(model, ClassifierModule)
    config = replace(stored_config(model), **changes)
    return Cascade(detector, classifier, provenance["size"], config).eval().requires_grad_(False)


def load_exported(file: Path, kind: type[LightningModule]) -> tuple[Any, dict]:
    """Load the same from a model that was exported before."""
    _, metadata = onnx_weights.read_model(file)
    prefix = "detector " if kind is DetectorModule else ""
    try:
        network = onnx_weights.detector(file) if kind is DetectorModule else onnx_weights.classifier(file)
        config = yaml.safe_load(metadata[f"{prefix}config"])
        return network, {
            "training commit": metadata[f"{prefix}training commit"],
            "data": metadata["data"].split("; "),
            "versions": metadata["versions"],
            "config": metadata[f"{prefix}config"],
            "size": config["model"].get("size"),  # the detector's is always the same
        }
    except KeyError as error:
        raise BadModel(f"{file}: python -m training export did not write it: there is no {error} in it.") from error


def stored_config(*files: Path) -> CascadeConfig:
    """Return the cascade config in the metadata of the first ONNX file among some; the defaults without any.

    Of an older model, a stage that there is no more is left out.
    """
    for file in files:
        if file.suffix == ".onnx" and (stored := onnx_weights.read_model(file)[1].get("cascade")):
            try:
                values = json.loads(stored)
                return CascadeConfig.from_dict({name: values[name] for name in values if name not in GONE})
            except ValueError as error:
                raise BadModel(f"{file}: its cascade config cannot be used. {error}") from error
    return CascadeConfig()


def to_onnx(cascade: Cascade, metadata: dict[str, str]) -> onnx.ModelProto:
    """Return a cascade as an ONNX model, in float32.

    `metadata` says where the weights come from (commits, data, licence, …); the classes, the meaning of the input and
    the cascade config are added to it.
    """
    program = torch.onnx.export(
        cascade.eval(),
        (torch.zeros(480, 640, 3, dtype=torch.uint8),),
        input_names=["image"],
        output_names=["boxes", "squares", "scores", "probabilities", "gradcam", "fingers", "features"],
        dynamic_shapes={"image": {i: torch.export.Dim(name, min=1, max=65_535) for i, name in enumerate(("h", "w"))}},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # only without dynamo
    model = program.model_proto
    # Where each node comes from in the code, and in whose folder: a tenth of the file.
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
    lower_to_if(model)
    # The heads' weights are inputs with defaults: a caller may give a personal head.
    heads = [tensor for tensor in model.graph.initializer if tensor.name in HEADS]
    assert {head.name for head in heads} == set(HEADS)
    model.graph.input.extend(helper.make_tensor_value_info(head.name, head.data_type, head.dims) for head in heads)
    properties = {
        "classes": json.dumps(CLASSES),
        "input": "image: uint8 H×W×3 RGB, a frame of any size",
        "cascade": cascade.config.to_json(),
        **metadata,
    }
    helper.set_model_props(model, properties)
    onnx.checker.check_model(model, full_check=True)
    return model
