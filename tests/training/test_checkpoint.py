"""Files that a user names wrongly: what is wrong with each is told in a line."""

import subprocess
import sys

import lightning
import pytest
import torch

from tests.unit.test_model_store import write_model
from training.cli import COMMANDS, main
from training.networks.classifier import HandClassifier
from training.networks.detector import HandDetector


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints as trainings leave them, and files that are none."""
    folder = tmp_path_factory.mktemp("files")
    for name, network, path in (
        ("detector", HandDetector(), "training.networks.detector.HandDetector"),
        ("classifier", HandClassifier(), "training.networks.classifier.HandClassifier"),
    ):
        checkpoint = {
            "pytorch-lightning_version": lightning.__version__,
            "state_dict": {f"network.{key}": value for key, value in network.state_dict().items()},
            "hparams_name": "kwargs",
            "hyper_parameters": {
                "network": {"class_path": path},
                "_instantiator": "lightning.pytorch.cli.instantiate_module",
            },
            "provenance": {"size": 128},
        }
        torch.save(checkpoint, folder / f"{name}.ckpt")
    whole = (folder / "detector.ckpt").read_bytes()
    (folder / "half.ckpt").write_bytes(whole[: len(whole) // 2])
    torch.save({"weights": 1}, folder / "other.ckpt")
    write_model(folder / "other.onnx")
    return folder


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("evaluate --model nope.onnx", "nope.onnx: onnxruntime cannot run it"),
        ("export --detector nope.ckpt", "nope.ckpt: no such file. Train one: python -m training detector fit"),
        ("export --detector half.ckpt", "half.ckpt: damaged, or not a checkpoint"),
        ("export --detector other.ckpt", "other.ckpt: not a checkpoint of Handful"),
        ("export --detector classifier.ckpt", "classifier.ckpt: not a detector checkpoint"),
        (
            "export --detector detector.ckpt --classifier detector.ckpt",
            "detector.ckpt: not a classifier checkpoint",
        ),
        ("export --detector nope.onnx", "nope.onnx: onnxruntime cannot run it"),
        ("export --detector other.onnx", "other.onnx: python -m training export did not write it"),
        ("prune --detector nope.ckpt", "nope.ckpt: no such file. Train one: python -m training detector fit"),
        ("prune --detector classifier.ckpt", "classifier.ckpt: not a detector checkpoint"),
        ("average [half.ckpt,detector.ckpt]", "half.ckpt: damaged, or not a checkpoint"),
        ("average [other.ckpt,detector.ckpt]", "other.ckpt: not a checkpoint of Handful"),
        ("sweep --space nope.yaml", "[Errno 2] No such file or directory: 'nope.yaml'"),
        ("report --folder nope", "nope: nothing was measured here. Measure: python -m training evaluate"),
        ("evaluat", "'evaluat' is no command: python -m training --help tells all"),
    ],
)
def test_what_is_wrong_with_a_command_is_told_in_words(arguments, told, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    assert str(ended.value).startswith(told)


def test_a_model_to_train_on_that_is_not_there_is_told(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "own.yaml").write_text(
        "model: {network: {class_path: training.export.onnx_weights.classifier, init_args: {model: nope.onnx}}}\n"
        "data: {sources: {bundled: 8}}\ncheckpoint: {dirpath: runs}\nearly_stopping: {monitor: val/loss}\n"
    )
    with pytest.raises(SystemExit, match=r"nope\.onnx: onnxruntime cannot run it"):
        main(["fit", "--config", "own.yaml"])


def test_what_is_stopped_by_hand_ends_without_a_word(monkeypatch):
    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.evaluation.report.report", stopped)
    with pytest.raises(SystemExit, match=r"^130$"):
        main(["report"])


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    told = capsys.readouterr().out
    assert all(f"python -m training {name}" in told for name in ("fit", "detector", *COMMANDS))
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert capsys.readouterr().out == told


@pytest.mark.parametrize("arguments", [["--help"], ["evaluat"]])
def test_help_comes_at_once(arguments):
    """Without the seconds that PyTorch takes to import."""
    ask = "import sys, training.cli as cli\ntry: cli.main(sys.argv[1:])\nfinally: print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", ask, *arguments], capture_output=True, text=True)
    assert told.stdout.endswith("False\n")
