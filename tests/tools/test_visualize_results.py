"""Pictures of saved results beside ground truth, as users make them."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detrex.cli.commands.view import parse_arguments, run
from detrex.data import CocoPanoptic, write_shapes_dataset
from detrex.structures import encode_masks
from tests.tools.conftest import CONFIG

ROOT = Path(__file__).resolve().parents[2]
SHAPES = ROOT / "projects/maskdino/configs/maskdino_shapes.py"
CELL = 768
IMAGES = 4


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A small copy of the embedded data set."""
    return write_shapes_dataset(tmp_path_factory.mktemp("data") / "shapes", {"train": 1, "val": IMAGES}, 64)


@pytest.fixture(scope="module")
def truth(root):
    annotations = root / "annotations/panoptic_val.json"
    return CocoPanoptic(root / "val", annotations, root / "panoptic_val")


@pytest.fixture
def drawn(root, tmp_path):
    """``drawn(predictions, *arguments)`` are the pictures by file name; ``predictions`` path or content."""

    def draw(predictions, *arguments):
        if not isinstance(predictions, Path):
            (tmp_path / "results.json").write_text(json.dumps(predictions))
            predictions = tmp_path / "results.json"
        shutil.rmtree(tmp_path / "pictures", ignore_errors=True)
        settings = (
            f"dataloader.root={root}",
            f"dataloader.splits={{train:1,val:{IMAGES}}}",
            "dataloader.image_size=64",
        )
        places = ("--predictions", str(predictions), "--output", str(tmp_path / "pictures"))
        run(parse_arguments(["results", "--config-file", str(SHAPES), *places, *settings, *arguments]))
        return pictures(tmp_path / "pictures")

    return draw


def pictures(folder):
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.iterdir())}


def cells(pixels):
    """The picture on the left and the one on the right."""
    rows = slice(pixels.shape[0] - 8 - CELL, pixels.shape[0] - 8)
    return pixels[rows, 8 : 8 + CELL], pixels[rows, -8 - CELL : -8]


def equal(pixels):
    return np.array_equal(*cells(pixels))


def perfect_instances(truth):
    """The things of the ground truth, as COCO results."""
    results = []
    for record in map(truth.__getitem__, range(len(truth))):
        things = record["targets"][record["targets"].is_thing]
        for number, (label, box, rle) in enumerate(
            zip(things.labels.tolist(), things.boxes.tolist(), encode_masks(things.masks), strict=True)
        ):
            x0, y0, x1, y1 = box
            results.append(
                {
                    "image_id": record["image_id"],
                    "category_id": truth.categories.ids[label],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": 0.95 - 0.01 * number,
                    "segmentation": rle,
                }
            )
    return results


@pytest.fixture
def panoptic(root, tmp_path):
    """The panoptic ground truth, as results; ``panoptic(change)`` writes them anew."""

    def write(change=lambda content: content):
        content = json.loads((root / "annotations/panoptic_val.json").read_text())
        path = tmp_path / "panoptic/panoptic_results.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(change({"annotations": content["annotations"]})))
        shutil.copytree(root / "panoptic_val", path.with_suffix(""), dirs_exist_ok=True)
        return path.parent

    return write


def test_perfect_instances_look_like_the_ground_truth(drawn, truth):
    found = drawn(perfect_instances(truth), "--no-labels")
    assert list(found) == [f"{k + 1:03d}_{k:06d}.png" for k in range(IMAGES)]
    assert all(equal(pixels) for pixels in found.values())
    # Scores are written beside the names.
    assert not any(equal(pixels) for pixels in drawn(perfect_instances(truth)).values())


def test_perfect_segments_look_like_the_ground_truth(drawn, panoptic):
    found = drawn(panoptic())
    assert len(found) == IMAGES and all(equal(pixels) for pixels in found.values())


def test_boxes_without_masks(drawn, truth):
    results = [{k: v for k, v in r.items() if k != "segmentation"} for r in perfect_instances(truth)]
    found = drawn(results, "--no-labels")
    for pixels in found.values():
        left, right = (c.astype(int) for c in cells(pixels))
        assert 0.01 < (np.abs(left - right) > 20).any(-1).mean() < 0.9  # the same without tints


def test_the_worst_of_instances_come_first(drawn, truth):
    results = perfect_instances(truth)
    of_image = {i: [r for r in results if r["image_id"] == i] for i in range(1, IMAGES + 1)}
    # Nothing of image 3 is found, half of image 2, and image 4 has a wrong detection.
    wrong = {**of_image[4][0], "category_id": 3 - of_image[4][0]["category_id"] % 2, "score": 0.6}
    assert wrong["category_id"] != of_image[4][0]["category_id"] and len(of_image[2]) > 1
    kept = [*of_image[1], *of_image[2][: len(of_image[2]) // 2], *of_image[4], wrong]
    found = drawn(kept, "--worst", "--no-labels", "--count", "3")
    assert list(found) == ["001_000002.png", "002_000001.png", "003_000003.png"]
    # With a higher threshold the wrong one does not count.
    found = drawn(kept, "--worst", "--no-labels", "--score-threshold", "0.7")
    assert list(found)[:2] == ["001_000002.png", "002_000001.png"]
    assert [equal(pixels) for pixels in found.values()] == [False, False, True, True]


def test_the_worst_of_segments_come_first(drawn, panoptic, truth):
    def worsen(content):
        """Another class for all of the last image, and for one segment of the second."""
        for annotation, segments in ((3, slice(None)), (1, slice(0, 1))):
            for segment in content["annotations"][annotation]["segments_info"][segments]:
                segment["category_id"] = segment["category_id"] % len(truth.categories) + 1
        return content

    found = drawn(panoptic(worsen), "--worst")
    assert list(found)[:2] == ["001_000003.png", "002_000001.png"]
    assert [equal(pixels) for pixels in found.values()] == [False, False, True, True]


def test_images_that_only_one_side_has(drawn, panoptic, truth, caplog):
    results = perfect_instances(truth)
    stranger = {**results[0], "image_id": 900}
    found = drawn([r for r in results if r["image_id"] != 2] + [stranger], "--no-labels")
    assert (
        "1 images have results, but are not in the data set: they are left out (image ids 900)" in caplog.text
    )
    assert (
        "1 images of the data set have no results: they are taken as without detections (image ids 2)"
        in caplog.text
    )
    assert [equal(pixels) for pixels in found.values()] == [True, False, True, True]
    caplog.clear()
    found = drawn(panoptic(lambda content: {"annotations": content["annotations"][1:]}))
    assert "1 images of the data set have no results: they are left out (image ids 1)" in caplog.text
    assert len(found) == IMAGES - 1


def test_chosen_images_and_grid(drawn, truth):
    results = perfect_instances(truth)
    assert list(drawn(results, "--image-id", "2", "--file-name", "000003.png")) == [
        "001_000001.png",
        "002_000003.png",
    ]
    assert list(drawn(results, "--count", "2")) == ["001_000000.png", "002_000002.png"]
    assert list(drawn(results, "--grid", "--worst")) == ["grid.png"]


@pytest.mark.parametrize("worst", [[], ["--worst"]])
def test_broken_results_of_an_image(drawn, panoptic, tmp_path, caplog, worst):
    folder = panoptic()
    (folder / "panoptic_results/000001.png").write_bytes(b"no image")
    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit) as stopped:
        drawn(folder, *worst)
    assert stopped.value.code == 1
    first, last = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "panoptic_results/000001.png" in first and last.startswith("1 of 4 images could not be drawn")
    assert len(pictures(tmp_path / "pictures")) == IMAGES - 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"metrics": {}}, "Expected are COCO results, a list of"),
        ([{"image_id": 900, "category_id": 1, "score": 1, "bbox": [0, 0, 1, 1]}], "none of its 1 images"),
        (
            [{"image_id": 1, "category_id": 99, "score": 1, "bbox": [0, 0, 1, 1]}],
            "category id 99, which the data",
        ),
    ],
)
def test_files_that_do_not_fit(drawn, caplog, content, message):
    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit) as stopped:
        drawn(content)
    assert stopped.value.code == 1
    (error,) = caplog.records
    assert message in error.getMessage() and "results.json" in error.getMessage()


def test_panoptic_results_need_masks(data, tmp_path, caplog):
    """Of the ground truth, which here has boxes only."""
    ids = np.zeros((48, 64, 3), np.uint8)
    (tmp_path / "p").mkdir()
    Image.fromarray(ids).save(tmp_path / "p/1.png")
    content = {"annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": []}]}
    (tmp_path / "p.json").write_text(json.dumps(content))
    places = ("--predictions", str(tmp_path / "p.json"), "--output", str(tmp_path / "out"))
    settings = (f"dataloader.root={data.root}", "dataloader.test.dataset.masks=false")
    with pytest.raises(SystemExit):
        run(parse_arguments(["results", "--config-file", str(CONFIG), *places, *settings]))
    assert "the data set has boxes only" in caplog.text


def test_results_of_a_run(train, data, tmp_path, capsys):
    """What an evaluation writes."""
    train("train.max_iter=1", f"dataloader.evaluators.coco.output_dir={tmp_path / 'results'}")
    places = ("--predictions", str(tmp_path / "results"), "--output", str(tmp_path / "out"))
    config = ("--config-file", str(CONFIG), f"dataloader.root={data.root}")
    run(parse_arguments(["results", *config, *places, "--score-threshold", "0", "--worst"]))
    assert f"3 images drawn in {tmp_path / 'out'}" in capsys.readouterr().out
    assert len(pictures(tmp_path / "out")) == 3


def test_help(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_arguments(["results", "--help"])
    shown = capsys.readouterr().out
    assert stopped.value.code == 0 and "examples:" in shown and "--worst" in shown
