"""Every kind of image becomes the same record."""

import logging
import re

import numpy as np
import pytest
import torch
from PIL import Image

from detrex.data import DataError
from detrex.data.image_io import read_image
from detrex.predict.inputs import to_record, to_uint8
from tests.predict.tiny_run import noise

EXIF_ORIENTATION = 0x0112


@pytest.fixture
def pixels():
    return noise(5, 7)


def path_text(pixels, folder):
    Image.fromarray(pixels).save(folder / "x.png")
    return str(folder / "x.png")


KINDS = {
    "path as text": path_text,
    "path": lambda pixels, folder: folder / path_text(pixels, folder),
    "PIL": lambda pixels, _: Image.fromarray(pixels),
    "array": lambda pixels, _: pixels,
    "array with reversed channels": lambda pixels, _: pixels[..., ::-1].copy()[..., ::-1],
    "tensor": lambda pixels, _: torch.from_numpy(pixels).permute(2, 0, 1),
    "float tensor": lambda pixels, _: torch.from_numpy(pixels).permute(2, 0, 1).double(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_are_the_same_image(kind, pixels, tmp_path):
    record = to_record(KINDS[kind](pixels, tmp_path), 3)
    assert np.array_equal(record["image"].permute(1, 2, 0).numpy(), pixels)
    assert np.array_equal(to_uint8(record["image"]).permute(1, 2, 0).numpy(), pixels)
    assert (record["height"], record["width"], record["image_id"]) == (5, 7, 3)
    assert record["file_name"] == (str(tmp_path / "x.png") if "path" in kind else "")


def test_grey_is_repeated(pixels):
    record = to_record(pixels[..., 0], 0)
    assert np.array_equal(record["image"].numpy(), np.stack([pixels[..., 0]] * 3))


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "1", "P", "CMYK", "YCbCr"])
def test_pil_modes_as_from_a_file(mode, pixels, tmp_path):
    image = Image.fromarray(pixels).convert(mode)
    file = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    # Some releases of Pillow cannot read the TIFF that they write of YCbCr.
    (image.convert("RGB") if mode == "YCbCr" else image).save(file)
    assert torch.equal(to_record(image, 0)["image"], read_image(file))


def test_a_palette_with_transparency(pixels, tmp_path):
    image = Image.fromarray(pixels).convert("P")
    image.save(tmp_path / "x.png", transparency=bytes(range(256)))
    with Image.open(tmp_path / "x.png") as opened:
        assert torch.equal(to_record(opened, 0)["image"], read_image(tmp_path / "x.png"))


def test_a_pil_image_is_turned_as_its_exif_says(pixels, tmp_path):
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[EXIF_ORIENTATION] = 6
    image.save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as opened:
        turned = to_record(opened, 0)["image"]
    # The first row becomes the last column.
    assert np.array_equal(turned[:, :, -1].T.numpy(), pixels[0])


def test_the_record_has_its_own_pixels(pixels):
    for image in (pixels.copy(), pixels[..., 0].copy(), torch.from_numpy(pixels.transpose(2, 0, 1).copy())):
        record = to_record(image, 0)
        before = record["image"].clone()
        image[:] = 0
        assert torch.equal(record["image"], before)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((4, 4, 4), np.uint8), ValueError, "image 2 is an array of shape (4, 4, 4)"),
        (np.zeros((2, 4, 4, 3), np.uint8), ValueError, "(2, 4, 4, 3)"),
        (np.zeros((4, 4, 3), np.float32), ValueError, "type float32"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, "image 2 is empty"),
        (torch.zeros(4, 4, 3), ValueError, "image 2 is a tensor of shape (4, 4, 3)"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), ValueError, "type torch.int64"),
        (torch.full((3, 4, 4), -1.0), ValueError, "values from -1 to -1"),
        (torch.full((3, 4, 4), 256.0), ValueError, "expected in 0..255"),
        (torch.full((3, 4, 4), torch.nan), ValueError, "values from nan"),
        (Image.new("I", (4, 4)), ValueError, "mode I, more than 8 bits"),
        (Image.new("I;16", (4, 4)), ValueError, "mode I;16"),
        ("https://example.org/x.jpg", ValueError, "download the image"),
        (3, TypeError, "image 2 is of type int; an image may be a path"),
        (None, TypeError, "NoneType"),
        ("no/such.jpg", DataError, "Image no/such.jpg does not exist"),
        (".", DataError, "is a folder"),
    ],
)
def test_what_is_no_image(image, error, message):
    with pytest.raises(error, match=re.escape(message)):
        to_record(image, 2)


def test_values_up_to_one_are_suspicious(caplog):
    with caplog.at_level(logging.WARNING):
        to_record(torch.zeros(3, 4, 4), 0)
        assert not caplog.text
        to_record(torch.rand(3, 4, 4), 1)
    assert "image 1 has no value above 1" in caplog.text
