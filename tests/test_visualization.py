import numpy as np
import pytest
import torch
from made_instances import square_instances
from PIL import Image, ImageFont
from scipy import ndimage

from detrex.structures import Categories, Targets
from detrex.visualization import (
    colors,
    draw_instances,
    draw_panoptic,
    draw_semantic,
    draw_targets,
    image_grid,
    text,
)
from detrex.visualization.labels import place_labels
from detrex.visualization.regions import Region

RED, BLUE = (200, 0, 0), (0, 0, 220)
CATEGORIES = Categories(names=("cat", "sky"), ids=(1, 2), is_thing=(True, False), colors=(RED, BLUE))
GREY = 100


def grey(height, width):
    return torch.full((3, height, width), GREY, dtype=torch.uint8)


def unpainted(picture):
    """(H, W) bool, where the grey image shows through unchanged."""
    return (np.asarray(picture) == GREY).all(-1)


def within(mask, pixels=1):
    """The (H, W) bool mask and what is up to so many pixels from it, in four directions."""
    return ndimage.binary_dilation(mask, iterations=pixels)


def test_masks_are_tinted_and_outlined_in_two_tones():
    found = square_instances((0, 0.9, 10, 20, 30))
    pixels = np.asarray(draw_instances(grey(64, 64), found, CATEGORIES, min_size=64, labels=False))
    mask = found.pred_masks[0].numpy()
    np.testing.assert_array_equal(~unpainted(pixels), ndimage.binary_dilation(mask, np.ones((3, 3))))
    assert tuple(pixels[20, 10]) == tuple(pixels[49, 39]) == RED
    np.testing.assert_allclose(pixels[35, 25], 0.55 * GREY + 0.45 * np.array(RED), atol=1)
    # RED contrasts more with white than with black.
    assert (pixels[19, 11:39] > 150).all() and (pixels[21:49, 9] > 150).all()


def test_outlines_without_boxes_keep_to_the_mask():
    ids = torch.zeros(64, 64, dtype=torch.int32)
    ids[20:50, 10:40] = 1
    picture = draw_panoptic(
        grey(64, 64), (ids, [{"id": 1, "category_id": 0}]), CATEGORIES, min_size=64, labels=False
    )
    np.testing.assert_array_equal(~unpainted(picture), within(ids.numpy() == 1))


def test_small_pictures_are_enlarged_by_a_whole_factor():
    ids = torch.zeros(64, 64, dtype=torch.int32)
    ids[20:50, 10:40] = 1
    picture = draw_panoptic(
        grey(64, 64), (ids, [{"id": 1, "category_id": 0}]), CATEGORIES, min_size=150, labels=False
    )
    assert picture.size == (192, 192)
    np.testing.assert_array_equal(~unpainted(picture), within(ids.numpy().repeat(3, 0).repeat(3, 1) == 1))


def test_boxes_without_masks():
    found = square_instances((0, 0.9, 10, 20, 30))
    found.pred_masks = None
    pixels = np.asarray(draw_instances(grey(64, 64), found, CATEGORIES, min_size=64, labels=False))
    red = (pixels == RED).all(-1)
    assert red[20, 10:40].all() and red[49, 10:40].all() and red[20:50, 39].all()
    assert red.sum() == 4 * 29
    # A line of one pixel on either side.
    np.testing.assert_array_equal(~unpainted(pixels), ndimage.binary_dilation(red, np.ones((3, 3))))


def test_contrast_is_that_of_wcag():
    # Figures of https://webaim.org/resources/contrastchecker
    for color, ratio in (((0, 0, 0), 21), ((118, 118, 118), 4.54), ((255, 0, 0), 4.0), ((0, 0, 255), 8.59)):
        assert colors.contrast((255, 255, 255), color) == pytest.approx(ratio, abs=0.006)


COLORS = [(255, 255, 0), (255, 255, 255), (0, 0, 0), (20, 20, 200), (128, 128, 128), (200, 0, 0)]


@pytest.mark.parametrize("kind", ["masks", "boxes"])
@pytest.mark.parametrize("color", COLORS)
def test_outlines_show_on_any_background(color, kind):
    categories = Categories(("cat", "dog"), (1, 2), (True, True), (color, color))
    found = square_instances((0, 0.9, 20, 20, 30))
    if kind == "boxes":
        found.pred_masks = None
    for background in (*COLORS, (60, 60, 60), (190, 190, 190), (250, 120, 120)):
        image = np.full((64, 64, 3), background, np.uint8)
        picture = np.asarray(draw_instances(image, found, categories, min_size=64, labels=False))
        across = [tuple(p) for p in picture[35, 17:24].tolist()]
        assert max(colors.contrast(p, background) for p in across) > 2


@pytest.mark.parametrize("side", [1, 2, 4])
def test_tiny_objects_can_be_seen(side):
    found = square_instances((0, 0.9, 30, 30, side))
    picture = draw_instances(grey(64, 64), found, CATEGORIES, min_size=64, labels=False)
    assert (~unpainted(picture)).sum() >= (side + 2) ** 2
    assert (np.asarray(picture) == RED).all(-1).any()


def test_what_reaches_beyond_the_image_or_is_empty():
    found = square_instances(*[(0, 0.9, 0, 0, 64)] * 4)
    found.pred_boxes = torch.tensor([[-30.0, -9, 80, 90], [100, 100, 120, 130], [5, 5, 5, 5], [63, 0, 64, 0]])
    found.pred_masks[1:] = False
    assert draw_instances(grey(64, 64), found, CATEGORIES).size == (512, 512)
    found.pred_masks = None
    assert draw_instances(grey(64, 64), found, CATEGORIES).size == (512, 512)


@pytest.mark.parametrize("size", [(1, 1), (20, 2000), (2000, 20)])
def test_extreme_sizes(size):
    found = square_instances((0, 0.9, 0, 0, 1), (1, 0.8, 0, 0, min(size)), size=size)
    picture = draw_instances(grey(*size), found, CATEGORIES)
    assert picture.size == ((512, 512) if size == (1, 1) else size[::-1])
    assert not unpainted(picture).all()


def test_threshold_and_limit_of_detections():
    found = square_instances((0, 0.2, 0, 0, 8), (0, 0.5, 16, 0, 8), (0, 0.9, 32, 0, 8), (0, 0.7, 48, 0, 8))

    def drawn(**options):
        picture = draw_instances(grey(64, 64), found, CATEGORIES, min_size=64, labels=False, **options)
        return (~unpainted(picture))[4, [4, 20, 36, 52]].tolist()

    assert drawn() == [False, True, True, True]
    assert drawn(score_threshold=0.6) == [False, False, True, True]
    assert drawn(score_threshold=0, max_detections=2) == [False, False, True, True]


def test_nothing_to_draw():
    picture = draw_instances(grey(64, 48), square_instances(size=(64, 48)), CATEGORIES, min_size=64)
    assert unpainted(picture).all() and picture.size == (48, 64)
    assert unpainted(draw_targets(grey(64, 48), Targets.empty(64, 48), CATEGORIES, min_size=64)).all()
    empty = (torch.zeros(64, 48, dtype=torch.int32), [])
    assert unpainted(draw_panoptic(grey(64, 48), empty, CATEGORIES, min_size=64)).all()


def test_image_of_another_size_is_resized_to_the_results():
    found = square_instances((0, 0.9, 10, 20, 30))
    assert draw_instances(grey(32, 32), found, CATEGORIES, min_size=64).size == (64, 64)


@pytest.mark.parametrize(
    "image",
    [
        grey(64, 64),
        grey(64, 64).float(),
        np.full((64, 64, 3), GREY, np.uint8),
        Image.new("L", (64, 64), GREY),
    ],
)
def test_kinds_of_images(image):
    picture = draw_instances(image, square_instances((0, 0.9, 10, 20, 30)), CATEGORIES, min_size=64)
    assert picture.mode == "RGB" and np.asarray(picture)[0, 0].tolist() == [GREY] * 3


@pytest.mark.parametrize("image", [torch.zeros(64, 64), torch.zeros(1, 64, 64), np.zeros((64, 64))])
def test_bad_images(image):
    with pytest.raises(ValueError, match="shape"):
        draw_instances(image, square_instances(), CATEGORIES)


def test_image_is_not_changed():
    image = np.full((64, 64, 3), GREY, np.uint8)
    draw_instances(image, square_instances((0, 0.9, 10, 20, 30)), CATEGORIES, min_size=64)
    assert (image == GREY).all()


def test_panoptic_and_semantic():
    ids = torch.zeros(64, 64, dtype=torch.int32)
    ids[:, :20], ids[:, 20:40] = 7, 3
    infos = [{"id": 7, "category_id": 0}, {"id": 3, "category_id": 1}]
    panoptic = draw_panoptic(grey(64, 64), (ids, infos), CATEGORIES, min_size=64, labels=False)
    class_map = torch.full((64, 64), 255)
    class_map[:, :20], class_map[:, 20:40] = 0, 1
    semantic = draw_semantic(grey(64, 64), class_map, CATEGORIES, min_size=64, labels=False)
    for picture in (panoptic, semantic):
        painted = ~unpainted(picture)
        assert painted[:, :40].all() and not painted[:, 41:].any()
        pixels = np.asarray(picture).astype(int)
        assert pixels[30, 10, 0] > pixels[30, 10, 2] and pixels[30, 30, 2] > pixels[30, 30, 0]


def test_instances_of_one_class_differ():
    ids = torch.tensor([[1, 2, 3]]).repeat_interleave(20, 1).repeat(20, 1)
    infos = [{"id": i, "category_id": 0} for i in (1, 2, 3)]
    pixels = np.asarray(draw_panoptic(grey(20, 60), (ids, infos), CATEGORIES, min_size=1, labels=False))
    assert len({tuple(pixels[10, x]) for x in (10, 30, 50)}) == 3


def test_targets_of_stuff_have_no_boxes():
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 10:20, 10:20] = True
    masks[1].fill_diagonal_(True)
    boxes = torch.tensor([[10.0, 10, 20, 20], [0, 0, 64, 64]])
    targets = Targets(torch.tensor([0, 1]), boxes, masks, torch.tensor([True, False]))
    picture = draw_targets(grey(64, 64), targets, CATEGORIES, min_size=64, labels=False)
    thing = np.zeros((64, 64), bool)
    thing[9:21, 9:21] = True
    np.testing.assert_array_equal(~unpainted(picture), within(masks[1].numpy()) | thing)
    targets.masks = None
    assert (~unpainted(draw_targets(grey(64, 64), targets, CATEGORIES, min_size=64, labels=False)))[0, 40]


def test_labels_lie_inside_and_apart():
    rng = np.random.default_rng(0)
    size = (300, 200)
    regions = []
    for number in range(60):
        corner, extent = rng.uniform(-5, 180, 2), rng.uniform(2, 60, 2)
        mask = rng.random((100, 150)) < 0.01
        box = None if number % 3 == 0 else (*corner, *(corner + extent))
        regions.append(Region.from_mask(RED, "label", mask, box))
    extents = [(int(rng.integers(20, 60)), 12) for _ in regions]
    places = place_labels(regions, extents, 2, size)
    placed = [p for p in places if p is not None]
    assert 5 < len(placed) < len(regions)
    occupied = np.zeros(size, int)
    for x0, y0, x1, y1 in placed:
        assert 0 <= x0 and x1 < size[0] and 0 <= y0 and y1 < size[1]
        occupied[x0 : x1 + 1, y0 : y1 + 1] += 1
    assert occupied.max() == 1
    assert occupied.mean() <= 0.15


def test_a_label_does_not_cover_a_small_object_at_the_border():
    ((x0, y0, x1, y1),) = place_labels([Region(RED, "label", box=(50, 0, 56, 5))], [(40, 12)], 1, (200, 200))
    assert y0 >= 5 or x0 >= 56 or x1 < 50


def test_a_label_keeps_off_other_small_objects():
    """The place above it, where it would go, is full of them."""
    others = [Region(BLUE, "", box=(x, 85, x + 8, 99)) for x in range(80, 150, 9)]
    region = Region(RED, "label", box=(90, 100, 130, 140))
    alone, *_ = place_labels([region], [(40, 12)], 1, (400, 400))
    assert alone == (90, 88, 129, 99)
    x0, y0, x1, y1 = place_labels([region, *others], [(40, 12)] + [(0, 0)] * len(others), 1, (400, 400))[0]
    assert y0 >= 99 or x0 >= 150 or x1 < 80


def test_a_label_without_a_good_place_is_left_out():
    small = [Region(BLUE, "", box=(x, y, x + 9, y + 9)) for x in range(0, 100, 10) for y in range(0, 100, 10)]
    assert set(place_labels(small, [(40, 12)] * len(small), 1, (100, 100))) == {None}


def test_many_labels_have_smaller_letters():
    def highest_letters(count):
        found = square_instances(
            *[(0, 0.9, 64 * (i % 16), 64 * (i // 16), 20) for i in range(count)], size=(1024, 1024)
        )
        found.pred_masks = None
        pixels = np.asarray(draw_instances(grey(1024, 1024), found, CATEGORIES, max_detections=count))
        white = (pixels == 255).all(-1).any(1)  # text on RED
        return max(len(run) for run in "".join("#" if row else " " for row in white).split())

    assert highest_letters(2) > highest_letters(160) >= 8


@pytest.mark.parametrize("color", COLORS)
def test_text_stands_out_from_its_background(color):
    assert colors.contrast(colors.contrasting(color), color) >= 4.5


def test_long_labels_are_cut_in_the_middle():
    line = text.typeset("a very long class name of an ontology 87%", 14, 150)
    assert 100 < line.width <= 150
    assert line.text.startswith("a very") and line.text.endswith("87%") and "..." in line.text
    assert text.typeset("short 87%", 14, 150).text == "short 87%"
    assert text.typeset("never", 14, 3).width <= 4


def test_line_breaks_become_spaces():
    assert text.typeset("two\nlines\t", 14).text == "two lines"


def test_letters_that_no_font_has_are_escaped(caplog):
    fonts = ("there is no such font.ttf",)
    assert text.typeset("Fußgänger 5%", 14, fonts=fonts).text == "Fu\\xdfganger 5%"
    for words in ("\u81ea\u884c 5%", "\u81ea\u884c 6%"):
        assert text.typeset(words, 14, fonts=fonts).text == words.encode("unicode_escape").decode()
    warnings = [r.getMessage() for r in caplog.records if "\u81ea" in r.getMessage()]
    assert len(warnings) == 1 and "Install a font" in warnings[0]


def test_letters_are_taken_from_a_font_of_the_system():
    try:
        font = ImageFont.truetype("DejaVuSans.ttf", 14)
    except OSError:
        pytest.skip("DejaVu Sans is not installed")
    fonts = ("there is no such font.ttf", "DejaVuSans.ttf")
    line = text.typeset("Fußgänger дерево", 14, fonts=fonts)
    assert line.text == "Fußgänger дерево" and line.font.getname() == font.getname()
    assert text.typeset("person", 14, fonts=fonts).font.getname() != font.getname()


def test_label_is_written():
    found = square_instances((1, 0.87, 100, 100, 60), size=(256, 256))
    plain = draw_instances(grey(256, 256), found, CATEGORIES, min_size=256, labels=False)
    labelled = draw_instances(grey(256, 256), found, CATEGORIES, min_size=256)
    changed = (np.asarray(plain) != np.asarray(labelled)).any(-1)
    rows, columns = np.nonzero(changed)
    assert rows.max() < 100 and columns.min() == 100  # above the box, from its left edge on
    assert {BLUE, (255, 255, 255)} <= {tuple(c) for c in np.asarray(labelled)[changed].tolist()}


def test_grid():
    wide, tall = grey(50, 100), grey(100, 50)
    grid = image_grid([[wide, tall], [tall]], ["image", "truth"], cell_size=100, padding=10)
    pixels = np.asarray(grid)
    # Columns are 100 and 50 wide, rows 100 high.
    assert grid.width == 10 + 100 + 10 + 50 + 10
    title_height = grid.height - (10 + 100 + 10 + 100 + 10)
    assert 10 < title_height < 60
    assert (pixels == GREY).all(-1).sum() >= 3 * 5000
    assert (pixels[: title_height + 10] == 0).all(-1).any()  # titles are black
    assert (pixels[:, :10] == 255).all() and (pixels[-10:] == 255).all()


def test_captions_of_rows():
    wide = grey(50, 100)
    plain = np.asarray(image_grid([[wide, wide], [wide, wide]], cell_size=100, padding=10))
    pixels = np.asarray(
        image_grid(
            [[wide, wide], [wide, wide]], cell_size=100, padding=10, captions=["first", "a word " * 50]
        )
    )
    assert pixels.shape[1] == plain.shape[1]
    band = (pixels.shape[0] - plain.shape[0]) // 2
    assert 15 < band < 60
    for top in (10, 10 + band + 50 + 10):
        written = (pixels[top : top + band] < 128).all(-1)
        assert written.any() and not written[:, :10].any() and not written[:, -10:].any()
    assert (pixels == GREY).all(-1).sum() >= 4 * 5000


def test_bad_grids():
    with pytest.raises(ValueError, match="no pictures"):
        image_grid([])
    with pytest.raises(ValueError, match="1 titles for 2 columns"):
        image_grid([[grey(8, 8), grey(8, 8)]], ["one"])
    with pytest.raises(ValueError, match="2 captions for 1 rows"):
        image_grid([[grey(8, 8), grey(8, 8)]], captions=["one", "two"])


def test_results_of_inference_mode():
    with torch.inference_mode():
        found = square_instances((0, 0.9, 10, 20, 30))
        picture = draw_instances(grey(64, 64), found, CATEGORIES)
    assert not unpainted(picture).all()
