"""python -m benchmarks [speed|steady|live|load|mediapipe] [--json FILE] [--frames N]"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import benchmarks
from benchmarks import live, load, mediapipe, speed, steady


def main(argv: Sequence[str] | None = None) -> int:
    """Print tables. Returns the exit status: 1 where MediaPipe was asked for by name and cannot be had."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=benchmarks.__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "what", nargs="?", choices=("speed", "steady", "live", "load", "mediapipe"), help="one of them; all by default"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers too")
    parser.add_argument(
        "--frames", type=int, default=0, metavar="N", help="at most N frames of each set, for a quick look"
    )
    args = parser.parse_args(argv)
    numbers = {}
    status = 0
    if args.what in (None, "speed"):
        numbers["speed"] = speed.run()
        print(speed.report(numbers["speed"]), end="\n\n", flush=True)
    if args.what in (None, "steady"):
        numbers["steady"] = steady.run(args.frames)
        print(steady.report(numbers["steady"]), end="\n\n", flush=True)
    if args.what in (None, "live"):
        numbers["live"] = live.run()
        print(live.report(numbers["live"]), end="\n\n", flush=True)
    if args.what in (None, "load"):
        numbers["load"] = load.run()
        print(load.report(numbers["load"]), end="\n\n", flush=True)
    if args.what in (None, "mediapipe"):
        try:
            numbers["mediapipe"] = mediapipe.run(args.frames)
            print(mediapipe.report(numbers["mediapipe"]))
            # The numbers that are committed: only those asked for by name, of whole sets.
            if args.what and not args.frames:
                mediapipe.RESULTS.write_text(json.dumps(numbers["mediapipe"], indent=1) + "\n")
        except mediapipe.NoMediaPipe as error:
            print(f"No comparison with MediaPipe: {error}", file=sys.stderr)
            status = int(args.what == "mediapipe")
    if args.json:
        args.json.write_text(json.dumps(numbers, indent=1) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
