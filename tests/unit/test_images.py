"""decode returns an upright RGB picture, or raises BadImage, for any input."""

import io
import struct
import subprocess
import sys
import time
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks import hostile
from handful import images
from handful.images import BadImage, decode

FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF"]
RED, GREEN, BLUE, YELLOW = (230, 20, 20), (20, 200, 20), (20, 20, 230), (230, 220, 20)

# 64 × 32, one colour per quadrant: reveals swapped channels, rotations and flips.
SCENE = np.zeros((32, 64, 3), np.uint8)
SCENE[:16, :32], SCENE[:16, 32:], SCENE[16:, :32], SCENE[16:, 32:] = RED, GREEN, BLUE, YELLOW
# 256 wide: all greys from black to white.
RAMP = np.tile(np.arange(256, dtype=np.uint8), (16, 1))


def encode(picture: np.ndarray | Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(file, format, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Return a PNG with a size in its header and no valid data: decoding it would fail."""
    chunks = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b"invalid")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def assert_scene(picture: np.ndarray, tolerance: int = 2):
    """Compare the quadrants' colours, away from their edges, which compression blurs."""
    assert picture.shape == (32, 64, 3)
    assert picture.dtype == np.uint8
    for y, x, color in (6, 12, RED), (6, 51, GREEN), (25, 12, BLUE), (25, 51, YELLOW):
        np.testing.assert_allclose(picture[y, x], color, atol=tolerance)


def decode_error(source) -> BadImage:
    with pytest.raises(BadImage) as caught:
        decode(source)
    return caught.value


# Formats and modes


@pytest.mark.parametrize("format", FORMATS)
def test_all_formats_decode_to_the_same_picture(format):
    assert_scene(decode(encode(SCENE, format)), tolerance=12)


def test_bytes_paths_and_open_files(tmp_path):
    data = encode(SCENE, "PNG")
    path = tmp_path / "scène \udcff.png"  # a name that is not UTF-8
    path.write_bytes(data)
    for source in data, path, str(path), io.BytesIO(data):
        np.testing.assert_array_equal(decode(source), SCENE)


def test_result_is_writable():
    picture = decode(encode(SCENE, "PNG"))
    cv2.rectangle(picture, (0, 0), (5, 5), (1, 2, 3), cv2.FILLED)
    assert picture[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("mode", "format"),
    [
        *(("P", "PNG"), ("P", "GIF"), ("P", "TIFF"), ("RGBA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "HEIF")),
        *(("RGBX", "TIFF"), ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "JPEG"), ("YCbCr", "TIFF"), ("LAB", "TIFF")),
    ],
)
def test_colour_modes(mode, format):
    image = Image.fromarray(SCENE)
    image = image.quantize() if mode == "P" else image.convert(mode)
    assert_scene(decode(encode(image, format)), tolerance=12)


@pytest.mark.parametrize(
    ("values", "format"),
    [
        (RAMP, "PNG"),
        (RAMP, "JPEG"),
        (RAMP.astype(np.uint16) * 257, "PNG"),
        (RAMP.astype("<u2") * 257, "TIFF"),
        (RAMP.astype(">u2") * 257, "TIFF"),
        (RAMP.astype(np.int32) * 1_000_000, "TIFF"),
        (RAMP.astype(np.float32) / 255, "TIFF"),
        (RAMP.astype(np.float32) * 1e36 - 1e38, "TIFF"),
    ],
    ids=lambda value: str(getattr(value, "dtype", value)),
)
def test_grey_of_any_bit_depth_is_scaled_to_8_bits(values, format):
    picture = decode(encode(values, format))
    for channel in range(3):
        np.testing.assert_allclose(picture[..., channel], RAMP, atol=2)


def test_one_bit_pictures():
    picture = decode(encode(Image.fromarray(RAMP > 127), "PNG"))
    np.testing.assert_array_equal(picture[0, :, 0], np.where(RAMP[0] > 127, 255, 0))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bit_colour(suffix):
    data = cv2.imencode(suffix, SCENE[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    np.testing.assert_array_equal(decode(data), SCENE)


def test_nan_is_black_and_infinities_are_clipped():
    values = np.array([[0.25, 0.75, np.nan, np.inf, -np.inf]], np.float32)
    assert decode(encode(values, "TIFF"))[0, :, 0].tolist() == [0, 255, 0, 255, 0]
    assert decode_error(encode(np.full((2, 2), np.nan, np.float32), "TIFF")).status == 422


def test_constant_float_picture():
    assert decode(encode(np.full((2, 3), 0.5, np.float32), "TIFF")).shape == (2, 3, 3)


# Transparent parts are composited on white, whatever colour they have.


@pytest.mark.parametrize(
    ("mode", "format"), [("RGBA", "PNG"), ("RGBA", "TIFF"), ("RGBA", "WEBP"), ("LA", "PNG"), ("LA", "TIFF")]
)
def test_alpha_channel(mode, format):
    clear, half, solid = (0, 0, 0, 0), (0, 0, 0, 128), (0, 0, 0, 255)
    pixels = Image.fromarray(np.array([[clear, half, solid]] * 3, np.uint8).repeat(16, 1).repeat(16, 0))
    picture = decode(encode(pixels.convert(mode), format))
    np.testing.assert_allclose(picture[20, [5, 24, 42]], [[255] * 3, [127] * 3, [0] * 3], atol=2)


@pytest.mark.parametrize(("mode", "clear"), [("P", 0), ("P", b"\x00\xff"), ("L", 0), ("RGB", (0, 0, 0))])
def test_transparent_colour(mode, clear):
    pixels = Image.fromarray(np.array([[[0, 0, 0], [255, 0, 0]]], np.uint8))
    pixels = pixels.quantize(2) if mode == "P" else pixels.convert(mode)
    if mode == "P":  # with black first, whatever order the quantizer chose
        pixels.putpalette([0, 0, 0, 255, 0, 0])
        pixels.putdata([0, 1])
    picture = decode(encode(pixels, "PNG", transparency=clear))
    assert picture[0, 0].tolist() == [255, 255, 255]
    assert picture[0, 1].tolist() == ([76] * 3 if mode == "L" else [255, 0, 0])


# EXIF and multiple frames, as in pictures from phones

STORED = {  # transforms an upright scene to how a camera stores it, for each EXIF orientation
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation(format, orientation):
    upright = Image.fromarray(SCENE)
    stored = upright if orientation == 1 else upright.transpose(STORED[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_scene(decode(encode(stored, format, exif=exif.tobytes())), tolerance=12)


def test_exif_orientation_of_16_bit_pictures():
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = RAMP.astype(np.uint16) * 257
    stored = np.ascontiguousarray(np.rot90(upright))
    np.testing.assert_array_equal(decode(encode(stored, "PNG", exif=exif))[..., 0], RAMP)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_is_ignored(format):
    assert_scene(decode(encode(SCENE, format, exif=b"Exif\0\0 not EXIF")), tolerance=12)


def test_first_picture_of_a_multi_picture_jpeg():
    other = Image.fromarray(np.zeros((32, 64, 3), np.uint8))
    data = encode(Image.fromarray(SCENE), "MPO", save_all=True, append_images=[other])
    assert_scene(decode(data), tolerance=12)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(format):
    other = Image.fromarray(np.zeros((32, 64, 3), np.uint8))
    data = encode(Image.fromarray(SCENE), format, save_all=True, append_images=[other])
    assert_scene(decode(data), tolerance=12)


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (2000, 10), (328, 65_535)])
def test_extreme_sizes(shape):
    assert decode(encode(np.zeros(shape, np.uint8), "PNG")).shape == (*shape, 3)


def test_decode_is_thread_safe():
    files = [encode(SCENE, format) for format in FORMATS]
    expected = [decode(data) for data in files]
    with ThreadPoolExecutor(8) as pool:
        for result, correct in zip(pool.map(decode, files * 8), expected * 8, strict=True):
            np.testing.assert_array_equal(result, correct)


# Limits, checked before reading and decoding


@pytest.mark.parametrize("side", [7_072, 10_000, 60_000])  # Pillow accepts, warns, refuses
def test_too_many_pixels_are_refused_by_the_header(side):
    error = decode_error(png_header(side, side))
    assert error.status == 413  # 422 if it had been decoded
    assert "50 megapixels" in str(error)


def test_decompression_bomb_warnings_are_not_printed(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(10_000, 10_000))
    command = [sys.executable, "-W", "always", "-m", "handful", str(path)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "50 megapixels" in process.stdout
    assert process.stderr == ""


def test_decompression_bomb_warnings_as_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_error(png_header(10_000, 10_000)).status == 413


@pytest.mark.parametrize("shape", [(1, 201), (2010, 10), (400, 65_536)])
def test_narrow_and_very_long_pictures_are_refused_by_the_header(shape):
    error = decode_error(png_header(*shape))
    assert (error.status, "too narrow" in str(error)) == (413, True)


@pytest.mark.parametrize("make", hostile.REFUSED.values(), ids=hostile.REFUSED)
def test_costly_structures_are_refused_without_decoding(make, monkeypatch):
    monkeypatch.setattr(Image, "open", None)
    error = decode_error(make())
    assert str(error) == "This picture takes too long to read. Save it again as JPEG or PNG."


@pytest.mark.parametrize(
    "make",
    [
        lambda: hostile.padded_jpeg(19_000_000 * b"\xff"),
        lambda: hostile.padded_jpeg(9_000_000 * b"\xff\xd8"),
        lambda: hostile.padded_jpeg(4_500_000 * b"\xff\xfe\0\2"),
        lambda: hostile.jpeg_of_scans(150_000),
        lambda: hostile.png_of_chunks(b"abCd", 1_500_000),
        lambda: hostile.gif_of_comments(3_000_000),
        lambda: hostile.tiff_of_strips(2_000_000),
    ],
    ids=["JPEG of fill bytes", "JPEG of markers", "JPEG of comments", "JPEG of scans", "PNG", "GIF", "TIFF"],
)
def test_structures_of_the_largest_files_are_recognized_at_once(make):
    data = make()
    assert 15_000_000 < len(data) < images.MAX_BYTES
    start = time.thread_time()
    assert "too long" in str(decode_error(data))
    assert time.thread_time() - start < 0.5


@pytest.mark.parametrize("make", hostile.TOO_NARROW.values(), ids=hostile.TOO_NARROW)
def test_very_long_pictures_are_refused(make):
    assert "too narrow" in str(decode_error(make()))


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"progressive": True, "icc_profile": bytes(3_000_000), "comment": b"a" * 60_000}, "JPEG"),
        ({"compression": "tiff_lzw", "tile_size": (512, 512)}, "TIFF"),
        ({"compression": "raw", "strip_size": 1}, "TIFF"),
        ({"quality": 90}, "AVIF"),
    ],
    ids=["JPEG with large metadata", "TIFF of one tile", "TIFF of one row a strip", "AVIF"],
)
def test_common_structures_are_not_costly(options, kind):
    assert_scene(decode(encode(Image.fromarray(SCENE), kind, **options)), tolerance=12)


def test_a_motion_photo_is_not_costly():
    """Phones append a video to a JPEG, which has any bytes."""
    assert_scene(decode(encode(SCENE, "JPEG") + 200 * b"\xff\xda video"), tolerance=12)


def test_max_pixels_is_inclusive(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 64 * 32)
    assert decode(encode(SCENE, "PNG")).shape == (32, 64, 3)
    monkeypatch.setattr(images, "MAX_PIXELS", 64 * 32 - 1)
    assert decode_error(encode(SCENE, "PNG")).status == 413


def test_max_bytes_is_inclusive(monkeypatch):
    data = encode(SCENE, "PNG")
    monkeypatch.setattr(images, "MAX_BYTES", len(data))
    assert decode(data).shape == decode(io.BytesIO(data)).shape == (32, 64, 3)
    monkeypatch.setattr(images, "MAX_BYTES", len(data) - 1)
    assert decode_error(data).status == decode_error(io.BytesIO(data)).status == 413


def test_endless_stream_is_read_up_to_the_limit():
    class Endless(io.RawIOBase):
        requested = 0

        def read(self, size=-1):
            assert size > 0, "reads without a limit"
            self.requested += size
            return b"\xff" * size

    stream = Endless()
    error = decode_error(stream)
    assert (error.status, "20 MB" in str(error)) == (413, True)
    assert stream.requested <= images.MAX_BYTES + 1


def test_huge_file_is_not_read_into_memory(tmp_path):
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(500_000_000)
    tracemalloc.start()
    assert decode_error(path).status == 413
    assert tracemalloc.get_traced_memory()[1] < 2 * images.MAX_BYTES
    tracemalloc.stop()


def test_float_picture_is_scaled_in_chunks():
    file = encode(np.random.default_rng(0).random((1500, 2000), np.float32), "TIFF")
    tracemalloc.start()
    decode(file)
    assert tracemalloc.get_traced_memory()[1] < 5 * len(file)
    tracemalloc.stop()


# Refused files and their messages

NOT_PICTURES = {
    "text": b"Hello, this is not a picture.",
    "zeros": bytes(1000),
    "one byte": b"\x89",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "PDF": b"%PDF-1.7\n",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "PPM": encode(SCENE, "PPM"),
    "ICO": encode(SCENE, "ICO"),
    "JPEG 2000": encode(SCENE, "JPEG2000"),
    "video": b"\0\0\0\x18ftypmp42" + bytes(200),
}


@pytest.mark.parametrize("data", NOT_PICTURES.values(), ids=NOT_PICTURES)
def test_other_file_types_are_refused(data):
    error = decode_error(data)
    assert error.status == 415
    assert "Use PNG, JPEG, WebP, GIF, BMP, TIFF, HEIC or AVIF" in str(error)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("fraction", [0.05, 0.5])
def test_truncated_pictures_are_refused(format, fraction):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encode(noise, format)
    error = decode_error(data[: max(16, int(fraction * len(data)))])
    assert error.status == 422
    assert "Save it again" in str(error)


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
@pytest.mark.parametrize("missing", [1, 2, 3, 20])
def test_a_jpeg_that_lacks_its_last_bytes_is_decoded(options, missing):
    image = Image.linear_gradient("L").rotate(90).resize((320, 240))
    picture, whole = (decode(encode(image, "JPEG", **options)[:end]) for end in (-missing, None))
    np.testing.assert_array_equal(picture[:224], whole[:224])


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_jpeg_that_lacks_more_is_refused(share):
    data = encode(np.random.default_rng(0).integers(0, 256, (800, 600, 3), np.uint8), "JPEG")
    assert decode_error(data[: int(share * len(data))]).status == 422


def test_empty_file_is_refused():
    for source in b"", io.BytesIO():
        error = decode_error(source)
        assert (error.status, "empty" in str(error)) == (422, True)


def test_unreadable_paths_are_refused(tmp_path):
    assert str(decode_error(tmp_path / "none.png")) == f"No such file: {tmp_path / 'none.png'}"
    assert "folder" in str(decode_error(tmp_path))
    assert "cannot be opened" in str(decode_error("null\0character.png"))
    assert "cannot be opened" in str(decode_error("x" * 10_000))


def test_data_after_the_picture_is_ignored():
    assert_scene(decode(encode(SCENE, "PNG") + b"<script>alert()</script>PK\x03\x04"))


# Arbitrary bytes: an array or BadImage, but no other error


def decode_or_refuse(data: bytes):
    try:
        picture = decode(data)
    except BadImage:
        return
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3


VALID = [encode(SCENE, format) for format in FORMATS]
VALID += [encode(Image.fromarray(SCENE).convert("P"), "PNG"), encode(RAMP.astype(np.float32), "TIFF")]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([b"", *(data[:16] for data in VALID)]), st.binary(max_size=500))
def test_random_bytes(start, rest):
    decode_or_refuse(start + rest)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(VALID), st.data())
def test_random_damage(valid, draw):
    data = bytearray(valid)
    changes = st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255))
    for position, value in draw.draw(st.lists(changes, min_size=1, max_size=8)):
        data[position] = value
    decode_or_refuse(bytes(data[: draw.draw(st.integers(1, len(data)) | st.just(len(data)))]))
