"""Everything that makes the model, one command each:

python -m training data                                     fetch and check the pictures
python -m training finder fit --config training/finder.yaml train the hand finder
python -m training fit --config training/handful.yaml       train the classifier (also: validate)
python -m training average CHECKPOINTS                      the mean of trainings that went on from one another
python -m training slim                                     make the finder narrow: quicker
python -m training export                                   both checkpoints to one ONNX file
python -m training evaluate                                 measure the ONNX file
python -m training leave-out                                measure models that never saw a source
python -m training report                                   the measures as tables
python -m training sweep                                    search for good settings of the classifier
python -m training drift REFERENCE CURRENT                  whether pictures, or what a server read, changed

With --help, each tells its settings.
"""

import sys
from typing import Any

from jsonargparse import auto_cli

from model.store import BadModel
from training.average import average
from training.classifier import Classifier
from training.cli import CLI
from training.data import Hands, prepare
from training.data.frames import BadData
from training.data.scenes import Frames
from training.drift import drift
from training.evaluate import evaluate
from training.export import export
from training.finder import Finder
from training.leave_out import leave_out
from training.npm import NoPackage
from training.report import report
from training.slim import slim
from training.sweep import sweep

COMMANDS = {
    "data": prepare,
    "average": average,
    "slim": slim,
    "export": export,
    "evaluate": evaluate,
    "leave-out": leave_out,
    "report": report,
    "sweep": sweep,
    "drift": drift,
}


def main(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        sys.exit(0 if arguments else 2)
    command: Any = COMMANDS.get(arguments[0])
    try:
        if arguments[0] == "finder":
            CLI(Finder, Frames, arguments[1:], prog="python -m training finder")
        elif command:
            auto_cli(command, args=arguments[1:], prog=f"python -m training {arguments[0]}")
        elif arguments[0] in CLI.subcommands():
            CLI(Classifier, Hands, arguments)
        else:
            sys.exit(f"{arguments[0]!r} is no command: python -m training --help tells all.")
    except (BadData, BadModel, NoPackage, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main(sys.argv[1:])
