"""python -m benchmarks [NAME] [--json FILE] [--frames N] [--minutes N] [--attack] [--python FILE]"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import benchmarks
from benchmarks import Unavailable
from training.files import atomic_write


@dataclass(frozen=True)
class Benchmark:
    """A module of this package with `run(**options)`, which returns results, and `report(results)`, which formats them.

    Attributes:
        description: what it measures.
        options: command-line options that `run` takes.
        by_default: whether it runs when no benchmark is named.
        saved: whether results on all frames are stored in the repository, by `save(results)`.
    """

    description: str
    options: tuple[str, ...] = ()
    by_default: bool = True
    saved: bool = False


BENCHMARKS = {
    "speed": Benchmark("decoding, prediction, drawing, starting Python with a model"),
    "live": Benchmark("Live in a browser, on the device and on the server: from a pose to its number"),
    "load": Benchmark("how many cameras this machine serves at once"),
    "api": Benchmark("the HTTP API with 1 to 64 clients"),
    "steady": Benchmark("flicker and lag of a webcam's count", ("frames",)),
    "start": Benchmark("from a server's start to its first page", ("python",)),
    "mediapipe": Benchmark("accuracy and time compared with MediaPipe's, on the same frames", ("frames",), saved=True),
    "teach": Benchmark("errors with personal heads, by the number of pictures learned from", ("frames",), False, True),
    "largest": Benchmark("memory and time of the largest pictures and videos; ten minutes", by_default=False),
    "attack": Benchmark("what hostile pictures cost the other visitors", by_default=False),
    "soak": Benchmark(
        "a server's memory with visitors, or after an attack; half an hour", ("minutes", "attack"), False
    ),
    "streams": Benchmark("memory of server and tab on long streams; half an hour", ("minutes",), by_default=False),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark, or all that run by default, and print their tables.

    Returns:
        The exit status: 1 if the benchmark named is not available here.
    """
    args = parser().parse_args(argv)
    names = [args.name] if args.name else [name for name, benchmark in BENCHMARKS.items() if benchmark.by_default]
    results = {}
    for name in names:
        benchmark, module = BENCHMARKS[name], import_module(f"benchmarks.{name}")
        try:
            results[name] = module.run(**{option: getattr(args, option) for option in benchmark.options})
        except Unavailable as error:
            print(f"{name} is not available: {error}", file=sys.stderr)
            continue
        print(module.report(results[name]), end="\n\n", flush=True)
        if benchmark.saved and args.name and not args.frames:
            module.save(results[name])
    if args.json:
        with atomic_write(args.json) as part:
            part.write_text(json.dumps(results, indent=1) + "\n")
    return int(args.name is not None and not results)


def parser() -> argparse.ArgumentParser:
    lines = [f"  {name:10} {benchmark.description}" for name, benchmark in BENCHMARKS.items()]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="\n".join([benchmarks.__doc__ or "", "benchmarks:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "name",
        nargs="?",
        choices=BENCHMARKS,
        metavar="NAME",
        help="the benchmark to run; by default all but teach, largest, attack, soak and streams",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to a file too")
    parser.add_argument("--frames", type=int, default=0, metavar="N", help="at most N frames of each set (0: all)")
    parser.add_argument("--minutes", type=float, default=30, metavar="N", help="duration of soak and streams")
    parser.add_argument("--attack", action="store_true", help="soak with hostile pictures, visits and videos")
    parser.add_argument("--python", default=sys.executable, metavar="FILE", help="interpreter that start measures")
    return parser


if __name__ == "__main__":
    sys.exit(main())
