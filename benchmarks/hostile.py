"""Small picture files whose structure costs far more than their size, as an attacker writes them by hand.

Most are harmless as they are: their larger relatives cost gigabytes, or minutes of a core.
"""

import io
import struct
import zlib

from PIL import Image

import handful.images  # noqa: F401, which registers HEIF

SIDE = 100  # pixels, of most files


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(side: int = SIDE) -> Image.Image:
    return Image.linear_gradient("L").resize((side, side)).convert("RGB")


def rle_bmp(width: int = SIDE, height: int = SIDE, bits: int = 8) -> bytes:
    """Return a run-length encoded BMP of nothing but ends of lines, two bytes each."""
    palette, lines = bytes(4 * 2**bits), b"\0\0" * height + b"\0\1"
    start = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 1 if bits == 8 else 2, len(lines), 0, 0, 0, 0)
    return struct.pack("<2sIII", b"BM", start + len(lines), 0, start) + header + palette + lines


def narrow_bmp() -> bytes:
    """Return a BMP of one bit a pixel that is one pixel high. onnxruntime cannot resize so wide a picture."""
    start, width = 54 + 8, 16_777_300
    header = struct.pack("<IiiHHIIiiII", 40, width, 1, 1, 1, 0, 0, 0, 0, 0, 0)
    row = bytes((width + 31) // 32 * 4)
    return struct.pack("<2sIII", b"BM", start + len(row), 0, start) + header + bytes(8) + row


def jpeg_of_scans(scans: int = 200, side: int = SIDE) -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    data = encode(picture(side), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scans * last + data[-2:]


def jpeg_of_hidden_scans(scans: int = 200, marker: bytes = b"\xff\xfe\0\4\xff\xd9") -> bytes:
    """Return a JPEG of many scans that follow a comment, which has the marker of the end in it."""
    data = jpeg_of_scans(scans)
    second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    return data[:second] + marker + data[second:]


def padded_jpeg(padding: bytes) -> bytes:
    """Return a JPEG with bytes before its first segment."""
    data = encode(picture(), "JPEG")
    return data[:2] + padding + data[2:]


def tiff(tags: dict[int, tuple[int, ...]], data: bytes = b"") -> bytes:
    """Return a little-endian TIFF with these tags, all of 32 bits, then data, at `8 + …`."""
    body, entries = b"", b""
    start = 8 + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        at = packed if len(values) == 1 else struct.pack("<I", start + len(body))
        entries += struct.pack("<HHI", tag, 4, len(values)) + at
        body += b"" if len(values) == 1 else packed
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + body + data


def tiff_of_strips(strips: int = 5000) -> bytes:
    """Return a TIFF of far more strips than rows."""
    tags = {256: (SIDE,), 257: (SIDE,), 258: (8,), 259: (1,), 262: (1,), 277: (1,), 278: (1,)}
    return tiff(tags | {273: (8,) * strips, 279: (SIDE,) * strips}, bytes(SIDE))


def tiff_of_one_tile(side: int = 4000) -> bytes:
    """Return a TIFF of 100×100 pixels with one compressed tile, far larger than itself."""
    tile = zlib.compress(bytes(side * side), 9)
    tags: dict[int, tuple[int, ...]] = {}
    tags |= {256: (SIDE,), 257: (SIDE,), 258: (8,), 259: (8,), 262: (1,), 277: (1,), 322: (side,), 323: (side,)}
    start = 8 + 2 + 12 * (len(tags) + 2) + 4
    return tiff(tags | {324: (start,), 325: (len(tile),)}, tile)


def png_of_chunks(kind: bytes, count: int, body: bytes = b"") -> bytes:
    """Return a PNG with so many chunks of a kind before its pixels."""
    data = encode(picture(), "PNG")
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data[:33] + count * chunk + data[33:]


def gif_of_comments(count: int) -> bytes:
    """Return a GIF with so many comments before its first frame."""
    data = encode(picture().quantize(4), "GIF")
    start = data.index(b"\x2c", 13 + 3 * 4)
    return data[:start] + count * b"\x21\xfe\x01a\x00" + data[start:]


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I", 8 + len(body)) + kind + body


def heic_of_overlays(depth: int = 2, items: int = 4) -> bytes:
    """Return a HEIC whose primary item is an overlay of overlays, each of which draws the one below so many times."""
    source = encode(picture(64), "HEIF")
    config = source[source.index(b"hvcC") - 4 :]
    config = config[: int.from_bytes(config[:4], "big")]
    coded = source[source.index(b"mdat") + 4 :]
    overlay = bytes(2 + 8) + struct.pack(">HH", 64, 64) + items * struct.pack(">hh", 0, 0)
    contents = [coded, *depth * [overlay]]  # item 1 is the picture
    kinds = [b"hvc1", *depth * [b"iovl"]]
    number = len(contents)
    infos = [box(b"infe", b"\2\0\0\0", struct.pack(">HH", item, 0), kind, b"\0") for item, kind in enumerate(kinds, 1)]
    references = [
        box(b"dimg", struct.pack(f">HH{items}H", item, items, *items * [item - 1])) for item in range(2, number + 1)
    ]
    properties = box(b"ipco", config, box(b"ispe", bytes(4), struct.pack(">II", 64, 64)))
    associations = [struct.pack(">HBBB", item, 2, 0x81 if item == 1 else 2, 2) for item in range(1, number + 1)]

    def meta(start: int) -> bytes:
        offsets = [start + sum(map(len, contents[:i])) for i in range(number)]
        places = [
            struct.pack(">HHHII", item, 0, 1, offset, len(content))
            for item, (offset, content) in enumerate(zip(offsets, contents, strict=True), 1)
        ]
        return box(
            b"meta",
            bytes(4),
            box(b"hdlr", bytes(8), b"pict", bytes(13)),
            box(b"pitm", bytes(4), struct.pack(">H", number)),
            box(b"iloc", bytes(4), b"\x44\0", struct.pack(">H", number), *places),
            box(b"iinf", bytes(4), struct.pack(">H", number), *infos),
            box(b"iref", bytes(4), *references),
            box(b"iprp", properties, box(b"ipma", bytes(4), struct.pack(">I", number), *associations)),
        )

    start = box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    return start + meta(len(start) + len(meta(0)) + 8) + box(b"mdat", *contents)


def lying_avif(side: int = 500) -> bytes:
    """Return an AVIF that says 64×64 pixels and codes more."""
    data = encode(picture(side), "AVIF")
    return data.replace(b"ispe" + struct.pack(">III", 0, side, side), b"ispe" + struct.pack(">III", 0, 64, 64))


# Refused by their structure, whatever they cost.
REFUSED = {
    "BMP of run lengths": rle_bmp,
    "BMP of run lengths, 4 bits": lambda: rle_bmp(bits=4),
    "JPEG of many scans": jpeg_of_scans,
    "JPEG of many scans after what looks like its end": jpeg_of_hidden_scans,
    "JPEG of many scans after a marker without a length": lambda: jpeg_of_hidden_scans(marker=b"\xff\x01\xff\xff"),
    "JPEG padded with fill bytes": lambda: padded_jpeg(100_000 * b"\xff"),
    "JPEG padded with empty markers": lambda: padded_jpeg(50_000 * b"\xff\xd8"),
    "JPEG padded with comments": lambda: padded_jpeg(10_000 * b"\xff\xfe\0\2"),
    "TIFF of many strips": tiff_of_strips,
    "TIFF of one large tile": tiff_of_one_tile,
    "HEIC of nested overlays": heic_of_overlays,
    "AVIF of another size": lying_avif,
    "PNG of empty chunks": lambda: png_of_chunks(b"abCd", 100_000),
    "PNG of text chunks": lambda: png_of_chunks(b"tEXt", 60_000, b"a\0"),
    "PNG of empty data": lambda: png_of_chunks(b"IDAT", 100_000),
    "GIF of comments": lambda: gif_of_comments(400_000),
}
# Recognized by nothing but the time that they take, here some tenths of a second.
SLOW = {
    "PNG": lambda: encode(picture(7000), "PNG", compress_level=1),
    "JPEG": lambda: jpeg_of_scans(80, 3000),
}
TOO_NARROW = {
    "BMP wider than onnxruntime takes": narrow_bmp,
    "BMP of run lengths, one pixel wide": lambda: encode(Image.new("1", (1, 50_000)), "BMP"),
    "PNG, one pixel wide": lambda: encode(Image.new("1", (1, 1_000_000)), "PNG"),
}
