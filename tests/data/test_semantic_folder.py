import numpy as np
import pytest
import torch
from PIL import Image

from detrex.data import DataError, SemanticFolder

LABELS = np.array([[0, 0, 2, 2], [0, 255, 2, 2]], np.uint8)


@pytest.fixture
def folders(tmp_path):
    for name in ("images/a", "segments/a"):
        (tmp_path / name).mkdir(parents=True)
    Image.new("RGB", (4, 2)).save(tmp_path / "images/a/x.jpg")
    Image.fromarray(LABELS).save(tmp_path / "segments/a/x.png")
    return tmp_path


def folder(root, classes=("road", "sky", "tree"), **options):
    return SemanticFolder(root / "images", root / "segments", classes, **options)


def test_each_class_that_is_seen_is_an_object(folders):
    dataset = folder(folders)
    record = dataset[0]
    targets = record["targets"]
    assert targets.labels.tolist() == [0, 2]
    assert torch.equal(targets.masks, torch.from_numpy(np.stack([LABELS == 0, LABELS == 2])))
    assert targets.boxes.tolist() == [[0, 0, 2, 2], [2, 0, 4, 2]]
    assert targets.is_thing.tolist() == [False, False]
    assert (record["image_id"], record["file_name"]) == ("a/x", "a/x.jpg")
    assert dataset.image_size(0) == (2, 4)


def test_nothing_labelled(folders):
    Image.fromarray(np.full((2, 4), 255, np.uint8)).save(folders / "segments/a/x.png")
    targets = folder(folders)[0]["targets"]
    assert len(targets) == 0 and targets.masks.shape == (0, 2, 4)


def test_several_values_to_ignore(folders):
    assert folder(folders, ignore_label=[0, 255])[0]["targets"].labels.tolist() == [2]


def test_value_that_is_no_class(folders):
    with pytest.raises(DataError, match=r"segments/a/x.png has pixels of the values \[2\]"):
        folder(folders, classes=["road", "sky"])[0]


def test_label_map_with_colours(folders):
    Image.new("RGB", (4, 2)).save(folders / "segments/a/x.png")
    with pytest.raises(DataError, match="x.png has 3 channels"):
        folder(folders)[0]


def test_label_map_of_another_size(folders):
    Image.new("L", (5, 2)).save(folders / "segments/a/x.png")
    with pytest.raises(DataError, match="x.jpg .*has 2 x 4 .*annotations are for 2 x 5"):
        folder(folders)[0]


def test_missing_label_map_is_found_on_opening(folders):
    Image.new("RGB", (4, 2)).save(folders / "images/b.jpg")
    with pytest.raises(DataError, match=r"1 of 2 images .* b.jpg \(expected: b.png\)"):
        folder(folders)


def test_suffixes_of_file_names(folders):
    (folders / "images/a/x.jpg").rename(folders / "images/a/x_left.jpg")
    (folders / "segments/a/x.png").rename(folders / "segments/a/x_ids.png")
    Image.new("RGB", (4, 2)).save(folders / "images/a/x_right.jpg")
    dataset = folder(folders, image_suffix="_left.jpg", segment_suffix="_ids.png")
    assert [dataset[i]["file_name"] for i in range(len(dataset))] == ["a/x_left.jpg"]


def test_two_images_of_one_name(folders):
    Image.new("RGB", (4, 2)).save(folders / "images/a/x.png")
    with pytest.raises(DataError, match="two images of one name"):
        folder(folders)


def test_folders_missing_or_empty(folders):
    with pytest.raises(DataError, match="nowhere does not exist"):
        SemanticFolder(folders / "nowhere", folders / "segments", ["road"])
    with pytest.raises(DataError, match="has no images"):
        folder(folders, image_suffix="_left.png")


def test_real_data(shared_data):
    root = shared_data / "camvid"
    dataset = SemanticFolder(root / "images/val", root / "annotations/val", root / "classes.json")
    assert len(dataset) == 17 and len(dataset.categories) == 11
    for i in range(3):
        record = dataset[i]
        labels = np.asarray(Image.open(root / "annotations/val" / f"{record['image_id']}.png"))
        painted = np.full(labels.shape, 255)
        for label, mask in zip(record["targets"].labels, record["targets"].masks, strict=True):
            painted[mask.numpy()] = label
        assert np.array_equal(painted, labels)


def test_category_ids_that_do_not_begin_at_0(shared_data):
    root = shared_data / "ade20k_sample"
    dataset = SemanticFolder(
        root / "images/validation",
        root / "annotations/validation",
        root / "categories150.json",
        ignore_label=0,
    )
    labels = np.asarray(Image.open(root / "annotations/validation/ADE_val_00000001.png"))
    assert dataset[0]["targets"].labels.tolist() == [v - 1 for v in np.unique(labels).tolist() if v]
