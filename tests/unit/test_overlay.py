"""Drawing of boxes, captions and heatmaps."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from handful import CLASSES, COUNTS, FINGERS, SIDES, FingerCounter, Hand, Prediction
from handful.overlay import COLORMAP, COLORS, browser_colors, draw, resize

GREY = np.full((240, 320, 3), 128, np.uint8)


def hand(box, *, crop=None, side="left", fingers=3, hot=None) -> Hand:
    """Return a hand; `hot` maps classes to (row, column), the only hot cell of their 8 × 8 Grad-CAM map."""
    maps = np.zeros((len(CLASSES), 8, 8), np.float32)
    for label, cell in (hot or {}).items():
        maps[(CLASSES.index(label), *cell)] = 0.25  # any value: maps are scaled to a maximum of 1
    probabilities = np.full(len(CLASSES), 1 / len(CLASSES), np.float32)
    raised = np.zeros(len(FINGERS), np.float32)
    return Hand(box, crop or box, fingers, side, float(probabilities[0]), probabilities, maps, raised)


def prediction(*hands: Hand) -> Prediction:
    return Prediction(hands, 320, 240, 1.0)


def changed_area(drawn: np.ndarray, picture: np.ndarray = GREY) -> tuple[int, int, int, int]:
    """Return (x0, y0, x1, y1) around all pixels that differ."""
    rows, columns = np.nonzero((drawn != picture).any(2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def has_color(drawn: np.ndarray, color) -> np.ndarray:
    return (drawn == color).all(2)


# Boxes and captions


def test_box_is_drawn_at_its_coordinates():
    drawn = draw(GREY, prediction(hand((100, 80, 200, 180))))
    x0, _, x1, y1 = changed_area(drawn)
    assert (x0, x1, y1) == (100, 200, 180)  # above is the caption
    line = has_color(drawn, COLORS["left"])
    assert line[80:180, 100].all()
    assert line[80:180, 199].all()
    assert line[80, 100:200].all()
    assert line[179, 100:200].all()
    np.testing.assert_array_equal(drawn[81:179, 101:199], GREY[81:179, 101:199])


def test_caption_is_white_on_the_color_of_the_side_above_the_box():
    for side, color in COLORS.items():
        drawn = draw(GREY, prediction(hand((100, 80, 200, 180), side=side)))
        caption = drawn[60:79, 101:130]
        assert has_color(caption, color).mean() > 0.3
        assert has_color(caption, (255, 255, 255)).any()


def test_captions_differ_by_side_and_count():
    pictures = [draw(GREY, prediction(hand((100, 80, 200, 180), side=s, fingers=n))) for s in SIDES for n in COUNTS]
    assert len({picture.tobytes() for picture in pictures}) == len(CLASSES)


@pytest.mark.parametrize("picture", [np.zeros_like(GREY), np.full_like(GREY, 255)], ids=["dark", "light"])
def test_captions_look_the_same_on_any_picture(picture):
    drawn = draw(picture, prediction(hand((100, 80, 200, 180))))
    caption = np.s_[60:79, 101:130]
    np.testing.assert_array_equal(drawn[caption], draw(GREY, prediction(hand((100, 80, 200, 180))))[caption])


def test_captions_have_enough_contrast():
    for color in COLORS.values():
        linear = [(c / 255 + 0.055) ** 2.4 / 1.055**2.4 for c in color]
        luminance = np.dot([0.2126, 0.7152, 0.0722], linear)
        assert 1.05 / (luminance + 0.05) > 4.5  # WCAG 2.2, AA


def test_captions_stay_inside_the_picture():
    drawn = draw(GREY, prediction(hand((300, 0, 320, 100), side="right")))
    whole = draw(GREY, prediction(hand((100, 80, 200, 180), side="right")))
    white = has_color(drawn, (255, 255, 255)).sum()
    assert white == has_color(whole, (255, 255, 255)).sum()  # no text is cut off


def test_box_around_the_whole_picture_covers_only_its_edge():
    drawn = draw(GREY, prediction(hand((0, 0, 320, 240))))
    assert has_color(drawn, COLORS["left"])[[0, -1]].all()
    np.testing.assert_array_equal(drawn[30:-2, 2:-2], GREY[30:-2, 2:-2])


def test_captions_scale_with_the_picture():
    def caption_height(scale):
        picture = GREY.repeat(scale, 0).repeat(scale, 1)
        drawn = draw(picture, prediction(hand(tuple(scale * x for x in (100, 80, 200, 180)))))
        return 80 * scale - changed_area(drawn, picture)[1]

    assert caption_height(4) == pytest.approx(4 * caption_height(1), rel=0.1)


def test_all_hands_are_drawn():
    left, right = hand((20, 80, 120, 180)), hand((200, 80, 300, 180), side="right")
    drawn = draw(GREY, prediction(left, right))
    np.testing.assert_array_equal(drawn[:, :160], draw(GREY, prediction(left))[:, :160])
    np.testing.assert_array_equal(drawn[:, 160:], draw(GREY, prediction(right))[:, 160:])


def test_picture_without_hands_is_unchanged():
    np.testing.assert_array_equal(draw(GREY, prediction(), gradcam=True), GREY)


# Mirroring


def test_mirror_flips_picture_and_boxes():
    picture = GREY.copy()
    picture[:, :160] = 200
    drawn = draw(picture, prediction(hand((200, 80, 300, 180))), mirror=True)
    assert (drawn[200:, :160] == 128).all()
    assert (drawn[200:, 160:] == 200).all()
    line = has_color(drawn, COLORS["left"])
    assert line[80:180, 20].all()
    assert line[80:180, 119].all()


def test_mirror_does_not_flip_captions():
    mirrored = draw(GREY, prediction(hand((20, 80, 120, 180))), mirror=True)
    plain = draw(GREY, prediction(hand((200, 80, 300, 180))))
    np.testing.assert_array_equal(mirrored, plain)


# Grad-CAM


@pytest.mark.parametrize("mirror", [False, True])
def test_heatmap_is_drawn_over_the_crop(mirror):
    # The crop is a square of 320, of which the picture is the middle 240 rows: a cell is 40 pixels.
    shown = hand((0, 0, 320, 240), crop=(0, -40, 320, 280), hot={"3L": (4, 5)})
    light = draw(np.zeros_like(GREY), prediction(shown), gradcam=True, mirror=mirror)[50:-4, 4:-4].sum(2)
    y, x = np.unravel_index(light.argmax(), light.shape)
    assert y + 50 == pytest.approx(4.5 * 40 - 40, abs=3)
    assert x + 4 == pytest.approx(320 - 5.5 * 40 if mirror else 5.5 * 40, abs=3)


def test_heatmap_fades_out_and_is_transparent_where_cold():
    shown = hand((0, 0, 240, 240), hot={"3L": (4, 4)})
    picture = GREY[:, :240]
    drawn = draw(picture, prediction(shown), gradcam=True).astype(int)
    row = np.abs(drawn[135] - 128).sum(1)
    assert row[135] > row[150] > row[158] > 0
    assert (row[4:100] == 0).all()
    assert (row[175:-4] == 0).all()


@pytest.mark.parametrize("mirror", [False, True])
def test_heatmap_ends_smoothly_within_the_crop_and_shows_no_square(mirror):
    shown = hand((120, 100, 160, 140), crop=(100, 60, 220, 180))
    shown.gradcam_maps[:] = 0.25  # hot everywhere
    black = np.zeros_like(GREY)
    light = draw(black, prediction(shown), gradcam=True, mirror=mirror).max(2).astype(int)
    if mirror:
        light = light[:, ::-1]
    light[:, 110:190][80:150] = light[150, 160]  # neither box nor caption
    assert light[:60].max() == light[180:].max() == light[:, :100].max() == light[:, 220:].max() == 0
    row = light[160, 100:220]
    assert row[0] <= 2
    assert np.abs(np.diff(row)).max() < 20  # no edge
    corner = light[60:75, 100:115]
    assert corner.max() < 15  # round


def test_hottest_cell_is_yellow():
    shown = hand((0, 0, 320, 240), crop=(0, -40, 320, 280), hot={"3L": (4, 4)})
    red, green, blue = draw(GREY, prediction(shown), gradcam=True)[140, 180].astype(int)
    assert min(red, green) > blue + 40


def test_heatmap_of_another_class():
    shown = hand((0, 0, 240, 240), hot={"3L": (2, 2), "5R": (6, 6)})
    predicted, other = (draw(GREY[:, :240], prediction(shown), gradcam=True, label=label) for label in (None, "5R"))
    assert (predicted[75, 75] != 128).any()
    assert (predicted[195, 195] == 128).all()
    assert (other[75, 75] == 128).all()
    assert (other[195, 195] != 128).any()


def test_heatmap_without_activation_is_transparent():
    shown = hand((0, 0, 320, 240))
    np.testing.assert_array_equal(draw(GREY, prediction(shown), gradcam=True), draw(GREY, prediction(shown)))


# Scaling


def test_captions_of_a_tiny_picture_are_sharp_once_it_is_enlarged():
    picture, shown = resize(GREY[::4, ::4], Prediction((hand((25, 20, 50, 45)),), 80, 60, 1.0), 1280)
    assert picture.shape == (960, 1280, 3)
    assert (shown.width, shown.height) == (1280, 960)
    assert shown.hands[0].box == (400, 320, 800, 720)
    caption = draw(picture, shown)[240:316, 410:600]
    # Sharp: hardly a pixel is neither the text nor its ground.
    assert (has_color(caption, (255, 255, 255)) | has_color(caption, COLORS["left"])).mean() > 0.9
    assert has_color(caption, (255, 255, 255)).mean() > 0.1


def test_box_and_crop_shrink_with_a_large_picture():
    picture, shown = resize(GREY, prediction(hand((100, 80, 200, 180), crop=(-10, 0, 300, 310))), 160)
    assert picture.shape == (120, 160, 3)
    assert shown.hands[0].box == (50, 40, 100, 90)
    assert shown.hands[0].crop == (-5, 0, 150, 155)


def test_a_picture_of_the_right_size_is_not_copied():
    picture, _ = resize(GREY, prediction(), 320)
    assert picture is GREY


# All of these


@pytest.mark.parametrize("mirror", [False, True])
def test_draw_does_not_modify_the_picture(mirror):
    picture = GREY.copy()
    picture.flags.writeable = False
    drawn = draw(picture, prediction(hand((0, 0, 320, 240), hot={"3L": (1, 1)})), gradcam=True, mirror=mirror)
    assert drawn.shape == picture.shape
    assert drawn.dtype == np.uint8
    assert not np.shares_memory(drawn, picture)


@pytest.mark.parametrize("shape", [(1, 1), (2, 30_000), (30_000, 2), (20, 20), (1080, 1920)])
@pytest.mark.parametrize("mirror", [False, True])
def test_predictions_for_pictures_of_any_size(shape, mirror):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    assert draw(picture, FingerCounter()(picture), gradcam=True, mirror=mirror).shape == picture.shape


def test_threads_do_not_mix_up_captions():
    predictions = [prediction(hand((100, 80, 200, 180), side=s, fingers=n)) for s in SIDES for n in COUNTS]
    pictures = [GREY.repeat(1 + i % 3, 0).repeat(1 + i % 3, 1) for i in range(len(predictions))]
    expected = [draw(picture, shown) for picture, shown in zip(pictures, predictions, strict=True)]
    with ThreadPoolExecutor(8) as pool:
        for drawn, correct in zip(pool.map(draw, pictures * 20, predictions * 20), expected * 20, strict=True):
            np.testing.assert_array_equal(drawn, correct)


def test_browser_colors_are_those_of_python():
    colors = json.loads(json.dumps(browser_colors()))
    assert colors["sides"] == {"left": "#0062b1", "right": "#be4c00"}
    assert {side: tuple(bytes.fromhex(color[1:])) for side, color in colors["sides"].items()} == COLORS
    x, anchors = np.linspace(0, 1, 256), np.linspace(0, 1, len(colors["colormap"]))
    colormap = np.stack([np.interp(x, anchors, channel) for channel in zip(*colors["colormap"], strict=True)], 1)
    np.testing.assert_allclose(colormap, COLORMAP[:, 0], atol=7)
