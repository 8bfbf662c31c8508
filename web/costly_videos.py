"""Recognize MP4 and MOV files that declare far more samples than a video of their size has.

FFmpeg keeps an index of all samples, about 75 bytes each: a file of 1.7 KB that declares 20 million takes 1.5 GB. Each
edit, of 12 bytes, repeats them all.

>>> is_costly_video(open("assets/counting.mp4", "rb"))
False
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

MAX_SAMPLES = 2_000_000  # of all tracks: nine hours at 60 frames a second
MAX_BOXES = 100_000  # a fragment, of a second or more, has about ten
MAX_DEPTH = 10
PARENTS = {b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"moof", b"traf"}
# Where in a box its number of samples is. The others have runs of samples, each with a count and a duration or offset.
COUNTS, RUNS = {b"stsz": 8, b"stz2": 8, b"trun": 4}, {b"stts", b"ctts"}
USUAL_EDITS = 2  # of a track: a pause before its start, and all of it

DATA_HANDLERS = {b"url ", b"alis", b"rsrc"}  # of MOV: where the data of a track are, whatever its kind


def is_costly_video(file: BinaryIO) -> bool:
    """Return whether the index of a video would take too much memory; `file` is left where it was.

    Files that are neither MP4 nor MOV have no such index and are not costly.
    """
    start = file.tell()
    try:
        return _is_costly(file, start)
    finally:
        file.seek(start)


def _is_costly(file: BinaryIO, start: int) -> bool:
    tracks = [Track()]  # the first one is of fragments
    for number, (kind, size) in enumerate(boxes(file, start, file.seek(0, 2))):
        if number > MAX_BOXES or kind == b"cmov":  # an index that is compressed itself, as no camera writes it
            return True
        if kind == b"trak":
            tracks.append(Track())
        elif kind == b"hdlr":
            tracks[-1].handlers.add(file.read(12)[8:])
        elif kind == b"elst":
            tracks[-1].edits += int.from_bytes(file.read(8)[4:], "big")
        elif kind in COUNTS:
            tracks[-1].samples += int.from_bytes(file.read(COUNTS[kind] + 4)[COUNTS[kind] :], "big")
        elif kind in RUNS:
            runs = file.read(min(size, 8 * MAX_SAMPLES))[8:]
            runs = list(struct.iter_unpack(">II", runs[: len(runs) // 8 * 8]))
            tracks[-1].samples += sum(count for count, _ in runs) if kind == b"ctts" else 0
            tracks[-1].ticks |= kind == b"stts" and (len(runs) != 1 or runs[0][1] != 1)
    indexed = (track for track in tracks if not track.is_uncompressed_sound())
    return sum(track.samples * max(1, track.edits - USUAL_EDITS + 1) for track in indexed) > MAX_SAMPLES


@dataclass
class Track:
    """What a track declares.

    Attributes:
        samples: their number, and that of offsets between decoding and display.
        edits: the parts of its samples that are shown one after the other.
        handlers: the kinds of media that it names.
        ticks: a sample lasts longer than one tick of its clock.
    """

    samples: int = 0
    edits: int = 0
    handlers: set[bytes] = field(default_factory=set)
    ticks: bool = False

    def is_uncompressed_sound(self) -> bool:
        """Return whether FFmpeg indexes its chunks, not its samples, of which a second has 48,000."""
        return self.handlers - DATA_HANDLERS == {b"soun"} and not self.ticks


def boxes(file: BinaryIO, position: int, end: int, depth: int = 0) -> Iterator[tuple[bytes, int]]:
    """Yield the type and content size of all boxes up to `end`, also of those in others, with `file` at their content.

    A box that is nested too deep is yielded as a compressed index is, which nobody needs either.
    """
    while position + 8 <= end:
        file.seek(position)
        size, kind, header = *struct.unpack(">I4s", file.read(8)), 8
        if size == 1:  # 64 bits follow
            size, header = int.from_bytes(file.read(8), "big"), 16
        size = min(size or end, end - position)  # 0: to the end
        if size < header:
            return
        yield (b"cmov" if depth > MAX_DEPTH else kind), size - header
        if kind in PARENTS:
            yield from boxes(file, position + header, position + size, depth + 1)
        position += size
