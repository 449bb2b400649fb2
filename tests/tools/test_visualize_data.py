"""Pictures of what loaders produce, as users make them."""

import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detrex.cli.commands.view import parse_arguments, run
from detrex.config import LazyConfig, instantiate
from detrex.data import write_shapes_dataset
from detrex.visualization import draw_targets
from tests.config_files import config_of
from tests.tools.conftest import CONFIG

ROOT = Path(__file__).resolve().parents[2]
SHAPES = ROOT / "projects/maskdino/configs/maskdino_shapes.py"
CELL = 768


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Arguments for a small copy of the embedded data set."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes_dataset(root, {"train": 5, "val": 3}, 64)
    return [
        "--config-file",
        str(SHAPES),
        f"dataloader.root={root}",
        "dataloader.splits={train:5,val:3}",
        "dataloader.image_size=64",
    ]


@pytest.fixture
def drawn(shapes, tmp_path):
    """``drawn(*arguments)`` are the pictures by file name that the command makes of the shapes."""

    def draw(*arguments, output="pictures"):
        run(parse_arguments(["data", *shapes, "--output", str(tmp_path / output), *arguments]))
        return pictures(tmp_path / output)

    return draw


def pictures(folder):
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.iterdir())}


def cells(pixels):
    """The image on the left and the one on the right."""
    rows = slice(pixels.shape[0] - 8 - CELL, pixels.shape[0] - 8)
    return pixels[rows, 8 : 8 + CELL], pixels[rows, -8 - CELL : -8]


def fitted(picture):
    return np.asarray(picture.resize((CELL, CELL), Image.Resampling.LANCZOS))


def test_samples_are_those_of_training(shapes, drawn):
    found = drawn("--count", "7", "--no-labels", "dataloader.train.total_batch_size=4")
    config = LazyConfig.apply_overrides(config_of(SHAPES), [*shapes[2:], "dataloader.train.num_workers=0"])
    loader = instantiate(config.dataloader.train)
    batches = iter(loader)
    samples = [*next(batches), *next(batches)][:7]
    records = {record["image_id"]: record for record in map(loader.dataset.__getitem__, range(5))}
    assert len(found) == 7
    for number, (sample, (name, pixels)) in enumerate(zip(samples, found.items(), strict=True), start=1):
        assert name == f"{number:03d}_{Path(sample['file_name']).stem}.png"
        record = records[sample["image_id"]]
        for shown, cell in zip((record, sample), cells(pixels), strict=True):
            expected = draw_targets(shown["image"], shown["targets"], loader.dataset.categories, labels=False)
            np.testing.assert_array_equal(cell, fitted(expected))


def test_the_same_command_draws_the_same(drawn):
    first, second = drawn("--count", "3"), drawn("--count", "3", output="again")
    other = drawn("--count", "3", "train.seed=1", output="other")
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert any(name not in first or not np.array_equal(other[name], first[name]) for name in other)


def test_chosen_images(drawn):
    found = drawn("--image-id", "4", "--file-name", "000001.png")
    assert list(found) == ["001_000001.png", "002_000003.png"]


def test_images_for_evaluation(drawn):
    found = drawn("--split", "test", "dataloader.test.mapper.size=32", "dataloader.test.mapper.max_size=32")
    assert len(found) == 3
    for pixels in found.values():
        original, sample = cells(pixels)
        # The same image, of half the size, without targets.
        coarse = [
            np.asarray(Image.fromarray(c).resize((16, 16), Image.Resampling.BOX), int)
            for c in (original, sample)
        ]
        assert 3 < np.abs(coarse[0] - coarse[1]).mean() < 80
    plain = drawn("--split", "test", "--no-targets", output="plain")
    for pixels in plain.values():
        original, sample = cells(pixels)
        assert np.abs(original.astype(int) - sample).mean() < 12


def test_grid_and_numbers_of_images(drawn):
    found = drawn("--grid", "--count", "2")
    assert list(found) == ["grid.png"]
    assert found["grid.png"].shape[1] == 2 * 512 + 3 * 8 and found["grid.png"].shape[0] > 2 * 512


@pytest.fixture
def own(data, tmp_path):
    """``own(*arguments)`` are the pictures of the data of one's own."""

    def draw(*arguments):
        output = ["--output", str(tmp_path / "out")]
        run(parse_arguments(["data", str(CONFIG), f"dataloader.root={data.root}", *output, *arguments]))
        return pictures(tmp_path / "out")

    return draw


def test_images_without_objects(data, own):
    data.content["annotations"] = []
    data.write()
    assert len(own("--count", "3")) == 3


def test_data_without_annotations(data, own, caplog):
    del data.content["annotations"]
    data.write("val")
    with pytest.raises(SystemExit):
        own("--split", "test")
    assert "has no key 'annotations'" in caplog.text
    assert len(own("--split", "test", "--no-targets")) == 3


def test_boxes_without_masks(own):
    assert len(own("dataloader.train.dataset.masks=false", "--count", "3")) == 3


@pytest.mark.parametrize(("split", "folder"), [("train", "train"), ("test", "val")])
def test_a_broken_image(data, own, caplog, tmp_path, split, folder):
    path = data.root / folder / "2.png"
    path.write_bytes(path.read_bytes()[:300])
    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit) as stopped:
        own("--split", split, "--count", "3")
    assert stopped.value.code == 1
    first, last = [record.getMessage() for record in caplog.records]
    assert first.startswith(f"Image {path} (image id 2) cannot be decoded")
    assert last == "1 of 3 images could not be drawn; see above."
    assert len(pictures(tmp_path / "out")) == 2


def test_an_augmentation_that_fails(own, caplog):
    jitter = "{_target_:torchvision.transforms.v2.Normalize,mean:[0,0],std:[1,1]}"
    with pytest.raises(SystemExit):
        own(f"dataloader.train.mapper.color_jitter={jitter}", "--count", "2")
    assert "(image id " in caplog.text and "could not be transformed" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image-id", "77"], "no image with the id '77'"),
        (["dataloader.train.mappr.min_scale=1"], "dataloader.train.mapper"),
        (["~dataloader.test", "--split", "test"], "no dataloader.test.dataset"),
        (["dataloader.root=/nowhere"], "Annotation file /nowhere/annotations/instances_train.json does not"),
    ],
)
def test_errors_are_one_message(own, caplog, arguments, message):
    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit) as stopped:
        own(*arguments)
    assert stopped.value.code == 1
    (error,) = caplog.records
    assert message in error.getMessage()


def test_as_a_command(tool, data, tmp_path):
    call = partial(tool, "visualize_data.py")
    shown = call("--help")
    assert shown.returncode == 0 and "examples:" in shown.stdout and "--no-targets" in shown.stdout
    data.content["categories"] = [{"id": 3, "name": "Kätzchen"}, {"id": 7, "name": "狗"}]
    data.write()
    arguments = (
        "--config-file",
        str(CONFIG),
        f"dataloader.root={data.root}",
        "--output",
        str(tmp_path / "o"),
    )
    done = call(*arguments, "--count", "2")
    assert done.returncode == 0, done.stderr
    assert f"2 images drawn in {tmp_path / 'o'}" in done.stdout and len(list((tmp_path / "o").iterdir())) == 2
    (data.root / "train/1.png").write_bytes(b"no image")
    done = call(*arguments, "--image-id", "1")
    assert done.returncode == 1 and "1.png (image id 1) cannot be decoded" in done.stderr
    assert "Traceback" not in done.stderr
