"""What is found out about pixels before training, and the census."""

import re

import numpy as np
import pytest
from PIL import ExifTags, Image

from detrex.data import CocoInstances, CocoPanoptic, DataError, SemanticFolder
from detrex.data.census import Census, Split
from detrex.data.checks import check_pixels, common_pictures
from detrex.data.image_io import read_image


def instances(coco, **options):
    return CocoInstances(*coco.write(), **options)


def turned(path, pixels):
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[ExifTags.Base.Orientation] = 6
    image.save(path, exif=exif)


def test_pictures_that_exif_turns(coco):
    coco.add_image()
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    turned(coco.images / "1.png", pixels)
    (warning,) = check_pixels(instances(coco))
    assert warning.startswith("1 of 1 images looked at say by EXIF") and "1.png, as stored" in warning
    stored, shown = (instances(coco, orientation=o)[0] for o in ("stored", "shown"))
    assert np.array_equal(stored["image"].permute(1, 2, 0).numpy(), pixels)
    assert (shown["height"], shown["width"]) == (30, 20) and shown["image"].shape == (3, 30, 20)
    coco.content["images"][0].update(height=30, width=20)
    assert "1.png, turned" in check_pixels(instances(coco))[0]
    with pytest.raises(DataError, match=r"1.png \(image id 1\) has 20 x 30 .* are for 30 x 20"):
        check_pixels(instances(coco, orientation="stored"))
    with pytest.raises(DataError, match="orientation='up': expected is one of auto, stored, shown"):
        instances(coco, orientation="up")


def test_twelve_bits_in_sixteen(coco):
    coco.add_image(height=1, width=3)
    Image.fromarray(np.array([[0, 2048, 4095]], np.uint16)).save(coco.images / "1.png")
    dataset = instances(coco)
    assert re.search(r"1 of 1 images .* 16 grey levels: set value_range=\[0,4095\]", check_pixels(dataset)[0])
    assert dataset[0]["image"][0].tolist() == [[0, 8, 16]]
    dataset = instances(coco, value_range=[0, 4095])
    assert check_pixels(dataset) == [] and dataset[0]["image"][0].tolist() == [[0, 128, 255]]
    with pytest.raises(DataError, match="value_range"):
        instances(coco, value_range=[5, 5])


def test_several_pictures_in_a_file(coco):
    coco.add_image(name="1.tif")
    pages = [Image.new("RGB", (30, 20), color) for color in ("red", "blue")]
    pages[0].save(coco.images / "1.tif", save_all=True, append_images=pages[1:])
    dataset = instances(coco)
    assert "1 of 1 images looked at hold several pictures" in check_pixels(dataset)[0]
    assert dataset[0]["image"][:, 0, 0].tolist() == [255, 0, 0]


def test_sizes_and_broken_files_are_found_before_training(coco):
    coco.add_image()
    coco.add_image()
    coco.content["images"][1]["width"] = 31
    with pytest.raises(DataError, match=r"2.png \(image id 2\) has 20 x 30 .* annotations are for 20 x 31"):
        check_pixels(instances(coco))
    (coco.images / "2.png").write_text("no picture")
    with pytest.raises(DataError, match=r"2.png \(image id 2\) cannot be decoded"):
        check_pixels(instances(coco))


def test_one_limit_on_pixels_for_all_readers(coco, monkeypatch):
    coco.add_image()
    path = coco.images / "1.png"
    monkeypatch.setenv("DETREX_MAX_PIXELS", "599")
    for read in (read_image, lambda _: check_pixels(instances(coco))):
        with pytest.raises(DataError, match="20 x 30 pixels .* the limit of 599.*DETREX_MAX_PIXELS=600"):
            read(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # PIL's own does not matter
    for limit in ("600", "0"):
        monkeypatch.setenv("DETREX_MAX_PIXELS", limit)
        assert read_image(path).shape == (3, 20, 30) and Image.MAX_IMAGE_PIXELS == 100


def test_pictures_in_training_and_validation(coco, tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(2):
        coco.add_image(pixels=rng.integers(0, 255, (20, 30, 3), dtype=np.uint8))
    train = instances(coco)
    (tmp_path / "val").mkdir()
    (coco.images / "1.png").rename(tmp_path / "val/1.png")
    (coco.images / "2.png").rename(tmp_path / "val/2.png")
    Image.open(tmp_path / "val/2.png").save(coco.images / "1.png")
    Image.new("RGB", (30, 20)).save(coco.images / "2.png")
    val = CocoInstances(tmp_path / "val", coco.annotations)
    assert "1 of 2 pictures in" in common_pictures(val, train) and "(2.png is 1.png)" in common_pictures(
        val, train
    )
    (coco.images / "1.png").unlink()
    assert common_pictures(val, train) is None


def semantic(folder, labels, **options):
    for name in ("images", "labels"):
        (folder / name).mkdir()
    Image.new("RGB", (8, 4)).save(folder / "images/1.png")
    Image.fromarray(labels).save(folder / "labels/1.png")
    return SemanticFolder(folder / "images", folder / "labels", ["ground", "cell"], **options)


def test_label_maps_of_0_and_255(tmp_path):
    labels = np.zeros((4, 8), np.uint8)
    labels[:2] = 255
    (warning,) = check_pixels(semantic(tmp_path, labels))
    assert re.search(
        r"1 of 2 classes do not occur .*\(cell\); 50.0% of the pixels have the values of ignore_label",
        warning,
    )


def test_label_maps_with_unknown_values_are_found_before_training(tmp_path):
    dataset = semantic(tmp_path, np.full((4, 8), 7, np.uint8))
    with pytest.raises(DataError, match=r"1.png has pixels of the values \[7\]"):
        check_pixels(dataset)


def test_census(coco):
    coco.content["categories"] = [
        {"id": 4, "name": "dog"},
        {"id": 2, "name": "cat"},
        {"id": 9, "name": "eel"},
    ]
    for count in (0, 1, 3):
        image_id = coco.add_image()
        for _ in range(count):
            coco.add_object(image_id, category_id=2)
    coco.add_object(3, ([0, 0, 29, 0, 29, 19],), bbox=None, category_id=4, iscrowd=1)
    coco.add_object(3, ((1, 1, 5, 5),), category_id=4)
    dataset = instances(coco)
    counts = dataset.counts()
    assert (counts.images, counts.objects, counts.crowds, counts.empty_images) == (3, 4, 1, 1)
    assert counts.per_class == [4, 0, 0] and counts.left_out == {"have a degenerate segmentation or bbox": 1}
    assert (counts.small, counts.medium, counts.large) == (4, 0, 0)
    assert (counts.median, counts.most) == (1, 3) and 2.9 < counts.nearly_all < 3
    census = Census([Split("train", dataset.categories, counts)], queries=2)
    text = census.text()
    assert re.search(r"\| objects +\| +4 \|", text) and re.search(r"\| cat +\| +4 \|", text)
    classes, queries = census.warnings()
    assert classes == "train: 2 of 3 classes have no objects (dog, eel)"
    assert queries.startswith("train: an image has 3 objects, but the model finds at most 2")


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("exif6_label_studio", "1 of 1 images .*EXIF"),
        ("tiff_12bit", r"1 of 3 images .*value_range=\[0,4095\]"),
    ],
)
def test_field_cases_of_pixels(field_cases, case, message):
    folder = field_cases / case
    dataset = CocoInstances(folder / "train", folder / "annotations/instances_train.json")
    assert any(re.search(message, warning) for warning in check_pixels(dataset))


def test_field_case_of_label_maps(field_cases):
    folder = field_cases / "sem_binary_255"
    dataset = SemanticFolder(folder / "images", folder / "labels", ["background", "foreground"])
    assert "1 of 2 classes do not occur" in check_pixels(dataset)[0]


def test_field_case_of_things(field_cases, caplog):
    folder = field_cases / "pan_no_isthing/annotations"
    CocoPanoptic(folder.parent / "val", folder / "panoptic_val.json", folder / "panoptic_val")
    assert "not all categories say by 'isthing'" in caplog.text
