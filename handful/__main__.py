"""Run the command line: python -m handful."""

import sys

from handful.cli import main

sys.exit(main())
