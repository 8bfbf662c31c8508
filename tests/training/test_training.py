"""Trainings from the command line, on a small data set."""

import json
import math
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import onnx
import optuna
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import wandb
import yaml
from lightning import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, default_collate

import training.evaluation.leave_out
import training.export.export
import training.export.prune
from handful import MODEL, FingerCounter
from handful.labels import CLASSES, COUNT_UNKNOWN, FINGERS, NO_HAND, SIDE_UNKNOWN
from tests.builders import draw_hand, write_fingers, write_webcam
from training.cli import main
from training.data.backgrounds import load_backgrounds
from training.data.registry import FINGERS_UNKNOWN
from training.data.scenes import collate_scenes
from training.export.cascade import Cascade
from training.export.export import load
from training.lightning import cli
from training.lightning.classifier import ClassifierModule, classifier_losses, partial_finger_loss
from training.lightning.detector import DetectorModule
from training.lightning.image_logger import ImageLogger
from training.networks.backbone import backbone, fold_batchnorm
from training.networks.classifier import HandClassifier
from training.networks.detector import HandDetector

ROOT = Path(__file__).parents[2]
PICTURES = 120  # of the small data set


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder with a small Kaggle Fingers."""
    return write_fingers(tmp_path_factory.mktemp("data") / "fingers", train=PICTURES // len(CLASSES), test=1).parent


def arguments(folder, run, *more, images=False):
    """Return the arguments of a training that takes seconds, which is less than images take to log."""
    return [
        "fit", "--config", str(ROOT / "training/configs/fingers.yaml"),
        "--data.folder", str(folder), "--data.batch_size", "60", "--data.sources", "{fingers: 120}",
        "--model.size", "32", "--data.augment.size", "32", "--data.workers", "0",
        "--trainer.default_root_dir", str(run), "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu",
        "--trainer.enable_progress_bar", "false", "--trainer.log_every_n_steps", "1",
        *(() if images else ("--trainer.callbacks=null",)), *more,
    ]  # fmt: skip


def logged_metrics(run):
    """Return what the last training in a folder logged."""
    return pd.read_csv(sorted(run.glob("logs/version_*/metrics.csv"))[-1])


def trained(folder: Path) -> Path:
    """Train once, with all loggers, and return the folder of the run."""
    data, run = write_fingers(folder / "data/fingers", train=PICTURES // len(CLASSES), test=1).parent, folder / "run"
    run.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        wandb_logger = ("--trainer.logger", "WandbLogger", "--trainer.logger.save_dir", str(run))
        main(arguments(data, run, "--trainer.gradient_clip_val", "5", *wandb_logger, images=True))
    wandb.teardown()  # it reads the environment once a process
    return run


@pytest.mark.background(work=trained)
def test_metrics_are_logged_and_the_checkpoint_has_provenance(background_result):
    metrics = logged_metrics(background_result)
    assert metrics["val/accuracy"].dropna().between(0, 1).all()
    assert metrics["train/loss"].notna().sum() == 2 * 2, "two epochs of 120 pictures, 60 at a time"
    provenance = torch.load(background_result / "best.ckpt", weights_only=False)["provenance"]
    assert f"torch {torch.__version__.partition('+')[0]}" in provenance["versions"]
    config = yaml.safe_load(provenance["config"])
    assert config["data"]["sources"] == {"fingers": 120}
    assert config["data"]["augment"]["size"] == 32
    assert config["trainer"]["max_epochs"] == 2
    assert config["trainer"]["gradient_clip_val"] == 5
    assert config["ema"]["decay"] == 0.99, "of fingers.yaml, not of base.yaml"
    validation = config["pictures"]["fingers"]["validation"]
    assert config["pictures"] == {"fingers": {"training": PICTURES - validation, "validation": validation}}
    assert str(background_result.parent) not in provenance["config"]


def leave_out(folder: Path) -> list[str]:
    """Train without the webcam frames, evaluate on them, and return the command."""
    data = folder / "data"
    write_fingers(data / "fingers", train=PICTURES // len(CLASSES), test=1)
    frames = {}
    for k in range(7):
        hand = cv2.copyMakeBorder(draw_hand("3L", np.random.default_rng(k)), 60, 60, 90, 90, cv2.BORDER_REPLICATE)
        frames[f"1_pic{k}.jpg"] = (cv2.cvtColor(hand, cv2.COLOR_GRAY2RGB), 3, (100, 80, 200, 190))
    write_webcam(data / "people/HandsDataset", frames)

    detector, classifier = (
        yaml.safe_load((ROOT / f"training/configs/{name}.yaml").read_text()) for name in ("detector", "fingers")
    )
    detector["data"] = {"sources": {"fingers": 1, "webcam": 2}, "batch_size": 16, "workers": 0}
    classifier["data"] |= {"sources": {"fingers": 60, "webcam": 60}, "batch_size": 60, "workers": 0}
    for name, config in ("detector", detector), ("classifier", classifier):
        config["trainer"] |= {"accelerator": "cpu", "enable_progress_bar": False}
        config["trainer"].pop("callbacks+", None)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    command = [
        "leave-out", "--folder", str(data), "--sources", "[webcam]", "--epochs", "1", "--detector_epochs", "1",
        "--scenes", "32", "--prune_frames", "16", "--runs", str(folder / "runs"),
        "--detector", f"[{folder / 'detector.yaml'}]", "--classifier", f"[{folder / 'classifier.yaml'}]",
        "--output", str(folder / "metrics"),
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        # Pruning and export take long; test_prune.py and test_export.py test them.
        patch.setattr(training.export.prune, "obs_prune_order", any_channels)
        patch.setattr(training.export.export, "to_onnx", shipped)
        patch.setattr(training.export.export, "quantize", lambda model: None)
        main(command)
    return command


def any_channels(products: np.ndarray, wanted: np.ndarray, variance: float, keep: int = 0):
    """Stand in for `obs_prune_order`."""
    return np.arange(len(products) - 1 - keep), np.linspace(0, 1, len(products) - keep)


def shipped(cascade: Cascade, metadata: dict[str, str]) -> onnx.ModelProto:
    """Stand in for `to_onnx`: the bundled model with other metadata."""
    model = onnx.load(MODEL)
    onnx.helper.set_model_props(model, {one.key: one.value for one in model.metadata_props} | metadata)
    return model


@pytest.mark.slow
@pytest.mark.background(work=leave_out)
def test_leave_one_out_trains_without_the_source_and_evaluates_on_all_of_it(background_result, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    command, folder = background_result, Path(background_result[background_result.index("--runs") + 1]).parent
    assert len(load_backgrounds(folder / "data")) == 2, "one webcam frame in six, hands inpainted"
    assert load_backgrounds(folder / "data", sources=["fingers"]) == []
    measured = json.loads((folder / "metrics/leave-one-out.json").read_text())["sources"]
    assert list(measured) == ["webcam"]
    assert measured["webcam"]["pictures"] == 7, "all of it: none is trained on"
    assert measured["webcam"]["budget"] == {"epochs": 1, "detector_epochs": 1, "crops": 60, "scenes": 32}
    assert measured["webcam"]["side_accuracy"] is None
    assert 0 <= measured["webcam"]["total_accuracy"] <= 1
    pruned = torch.load(folder / "runs/webcam/pruned.ckpt", weights_only=False)["state_dict"]
    unpruned = fold_batchnorm(HandDetector()).state_dict()
    assert sum(map(torch.numel, pruned.values())) < sum(map(torch.numel, unpruned.values()))
    metadata = FingerCounter(folder / "runs/webcam/handful.onnx").metadata
    assert "HandsDataset" not in metadata["data"]
    assert yaml.safe_load(metadata["config"])["trainer"]["max_epochs"] == 1
    assert yaml.safe_load(metadata["detector config"])["data"]["sources"] == {"fingers": 1}
    capsys.readouterr()
    main(command)
    assert "webcam: already evaluated" in capsys.readouterr().out

    # Interrupted before the evaluation: nothing is trained or exported again. Rows of other sources are kept.
    table = folder / "metrics/leave-one-out.json"
    table.write_text(json.dumps({"sources": {"digits": {"pictures": 3}, "webcam": {"pictures": 3}}}))
    files = [folder / "runs/webcam" / name for name in ("classifier/best.ckpt", "pruned.ckpt", "handful.onnx")]
    before = [file.stat().st_mtime_ns for file in files]
    (folder / "runs/webcam/webcam.json").unlink()
    main(command)
    assert [file.stat().st_mtime_ns for file in files] == before
    assert json.loads(table.read_text())["sources"] == {"digits": {"pictures": 3}, **measured}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rendered", "'rendered' cannot be left out: choose from webcam, digits, counting"),
        ("digits", "Sign-Language-Digits-Dataset: no images here"),
    ],
)
def test_a_source_that_cannot_be_left_out_is_refused_before_training(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match=message):
        main(["leave-out", "--folder", str(tmp_path), "--sources", f"[{name}]", "--output", str(tmp_path)])


def test_leave_one_out_refuses_to_go_on_from_a_model_that_knows_the_source(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    hand = cv2.cvtColor(draw_hand("3L", np.random.default_rng(0)), cv2.COLOR_GRAY2RGB)
    write_webcam(tmp_path / "people/HandsDataset", {"1_pic0.jpg": (hand, 3, (10, 10, 100, 100))})
    command = ["leave-out", "--folder", str(tmp_path), "--sources", "[webcam]", "--output", str(tmp_path)]
    with pytest.raises(SystemExit, match="has learned from webcam: trainings without them cannot go on from it"):
        main([*command, "--start", str(MODEL)])


@pytest.mark.parametrize("start", [[], ["--start", "first.onnx"]], ids=["", "from a model"])
def test_the_sources_of_a_fold_are_left_out_together(tmp_path, monkeypatch, start):
    monkeypatch.chdir(ROOT)
    trained: list[dict] = []

    def note_sources(*arguments: object) -> None:
        trained.append(json.loads(str(arguments[arguments.index("--data.sources") + 1])))

    stand_ins = {"open_source": Mock(), "fit": note_sources, "prune": Mock(), "export": Mock()}
    stand_ins["load_exported"] = lambda *_: (None, {"data": [], "training commit": "0123"})
    for name, stand_in in (stand_ins | {"evaluate_source": lambda name, *_: {"title": name}}).items():
        monkeypatch.setattr(training.evaluation.leave_out, name, stand_in)
    folders = ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path)]
    main(["leave-out", "--sources", "[rps, chilean]", *folders, *start])
    assert len(trained) == 2, "a detector and a classifier for both"
    for sources in trained:
        assert not {"rps", "chilean"} & set(sources)
        assert {"gestures", "letters", "spin", "varied"} <= set(sources)
    rows = json.loads((tmp_path / "leave-one-out.json").read_text())["sources"]
    assert set(rows) == {"rps", "chilean"}
    assert [row["budget"].get("start") for row in rows.values()] == 2 * ["0123" if start else None]


@pytest.mark.parametrize("text", ["model: {}", "data: [", "", "data: {batch_size: 3}"])
def test_leave_one_out_refuses_a_config_without_sources(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    config = f"[{tmp_path / 'mine.yaml'}]"
    command = ["leave-out", "--sources", "[]", "--output", str(tmp_path), "--classifier", config]
    with pytest.raises(SystemExit, match=r"mine\.yaml: no data\.sources here"):
        main(command)


def test_an_interrupted_training_resumes_from_its_last_epoch(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    parent = {"data": ["data of the parent"], "training commit": "0123", "config": "{trainer: {max_epochs: 7}}"}
    torch.save(
        {"state_dict": ClassifierModule(HandClassifier()).state_dict(), "provenance": parent}, tmp_path / "start"
    )
    # One step an epoch, of which the first is the best.
    more = ("--data.sources", "{fingers: 60}", "--checkpoint.monitor", "epoch", "--checkpoint.mode", "min")
    main(arguments(folder, tmp_path, *more, "--model.start", str(tmp_path / "start")))
    assert torch.load(tmp_path / "best.ckpt", weights_only=False)["global_step"] == 1
    assert torch.load(tmp_path / "last.ckpt", weights_only=False)["global_step"] == 2
    main(arguments(folder, tmp_path, *more, "--trainer.max_epochs", "3", "--ckpt_path", "last"))
    assert logged_metrics(tmp_path)["epoch"].min() == 2
    last = torch.load(tmp_path / "last.ckpt", weights_only=False)
    assert last["global_step"] == 3, "one more epoch, not two"
    assert last["provenance"]["data"][0] == "data of the parent"
    assert yaml.safe_load(last["provenance"]["config"])["model"]["start"]["trainer"] == {"max_epochs": 7}
    assert {file.name for file in tmp_path.glob("*.ckpt")} == {"best.ckpt", "last.ckpt"}


def test_the_same_seed_gives_the_same_weights(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    weights = []
    for name in ("a", "b"):
        main(arguments(folder, tmp_path / name, "--trainer.max_epochs", "1"))
        weights.append(torch.load(tmp_path / name / "last.ckpt", weights_only=False)["state_dict"])
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_training_starts_from_another_and_their_average_is_a_checkpoint(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    first, second, mean = (tmp_path / name for name in ("first/best.ckpt", "second/best.ckpt", "mean.ckpt"))
    main(arguments(folder, first.parent, "--trainer.max_epochs", "1"))
    checkpoint = torch.load(first, weights_only=False)
    checkpoint["provenance"]["data"].insert(0, "data of the parent")
    torch.save(checkpoint, first)
    # At this learning rate, the weights hardly change.
    more = ("--model.start", str(first), "--model.learning_rate", "1e-9", "--ema", "{decay: 0.0, use_buffers: false}")
    main(arguments(folder, second.parent, "--trainer.max_epochs", "1", *more))
    before, after = (torch.load(file, weights_only=False)["state_dict"] for file in (first, second))
    for name, _ in HandClassifier().named_parameters():
        torch.testing.assert_close(after[f"network.{name}"], before[f"network.{name}"], atol=1e-6, rtol=0)

    checkpoint = torch.load(second, weights_only=False)
    assert checkpoint["provenance"]["data"] == [
        "data of the parent",
        *torch.load(first, weights_only=False)["provenance"]["data"][1:],
    ]
    checkpoint["state_dict"] = {name: weights + 2 for name, weights in before.items()}
    torch.save(checkpoint, second)
    main(["average", f"[{first}, {second}]", "--output", str(mean)])
    network, provenance = load(mean, ClassifierModule, "")
    for name, weights in network.state_dict().items():
        torch.testing.assert_close(weights, before[f"network.{name}"] + 1)
    main(["average", f"[{first}, {second}]", "--output", str(mean), "--last_weight", "0.75"])
    for name, weights in load(mean, ClassifierModule, "")[0].named_parameters():
        torch.testing.assert_close(weights, before[f"network.{name}"] + 1.5)
    config = yaml.safe_load(provenance["config"])
    assert str(tmp_path) not in provenance["config"]
    assert config["model"]["start"]["trainer"]["max_epochs"] == 1, "the config of the parent, not its path"
    assert [one["trainer"]["max_epochs"] for one in config["average"]] == [1], "the config of the first one"

    first.unlink()
    assert load(second, ClassifierModule, ""), "the parent is not needed any more"
    with pytest.raises(SystemExit, match=r"first/best\.ckpt: no such"):
        main(arguments(folder, tmp_path / "third", "--model.start", str(first)))
    with pytest.raises(SystemExit, match=r"first/best\.ckpt: no such"):
        main(["average", f"[{first}, {second}]"])
    with pytest.raises(SystemExit, match="Two checkpoints or more"):
        main(["average", f"[{second}]"])
    del checkpoint["state_dict"]["network.head.bias"]
    torch.save(checkpoint, first)
    with pytest.raises(SystemExit, match=r"first/best\.ckpt: weights of another network"):
        main(arguments(folder, tmp_path / "third", "--model.start", str(first)))
    with pytest.raises(SystemExit, match="different networks"):
        main(["average", f"[{first}, {second}]"])


TWO_SOURCES = ("--data.sources", "{fingers: 96, webcam: 24}")


def two_processes(folder: Path) -> Path:
    """Train in two processes; return the folder of data and run."""
    write_fingers(folder / "data/fingers", train=30, test=1)  # enough to validate on for 24 errors
    grey = np.full((240, 320, 3), 90, np.uint8)
    frames = {f"{session}_pic1.jpg": (grey, 2, (1, 1, 5, 5)) for session in (1, 5)}
    write_webcam(folder / "data/people/HandsDataset", frames)
    more = ("--trainer.strategy", "ddp", "--trainer.devices", "2", "--data.batch_size", "30", *TWO_SOURCES)
    more += ("--trainer.max_epochs", "1")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "training"]
    command = [*torchrun, *arguments(folder / "data", folder, *more, images=True)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "All distributed processes registered. Starting with 2 processes" in done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.background(work=two_processes)
def test_two_processes_train_together_and_log_metrics_of_all_pictures(background_result, monkeypatch):
    together = logged_metrics(background_result).dropna(subset="val/accuracy").iloc[-1]
    events = EventAccumulator(str(background_result / "tensorboard/version_0"))
    events.Reload()
    assert events.Images("val/confusion"), "gathered from both"
    worst = cv2.imdecode(np.frombuffer(events.Images("val/worst")[0].encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert worst[-worst.shape[0] // 5 :, -worst.shape[1] // 6 :].std() > 10, "24 errors: neither process has that many"

    # One process computes the same metrics of these weights. The number of pictures is odd: none may count twice.
    pictures = yaml.safe_load(torch.load(background_result / "last.ckpt", weights_only=False)["provenance"]["config"])[
        "pictures"
    ]
    assert sum(of_source["validation"] for of_source in pictures.values()) % 2 == 1
    alone = background_result / "alone"
    monkeypatch.chdir(ROOT)
    main(
        [
            "validate",
            *arguments(background_result / "data", alone, *TWO_SOURCES)[1:],
            "--ckpt_path",
            str(background_result / "last.ckpt"),
        ]
    )
    metrics = logged_metrics(alone).iloc[-1]
    for name in ("val/accuracy", "val/count_accuracy", "val/loss"):
        assert metrics[name] == pytest.approx(together[name], abs=1e-5), name


def test_validation_metrics_do_not_depend_on_the_batch_size():
    rng = torch.Generator().manual_seed(0)
    targets = torch.tensor([1, NO_HAND, NO_HAND, 9, SIDE_UNKNOWN + 3, NO_HAND, 5])
    fingers = torch.tensor([2, -1, -1, 7, -1, -1, 31])
    crops = [
        (torch.randint(256, (192, 192, 4), generator=rng, dtype=torch.uint8), target, raised)
        for target, raised in zip(targets, fingers, strict=True)
    ]
    boxes = [torch.tensor([[10.0, 10, 90, 90]] * n) for n in (0, 2, 0, 0, 1)]
    frames = [(torch.randint(256, (3, 96, 96), generator=rng, dtype=torch.uint8), two.view(-1, 4)) for two in boxes]
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    for module, pictures, collate in (
        (ClassifierModule(HandClassifier(), size=32), crops, default_collate),
        (DetectorModule(HandDetector()), frames, collate_scenes),
    ):
        one, all_together = (
            trainer.validate(module, DataLoader(pictures, size, collate_fn=collate), verbose=False)
            for size in (1, len(pictures))
        )
        assert one[0] == pytest.approx(all_together[0], abs=1e-5)


def test_fingers_are_learned_from_names_and_from_counts():
    # Thumb, index, middle, ring, little; a logit of log 3 is a probability of 3/4.
    logits = torch.tensor([[0.0, math.log(3), -math.log(3), 0.0, 0.0]]).repeat(2, 1)
    named, counted = torch.tensor([2, FINGERS_UNKNOWN]), torch.tensor([1, 1])
    only_index = 0.75 * 0.75 / 8
    # Exactly one: the index finger, the middle one, or one of the three others.
    one = (0.75 * 0.75 + 0.25 * 0.25 + 3 * 0.25 * 0.75) / 8
    losses = [partial_finger_loss(logits[k : k + 1], counted[k : k + 1], named[k : k + 1]) for k in range(2)]
    assert losses[0].item() == pytest.approx(-math.log(only_index), rel=1e-5)
    assert losses[1].item() == pytest.approx(-math.log(one), rel=1e-5)
    assert partial_finger_loss(logits, counted, named).item() == pytest.approx(sum(map(float, losses)), rel=1e-5)


def test_a_hand_in_a_pose_that_is_no_count_teaches_presence_alone():
    logits = [torch.randn(3, n, generator=torch.Generator().manual_seed(0)) for n in (len(CLASSES), 1, len(FINGERS))]
    targets, fingers = torch.tensor([COUNT_UNKNOWN, NO_HAND, 3]), torch.full((3,), FINGERS_UNKNOWN)
    losses, sizes = classifier_losses(logits[0], logits[1][:, 0], logits[2], targets, fingers)
    assert sizes.tolist() == [3, 1, 1]
    known = classifier_losses(*(part[2:] for part in (logits[0], logits[1][:, 0], logits[2], targets, fingers)))[0]
    torch.testing.assert_close(losses[1:], known[1:])
    presence = F.binary_cross_entropy_with_logits(logits[1][:, 0], torch.tensor([1.0, 0, 1]), reduction="sum")
    torch.testing.assert_close(losses[0], presence)


def test_frozen_stages_keep_their_weights():
    classifier, detector = ClassifierModule(HandClassifier(), frozen=3), DetectorModule(HandDetector(), frozen=3)
    for stages in classifier.network.features, detector.network.stride8:
        learned = {name.split(".")[0] for name, weight in stages.named_parameters() if weight.requires_grad}
        assert min(learned) == "3"
    assert all(weight.requires_grad for weight in classifier.network.fingers.parameters())


def test_a_logged_error_does_not_keep_its_batch_in_memory():
    logger, run = ImageLogger(worst=1), (Trainer(accelerator="cpu", logger=False), ClassifierModule(HandClassifier()))
    logger.on_validation_epoch_start(*run)
    batch = (torch.zeros(5, 192, 192, 4, dtype=torch.uint8), torch.arange(5), torch.arange(5))
    logger.on_validation_batch_end(*run, {"logits": -torch.eye(len(CLASSES))[:5]}, batch)
    ((_, _, image, _),) = logger.errors
    assert image.untyped_storage().nbytes() == 192 * 192 * 4


@pytest.mark.background(work=trained)
def test_weights_and_biases_is_one_flag(background_result):
    assert list(background_result.glob("wandb/offline-run-*/*.wandb"))
    shown = {file.name.split("_")[0] for file in background_result.glob("wandb/*/files/media/images/val/*.png")}
    assert shown == {"confusion", "worst"}


@pytest.mark.background(work=trained)
def test_tensorboard_gets_the_confusion_matrix_and_the_worst_errors(background_result):
    events = EventAccumulator(str(background_result / "tensorboard/version_0"))
    events.Reload()
    assert {"train/loss", "val/loss", "lr-AdamW"} <= set(events.Tags()["scalars"])
    for name in ("val/confusion", "val/worst"):
        _, picture = events.Images(name)  # one an epoch
        pixels = cv2.imdecode(np.frombuffer(picture.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
        assert pixels.std() > 10, "not blank"


def test_a_sweep_resumes_and_prunes_trials_that_are_worse(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    space = yaml.safe_load((ROOT / "training/configs/sweep.yaml").read_text())
    command = [part for part in arguments(folder, tmp_path, "--data.sources", "{fingers: 60}") if part != "fit"]
    space["command"] = ["python", "-m", "training", "fit", *command, "${args}"]
    space["parameters"] = {
        "model.learning_rate": {"distribution": "log_uniform_values", "min": 0.01, "max": 0.02},
        "model.network.init_args.dropout": {"values": [0.2]},
    }
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space))
    sweep = ["sweep", "--space", str(tmp_path / "space.yaml"), "--runs", str(tmp_path / "sweep")]
    main([*sweep, "--trials", "1"])
    main([*sweep, "--trials", "2"])
    storage = f"sqlite:///{tmp_path / 'sweep/sweep.db'}"
    study = optuna.load_study(study_name="space", storage=storage)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2
    assert all(0.01 <= trial.params["model.learning_rate"] <= 0.02 for trial in study.trials)
    assert (
        torch.load(tmp_path / "sweep/trial-1/best.ckpt", weights_only=False)["hyper_parameters"]["learning_rate"]
        == (study.trials[1].params["model.learning_rate"])
    )
    # A trial that is worse than the others from its first epoch on is pruned.
    for _ in range(5):
        study.add_trial(
            optuna.trial.create_trial(
                params=study.best_params,
                distributions=study.best_trial.distributions,
                value=0.0,
                intermediate_values={0: 0.0, 1: 0.0},
            )
        )
    capsys.readouterr()
    main([*sweep, "--trials", "8"])
    assert "(pruned)" in capsys.readouterr().out


def test_without_data_the_error_names_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match=r"Fetch the data set with: python -m training data$"):
        main(arguments(tmp_path / "none", tmp_path))


def test_without_a_checkpoint_the_error_names_the_command(tmp_path):
    with pytest.raises(SystemExit, match="training detector fit"):
        main(["export", "--detector", str(tmp_path / "none.ckpt")])


def test_the_backbone_is_pretrained():
    """Always with the same weights, and batch norms with statistics."""
    first, second = backbone().state_dict(), backbone().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any((value == 1).all() for name, value in first.items() if name.endswith("running_var"))


def test_shapes_and_size_of_the_classifier_are_as_documented():
    network = HandClassifier().eval()
    x = torch.zeros(2, 3, 112, 112)
    shapes = [list((x := layer(x)).shape[1:]) for layer in network.features]
    assert shapes == [[32, 56, 56], [16, 56, 56], [24, 28, 28], [40, 14, 14], [80, 7, 7], [112, 7, 7]]
    assert [output.shape for output in network.classify(x)] == [(2, len(CLASSES)), (2,), (2, len(FINGERS))]
    assert sum(p.numel() for p in network.parameters()) == 702_802


@pytest.mark.parametrize(("gpu", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_only_gpus_train_in_bfloat16(monkeypatch, gpu, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert cli.precision() == precision
