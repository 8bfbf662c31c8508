"""Training as a user starts it: from the command line, on a small data set, to a model that counts."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import optuna
import pandas as pd
import pytest
import torch
import wandb
import yaml
from lightning import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, default_collate

import training.export.export
import training.export.prune
from handful import MODEL, FingerCounter
from handful.labels import NO_HAND, SIDE_UNKNOWN
from tests.builders import draw_hand, write_fingers
from tests.training.test_sources import write_webcam
from training.cli import main
from training.data.backgrounds import places
from training.data.scenes import stack
from training.export.cascade import Cascade
from training.export.export import load
from training.lightning import cli
from training.lightning.classifier import ClassifierModule
from training.lightning.detector import DetectorModule
from training.lightning.image_logger import ImageLogger
from training.networks.backbone import backbone, fold_batchnorm
from training.networks.classifier import HandClassifier
from training.networks.detector import HandDetector

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder with the Fingers layout in it."""
    return write_fingers(tmp_path_factory.mktemp("data") / "fingers", train=30, test=4).parent


def arguments(folder, run, *more):
    """`fit` at a size that takes seconds."""
    return [
        "fit", "--config", str(ROOT / "training/configs/fingers.yaml"),
        "--data.folder", str(folder), "--data.batch_size", "60", "--data.sources", "{fingers: 120}",
        "--model.size", "32", "--data.augment.size", "32", "--data.workers", "0",
        "--checkpoint.dirpath", str(run), "--trainer.default_root_dir", str(run),
        "--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", str(run), "--trainer.logger.name", "logs",
        "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false",
        "--trainer.log_every_n_steps", "1", *more,
    ]  # fmt: skip


def metrics(run):
    return pd.read_csv(sorted(run.glob("logs/version_*/metrics.csv"))[-1])


def trained(folder: Path) -> Path:
    """The run of one training, told to all loggers."""
    data, run = write_fingers(folder / "data/fingers", train=30, test=4).parent, folder / "run"
    run.mkdir()
    board = f"{{class_path: TensorBoardLogger, init_args: {{save_dir: {run}, name: board}}}}"
    loggers = (f"--trainer.logger+={board}", "--trainer.logger+=WandbLogger", f"--trainer.logger.save_dir={run}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        main(arguments(data, run, "--trainer.gradient_clip_val", "5", *loggers))
    wandb.teardown()  # it reads the environment once a process
    return run


@pytest.mark.ahead(work=trained)
def test_a_training_tells_how_it_goes(ahead):
    told = metrics(ahead)
    assert told["val/accuracy"].dropna().between(0, 1).all()
    assert told["train/loss"].notna().sum() == 2 * 2, "two epochs of 120 pictures, 60 at a time"
    about = torch.load(ahead / "best.ckpt", weights_only=False)["provenance"]
    assert f"torch {torch.__version__.partition('+')[0]}" in about["versions"]
    settings = yaml.safe_load(about["config"])
    assert settings["data"]["sources"] == {"fingers": 120}
    assert settings["data"]["augment"]["size"] == 32
    assert settings["trainer"]["max_epochs"] == 2
    assert settings["trainer"]["gradient_clip_val"] == 5
    held = settings["pictures"]["fingers"]["validation"]
    assert settings["pictures"] == {"fingers": {"training": 360 - held, "validation": held}}
    assert str(ahead.parent) not in about["config"]


def leave_out(folder: Path) -> list[str]:
    """The command that trains without the webcam frames and measures with them, run once in a folder."""
    data = folder / "data"
    write_fingers(data / "fingers", train=30, test=4)
    webcam = data / "people/HandsDataset"
    (webcam / "data").mkdir(parents=True)
    (webcam / "images/train").mkdir(parents=True)
    lines = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for k in range(7):
        picture = cv2.copyMakeBorder(draw_hand("3L", np.random.default_rng(k)), 60, 60, 90, 90, cv2.BORDER_REPLICATE)
        cv2.imwrite(str(webcam / f"images/train/1_pic{k}.jpg"), picture)
        lines.append(f"1_pic{k}.jpg,{picture.shape[1]},{picture.shape[0]},3-hand,100,80,200,190")
    (webcam / "data/train_labels.csv").write_text("\n".join(lines))
    (webcam / "data/test_labels.csv").write_text(lines[0])

    detector, classifier = (
        yaml.safe_load((ROOT / f"training/configs/{name}.yaml").read_text()) for name in ("detector", "fingers")
    )
    detector["data"] = {"sources": ["fingers", "webcam"], "scenes": 64, "batch_size": 32, "workers": 0}
    classifier["data"] |= {"sources": {"fingers": 60, "webcam": 60}, "batch_size": 60, "workers": 0}
    for name, config in ("detector", detector), ("classifier", classifier):
        config["trainer"] |= {"accelerator": "cpu", "enable_progress_bar": False}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    command = [
        "leave-out", "--folder", str(data), "--sources", "[webcam]", "--epochs", "1", "--detector_epochs", "1",
        "--scenes", "64", "--seen", "32", "--runs", str(folder / "runs"),
        "--detector", str(folder / "detector.yaml"), "--classifier", str(folder / "classifier.yaml"),
        "--output", str(folder / "metrics"),
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        # Which channels are left out does not matter here, nor what is computed in the file that both networks go
        # into, and each takes a while: see tests/test_slim.py and tests/test_export.py.
        patch.setattr(training.export.prune, "obs_prune_order", any_channels)
        patch.setattr(training.export.export, "to_onnx", shipped)
        patch.setattr(training.export.export, "quantize", lambda model: None)
        main(command)
    return command


def any_channels(products: np.ndarray, wanted: np.ndarray, variance: float, keep: int = 0):
    return np.arange(len(products) - 1 - keep), np.linspace(0, 1, len(products) - keep)


def shipped(cascade: Cascade, metadata: dict[str, str]) -> onnx.ModelProto:
    model = onnx.load(MODEL)
    onnx.helper.set_model_props(model, {one.key: one.value for one in model.metadata_props} | metadata)
    return model


@pytest.mark.slow
@pytest.mark.ahead(work=leave_out)
def test_a_source_left_out_is_measured_by_a_model_that_knows_nothing_of_it(ahead, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    command, folder = ahead, Path(ahead[ahead.index("--runs") + 1]).parent
    assert len(places(folder / "data")) == 2, "one webcam frame in six, its hands covered"
    assert places(folder / "data", sources=["fingers"]) == []
    measured = json.loads((folder / "metrics/leave-one-out.json").read_text())["sources"]
    assert list(measured) == ["webcam"]
    assert measured["webcam"]["pictures"] == 7, "all of it, as nothing was trained on"
    assert measured["webcam"]["budget"] == {"epochs": 1, "detector_epochs": 1, "crops": 60, "scenes": 64}
    assert measured["webcam"]["side_accuracy"] is None
    assert 0 <= measured["webcam"]["total_accuracy"] <= 1
    narrow = torch.load(folder / "runs/webcam/pruned.ckpt", weights_only=False)["state_dict"]
    wide = fold_batchnorm(HandDetector()).state_dict()
    assert sum(map(torch.numel, narrow.values())) < sum(map(torch.numel, wide.values()))
    about = FingerCounter(folder / "runs/webcam/handful.onnx").metadata
    assert "HandsDataset" not in about["data"]
    assert yaml.safe_load(about["config"])["trainer"]["max_epochs"] == 1
    assert yaml.safe_load(about["detector config"])["data"]["sources"] == ["fingers"]
    capsys.readouterr()
    main(command)
    assert "webcam: measured before" in capsys.readouterr().out

    # Cut off when its model was there: neither that nor what it comes from is made again. What was measured elsewhere
    # of another source stays.
    table = folder / "metrics/leave-one-out.json"
    table.write_text(json.dumps({"sources": {"digits": {"pictures": 3}, "webcam": {"pictures": 3}}}))
    made = [folder / "runs/webcam" / name for name in ("classifier/best.ckpt", "pruned.ckpt", "handful.onnx")]
    before = [file.stat().st_mtime_ns for file in made]
    (folder / "runs/webcam/measured.json").unlink()
    main(command)
    assert [file.stat().st_mtime_ns for file in made] == before
    assert json.loads(table.read_text())["sources"] == {"digits": {"pictures": 3}, **measured}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("rendered", "'rendered' cannot be left out and measured: choose from webcam, digits, counting"),
        ("digits", "no pictures of SignLanguageDigits here"),
    ],
)
def test_what_cannot_be_left_out_is_told_before_anything_is_trained(name, says, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match=says):
        main(["leave-out", "--folder", str(tmp_path), "--sources", f"[{name}]", "--output", str(tmp_path)])


@pytest.mark.parametrize("text", ["model: {}", "data: [", "", "data: {batch_size: 3}"])
def test_a_configuration_without_sources_leaves_nothing_to_leave_out(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    command = ["leave-out", "--sources", "[]", "--output", str(tmp_path), "--classifier", str(tmp_path / "mine.yaml")]
    with pytest.raises(SystemExit, match=r"mine\.yaml: this names no sources to learn from"):
        main(command)


def test_a_stopped_training_goes_on_from_its_last_epoch(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    begun = {"data": ["learned from before"], "training commit": "0123", "config": "{trainer: {max_epochs: 7}}"}
    torch.save({"state_dict": ClassifierModule(HandClassifier()).state_dict(), "provenance": begun}, tmp_path / "start")
    # One step an epoch; measured so, no epoch is better than the first.
    more = ("--data.sources", "{fingers: 60}", "--checkpoint.monitor", "epoch", "--checkpoint.mode", "min")
    main(arguments(folder, tmp_path, *more, "--model.start", str(tmp_path / "start")))
    assert torch.load(tmp_path / "best.ckpt", weights_only=False)["global_step"] == 1
    assert torch.load(tmp_path / "last.ckpt", weights_only=False)["global_step"] == 2
    main(arguments(folder, tmp_path, *more, "--trainer.max_epochs", "3", "--ckpt_path", "last"))
    assert metrics(tmp_path)["epoch"].min() == 2
    last = torch.load(tmp_path / "last.ckpt", weights_only=False)
    assert last["global_step"] == 3, "one more epoch, not two"
    assert last["provenance"]["data"][0] == "learned from before"
    assert yaml.safe_load(last["provenance"]["config"])["model"]["start"]["trainer"] == {"max_epochs": 7}
    assert {file.name for file in tmp_path.glob("*.ckpt")} == {"best.ckpt", "last.ckpt"}


def test_the_same_seed_gives_the_same_weights(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    weights = []
    for name in ("a", "b"):
        main(arguments(folder, tmp_path / name, "--trainer.max_epochs", "1"))
        weights.append(torch.load(tmp_path / name / "last.ckpt", weights_only=False)["state_dict"])
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_training_starts_from_another_one_and_their_mean_is_a_checkpoint_too(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    first, second, mean = (tmp_path / name for name in ("first/best.ckpt", "second/best.ckpt", "mean.ckpt"))
    main(arguments(folder, first.parent, "--trainer.max_epochs", "1"))
    learned = torch.load(first, weights_only=False)
    learned["provenance"]["data"].insert(0, "learned from before")
    torch.save(learned, first)
    # It cannot go far at this rate: what it ends with is what it began with.
    more = ("--model.start", str(first), "--model.learning_rate", "1e-9", "--ema", "{decay: 0.0, use_buffers: false}")
    main(arguments(folder, second.parent, "--trainer.max_epochs", "1", *more))
    begun, ended = (torch.load(file, weights_only=False)["state_dict"] for file in (first, second))
    for name, _ in HandClassifier().named_parameters():
        torch.testing.assert_close(ended[f"network.{name}"], begun[f"network.{name}"], atol=1e-6, rtol=0)

    moved = torch.load(second, weights_only=False)
    assert moved["provenance"]["data"] == [
        "learned from before",
        *torch.load(first, weights_only=False)["provenance"]["data"][1:],
    ]
    moved["state_dict"] = {name: weights + 2 for name, weights in begun.items()}
    torch.save(moved, second)
    main(["average", f"[{first}, {second}]", "--output", str(mean)])
    network, about = load(mean, ClassifierModule, "")
    for name, weights in network.state_dict().items():
        torch.testing.assert_close(weights, begun[f"network.{name}"] + 1)
    config = yaml.safe_load(about["config"])
    assert str(tmp_path) not in about["config"]
    assert config["model"]["start"]["trainer"]["max_epochs"] == 1, "what it started from, not where that lies"
    assert [one["trainer"]["max_epochs"] for one in config["average"]] == [1], "how the first one was trained"

    first.unlink()
    assert load(second, ClassifierModule, ""), "what it started from is not needed any more"
    with pytest.raises(SystemExit, match=r"first/best\.ckpt: no such"):
        main(arguments(folder, tmp_path / "third", "--model.start", str(first)))
    with pytest.raises(SystemExit, match=r"first/best\.ckpt: no such"):
        main(["average", f"[{first}, {second}]"])
    with pytest.raises(SystemExit, match="two checkpoints or more"):
        main(["average", f"[{second}]"])
    del moved["state_dict"]["network.head.bias"]
    torch.save(moved, first)
    with pytest.raises(SystemExit, match=r"first/best\.ckpt: weights of another network"):
        main(arguments(folder, tmp_path / "third", "--model.start", str(first)))
    with pytest.raises(SystemExit, match="different networks"):
        main(["average", f"[{first}, {second}]"])


BOTH = ("--data.sources", "{fingers: 96, webcam: 24}")


def two_processes(folder: Path) -> Path:
    """A folder with data and the run of two processes that trained on it together."""
    write_fingers(folder / "data/fingers", train=30, test=4)
    webcam = [f"{session}_pic1.jpg,9,9,2-hand,1,1,5,5" for session in (1, 5)]
    write_webcam(folder / "data/people/HandsDataset", {"train": webcam})
    board = f"{{class_path: TensorBoardLogger, init_args: {{save_dir: {folder}, name: board}}}}"
    more = ("--trainer.strategy", "ddp", "--trainer.devices", "2", "--data.batch_size", "30", *BOTH)
    more += ("--trainer.max_epochs", "1")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "training"]
    command = [*torchrun, *arguments(folder / "data", folder, *more, f"--trainer.logger+={board}")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "All distributed processes registered. Starting with 2 processes" in done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.ahead(work=two_processes)
def test_two_processes_train_together_and_measure_the_same(ahead, monkeypatch):
    together = metrics(ahead).dropna(subset="val/accuracy").iloc[-1]
    events = EventAccumulator(str(ahead / "board/version_0"))
    events.Reload()
    assert events.Images("val/confusion"), "of both processes' pictures"
    worst = cv2.imdecode(np.frombuffer(events.Images("val/worst")[0].encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert worst[-worst.shape[0] // 5 :, -worst.shape[1] // 6 :].std() > 10, "24 mistakes: neither made that many alone"

    # One process measures the same weights alike, over all of the validation pictures, which do not come out even.
    pictures = yaml.safe_load(torch.load(ahead / "last.ckpt", weights_only=False)["provenance"]["config"])["pictures"]
    assert sum(of_source["validation"] for of_source in pictures.values()) % 2 == 1
    alone = ahead / "alone"
    monkeypatch.chdir(ROOT)
    main(["validate", *arguments(ahead / "data", alone, *BOTH)[1:], "--ckpt_path", str(ahead / "last.ckpt")])
    told = metrics(alone).iloc[-1]
    for name in ("val/accuracy", "val/count_accuracy", "val/loss"):
        assert told[name] == pytest.approx(together[name], abs=1e-5), name


def test_what_is_measured_is_of_all_pictures_however_they_are_dealt_out():
    rng = torch.Generator().manual_seed(0)
    targets = torch.tensor([1, NO_HAND, NO_HAND, 9, SIDE_UNKNOWN + 3, NO_HAND, 5])
    crops = [(torch.randint(256, (192, 192, 4), generator=rng, dtype=torch.uint8), target) for target in targets]
    boxes = [torch.tensor([[10.0, 10, 90, 90]] * n) for n in (0, 2, 0, 0, 1)]
    frames = [(torch.randint(256, (3, 96, 96), generator=rng, dtype=torch.uint8), two.view(-1, 4)) for two in boxes]
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    for module, pictures, collate in (
        (ClassifierModule(HandClassifier(), size=32), crops, default_collate),
        (DetectorModule(HandDetector()), frames, stack),
    ):
        one, all_together = (
            trainer.validate(module, DataLoader(pictures, size, collate_fn=collate), verbose=False)
            for size in (1, len(pictures))
        )
        assert one[0] == pytest.approx(all_together[0], abs=1e-5)


def test_a_mistake_that_is_shown_keeps_its_own_picture_not_the_batch():
    shown, at = ImageLogger(worst=1), (Trainer(accelerator="cpu", logger=False), ClassifierModule(HandClassifier()))
    shown.on_validation_epoch_start(*at)
    batch = (torch.zeros(5, 192, 192, 4, dtype=torch.uint8), torch.arange(5))
    shown.on_validation_batch_end(*at, {"logits": -torch.eye(12)[:5]}, batch)
    ((_, _, picture, _),) = shown.errors
    assert picture.untyped_storage().nbytes() == 192 * 192 * 4


@pytest.mark.ahead(work=trained)
def test_weights_and_biases_is_one_flag(ahead):
    assert list(ahead.glob("wandb/offline-run-*/*.wandb"))
    shown = {file.name.split("_")[0] for file in ahead.glob("wandb/*/files/media/images/val/*.png")}
    assert shown == {"confusion", "worst"}


@pytest.mark.ahead(work=trained)
def test_tensorboard_is_shown_the_confusion_and_the_worst_mistakes(ahead):
    events = EventAccumulator(str(ahead / "board/version_0"))
    events.Reload()
    assert {"train/loss", "val/loss", "lr-AdamW"} <= set(events.Tags()["scalars"])
    for name in ("val/confusion", "val/worst"):
        _, picture = events.Images(name)  # one an epoch
        pixels = cv2.imdecode(np.frombuffer(picture.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
        assert pixels.std() > 10, "not an empty sheet"


def test_a_sweep_goes_on_where_it_was_and_gives_up_what_is_worse(folder, tmp_path, monkeypatch, capsys):
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
    # One that all before it were better than from its first epoch on is not trained to its end.
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
    assert "(given up)" in capsys.readouterr().out


def test_without_data_the_way_to_it_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match=r"Fetch the data set with: python -m training data$"):
        main(arguments(tmp_path / "none", tmp_path))


def test_without_a_checkpoint_the_way_to_one_is_told(tmp_path):
    with pytest.raises(SystemExit, match="training detector fit"):
        main(["export", "--detector", str(tmp_path / "none.ckpt")])


def test_networks_start_from_what_was_learned_before():
    """The same weights each time, whatever chance says; batch norms have seen pictures."""
    one, other = backbone().state_dict(), backbone().state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not any((value == 1).all() for name, value in one.items() if name.endswith("running_var"))


def test_the_shapes_are_those_that_the_network_states():
    network = HandClassifier().eval()
    x = torch.zeros(2, 3, 128, 128)
    shapes = [list((x := layer(x)).shape[1:]) for layer in network.features]
    assert shapes == [[32, 64, 64], [16, 64, 64], [24, 32, 32], [40, 16, 16], [80, 8, 8], [112, 8, 8]]
    assert [part.shape for part in network.classify(x)] == [(2, 12), (2,)]
    assert sum(p.numel() for p in network.parameters()) == 702_237


@pytest.mark.parametrize(("gpu", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_only_gpus_train_in_sixteen_bits(monkeypatch, gpu, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert cli.precision() == precision
