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
from pkgutil import resolve_name

# By where each lies: what they import takes seconds, which a page of help need not wait for.
COMMANDS = {
    "data": "training.data:prepare",
    "average": "training.average:average",
    "slim": "training.slim:slim",
    "export": "training.export:export",
    "evaluate": "training.evaluate:evaluate",
    "leave-out": "training.leave_out:leave_out",
    "report": "training.report:report",
    "sweep": "training.sweep:sweep",
    "drift": "training.drift:drift",
}
TRAININGS = ("finder", "fit", "validate")


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

    from model.store import BadModel
    from training.classifier import Classifier
    from training.cli import CLI
    from training.data import Hands
    from training.data.frames import BadData
    from training.data.scenes import Frames
    from training.finder import Finder
    from training.npm import NoPackage

    command, *settings = arguments
    try:
        if command == "finder":
            CLI(Finder, Frames, settings, prog="python -m training finder")
        elif command in TRAININGS:
            CLI(Classifier, Hands, arguments)
        else:
            auto_cli(resolve_name(COMMANDS[command]), args=settings, prog=f"python -m training {command}")
    except (BadData, BadModel, NoPackage, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
