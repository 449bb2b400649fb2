import numpy as np
import pytest
import torch
from made_instances import square_instances
from PIL import Image

from detrex import visualization
from detrex.structures import Categories, Targets
from detrex.visualization import draw_instances, draw_panoptic, draw_semantic, draw_targets, image_grid

RED, BLUE = (200, 0, 0), (0, 0, 220)
CATEGORIES = Categories(names=("cat", "sky"), ids=(1, 2), is_thing=(True, False), colors=(RED, BLUE))
GREY = 100


def grey(height, width):
    return torch.full((3, height, width), GREY, dtype=torch.uint8)


def unpainted(picture):
    """(H, W) bool, where the grey image shows through unchanged."""
    return (np.asarray(picture) == GREY).all(-1)


def test_masks_are_tinted_and_outlined():
    found = square_instances((0, 0.9, 10, 20, 30))
    picture = draw_instances(grey(64, 64), found, CATEGORIES, min_size=64, labels=False)
    pixels = np.asarray(picture)
    np.testing.assert_array_equal(~unpainted(picture), found.pred_masks[0].numpy())
    assert tuple(pixels[20, 10]) == tuple(pixels[49, 39]) == RED
    np.testing.assert_allclose(pixels[35, 25], 0.55 * GREY + 0.45 * np.array(RED), atol=1)


def test_small_pictures_are_enlarged_by_a_whole_factor():
    found = square_instances((0, 0.9, 10, 20, 30))
    picture = draw_instances(grey(64, 64), found, CATEGORIES, min_size=150, labels=False)
    assert picture.size == (192, 192)
    np.testing.assert_array_equal(~unpainted(picture), found.pred_masks[0].numpy().repeat(3, 0).repeat(3, 1))


def test_boxes_without_masks():
    found = square_instances((0, 0.9, 10, 20, 30))
    found.pred_masks = None
    picture = draw_instances(grey(64, 64), found, CATEGORIES, min_size=64, labels=False)
    painted = ~unpainted(picture)
    assert painted[20, 10:40].all() and painted[49, 10:40].all() and painted[20:50, 39].all()
    assert painted.sum() == 4 * 29


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
        np.testing.assert_array_equal(unpainted(picture), ids.numpy() == 0)
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
    np.testing.assert_array_equal(~unpainted(picture), masks.any(0).numpy())
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
        regions.append(visualization._Region(RED, "label", mask, box))
    extents = [(int(rng.integers(20, 60)), 12) for _ in regions]
    places = visualization._place_labels(regions, extents, 2, size)
    placed = [p for p in places if p is not None]
    assert 5 < len(placed) < len(regions)
    occupied = np.zeros(size, int)
    for x0, y0, x1, y1 in placed:
        assert 0 <= x0 and x1 < size[0] and 0 <= y0 and y1 < size[1]
        occupied[x0 : x1 + 1, y0 : y1 + 1] += 1
    assert occupied.max() == 1
    assert occupied.mean() <= 0.12


def test_a_label_does_not_cover_a_small_object_at_the_border():
    region = visualization._Region(RED, "label", box=(50, 0, 56, 5))
    ((x0, y0, x1, y1),) = visualization._place_labels([region], [(40, 12)], 1, (200, 200))
    assert y0 >= 5 or x0 >= 56 or x1 < 50


@pytest.mark.parametrize("color", [(255, 255, 0), (255, 255, 255), (0, 0, 0), (20, 20, 200), (128, 128, 128)])
def test_text_stands_out_from_its_background(color):
    text = visualization._text_color(color)
    weights = np.array([0.299, 0.587, 0.114])
    assert abs(weights @ np.array(text) - weights @ np.array(color)) > 100


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


def test_bad_grids():
    with pytest.raises(ValueError, match="no pictures"):
        image_grid([])
    with pytest.raises(ValueError, match="1 titles for 2 columns"):
        image_grid([[grey(8, 8), grey(8, 8)]], ["one"])


def test_results_of_inference_mode():
    with torch.inference_mode():
        found = square_instances((0, 0.9, 10, 20, 30))
        picture = draw_instances(grey(64, 64), found, CATEGORIES)
    assert not unpainted(picture).all()
