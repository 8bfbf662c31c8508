"""Recognize picture files that take far more time or memory than a picture of their size needs.

By their structure, without decoding: no camera and no common program writes such files.

>>> is_costly(Path("assets/samples/3L_0.jpg").read_bytes())
False
"""

import re
import struct
from collections.abc import Iterator

MAX_SCANS = 100  # of a JPEG; a progressive one has about ten
MAX_SEGMENTS = 2000  # each scan, and each part of a profile or of metadata, is a segment
MAX_JUNK_BYTES = 10_000  # before the first scan
MIN_CHUNK_BYTES = 256  # of a PNG with many, on average
MAX_GIF_BLOCKS = 10_000  # before the first frame, 255 bytes each
MAX_TILE_PIXELS = 4_000_000  # of a TIFF that is itself smaller
MAX_TIFF_TAGS = 1000
MARKER = re.compile(rb"\xff[^\0\1\xff\xd0-\xd8]")  # of a segment of a JPEG with a length, or of its end
# Tags of a TIFF
WIDTH, HEIGHT, STRIPS, SAMPLES, TILE_WIDTH, TILE_HEIGHT, TILES = 256, 257, 273, 277, 322, 323, 324
START_OF_SCAN, END_OF_JPEG = b"\xff\xda", b"\xff\xd9"


def is_costly(data: bytes) -> bool:
    """Return whether this picture file is refused, of whatever format it is."""
    if data[:3] == b"\xff\xd8\xff":
        return is_costly_jpeg(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return is_costly_png(data)
    if data[:4] == b"GIF8":
        return is_costly_gif(data)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return is_costly_tiff(data)
    if data[:2] == b"BM":
        return is_rle_bmp(data)
    if data[4:8] == b"ftyp":
        return is_costly_heif(data)
    return False


def is_costly_jpeg(data: bytes) -> bool:
    """Return whether a JPEG has too many scans or segments, or too much junk before its first scan."""
    return walk_jpeg(data) is None


def end_of_jpeg(data: bytes) -> int:
    """Return where a JPEG that is not costly ends, which other data may follow, or -1 if its end is missing."""
    end = walk_jpeg(data)
    return -1 if end is None else end


def walk_jpeg(data: bytes) -> int | None:
    """Return where a JPEG ends, or -1 if its end is missing; None if it is costly.

    It goes from segment to segment, as a decoder does: bytes inside of one may look like any marker.
    """
    position = junk = scans = 0
    for _ in range(MAX_SEGMENTS):
        end = len(data) if scans else position + MAX_JUNK_BYTES  # a scan's head is followed by its pixels
        marker = MARKER.search(data, position, end)
        if not marker:
            return -1 if end >= len(data) else None
        if marker[0] == END_OF_JPEG:
            return marker.start()
        junk += 0 if scans else marker.start() - position
        scans += marker[0] == START_OF_SCAN
        if junk > MAX_JUNK_BYTES or scans > MAX_SCANS:
            return None
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return None


def is_costly_png(data: bytes) -> bool:
    """Return whether a PNG has many chunks that are tiny."""
    position, chunks = 8, 0
    while position < len(data):
        position += 12 + int.from_bytes(data[position : position + 4], "big")  # length, kind, content, checksum
        chunks += 1
        if chunks > MAX_SEGMENTS and position < MIN_CHUNK_BYTES * chunks:
            return True
    return False


def is_costly_gif(data: bytes) -> bool:
    """Return whether a GIF has many blocks before its first frame."""
    position = 13 + (3 * 2 ** (data[10] % 8 + 1) if len(data) > 10 and data[10] & 128 else 0)  # after the palette
    blocks = 0
    while data[position : position + 1] == b"!":  # an extension: its kind, blocks after their length, a zero
        position += 2
        while length := int.from_bytes(data[position : position + 1]):
            position += 1 + length
            blocks += 1
        position += 1
        blocks += 1
        if blocks > MAX_GIF_BLOCKS:
            return True
    return False


def is_costly_tiff(data: bytes) -> bool:
    """Return whether a TIFF has more strips or tiles than rows, tiles much larger than itself, or 64-bit offsets."""
    order = "<" if data[:2] == b"II" else ">"
    if data[2:4] in (b"+\0", b"\0+"):
        return True
    counts, values = {}, {}
    try:
        (directory,) = struct.unpack_from(f"{order}I", data, 4)
        (length,) = struct.unpack_from(f"{order}H", data, directory)
        for i in range(length):
            tag, kind, counts[tag], values[tag] = struct.unpack_from(f"{order}HHII", data, directory + 2 + 12 * i)
            if kind == 3:  # 16 bits, at the start of the field
                values[tag] = struct.unpack_from(f"{order}H", data, directory + 10 + 12 * i)[0]
    except struct.error:  # damaged, as its decoder will say
        return False
    rows = values.get(HEIGHT, 0) * max(1, values.get(SAMPLES, 1))
    tile = values.get(TILE_WIDTH, 0) * values.get(TILE_HEIGHT, 0)
    return (
        length > MAX_TIFF_TAGS
        or max(counts.get(STRIPS, 0), counts.get(TILES, 0)) > max(rows, 1)
        or tile > max(MAX_TILE_PIXELS, 2 * values.get(WIDTH, 0) * values.get(HEIGHT, 0))
    )


def is_rle_bmp(data: bytes) -> bool:
    """Return whether a BMP is run-length encoded: its decoder is slow, and a few bytes stand for any number of rows."""
    return int.from_bytes(data[14:18], "little") >= 40 and int.from_bytes(data[30:34], "little") in (1, 2)


def is_costly_heif(data: bytes) -> bool:
    """Return whether a HEIC or AVIF has more than one overlay, or codes a picture far larger than it says."""
    parts = dict(boxes(data))
    meta = parts.get(b"meta", b"")
    sizes = [struct.unpack(">II", size) for size in re.findall(rb"ispe\0{4}(.{8})", meta, re.DOTALL)]
    coded = coded_av1_pixels(parts.get(b"mdat", b"")[:MAX_JUNK_BYTES])
    return meta.count(b"iovl") > 1 or coded > 2 * max((width * height for width, height in sizes), default=coded)


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and content of the boxes that an ISO media file, such as HEIC, AVIF and MP4, is made of."""
    position = 0
    while len(header := data[position : position + 16]) >= 8:
        size, start = int.from_bytes(header[:4], "big"), 8
        if size == 1:  # 64 bits, after the type
            size, start = int.from_bytes(header[8:], "big"), 16
        size = size or len(data) - position  # 0: to the end of the file
        if size < start:
            return
        yield header[4:8], data[position + start : position + size]
        position += size


def coded_av1_pixels(data: bytes) -> int:
    """Return the pixels of a frame by the first AV1 sequence header in these bytes (AV1 specification, 5.5), or 0."""
    header = re.search(rb"\x12\0\x0a.(.{10})", data, re.DOTALL)  # after a temporal delimiter
    if not header:
        return 0
    bits = f"{int.from_bytes(header[1], 'big'):080b}"
    if bits[4] == "1":  # of a still picture, reduced: profile, flags, level
        position = 3 + 2 + 5
    elif bits[5:7] == "00" and bits[7:12] == "00000":  # no timing, no display delay, one operating point
        position = 12 + 12 + 5 + (int(bits[24:29], 2) > 7)
    else:
        return 0
    lengths = [int(bits[position + at : position + at + 4], 2) + 1 for at in (0, 4)]
    position += 8
    width = int(bits[position : position + lengths[0]], 2) + 1
    height = int(bits[position + lengths[0] : position + sum(lengths)], 2) + 1
    return width * height
