"""Count raised fingers in many pictures, from the command line.

python -m handful photo.jpg holiday/ --csv counts.csv --overlays annotated/
"""

import argparse
import csv
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from handful.counter import shared_counter
from handful.images import SUFFIXES, BadImage, decode
from handful.labels import CLASSES
from handful.overlay import draw

COLUMNS = (
    *("file", "width", "height", "total", "fingers", "side", "confidence", "x0", "y0", "x1", "y1"),
    *(*CLASSES, "ms", "error"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns the exit status: 0, or 1 where a picture could not be read, 130 after Ctrl-C, 141 where
    nobody reads the output any more. Leaves with SystemExit(2) on usage.
    """
    parser = argparse.ArgumentParser(
        prog="handful",
        description="Count the raised fingers in pictures. Prints one JSON object a line for each picture, in order.",
        epilog="Exits with 0; with 1 if a picture could not be read, which its line tells; with 2 on usage.",
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a picture, or a folder whose pictures are read, sorted"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a table too, one row a hand")
    parser.add_argument("--overlays", type=Path, metavar="DIR", help="write the pictures with hands and counts drawn")
    args = parser.parse_args(argv)
    root = ""
    # Whatever cannot be written is told before the work, not after it.
    try:
        if args.overlays:
            # Overlays lie to one another as the pictures do, so that two of the same name never meet.
            folders = [path if os.path.isdir(path) else path.parent for path in args.paths]
            root = os.path.commonpath([os.path.abspath(folder) for folder in folders])
            args.overlays.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=args.overlays).close()
        # Closed below. Names that are not UTF-8 come out as they went in.
        table = open(args.csv or os.devnull, "w", encoding="utf-8", errors="surrogateescape", newline="")  # noqa: SIM115
    except (OSError, ValueError) as error:  # the latter: pictures on two drives
        parser.error(f"cannot write: {error}")
    with table:
        try:
            return run(args.paths, csv.DictWriter(table, COLUMNS, extrasaction="ignore"), args.overlays, root)
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:
            # Python flushes stdout once more on its way out, and would complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141


def run(paths: Sequence[Path], table: csv.DictWriter, overlays: Path | None, root: str) -> int:
    """Read every picture, print its line and write its rows and overlay, which lies as the picture does to `root`.

    Returns 1 if any failed, or else 0.
    """
    table.writeheader()
    found = [item for path in paths for item in find(path)]
    # On a terminal the lines themselves show how far the work is.
    progress = sys.stderr.isatty() and not sys.stdout.isatty()
    failed = False
    for done, (path, error) in enumerate(found, start=1):
        result: dict = {"file": str(path)}
        try:
            if error:
                raise BadImage(error)
            image = decode(path)
            prediction = shared_counter()(image)
            result |= prediction.to_dict()
            if overlays:
                target = overlays / os.path.relpath(path, root)
                target.parent.mkdir(parents=True, exist_ok=True)
                # The old ending stays: hand.png and hand.heic are two pictures.
                Image.fromarray(draw(image, prediction)).save(f"{target}.jpg", quality=90)
        except BadImage as refused:
            result["error"] = str(refused)
        except OSError as problem:
            result["error"] = f"The overlay cannot be written: {problem}"
        failed |= "error" in result
        for hand in result.get("hands") or [{}]:
            box = dict(zip(("x0", "y0", "x1", "y1"), hand.get("box", ()), strict=False))
            table.writerow(result | hand | box | hand.get("probabilities", {}))
        print(json.dumps(result), flush=True)
        if progress:
            bar = "#" * (30 * done // len(found))
            print(f"\r[{bar:.<30}] {done}/{len(found)}", end="\n" * (done == len(found)), file=sys.stderr, flush=True)
    return int(failed)


def find(path: Path) -> Iterator[tuple[Path, str]]:
    """The pictures at a path, each with an error or "": the path itself, or those in a folder, sorted."""
    if not os.path.isdir(path):
        yield path, ""
        return
    denied: list[OSError] = []
    files = [Path(folder, name) for folder, _, names in os.walk(path, onerror=denied.append) for name in names]
    named = [file for file in files if file.suffix.lower() in SUFFIXES]
    # Not what is there but no file: a pipe may never end.
    pictures = sorted(file for file in named if os.path.isfile(file) or not os.path.exists(file))
    yield from ((picture, "") for picture in pictures)
    yield from ((Path(error.filename), f"This folder cannot be opened: {error.strerror}") for error in denied)
    if not pictures and not denied:
        yield path, "There are no pictures in this folder."
