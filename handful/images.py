"""Decode picture files, uploads and request bodies to arrays.

>>> decode("assets/samples/3L_0.jpg").dtype
dtype('uint8')
"""

import io
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pillow_heif
from PIL import Image, ImageOps

from handful.costly_pictures import END_OF_JPEG, end_of_jpeg, is_costly

MAX_BYTES = 20_000_000
MAX_PIXELS = 50_000_000
MAX_SIDE = 65_535  # pixels; also what JPEG allows
MAX_ASPECT = 200  # the longer side divided by the shorter one
# The only Pillow decoders allowed on untrusted bytes. AVIF comes before HEIF, as it leaves HEIC to the next decoder.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
DAMAGED = "This picture is damaged or of a rare kind. Save it again, as PNG or JPEG."
SLOW = "This picture takes too long to read. Save it again as JPEG or PNG."
# What a JPEG may lack at its end: the last blocks, or a share of its rows.
MAX_MISSING_ROWS, MAX_MISSING_SHARE = 16, 0.02
# File name suffixes of these formats, in lower case: to search folders and filter uploads.
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".mpo", ".webp", ".gif", ".bmp"),
    *(".tif", ".tiff", ".avif", ".heic", ".heif", ".hif"),
)

pillow_heif.register_heif_opener()
# `decode` refuses large pictures itself, with a message for the user.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
# Damaged tags are of no interest to operators, and uploads must not fill the log.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class BadImage(ValueError):
    """A picture that is refused. The message is for the user: what is wrong, and what to do.

    Attributes:
        status: the reason as an HTTP status. 413: too many bytes or pixels. 415: not a picture, or of an
            unsupported type. 422: damaged, empty, or cannot be opened.
    """

    def __init__(self, message: str, status: int = 422):
        super().__init__(message)
        self.status = status


def decode(source: bytes | str | Path | BinaryIO) -> np.ndarray:
    """Decode a PNG, JPEG, WebP, GIF, BMP, TIFF, HEIC or AVIF picture; the first frame, if there are several.

    EXIF orientation is applied. Transparent parts are composited on white, as web pages show them. 16-bit grey is
    scaled down to 8 bits; 32-bit integers and floats, which have no set range, are stretched from their minimum
    (black) to their maximum (white), and NaN is black.

    Args:
        source: the file's bytes, its path, or an open binary file, read from its current position.

    Returns:
        (H, W, 3) uint8 RGB, contiguous and writable.

    Raises:
        BadImage: there is no such file, it has more than `MAX_BYTES` or `MAX_PIXELS` (it is refused before it is
            read or decoded), it is very narrow, it would take too long to decode, it is of another type, or it is
            damaged. A JPEG that lacks only its last rows is not.
    """
    data = read(source)
    with refusals(data):
        return np.array(to_rgb(open_image(data)))


def read(source: bytes | str | Path | BinaryIO) -> bytes:
    """Return the bytes of a picture file, see `decode`.

    Raises:
        BadImage: there is no such file, it is empty, or it has more than `MAX_BYTES`.
    """
    data = source if isinstance(source, bytes) else _read(source)
    if not data:
        raise BadImage("This file is empty. Choose another picture.")
    if len(data) > MAX_BYTES:
        raise BadImage(
            f"This file has more than {MAX_BYTES // 1_000_000} MB. Make the picture smaller, or save it as JPEG.", 413
        )
    return data


@contextmanager
def refusals(data: bytes) -> Generator[None]:
    """Raise whatever is raised while these bytes are opened and decoded as a BadImage.

    Hostile bytes make decoders raise far more than the errors that they document.
    """
    try:
        yield
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise too_large() from None
    except Exception as error:
        # Decoders accept a file by its first bytes: if one accepts these, the rest is damaged.
        accepts = (Image.OPEN[name][1] for name in FORMATS)
        if any(accept(data[:16]) for accept in accepts if accept):
            raise BadImage(DAMAGED) from error
        raise BadImage(
            "This is not a picture that can be read. Use PNG, JPEG, WebP, GIF, BMP, TIFF, HEIC or AVIF.", 415
        ) from None


def open_image(data: bytes) -> Image.Image:
    """Open a picture file without decoding it.

    Raises:
        BadImage: it has too many pixels, a strange shape, or a structure that takes too long to decode. Decoders raise
            other errors, see `refusals`.
    """
    if is_costly(data):
        raise BadImage(SLOW)
    # Without its end, the decoder of JPEG refuses a picture of which nearly all is there.
    truncated = data[:3] == b"\xff\xd8\xff" and end_of_jpeg(data) < 0
    image = Image.open(io.BytesIO(data + END_OF_JPEG * truncated), formats=FORMATS)
    check_size(image)
    image.info["truncated"] = truncated
    return image


def check_size(image: Image.Image) -> None:
    """Raise BadImage if a picture has too many pixels or a strange shape."""
    if image.width * image.height > MAX_PIXELS:
        raise too_large()
    if max(image.size) > min(MAX_SIDE, MAX_ASPECT * min(image.size)):
        raise BadImage(
            f"This picture is too narrow: one side is more than {MAX_ASPECT} times the other, or longer than "
            f"{MAX_SIDE} pixels. Cut it out again.",
            413,
        )


def too_large() -> BadImage:
    return BadImage(f"This picture has more than {MAX_PIXELS // 1_000_000} megapixels. Make it smaller.", 413)


def _read(source: str | Path | BinaryIO) -> bytes:
    """Read a file, at most one byte beyond `MAX_BYTES`."""
    if not isinstance(source, str | Path):
        return source.read(MAX_BYTES + 1)
    try:
        with open(source, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise BadImage(f"No such file: {source}") from None
    except IsADirectoryError:
        raise BadImage(f"This is a folder, not a picture: {source}") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise BadImage(f"This file cannot be opened: {source} ({error})") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Decode a picture of any Pillow mode, opened by `open_image`, to RGB."""
    image.load()
    check_size(image)  # a HEIC may have another size than it says
    if image.info["truncated"] and missing_rows(image) > max(MAX_MISSING_ROWS, MAX_MISSING_SHARE * image.height):
        raise OSError("more than the last rows are missing")
    with suppress(Exception):  # damaged EXIF, but a good picture
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith(("I", "F")):  # more than 8 bits per pixel, which Pillow would clip to 0-255
        image = Image.fromarray(_to_8_bit(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        background = Image.new("RGB", image.size, "white")
        background.paste(image, mask=image)
        image = background
    return image if image.mode == "RGB" else image.convert("RGB")  # convert copies even an RGB picture


def missing_rows(image: Image.Image) -> int:
    """Return how many rows at the end of a truncated JPEG are missing: its decoder repeats the last colour instead."""
    pixels = np.asarray(image)
    flat = (pixels == pixels[:, :1]).reshape(image.height, -1).all(1)
    return image.height - max(np.flatnonzero(~flat).tolist(), default=-1) - 1


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Scale grey values (H, W), uint16, int32 or float32, to uint8.

    Raises:
        ValueError: no value is finite.
    """
    if values.dtype.kind == "u":
        return (values >> 8).astype(np.uint8)  # the upper byte, as in Pillow's own conversion of 16-bit colour
    # In chunks, as np.interp returns float64: 50 megapixels at once would take 1.5 GB.
    chunks = np.array_split(values.ravel(), values.size // 2**20 + 1)
    ranges = [(finite.min(), finite.max()) for chunk in chunks if (finite := chunk[np.isfinite(chunk)]).size]
    lowest, highest = min(low for low, _ in ranges), max(high for _, high in ranges)
    grey = [np.nan_to_num(np.interp(chunk, (lowest, highest), (0, 255))).astype(np.uint8) for chunk in chunks]
    return np.concatenate(grey).reshape(values.shape)
