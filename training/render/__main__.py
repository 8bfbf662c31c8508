"""The command: `python -m training.render --help`."""

import argparse
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.render", description="Render hands with their truth.")
    parser.add_argument(
        "--count", type=int, default=24_000, help="how many hands, in whole shards (default %(default)s)"
    )
    parser.add_argument("--shard", type=int, default=250, help="how many hands a file (default %(default)s)")
    parser.add_argument(
        "--quality", type=int, default=101, help="of the pictures, as WebP: 1 to 100, or 101, lossless (the default)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of the shards (default data/render/train, with --people or --tones data/render/people or …/tones)",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes, one core each")
    parser.add_argument(
        "--variant",
        choices=("scalar_rgb", "llvm_ad_rgb"),
        default="scalar_rgb",
        help="Mitsuba's back end: llvm_ad_rgb is about twice as fast, and needs LLVM 16 or newer: "
        "name its library in DRJIT_LIBLLVM_PATH where several are installed (default %(default)s)",
    )
    parser.add_argument("--people", action="store_true", help="everybody with a hand of their own, not one hand varied")
    parser.add_argument("--tones", action="store_true", help="each hand ten times, in the ten tones of the Monk scale")
    parser.add_argument("--samples", type=Path, metavar="FOLDER", help="render the bundled sample pictures instead")
    parser.add_argument("--film", type=Path, metavar="FILE", help="render the bundled film instead, a hand that counts")
    arguments = parser.parse_args()
    kind = "tones" if arguments.tones else "people" if arguments.people else "train"
    if min(arguments.count, arguments.shard, arguments.workers) < 1:
        parser.error("--count, --shard and --workers are 1 or more.")
    if arguments.seed < 0 or not 1 <= arguments.quality <= 101:
        parser.error("--seed is 0 or more, --quality 1 to 101.")

    from training.errors import NoPackage
    from training.render import hand, people

    try:
        hand.fetch()
        if arguments.people:
            people.fetch()
        if arguments.samples or arguments.film:
            from training.render.samples import write_film, write_samples
            from training.render.scene import start

            start(arguments.variant)
            if arguments.samples:
                write_samples(arguments.samples)
            if arguments.film:
                write_film(arguments.film)
        else:
            from training.render.store import write

            write(
                arguments.out or Path("data/render", kind),
                arguments.count,
                arguments.seed,
                arguments.workers,
                arguments.variant,
                arguments.shard,
                arguments.quality,
                arguments.people,
                arguments.tones,
            )
    except (NoPackage, OSError, ImportError) as error:
        raise SystemExit(str(error)) from None
    except BrokenProcessPool:
        raise SystemExit(
            "A worker died: its LLVM is too old, or memory ran out. Name a newer LLVM in DRJIT_LIBLLVM_PATH, "
            "render with --variant scalar_rgb, or with fewer --workers. What is rendered stays."
        ) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
