"""Everything that makes the model, one command each:

python -m training data                        fetch and check the data sets
python -m training detector fit --config …     train the hand detector
python -m training fit --config …              train the classifier (also: validate)
python -m training box ROOT …                  find the hands in a data set that has no boxes
python -m training mine                        find what a model takes for hands in pictures without any
python -m training average CHECKPOINTS         average the weights of trainings that continue one another
python -m training prune                       remove channels from the detector, which makes it faster
python -m training calibrate                   find the thresholds, scales and temperature of the cascade
python -m training export                      write both networks to one ONNX file
python -m training evaluate                    evaluate the ONNX file on held-out data
python -m training ablate                      evaluate the cascade without each of its stages
python -m training leave-out                   evaluate models trained without one of the sources
python -m training fuse                        compare scores of a hand, on sources that were left out
python -m training report                      print the metrics as tables
python -m training sweep                       search hyperparameters of the classifier
python -m training drift REFERENCE CURRENT     test whether pictures have changed since the reference

Each command explains its options with --help; configs are in training/configs.
"""

import sys
from pkgutil import resolve_name

# Dotted paths, imported when a command runs: PyTorch takes seconds to import, and --help does not need it.
COMMANDS = {
    "data": "training.data.registry:prepare",
    "box": "training.data.box:box",
    "mine": "training.data.mine:mine",
    "average": "training.export.average:average",
    "prune": "training.export.prune:prune",
    "calibrate": "training.evaluation.calibrate:calibrate",
    "export": "training.export.export:export",
    "evaluate": "training.evaluation.evaluate:evaluate",
    "ablate": "training.evaluation.ablate:ablate",
    "leave-out": "training.evaluation.leave_out:leave_out",
    "fuse": "training.evaluation.fuse:fuse",
    "report": "training.evaluation.report:report",
    "sweep": "training.sweep:sweep",
    "drift": "training.evaluation.drift:drift",
}
TRAININGS = ("detector", "fit", "validate")


def main(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0 if arguments else 2)
    if arguments[0] not in (*COMMANDS, *TRAININGS):
        sys.exit(f"{arguments[0]!r} is not a command. See python -m training --help")
    try:
        run(arguments)
    except KeyboardInterrupt:
        sys.exit(130)


def run(arguments: list[str]) -> None:
    from jsonargparse import auto_cli

    from handful.model_store import BadModel
    from training.errors import BadData, NoPackage

    command, *options = arguments
    try:
        if command in TRAININGS:
            train(arguments)
        else:
            auto_cli(resolve_name(COMMANDS[command]), args=options, prog=f"python -m training {command}")
    except (BadData, BadModel, NoPackage, OSError) as error:
        sys.exit(str(error))


def train(arguments: list[str]) -> None:
    from training.data.crops import CropDataModule
    from training.data.scenes import SceneDataModule
    from training.lightning.classifier import ClassifierModule
    from training.lightning.cli import TrainingCLI
    from training.lightning.detector import DetectorModule

    if arguments[0] == "detector":
        TrainingCLI(DetectorModule, SceneDataModule, arguments[1:], prog="python -m training detector")
    else:
        TrainingCLI(ClassifierModule, CropDataModule, arguments)
