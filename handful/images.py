"""Pictures in: the one place where files, uploads and request bodies become arrays.

>>> decode("assets/samples/3L_0.jpg").dtype
dtype('uint8')
"""

import io
import warnings
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pillow_heif
from PIL import Image, ImageOps

MAX_BYTES = 20_000_000
MAX_PIXELS = 50_000_000
# The only decoders that strangers' bytes may reach. AVIF goes first: it hands back what is HEIC.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
# How the names of such files end, in lower case: what a folder is searched for and an upload offers.
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".mpo", ".webp", ".gif", ".bmp"),
    *(".tif", ".tiff", ".avif", ".heic", ".heif", ".hif"),
)

pillow_heif.register_heif_opener()
# `decode` refuses large pictures itself, in words for the user.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
# Damaged tags are no news to an operator, and strangers must not fill the log with them.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class BadImage(ValueError):
    """A picture that is refused. The text is for the user: what is wrong, and what to do.

    Attributes:
        status: why, as an HTTP status. 413: too many bytes or pixels. 415: not a picture, or not of
            a supported type. 422: a supported type, but damaged, empty or not to be opened.
    """

    def __init__(self, message: str, status: int = 422):
        super().__init__(message)
        self.status = status


def decode(source: bytes | str | Path | BinaryIO) -> np.ndarray:
    """Decode a PNG, JPEG, WebP, GIF, BMP, TIFF, HEIC or AVIF picture; of several frames, the first.

    The picture stands upright (EXIF). See-through parts are laid over white, as web pages show
    them. 16-bit grey is scaled down to 8 bits; numbers without a set range (32-bit integers and
    floats) are stretched, their lowest to black and their highest to white, NaN to black.

    Args:
        source: the file's bytes, its path, or an open binary file, read from where it stands.

    Returns:
        (H, W, 3) uint8 RGB, contiguous and writable.

    Raises:
        BadImage: there is no such file, it holds more than `MAX_BYTES` or `MAX_PIXELS` (neither is
            read or decoded first), it is of another type, or it is damaged.
    """
    data = source if isinstance(source, bytes) else _read(source)
    if not data:
        raise BadImage("This file is empty. Choose another picture.")
    if len(data) > MAX_BYTES:
        raise BadImage(
            f"This file has more than {MAX_BYTES // 1_000_000} MB. Make the picture smaller, or save it as JPEG.", 413
        )
    # Hostile bytes make decoders fail in every way, far beyond the errors that they document.
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        return _to_rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImage(
            f"This picture has more than {MAX_PIXELS // 1_000_000} megapixels. Make it smaller.", 413
        ) from None
    except Exception as error:
        # Every decoder knows its files by their first bytes: one that knows these could not go on.
        accepts = (Image.OPEN[name][1] for name in FORMATS)
        if any(accept(data[:16]) for accept in accepts if accept):
            raise BadImage("This picture is damaged or of a rare kind. Save it again, as PNG or JPEG.") from error
        raise BadImage(
            "This is not a picture that can be read. Use PNG, JPEG, WebP, GIF, BMP, TIFF, HEIC or AVIF.", 415
        ) from None


def _read(source: str | Path | BinaryIO) -> bytes:
    """Read a file, but never more than one byte beyond `MAX_BYTES`."""
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


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Decode an opened picture, of any mode that pillow knows, to (H, W, 3) uint8 RGB."""
    image.load()
    with suppress(Exception):  # damaged EXIF: the picture itself is still good
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith(("I", "F")):  # more than 8 bits a pixel, which pillow would clip to 0-255
        image = Image.fromarray(_to_8_bit(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGB", image.size, "white")
        paper.paste(image, mask=image)
        image = paper
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))  # which copies, even what is RGB


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Scale grey values (H, W), uint16, int32 or float32, to uint8.

    Raises:
        ValueError: no value is finite.
    """
    if values.dtype.kind == "u":
        return (values >> 8).astype(np.uint8)  # the upper byte, as pillow itself takes it of 16-bit colour
    # In parts, for they become float64: of 50 megapixels, that would be a gigabyte and a half at once.
    parts = np.array_split(values.ravel(), values.size // 2**20 + 1)
    ends = [(good.min(), good.max()) for part in parts if (good := part[np.isfinite(part)]).size]
    lowest, highest = min(low for low, _ in ends), max(high for _, high in ends)
    grey = [np.nan_to_num(np.interp(part, (lowest, highest), (0, 255))).astype(np.uint8) for part in parts]
    return np.concatenate(grey).reshape(values.shape)
