"""Wrong files and arguments: every command explains in one line what is wrong."""

import subprocess
import sys

import lightning
import pytest
import torch

from tests.builders import write_model
from training.cli import COMMANDS, main
from training.networks.classifier import HandClassifier
from training.networks.detector import HandDetector


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Checkpoints as trainings write them, and other files."""
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
    data = (folder / "detector.ckpt").read_bytes()
    (folder / "half.ckpt").write_bytes(data[: len(data) // 2])
    torch.save({"weights": 1}, folder / "other.ckpt")
    write_model(folder / "other.onnx")
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("evaluate --model nope.onnx", "nope.onnx: there is no such file"),
        ("export --detector nope.ckpt", "nope.ckpt: no such file. Train one: python -m training detector fit"),
        ("export --detector half.ckpt", "half.ckpt: damaged, or not a checkpoint"),
        ("export --detector other.ckpt", "other.ckpt: not a checkpoint of Handful"),
        ("export --detector classifier.ckpt", "classifier.ckpt: not a detector checkpoint"),
        (
            "export --detector detector.ckpt --classifier detector.ckpt",
            "detector.ckpt: not a classifier checkpoint",
        ),
        ("export --detector nope.onnx", "nope.onnx: there is no such file"),
        ("export --detector other.onnx", "other.onnx: python -m training export did not write it"),
        ("prune --detector nope.ckpt", "nope.ckpt: no such file. Train one: python -m training detector fit"),
        ("prune --detector classifier.ckpt", "classifier.ckpt: not a detector checkpoint"),
        ("average [half.ckpt,detector.ckpt]", "half.ckpt: damaged, or not a checkpoint"),
        ("average [other.ckpt,detector.ckpt]", "other.ckpt: not a checkpoint of Handful"),
        ("sweep --space nope.yaml", "[Errno 2] No such file or directory: 'nope.yaml'"),
        ("report --folder nope", "nope: no metrics here. Create them: python -m training evaluate"),
        ("evaluat", "'evaluat' is not a command. See python -m training --help"),
    ],
)
def test_the_error_explains_what_is_wrong(arguments, message, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as error:
        main(arguments.split())
    assert str(error.value).startswith(message)


def test_a_training_that_starts_from_a_missing_model_is_an_error(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "own.yaml").write_text(
        "model: {network: {class_path: training.export.onnx_weights.classifier, init_args: {model: nope.onnx}}}\n"
        "data: {sources: {bundled: 8}}\n"
    )
    with pytest.raises(SystemExit, match=r"nope\.onnx: there is no such file"):
        main(["fit", "--config", "own.yaml"])


def test_ctrl_c_exits_without_a_traceback(monkeypatch):
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.evaluation.report.report", interrupted)
    with pytest.raises(SystemExit, match=r"^130$"):
        main(["report"])


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"python -m training {name}" in text for name in ("fit", "detector", *COMMANDS))
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("arguments", [["--help"], ["evaluat"]])
def test_help_does_not_import_pytorch(arguments):
    """That takes seconds."""
    code = "import sys, training.cli as cli\ntry: cli.main(sys.argv[1:])\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.stdout.endswith("False\n")
