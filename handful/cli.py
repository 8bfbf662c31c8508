"""Count raised fingers in pictures, from the command line.

handful photo.jpg holiday/ --csv counts.csv --overlays annotated/
"""

import argparse
import csv
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from PIL import Image

from handful.counter import shared_counter
from handful.decode_process import DecodeProcess
from handful.images import SUFFIXES, BadImage
from handful.labels import CLASSES
from handful.model_store import BadModel
from handful.overlay import draw, resize
from handful.personal import BadHead, PersonalHead

COLUMNS = (
    *("file", "width", "height", "total", "fingers", "raised", "side", "confidence", "x0", "y0", "x1", "y1"),
    *(*CLASSES, "ms", "error"),
)
OVERLAY_NAME = re.compile(rf"({'|'.join(map(re.escape, SUFFIXES))})\.jpg$", re.IGNORECASE)
PROGRESS_WIDTH = 30  # characters
MIN_OVERLAY_SIDE = 640  # pixels: smaller pictures are enlarged, so that captions can be read
CPU_S, WALL_S = 20.0, 60.0  # to decode one picture


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns the exit status: 0; 1 if a picture failed, if there is no model or personal head, or if the output cannot be
    written; 141 if its reader has closed it. Usage errors raise SystemExit(2).
    """
    parser = argparse.ArgumentParser(
        prog="handful",
        description="Count the raised fingers in pictures. Prints one line of JSON per picture, in order.",
        epilog="Exit status: 0; 1 if a picture failed, whose line has the error; 2 on wrong usage.",
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a picture, or a folder to search")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write a table, one row per hand")
    parser.add_argument("--personal", type=Path, metavar="FILE", help="predict with a personal head, saved by Teach")
    parser.add_argument("--overlays", type=Path, metavar="DIR", help="also write the pictures with hands drawn on them")
    args = parser.parse_args(argv)
    if args.csv and is_picture(args.csv, args.paths):
        parser.error(f"--csv: {args.csv} is the name of a picture, which the table would replace")
    if sys.stdout is None:
        return fail("cannot write: stdout is closed")
    try:
        counter = shared_counter()
        personal = counter.check(PersonalHead.load(args.personal)) if args.personal else None
    except (BadModel, BadHead) as error:
        return fail(str(error))
    root = ""
    # Fail before the work, not after it, if the output cannot be written.
    try:
        if args.overlays:
            # Overlays mirror the folders of the pictures, so that equal file names do not collide.
            folders = [path if os.path.isdir(path) else path.parent for path in args.paths]
            root = os.path.commonpath([os.path.abspath(folder) for folder in folders])
            if os.path.realpath(root) == os.path.realpath(args.overlays):
                parser.error(f"--overlays: {args.overlays} has the pictures themselves; choose another folder")
            args.overlays.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=args.overlays).close()
        # Closed below. surrogateescape writes file names that are not UTF-8 unchanged.
        table = open(args.csv or os.devnull, "w", encoding="utf-8", errors="surrogateescape", newline="")  # noqa: SIM115
    except (OSError, ValueError) as error:  # ValueError: pictures on two drives
        parser.error(f"cannot write: {error}")
    try:
        with table, DecodeProcess(CPU_S, WALL_S) as decoder:
            rows = csv.DictWriter(table, COLUMNS, extrasaction="ignore")
            return run(args.paths, decoder, rows, args.overlays, root, personal)
    except BrokenPipeError:
        discard_stdout()
        return 141
    except OSError as error:  # of stdout or the table: a full disk
        discard_stdout()
        return fail(f"cannot write: {error.strerror}")


def is_picture(file: Path, paths: Sequence[Path]) -> bool:
    """Return whether a file, or what it links to, is one of `paths` or has the name of a picture."""
    target = os.path.realpath(file)
    return Path(target).suffix.lower() in SUFFIXES or (
        os.path.isfile(target) and target in map(os.path.realpath, paths)
    )


def fail(message: str) -> int:
    """Print why the command ends, and return its exit status."""
    with suppress(OSError):  # there may be no stderr either
        print(f"handful: {message}", file=sys.stderr)
    return 1


def discard_stdout() -> None:
    """Keep Python from flushing stdout again at exit, which would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(
    paths: Sequence[Path],
    decoder: DecodeProcess,
    table: csv.DictWriter,
    overlays: Path | None,
    root: str,
    personal: PersonalHead | None,
) -> int:
    """Predict all pictures; print a line, write rows and an overlay for each, at its path relative to `root`.

    Returns 1 if a picture failed, else 0.
    """
    table.writeheader()
    pictures = [picture for path in paths for picture in find_pictures(path, overlays)]
    # With stdout on a terminal, the lines themselves show the progress.
    progress = sys.stderr and sys.stderr.isatty() and not sys.stdout.isatty()
    failed = False
    for done, (path, error) in enumerate(pictures, start=1):
        result: dict = {"file": str(path)}
        try:
            if error:
                raise BadImage(error)
            image = decoder.decode(path)
            prediction = shared_counter()(image, personal)
            result |= prediction.to_dict()
            if overlays:
                target = overlays / os.path.relpath(path, root)
                target.parent.mkdir(parents=True, exist_ok=True)
                # Appended to the suffix: hand.png and hand.heic are two pictures.
                if max(image.shape[:2]) < MIN_OVERLAY_SIDE:
                    image, prediction = resize(image, prediction, MIN_OVERLAY_SIDE)
                Image.fromarray(draw(image, prediction)).save(f"{target}.jpg", quality=90)
        except BadImage as bad_image:
            result["error"] = str(bad_image)
        except OSError as os_error:
            result["error"] = f"The overlay cannot be written: {os_error}"
        except Exception as unexpected:  # which must not end the other pictures
            result["error"] = f"This picture cannot be processed ({type(unexpected).__name__}). Save it again as JPEG."
        failed |= "error" in result
        table.writerows(table_rows(result))
        print(json.dumps(result), flush=True)
        if progress:
            bar = "#" * (PROGRESS_WIDTH * done // len(pictures))
            end = "\n" if done == len(pictures) else ""
            print(f"\r[{bar:.<{PROGRESS_WIDTH}}] {done}/{len(pictures)}", end=end, file=sys.stderr, flush=True)
    return int(failed)


def table_rows(result: dict) -> Iterator[dict]:
    """Yield the rows of the table for a picture, one per hand, or one without; `COLUMNS` are among their keys.

    Args:
        result: `file`, with the items of `Prediction.to_dict` or an `error`.
    """
    file = {"file": no_formula(result["file"])}
    for hand in result.get("hands") or [{}]:
        box = dict(zip(("x0", "y0", "x1", "y1"), hand.get("box", ()), strict=False))
        raised = {"raised": "+".join(hand.get("raised", ()))}
        yield result | file | hand | raised | box | hand.get("probabilities", {})


def no_formula(path: str) -> str:
    """Return the same path in a form that spreadsheets do not run as a formula."""
    return os.path.join(".", path) if path.startswith(("=", "+", "-", "@", "\t", "\r")) else path


def find_pictures(path: Path, overlays: Path | None = None) -> Iterator[tuple[Path, str]]:
    """Yield (path, error) for a path: itself, or the pictures in a folder, sorted; the error is "" if there is none.

    Overlays of a run before, in the folder of overlays, are left out: they are named as pictures, with .jpg added.
    """
    if not os.path.isdir(path):
        yield path, ""
        return
    denied: list[OSError] = []
    files = []
    for folder, _, names in os.walk(path, onerror=denied.append):
        if overlays and Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(overlays)):
            names = [name for name in names if not OVERLAY_NAME.search(name)]
        files += [Path(folder, name) for name in names]
    files = [file for file in files if file.suffix.lower() in SUFFIXES]
    # Broken links are reported as missing; pipes and devices are skipped: they may never end.
    pictures = sorted(file for file in files if os.path.isfile(file) or not os.path.exists(file))
    yield from ((picture, "") for picture in pictures)
    yield from ((Path(error.filename), f"This folder cannot be opened: {error.strerror}") for error in denied)
    if not pictures and not denied:
        yield path, "There are no pictures in this folder."
