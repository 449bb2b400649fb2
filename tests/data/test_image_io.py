import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps
from torchvision import tv_tensors

from detrex.data import DataError
from detrex.data.image_io import read_image, read_label_map


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


def channels_last(image):
    return image.permute(1, 2, 0).numpy()


def test_rgb_is_read_as_it_is(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "x.png")
    image = read_image(tmp_path / "x.png", (4, 6))
    assert isinstance(image, tv_tensors.Image) and image.dtype == torch.uint8
    assert np.array_equal(channels_last(image), pixels)


def test_grey_is_repeated(tmp_path, pixels):
    Image.fromarray(pixels[..., 0]).save(tmp_path / "x.png")
    image = read_image(tmp_path / "x.png")
    assert all(np.array_equal(channel.numpy(), pixels[..., 0]) for channel in image)


def test_alpha_is_dropped(tmp_path, pixels):
    alpha = np.full((4, 6, 1), 7, np.uint8)
    Image.fromarray(np.concatenate([pixels, alpha], -1)).save(tmp_path / "x.png")
    assert np.array_equal(channels_last(read_image(tmp_path / "x.png")), pixels)


def test_palette_with_transparency(tmp_path, pixels):
    palette = Image.fromarray(pixels).quantize(24)
    palette.save(tmp_path / "x.png", transparency=bytes(range(24)))
    expected = np.asarray(palette.convert("RGB"))
    assert np.array_equal(channels_last(read_image(tmp_path / "x.png")), expected)


def test_cmyk(tmp_path):
    """Ink: cyan leaves no red, black leaves nothing, no ink leaves white."""
    inks = np.zeros((8, 24, 4), np.uint8)
    inks[:, :8, 0], inks[:, 8:16, 3] = 255, 255
    Image.fromarray(inks, "CMYK").save(tmp_path / "x.jpg", quality=95)
    image = read_image(tmp_path / "x.jpg").float()
    colors = [image[:, 4, x].tolist() for x in (4, 12, 20)]
    assert np.allclose(colors, [[0, 255, 255], [0, 0, 0], [255, 255, 255]], atol=6)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_and_do_not_wrap(tmp_path, suffix):
    values = np.array([[0, 257, 256 * 128, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"x.{suffix}")
    image = read_image(tmp_path / f"x.{suffix}")
    assert image[:, 0].tolist() == [[0, 1, 128, 255]] * 3


def test_32_bits_with_16_used(tmp_path):
    Image.fromarray(np.array([[0, 65535]], np.int32)).save(tmp_path / "x.tif")
    assert read_image(tmp_path / "x.tif")[0].tolist() == [[0, 255]]


@pytest.mark.parametrize("values", [np.array([[0.5]], np.float32), np.array([[70000]], np.int32)])
def test_unknown_range_is_an_error(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match="x.tif .image id 8. has 32 bits"):
        read_image(tmp_path / "x.tif", image_id=8)


def save_with_orientation(path, pixels, orientation):
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[ExifTags.Base.Orientation] = orientation
    image.save(path, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, pixels, orientation):
    path = tmp_path / "x.png"
    save_with_orientation(path, pixels, orientation)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert np.array_equal(channels_last(read_image(path, expected.shape[:2])), expected)
    assert np.array_equal(channels_last(read_image(path)), expected)


def test_turned_by_exif_the_first_row_becomes_the_last_column(tmp_path, pixels):
    save_with_orientation(tmp_path / "x.png", pixels, 6)
    image = read_image(tmp_path / "x.png", (6, 4))
    assert np.array_equal(channels_last(image)[:, -1], pixels[0])


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_annotations_made_on_the_stored_pixels_keep_them(tmp_path, pixels, orientation):
    save_with_orientation(tmp_path / "x.png", pixels, orientation)
    assert np.array_equal(channels_last(read_image(tmp_path / "x.png", (4, 6))), pixels)


def test_size_that_is_neither_stored_nor_turned(tmp_path, pixels):
    save_with_orientation(tmp_path / "x.png", pixels, 6)
    with pytest.raises(DataError, match=r"x.png \(image id 3\) has 4 x 6 .* annotations are for 5 x 6"):
        read_image(tmp_path / "x.png", (5, 6), image_id=3)


def test_missing_image(tmp_path):
    with pytest.raises(DataError, match=r"none.png \(image id 3\) does not exist"):
        read_image(tmp_path / "none.png", image_id=3)


def truncated_png(path, pixels):
    Image.fromarray(np.tile(pixels, (20, 20, 1))).save(path)
    path.write_bytes(path.read_bytes()[:200])


def truncated_jpeg(path, pixels):
    Image.fromarray(np.tile(pixels, (40, 40, 1))).save(path, "jpeg")
    path.write_bytes(path.read_bytes()[:-400])


def text(path, _pixels):
    path.write_text("<html>404 not found</html>")


def empty(path, _pixels):
    path.write_bytes(b"")


@pytest.mark.parametrize("make", [truncated_png, truncated_jpeg, text, empty])
def test_image_that_does_not_decode(tmp_path, pixels, make):
    make(tmp_path / "x.png", pixels)
    with pytest.raises(DataError, match=r"x.png \(image id 3\) cannot be decoded"):
        read_image(tmp_path / "x.png", image_id=3)


def test_label_map_keeps_numbers_of_palettes_and_16_bits(tmp_path):
    labels = np.array([[0, 3], [255, 1]], np.uint8)
    palette = Image.fromarray(labels, "P")
    palette.putpalette(list(range(255, -1, -1)) * 3)
    palette.save(tmp_path / "p.png")
    Image.fromarray(labels.astype(np.uint16) * 200).save(tmp_path / "deep.png")
    assert np.array_equal(read_label_map(tmp_path / "p.png", (2, 2)), labels)
    assert np.array_equal(read_label_map(tmp_path / "deep.png"), labels.astype(int) * 200)
    with pytest.raises(DataError, match="p.png has 2 x 2 .* has 2 x 3"):
        read_label_map(tmp_path / "p.png", (2, 3))
