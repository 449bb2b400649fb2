"""Every kind of image becomes the same record."""

import io
import logging
import re
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

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


def encoded(pixels, **options):
    """As the bytes of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", **options)
    return buffer.getvalue()


def with_alpha(pixels):
    return np.concatenate([pixels, np.full_like(pixels[..., :1], 9)], -1)


def deep(pixels):
    """16 bits for 8."""
    return pixels.astype(np.uint16) * 257


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
    "bytes": lambda pixels, _: encoded(pixels),
    "bytes that can be changed": lambda pixels, _: bytearray(encoded(pixels)),
    "a view of memory": lambda pixels, _: memoryview(encoded(pixels)),
    "buffer": lambda pixels, _: io.BytesIO(encoded(pixels)),
    "open file, path": lambda pixels, folder: open(path_text(pixels, folder), "rb"),  # noqa: SIM115
    "RGBA array": lambda pixels, _: with_alpha(pixels),
    "RGBA tensor": lambda pixels, _: torch.from_numpy(with_alpha(pixels)).permute(2, 0, 1),
    "RGBA bytes": lambda pixels, _: encoded(with_alpha(pixels)),
    "16-bit array": lambda pixels, _: deep(pixels),
    "16-bit RGBA array": lambda pixels, _: deep(with_alpha(pixels)),
    "16-bit tensor": lambda pixels, _: torch.from_numpy(deep(pixels)).permute(2, 0, 1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_are_the_same_image(kind, pixels, tmp_path):
    record = to_record(KINDS[kind](pixels, tmp_path), 3)
    assert np.array_equal(record["image"].permute(1, 2, 0).numpy(), pixels)
    assert np.array_equal(to_uint8(record["image"]).permute(1, 2, 0).numpy(), pixels)
    assert (record["height"], record["width"], record["image_id"]) == (5, 7, 3)
    assert record["file_name"] == (str(tmp_path / "x.png") if "path" in kind else "")


@pytest.mark.parametrize(
    "grey",
    [
        lambda plane: plane,
        deep,
        lambda plane: torch.from_numpy(plane)[None],
        lambda plane: encoded(deep(plane)),
        lambda plane: Image.fromarray(deep(plane)),
        lambda plane: Image.fromarray(deep(plane).astype(np.int32)),
    ],
    ids=["array", "16 bits", "tensor", "16-bit bytes", "16-bit PIL", "16 of PIL's 32 bits"],
)
def test_grey_is_repeated(grey, pixels):
    plane = np.ascontiguousarray(pixels[..., 0])
    record = to_record(grey(plane), 0)
    assert np.array_equal(record["image"].numpy(), np.stack([plane] * 3))


@pytest.mark.parametrize("kind", ["array", "tensor", "bytes", "PIL"])
def test_a_range_of_12_bits(kind, pixels):
    plane = np.ascontiguousarray(pixels[..., 0])
    twelve = np.round(plane * (4095 / 255)).astype(np.uint16)
    given = {
        "array": twelve,
        "tensor": torch.from_numpy(twelve)[None],
        "bytes": encoded(twelve),
        "PIL": Image.fromarray(twelve),
    }[kind]
    record = to_record(given, 0, value_range=(0, 4095))
    assert np.array_equal(record["image"].numpy(), np.stack([plane] * 3))


def test_an_address_is_downloaded_only_where_that_is_allowed(pixels, tmp_path, monkeypatch):
    monkeypatch.setenv("DETREX_CACHE", str(tmp_path / "cache"))
    asked = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            content = encoded(pixels) if self.path == "/x.png" else b"no picture"
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(ValueError, match="allow_urls=True"):
            to_record(f"{place}/x.png", 0)
        assert not asked
        for _ in range(2):
            record = to_record(f"{place}/x.png", 0, allow_urls=True)
            assert np.array_equal(record["image"].permute(1, 2, 0).numpy(), pixels)
        assert asked == ["/x.png"] and record["file_name"] == f"{place}/x.png"
        with pytest.raises(DataError, match="cannot be decoded"):
            to_record(f"{place}/y.png", 0, allow_urls=True)
        server.shutdown()
    with pytest.raises(DataError, match="could not be downloaded"):
        to_record(f"{place}/z.png", 0, allow_urls=True)


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
        (np.zeros((4, 4, 5), np.uint8), ValueError, "image 2 is an array of shape (4, 4, 5)"),
        (np.zeros((2, 4, 4, 3), np.uint8), ValueError, "(2, 4, 4, 3)"),
        (np.zeros((4, 4, 3), np.float32), ValueError, "type float32"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, "image 2 is empty"),
        (torch.zeros(5, 4, 3), ValueError, "image 2 is a tensor of shape (5, 4, 3)"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), ValueError, "type torch.int64"),
        (torch.full((3, 4, 4), -1.0), ValueError, "values from -1 to -1"),
        (torch.full((3, 4, 4), 256.0), ValueError, "expected in 0..255"),
        (torch.full((3, 4, 4), torch.nan), ValueError, "values from nan"),
        (Image.new("I", (4, 4), 70000), ValueError, "32 bits a channel (mode I)"),
        (Image.new("F", (4, 4)), ValueError, "32 bits a channel (mode F)"),
        (b"no picture", DataError, "image 2, of 10 bytes, cannot be decoded"),
        (encoded(noise(9, 9))[:-40], DataError, "cannot be decoded"),
        (io.StringIO("text"), TypeError, "image 2 is a file opened as text"),
        ("https://example.org/x.jpg", ValueError, "allow_urls=True"),
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
