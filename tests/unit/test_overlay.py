"""What draw puts on a picture, and where."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from handful import CLASSES, FingerCounter, Hand, Prediction
from handful.overlay import COLORMAP, COLORS, browser_colors, draw

GREY = np.full((240, 320, 3), 128, np.uint8)


def hand(box, *, crop=None, side="left", fingers=3, hot=None) -> Hand:
    """A hand; `hot` is {class: (row, column)}: the one cell of its 8 x 8 map that is hot."""
    maps = np.zeros((12, 8, 8), np.float32)
    for label, cell in (hot or {}).items():
        maps[(CLASSES.index(label), *cell)] = 0.25  # Grad-CAM has no unit: maps are scaled by their largest value
    probabilities = np.full(12, 1 / 12, np.float32)
    return Hand(box, crop or box, fingers, side, 1 / 12, probabilities, maps)


def prediction(*hands: Hand) -> Prediction:
    return Prediction(hands, 320, 240, 1.0)


def changed(drawn: np.ndarray, picture: np.ndarray = GREY) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) around all pixels that were drawn on."""
    rows, columns = np.nonzero((drawn != picture).any(2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def has(drawn: np.ndarray, color) -> np.ndarray:
    return (drawn == color).all(2)


# The box and its caption


def test_the_box_is_drawn_where_the_box_is():
    drawn = draw(GREY, prediction(hand((100, 80, 200, 180))))
    x0, _, x1, y1 = changed(drawn)
    assert (x0, x1, y1) == (100, 200, 180)  # its top is the caption's
    line = has(drawn, COLORS["left"])
    assert line[80:180, 100].all()
    assert line[80:180, 199].all()
    assert line[80, 100:200].all()
    assert line[179, 100:200].all()
    np.testing.assert_array_equal(drawn[81:179, 101:199], GREY[81:179, 101:199])  # and nothing inside it


def test_the_caption_stands_above_the_box_in_white_on_the_color_of_the_side():
    for side, color in COLORS.items():
        drawn = draw(GREY, prediction(hand((100, 80, 200, 180), side=side)))
        chip = drawn[60:79, 101:130]
        assert has(chip, color).mean() > 0.3
        assert has(chip, (255, 255, 255)).any()


def test_captions_tell_side_and_count():
    pictures = [draw(GREY, prediction(hand((100, 80, 200, 180), side=s, fingers=n))) for s in COLORS for n in range(6)]
    assert len({picture.tobytes() for picture in pictures}) == 12


@pytest.mark.parametrize("picture", [np.zeros_like(GREY), np.full_like(GREY, 255)], ids=["dark", "light"])
def test_captions_are_readable_on_any_picture(picture):
    drawn = draw(picture, prediction(hand((100, 80, 200, 180))))
    chip = np.s_[60:79, 101:130]
    np.testing.assert_array_equal(drawn[chip], draw(GREY, prediction(hand((100, 80, 200, 180))))[chip])


def test_white_text_stands_out_from_its_chip():
    for color in COLORS.values():
        linear = [(c / 255 + 0.055) ** 2.4 / 1.055**2.4 for c in color]
        luminance = np.dot([0.2126, 0.7152, 0.0722], linear)
        assert 1.05 / (luminance + 0.05) > 4.5  # WCAG 2.2, AA


def test_captions_stay_inside_the_picture():
    drawn = draw(GREY, prediction(hand((300, 0, 320, 100), side="right")))
    whole = draw(GREY, prediction(hand((100, 80, 200, 180), side="right")))
    white = has(drawn, (255, 255, 255)).sum()
    assert white == has(whole, (255, 255, 255)).sum()  # none of the text is cut off


def test_a_box_around_the_whole_picture_hides_only_a_thin_edge():
    drawn = draw(GREY, prediction(hand((0, 0, 320, 240))))
    assert has(drawn, COLORS["left"])[[0, -1]].all()
    np.testing.assert_array_equal(drawn[30:-2, 2:-2], GREY[30:-2, 2:-2])


def test_text_and_lines_grow_with_the_picture():
    def caption_height(scale):
        picture = GREY.repeat(scale, 0).repeat(scale, 1)
        drawn = draw(picture, prediction(hand(tuple(scale * x for x in (100, 80, 200, 180)))))
        return 80 * scale - changed(drawn, picture)[1]

    assert caption_height(4) == pytest.approx(4 * caption_height(1), rel=0.1)


def test_every_hand_is_drawn():
    left, right = hand((20, 80, 120, 180)), hand((200, 80, 300, 180), side="right")
    drawn = draw(GREY, prediction(left, right))
    np.testing.assert_array_equal(drawn[:, :160], draw(GREY, prediction(left))[:, :160])
    np.testing.assert_array_equal(drawn[:, 160:], draw(GREY, prediction(right))[:, 160:])


def test_without_hands_the_picture_stays():
    np.testing.assert_array_equal(draw(GREY, prediction(), gradcam=True), GREY)


# Mirrored


def test_mirror_flips_the_picture_and_the_boxes():
    picture = GREY.copy()
    picture[:, :160] = 200
    drawn = draw(picture, prediction(hand((200, 80, 300, 180))), mirror=True)
    assert (drawn[200:, :160] == 128).all()
    assert (drawn[200:, 160:] == 200).all()
    line = has(drawn, COLORS["left"])
    assert line[80:180, 20].all()
    assert line[80:180, 119].all()


def test_mirrored_captions_read_from_left_to_right():
    mirrored = draw(GREY, prediction(hand((20, 80, 120, 180))), mirror=True)
    plain = draw(GREY, prediction(hand((200, 80, 300, 180))))
    np.testing.assert_array_equal(mirrored, plain)


# Grad-CAM


@pytest.mark.parametrize("mirror", [False, True])
def test_the_heat_is_where_the_classifier_looked(mirror):
    # The crop is a square of 320, of which the picture is the middle 240 rows: a cell is 40 pixels.
    seen = hand((0, 0, 320, 240), crop=(0, -40, 320, 280), hot={"3L": (4, 5)})
    light = draw(np.zeros_like(GREY), prediction(seen), gradcam=True, mirror=mirror)[50:-4, 4:-4].sum(2)
    y, x = np.unravel_index(light.argmax(), light.shape)
    assert y + 50 == pytest.approx(4.5 * 40 - 40, abs=3)
    assert x + 4 == pytest.approx(320 - 5.5 * 40 if mirror else 5.5 * 40, abs=3)


def test_heat_falls_off_and_leaves_cold_parts_clear():
    seen = hand((0, 0, 240, 240), hot={"3L": (4, 4)})
    picture = GREY[:, :240]
    drawn = draw(picture, prediction(seen), gradcam=True).astype(int)
    row = np.abs(drawn[135] - 128).sum(1)
    assert row[135] > row[150] > row[158] > 0
    assert (row[4:100] == 0).all()
    assert (row[175:-4] == 0).all()


@pytest.mark.parametrize("cell", [(0, 0), (0, 7), (7, 0), (7, 7)])
def test_heat_reaches_the_edge_of_the_crop_and_no_farther(cell):
    seen = hand((40, 40, 60, 60), crop=(100, 80, 180, 160), hot={"3L": cell})  # 10 pixels a cell
    plain, heated = (draw(GREY, prediction(seen), gradcam=heat) for heat in (False, True))
    y, x = 80 + 10 * cell[0], 100 + 10 * cell[1]
    # Between the middles of two cells heat fades, and it ends with the crop.
    assert changed(heated, plain) == pytest.approx(
        (max(x - 5, 100), max(y - 5, 80), min(x + 15, 180), min(y + 15, 160))
    )
    # The outer half of the outermost cell has no neighbour to fade to: it is all as hot as its middle.
    rows = slice(80, 84) if cell[0] == 0 else slice(156, 160)
    columns = slice(100, 104) if cell[1] == 0 else slice(176, 180)
    np.testing.assert_array_equal(heated[rows, columns], np.broadcast_to(heated[rows, columns].max((0, 1)), (4, 4, 3)))


def test_the_hottest_is_yellow():
    seen = hand((0, 0, 320, 240), crop=(0, -40, 320, 280), hot={"3L": (4, 4)})
    red, green, blue = draw(GREY, prediction(seen), gradcam=True)[140, 180].astype(int)
    assert min(red, green) > blue + 40


def test_the_heat_of_another_class():
    seen = hand((0, 0, 240, 240), hot={"3L": (2, 2), "5R": (6, 6)})
    told, other = (draw(GREY[:, :240], prediction(seen), gradcam=True, label=label) for label in (None, "5R"))
    assert (told[75, 75] != 128).any()
    assert (told[195, 195] == 128).all()
    assert (other[75, 75] == 128).all()
    assert (other[195, 195] != 128).any()


def test_no_heat_no_change():
    seen = hand((0, 0, 320, 240))
    np.testing.assert_array_equal(draw(GREY, prediction(seen), gradcam=True), draw(GREY, prediction(seen)))


# In all of this


@pytest.mark.parametrize("mirror", [False, True])
def test_the_picture_given_stays_as_it_is(mirror):
    picture = GREY.copy()
    picture.flags.writeable = False
    drawn = draw(picture, prediction(hand((0, 0, 320, 240), hot={"3L": (1, 1)})), gradcam=True, mirror=mirror)
    assert drawn.shape == picture.shape
    assert drawn.dtype == np.uint8
    assert not np.shares_memory(drawn, picture)


@pytest.mark.parametrize("shape", [(1, 1), (2, 30_000), (30_000, 2), (20, 20), (1080, 1920)])
@pytest.mark.parametrize("mirror", [False, True])
def test_real_readings_of_any_size(shape, mirror):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    assert draw(picture, FingerCounter()(picture), gradcam=True, mirror=mirror).shape == picture.shape


def test_threads_do_not_mix_up_their_captions():
    predictions = [prediction(hand((100, 80, 200, 180), side=s, fingers=n)) for s in COLORS for n in range(6)]
    pictures = [GREY.repeat(1 + n % 3, 0).repeat(1 + n % 3, 1) for n in range(12)]
    expected = [draw(picture, seen) for picture, seen in zip(pictures, predictions, strict=True)]
    with ThreadPoolExecutor(8) as pool:
        for drawn, right in zip(pool.map(draw, pictures * 20, predictions * 20), expected * 20, strict=True):
            np.testing.assert_array_equal(drawn, right)


def test_browser_draws_in_the_same_colors():
    colors = json.loads(json.dumps(browser_colors()))
    assert colors["sides"] == {"left": "#0062b1", "right": "#be4c00"}
    assert {side: tuple(bytes.fromhex(color[1:])) for side, color in colors["sides"].items()} == COLORS
    x, anchors = np.linspace(0, 1, 256), np.linspace(0, 1, len(colors["colormap"]))
    colormap = np.stack([np.interp(x, anchors, channel) for channel in zip(*colors["colormap"], strict=True)], 1)
    np.testing.assert_allclose(colormap, COLORMAP[:, 0], atol=7)
