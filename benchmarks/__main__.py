"""python -m benchmarks [WHAT] [--json FILE] [--frames N] [--minutes N]: see benchmarks/__init__.py"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import benchmarks
from benchmarks import api, largest, live, load, mediapipe, soak, speed, start, steady

QUICK = {"speed": speed, "live": live, "load": load, "api": api}  # what needs no more than to be asked


def main(argv: Sequence[str] | None = None) -> int:
    """Print tables. Returns the exit status: 1 where MediaPipe was asked for by name and cannot be had."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=benchmarks.__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "what",
        nargs="?",
        choices=(*QUICK, "steady", "start", "largest", "soak", "mediapipe"),
        help="one of them; by default all but largest and soak, which take ten minutes and half an hour",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers too")
    parser.add_argument(
        "--frames", type=int, default=0, metavar="N", help="at most N frames of each set, for a quick look"
    )
    parser.add_argument("--minutes", type=float, default=30, metavar="N", help="how long soak lets visitors come")
    parser.add_argument("--python", default=sys.executable, metavar="FILE", help="interpreter whose app start starts")
    args = parser.parse_args(argv)
    numbers = {}
    status = 0
    for name, benchmark in QUICK.items():
        if args.what in (None, name):
            numbers[name] = benchmark.run()
            print(benchmark.report(numbers[name]), end="\n\n", flush=True)
    if args.what in (None, "steady"):
        numbers["steady"] = steady.run(args.frames)
        print(steady.report(numbers["steady"]), end="\n\n", flush=True)
    if args.what in (None, "start"):
        numbers["start"] = start.run(args.python)
        print(start.report(numbers["start"]), end="\n\n", flush=True)
    if args.what == "largest":
        numbers["largest"] = largest.run()
        print(largest.report(numbers["largest"]), end="\n\n", flush=True)
    if args.what == "soak":
        numbers["soak"] = soak.run(args.minutes)
        print(soak.report(numbers["soak"]), end="\n\n", flush=True)
    if args.what in (None, "mediapipe"):
        try:
            numbers["mediapipe"] = mediapipe.run(args.frames)
            print(mediapipe.report(numbers["mediapipe"]))
            # The numbers that are committed: only those asked for by name, of all sets, whole.
            if args.what and not args.frames:
                if all(measured["frames"] for measured in numbers["mediapipe"]["sets"].values()):
                    mediapipe.RESULTS.write_text(json.dumps(numbers["mediapipe"], indent=1, ensure_ascii=False) + "\n")
                else:
                    print(f"{mediapipe.RESULTS} stays as it was: that is of all sets.", file=sys.stderr)
        except mediapipe.NoMediaPipe as error:
            print(f"No comparison with MediaPipe: {error}", file=sys.stderr)
            status = int(args.what == "mediapipe")
    if args.json:
        args.json.write_text(json.dumps(numbers, indent=1) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
