"""Everything that makes the model, one command each:

python -m training data                        fetch and check the data sets
python -m training detector fit --config …     train the hand detector
python -m training fit --config …              train the classifier (also: validate)
python -m training average CHECKPOINTS         average the weights of trainings that continued one another
python -m training prune                       remove channels from the detector: faster
python -m training export                      write both networks as one ONNX file
python -m training evaluate                    evaluate the ONNX file
python -m training leave-out                   evaluate models that were trained without a source
python -m training report                      print the metrics as tables
python -m training sweep                       search hyperparameters of the classifier
python -m training drift REFERENCE CURRENT     test whether pictures, or what a server saw, changed

Each explains its options with --help; configs are in training/configs.
"""

import sys
from pkgutil import resolve_name

# By where each lies: what they import takes seconds, which a page of help need not wait for.
COMMANDS = {
    "data": "training.data:prepare",
    "average": "training.export.average:average",
    "prune": "training.export.prune:prune",
    "export": "training.export.cascade:export",
    "evaluate": "training.evaluation.evaluate:evaluate",
    "leave-out": "training.evaluation.leave_out:leave_out",
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
        sys.exit(f"{arguments[0]!r} is no command: python -m training --help tells all.")
    try:
        run(arguments)
    except KeyboardInterrupt:
        sys.exit(130)


def run(arguments: list[str]) -> None:
    from jsonargparse import auto_cli

    from handful.model_store import BadModel
    from training.data import CropDataModule
    from training.data.scenes import SceneDataModule
    from training.errors import BadData, NoPackage
    from training.lightning.classifier import ClassifierModule
    from training.lightning.cli import CLI
    from training.lightning.detector import DetectorModule

    command, *settings = arguments
    try:
        if command == "detector":
            CLI(DetectorModule, SceneDataModule, settings, prog="python -m training detector")
        elif command in TRAININGS:
            CLI(ClassifierModule, CropDataModule, arguments)
        else:
            auto_cli(resolve_name(COMMANDS[command]), args=settings, prog=f"python -m training {command}")
    except (BadData, BadModel, NoPackage, OSError) as error:
        sys.exit(str(error))
