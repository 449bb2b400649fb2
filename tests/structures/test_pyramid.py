"""Flattened pyramids and padded batches."""

import pytest
import torch
import torch.nn.functional as F

from detrex.structures import PaddedImages, Pyramid


def pyramid():
    return [torch.randn(2, 6, 3, 4), torch.randn(2, 6, 2, 1)]


def test_maps_come_back_from_tokens():
    maps = pyramid()
    flat = Pyramid.from_maps(maps)
    assert flat.tokens.shape == (2, 14, 6)
    assert flat.shapes == ((3, 4), (2, 1))
    assert flat.sizes == [12, 2]
    for ours, given in zip(flat.maps(), maps, strict=True):
        assert torch.equal(ours, given)
    assert torch.equal(flat.level(1), maps[1])


def test_tokens_are_row_major():
    maps = pyramid()
    tokens = Pyramid.from_maps(maps).tokens
    assert torch.equal(tokens[1, 2 * 4 + 3], maps[0][1, :, 2, 3])
    assert torch.equal(tokens[0, 12 + 1], maps[1][0, :, 1, 0])


def test_other_tokens_keep_the_levels():
    flat = Pyramid.from_maps(pyramid())
    changed = flat.with_tokens(flat.tokens * 2)
    assert changed.shapes == flat.shapes
    assert torch.equal(changed.level(0), 2 * flat.level(0))


def test_what_is_known_of_the_levels_is_computed_once():
    images = PaddedImages.from_list([torch.zeros(3, 6, 8), torch.zeros(3, 3, 4)], divisor=1)
    flat = Pyramid.from_maps(pyramid(), images)
    assert flat.cells.tolist() == [[4, 3], [1, 2]]
    changed = flat.with_tokens(2 * flat.tokens)
    assert changed.cells is flat.cells
    padding = changed.padding
    assert changed.with_position(changed.tokens).padding is padding
    assert torch.equal(flat.padding, padding)


def test_cell_centres_by_hand():
    flat = Pyramid.from_maps([torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 1, 1)])
    expected = [(x, y) for y in (0.25, 0.75) for x in (0.125, 0.375, 0.625, 0.875)] + [(0.5, 0.5)]
    assert flat.cell_centres().tolist() == [[list(c) for c in expected]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_cell_centres_of_half_precision_tokens_are_exact(dtype):
    flat = Pyramid.from_maps([torch.zeros(1, 1, 1, 1000, dtype=dtype)])
    expected = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    torch.testing.assert_close(flat.cell_centres()[0, :, 0].double(), expected, atol=1e-7, rtol=0)


def test_images_are_padded_right_and_below():
    images = [torch.ones(3, 5, 9), torch.full((3, 7, 2), 2.0)]
    batch = PaddedImages.from_list(images, divisor=4)
    assert batch.tensor.shape == (2, 3, 8, 12)
    assert batch.padded_size == (8, 12)
    assert batch.sizes == [(5, 9), (7, 2)]
    assert torch.equal(batch.tensor[0, :, :5, :9], images[0])
    assert torch.equal(batch.tensor[1, :, :7, :2], images[1])
    assert batch.tensor.sum() == 3 * (5 * 9 + 2 * 7 * 2)


def test_sizes_that_fit_are_not_padded():
    assert PaddedImages.from_list([torch.ones(3, 64, 32)], divisor=32).padded_size == (64, 32)
    assert PaddedImages.from_list([torch.ones(3, 5, 7)]).padded_size == (5, 7)


def masked_pyramid(dtype=torch.float32):
    """Images of 8 x 12 and 5 x 6 pixels as levels of 4 x 6 and 2 x 3 cells."""
    images = PaddedImages.from_list([torch.ones(1, 8, 12), torch.ones(1, 5, 6)])
    return Pyramid.from_maps([torch.zeros(2, 1, *shape, dtype=dtype) for shape in ((4, 6), (2, 3))], images)


def test_cells_that_begin_within_an_image_are_valid():
    # 5 of 8 rows are 2.5 of 4 cells and 1.25 of 2; 6 of 12 columns are 3 of 6 cells and 1.5 of 3.
    flat = masked_pyramid()
    assert flat.valid == (((4, 6), (2, 3)), ((3, 3), (2, 2)))
    assert flat.valid_sizes.tolist() == [[[6, 4], [3, 2]], [[3, 3], [2, 2]]]


def test_padding_by_hand():
    fine = [column >= 3 or row >= 3 for row in range(4) for column in range(6)]
    coarse = [column >= 2 for _ in range(2) for column in range(3)]
    assert masked_pyramid().padding.tolist() == [[False] * 30, fine + coarse]


@pytest.mark.parametrize("padded", [(64, 96), (70, 100)])
def test_padding_is_that_of_the_nearest_pixels(padded):
    generator = torch.Generator().manual_seed(0)
    sizes = [
        padded,
        *(tuple(1 + int(torch.randint(n, (), generator=generator)) for n in padded) for _ in "1234"),
    ]
    images = PaddedImages(torch.zeros(len(sizes), 1, *padded), sizes)
    shapes = [tuple(-(-n // stride) for n in padded) for stride in (8, 16, 32, 64)]
    pixels = torch.ones(len(sizes), 1, *padded)
    for mask, (height, width) in zip(pixels, sizes, strict=True):
        mask[:, :height, :width] = 0
    expected = torch.cat([F.interpolate(pixels, shape).flatten(1) for shape in shapes], 1).bool()
    flat = Pyramid.from_maps([torch.zeros(len(sizes), 1, *shape) for shape in shapes], images)
    assert torch.equal(flat.padding, expected)


def test_without_images_nothing_is_padding():
    flat = Pyramid.from_maps(pyramid())
    assert flat.valid is None and flat.valid_sizes is None and flat.padding is None
    boxes = torch.rand(2, 5, 4)
    assert torch.equal(flat.on_levels(boxes), boxes[:, :, None])


def test_cell_centres_are_relative_to_the_image_without_padding():
    centres = masked_pyramid().cell_centres()
    whole = [((x + 0.5) / 6, (y + 0.5) / 4) for y in range(4) for x in range(6)]
    whole += [((x + 0.5) / 3, (y + 0.5) / 2) for y in range(2) for x in range(3)]
    part = [((x + 0.5) / 3, (y + 0.5) / 3) for y in range(4) for x in range(6)]
    part += [((x + 0.5) / 2, (y + 0.5) / 2) for y in range(2) for x in range(3)]
    torch.testing.assert_close(centres, torch.tensor([whole, part]))
    assert torch.equal(centres.amax(-1) > 1, masked_pyramid().padding)


def test_points_and_boxes_on_levels_count_padding():
    flat = masked_pyramid()
    point, box = torch.tensor([[[0.5, 0.8]]]), torch.tensor([[[0.5, 0.8, 0.25, 0.4]]])
    # The second image fills 3 of 6 columns and 3 of 4 rows of the fine level, 2 of 3 and all of the coarse.
    expected = torch.tensor([[0.25, 0.6, 0.125, 0.3], [1 / 3, 0.8, 1 / 6, 0.4]])
    for reference in (point, box):
        on_levels = flat.on_levels(reference)
        assert on_levels.shape == (2, 1, 2, reference.shape[-1])
        torch.testing.assert_close(on_levels[0, 0], reference[0].expand(2, -1))
        torch.testing.assert_close(on_levels[1, 0], expected[:, : reference.shape[-1]])


def test_centres_on_levels_are_the_centres_of_the_padded_level():
    flat = masked_pyramid()
    padded = Pyramid(flat.tokens, flat.shapes).cell_centres()
    on_levels = flat.on_levels(flat.cell_centres())
    for level, (first, size) in enumerate([(0, 24), (24, 6)]):
        tokens_of_level = slice(first, first + size)
        torch.testing.assert_close(
            on_levels[:, tokens_of_level, level], padded[:, tokens_of_level].expand(2, -1, -1)
        )


def test_masked_geometry_of_half_precision_tokens_is_single_precision():
    half, single = masked_pyramid(torch.bfloat16), masked_pyramid()
    assert torch.equal(half.cell_centres(), single.cell_centres())
    assert half.on_levels(half.cell_centres()).dtype == torch.float32


def test_other_tokens_keep_padding_and_position():
    flat = masked_pyramid()
    position = torch.rand(30, 1)
    changed = flat.with_position(position).with_tokens(flat.tokens + 1)
    assert torch.equal(changed.padding, flat.padding)
    assert changed.position is position
