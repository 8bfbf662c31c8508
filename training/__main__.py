"""Run a command: python -m training --help."""

import sys

from training.cli import main

main(sys.argv[1:])
