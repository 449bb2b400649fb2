"""Choosing and saving pictures of a data set's images."""

import logging

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from detrex.cli.gallery import Row, find_images, loader_config, save_gallery
from detrex.config import ConfigError
from detrex.data import DataError, SemanticFolder
from detrex.report.pictures import spread


@pytest.fixture
def dataset(tmp_path):
    """Two images of one name in different folders, and another one."""
    for name in ("a/x", "b/x", "b/y"):
        for folder, kind in (("images", "jpg"), ("segments", "png")):
            path = tmp_path / folder / f"{name}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8)).save(path)
    return SemanticFolder(tmp_path / "images", tmp_path / "segments", ["thing"])


def picture(value, size=(40, 20)):
    return Image.new("RGB", size, (value, value, value))


def test_spread():
    assert spread(10, 3) == [0, 3, 6] and spread(2, 5) == [0, 1] and spread(0, 5) == []


def test_finding_images(dataset):
    assert dataset.image_names() == [("a/x", "a/x.jpg"), ("b/x", "b/x.jpg"), ("b/y", "b/y.jpg")]
    assert find_images(dataset, [], []) is None
    assert find_images(dataset, ["b/y", "a/x"], []) == [0, 2]
    assert find_images(dataset, ["b/x"], ["b/x.jpg"]) == [1]
    assert find_images(dataset, [], ["x.jpg"]) == [0, 1]
    with pytest.raises(DataError, match=r"no image with the id 'x'. Its 3 images .* like a/x.jpg \(id a/x\)"):
        find_images(dataset, ["x"], [])
    with pytest.raises(DataError, match="no image with the file name 'z.jpg'"):
        find_images(dataset, [], ["y.jpg", "z.jpg"])


def test_configs_without_data():
    for config in ({}, {"dataloader": {}}, {"dataloader": {"test": {"mapper": 1}}}):
        with pytest.raises(ConfigError, match=r"no dataloader\.test\.dataset"):
            loader_config(OmegaConf.create(config), "test")


@pytest.mark.parametrize(
    ("name", "expected"), [("/data/a/x.jpg", "001_x.png"), ("../a/x.jpg", "001_a_x.png"), ("x", "001_x.png")]
)
def test_names_of_pictures_are_below_the_output_folder(tmp_path, name, expected):
    save_gallery([0], lambda _: Row(name, "", [picture(10)]), [""], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [expected]


def test_one_file_for_each_image(tmp_path):
    rows = [
        Row("a/x.jpg", "first", [picture(10), picture(20)]),
        Row("a/y.v2.jpg", "second", [picture(30)] * 2),
    ]
    save_gallery([1, 0], lambda k: rows[k], ["left", "right"], tmp_path / "out/pictures")
    assert sorted(p.name for p in (tmp_path / "out/pictures").iterdir()) == ["001_a_y.v2.png", "002_a_x.png"]
    pixels = np.asarray(Image.open(tmp_path / "out/pictures/002_a_x.png"))
    assert (pixels[-20, [20, -20]] == [[10] * 3, [20] * 3]).all()


def test_grid_of_all(tmp_path):
    rows = [Row("x.jpg", "first", [picture(10, (2000, 1000))]), Row("y.jpg", "second", [picture(30)])]
    save_gallery(rows, lambda row: row, ["left"], tmp_path, grid=True)
    assert [p.name for p in tmp_path.iterdir()] == ["grid.png"]
    pixels = np.asarray(Image.open(tmp_path / "grid.png"))
    assert pixels.shape[1] == 512 + 2 * 8
    assert (pixels[:, 264] == 10).all(-1).sum() == (pixels[:, 264] == 30).all(-1).sum() == 256


def test_a_broken_image_does_not_end_it(tmp_path, caplog):
    def draw(k):
        if k == 1:
            raise DataError("image 1 is broken")
        if k == 2:
            raise OSError("cannot identify image file 2")
        return Row(f"{k}.jpg", "", [picture(10)])

    with caplog.at_level(logging.ERROR), pytest.raises(DataError, match="2 of 4 images could not be drawn"):
        save_gallery(range(4), draw, ["left"], tmp_path)
    assert [r.getMessage() for r in caplog.records] == ["image 1 is broken", "cannot identify image file 2"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["001_0.png", "004_3.png"]


def test_mistakes_in_the_code_are_not_taken_for_broken_images(tmp_path):
    with pytest.raises(ZeroDivisionError):
        save_gallery([0], lambda k: 1 / k, ["left"], tmp_path)
