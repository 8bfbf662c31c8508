"""python -m handful: the same as the command `handful`."""

import os
import signal
import sys


def main() -> int:
    """Run the command line. Returns its exit status, see `handful.cli.main`, or 130 after Ctrl-C."""
    # An import that is interrupted may raise anything. Background processes of a shell ignore Ctrl-C, and go on to.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        from handful import cli

        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, interrupt)
        return cli.main()
    except KeyboardInterrupt:
        return 130


def interrupt(*_: object) -> None:
    """Handle Ctrl-C: tidy up, unless it comes again."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
