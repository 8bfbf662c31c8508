"""Command line of the renderer: `python -m training.render --help`."""

import argparse
from concurrent.futures.process import BrokenProcessPool
from dataclasses import fields
from pathlib import Path

from training.errors import NoPackage
from training.render.kind import FLAGS, Kind
from training.render.store import LOSSLESS, SHARD_SIZE, render_shards


def parse_arguments() -> argparse.Namespace:
    """Parse and validate the command line; exits with a message if it is invalid."""
    parser = argparse.ArgumentParser(prog="python -m training.render", description="Render hands with labels.")
    parser.add_argument(
        "--count", type=int, default=24_000, help="number of hands, rounded up to whole shards (default %(default)s)"
    )
    parser.add_argument("--shard", type=int, default=SHARD_SIZE, help="hands per file (default %(default)s)")
    parser.add_argument(
        "--quality",
        type=int,
        default=LOSSLESS,
        help=f"of the WebP pictures, 1 to 100, or {LOSSLESS} for lossless (the default)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help=f"folder (default data/render/train, or with an option of that name data/render/{', '.join(FLAGS)})",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="number of processes, one core each")
    parser.add_argument(
        "--variant",
        choices=("scalar_rgb", "llvm_ad_rgb"),
        default="scalar_rgb",
        help="Mitsuba's back end; llvm_ad_rgb is about twice as fast and needs LLVM 16 or newer "
        "(set DRJIT_LIBLLVM_PATH to its library if several are installed; default %(default)s)",
    )
    for flag in fields(Kind):
        parser.add_argument(f"--{flag.name}", action="store_true", help=flag.metadata["help"])
    parser.add_argument("--samples", type=Path, metavar="FOLDER", help="render the bundled samples instead")
    parser.add_argument("--video", type=Path, metavar="FILE", help="render the bundled video instead")
    arguments = parser.parse_args()
    if min(arguments.count, arguments.shard, arguments.workers) < 1:
        parser.error("--count, --shard and --workers must be 1 or more.")
    if arguments.seed < 0 or not 1 <= arguments.quality <= LOSSLESS:
        parser.error(f"--seed must be 0 or more, --quality 1 to {LOSSLESS}.")
    return arguments


def render(arguments: argparse.Namespace) -> None:
    """Render what the command line asks for."""
    from training.render import hand, people

    hand.fetch_mesh()
    if arguments.people:
        people.fetch_bodies()
    if arguments.samples or arguments.video:
        from training.render.bundled import write_samples, write_video
        from training.render.scene import init_mitsuba

        init_mitsuba(arguments.variant)
        if arguments.samples:
            write_samples(arguments.samples)
        if arguments.video:
            write_video(arguments.video)
        return
    kind = Kind(**{flag: getattr(arguments, flag) for flag in FLAGS})
    render_shards(
        arguments.out or Path("data/render", kind.name),
        arguments.count,
        arguments.seed,
        arguments.workers,
        arguments.variant,
        arguments.shard,
        arguments.quality,
        kind,
    )


def main() -> None:
    """Run the command and turn expected errors into messages."""
    arguments = parse_arguments()
    try:
        render(arguments)
    except (NoPackage, OSError, ImportError) as error:
        raise SystemExit(str(error)) from None
    except BrokenProcessPool:
        raise SystemExit(
            "A worker died: LLVM is too old, or memory ran out. Set DRJIT_LIBLLVM_PATH to a newer LLVM, "
            "use --variant scalar_rgb, or use fewer --workers. Finished shards are kept."
        ) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
