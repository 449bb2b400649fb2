import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from detrex.data import CocoInstances, DataError
from detrex.data.coco.segmentation import rle_length


def uncompressed(mask):
    """COCO's uncompressed RLE: runs down the columns, beginning with zeros."""
    values = mask.ravel(order="F").astype(int)
    edges = np.flatnonzero(np.diff(values)) + 1
    runs = np.diff([0, *edges, len(values)]).tolist()
    return {"size": list(mask.shape), "counts": runs if values[0] == 0 else [0, *runs]}


def test_polygon_covers_what_it_should(coco):
    coco.add_object(coco.add_image())
    record = CocoInstances(*coco.write())[0]
    expected = torch.zeros(1, 20, 30, dtype=torch.bool)
    expected[0, 2:10, 4:14] = True
    assert torch.equal(record["targets"].masks, expected)
    assert record["targets"].boxes.tolist() == [[4, 2, 14, 10]]
    assert record["targets"].labels.tolist() == [0]
    assert record["targets"].is_thing.tolist() == [True]
    assert record["image"].shape == (3, 20, 30)
    assert (record["height"], record["width"], record["image_id"]) == (20, 30, 1)


def test_both_kinds_of_rle_and_several_polygons(coco):
    mask = np.zeros((20, 30), np.uint8)
    mask[0:7, 3:9] = 1
    mask[12:14, 20] = 1
    compressed = coco_mask.encode(np.asfortranarray(mask))
    image_id = coco.add_image()
    coco.add_object(image_id, uncompressed(mask))
    coco.add_object(image_id, {"size": compressed["size"], "counts": compressed["counts"].decode()})
    coco.add_object(image_id, ((0, 0, 5, 0, 5, 5, 0, 5), (10, 10, 20, 10, 20, 15, 10, 15)))
    masks = CocoInstances(*coco.write())[0]["targets"].masks
    assert torch.equal(masks[0], torch.from_numpy(mask).bool())
    assert torch.equal(masks[1], masks[0])
    assert masks[2].sum() == 25 + 50


def test_crowds_are_no_targets(coco):
    image_id = coco.add_image()
    crowd = uncompressed(np.ones((20, 30)))
    coco.add_object(image_id, crowd, iscrowd=1)
    coco.add_object(image_id)
    coco.add_object(coco.add_image(), crowd, iscrowd=1)
    dataset = CocoInstances(*coco.write())
    assert [len(dataset[i]["targets"]) for i in range(2)] == [1, 0]
    assert dataset[1]["targets"].masks.shape == (0, 20, 30)
    assert len(CocoInstances(*coco.write(), skip_empty=True)) == 1


def test_images_without_annotations(coco):
    coco.add_image()
    coco.add_object(coco.add_image())
    dataset = CocoInstances(*coco.write())
    empty = dataset[0]["targets"]
    assert len(empty) == 0 and empty.masks.shape == (0, 20, 30) and empty.boxes.shape == (0, 4)
    skipping = CocoInstances(*coco.write(), skip_empty=True)
    assert len(skipping) == 1 and skipping[0]["image_id"] == 2 and skipping.image_size(0) == (20, 30)


def test_category_ids_with_gaps_become_indices_in_order_of_id(coco):
    coco.content["categories"] = [{"id": 90, "name": "dog"}, {"id": 7, "name": "cat"}]
    image_id = coco.add_image()
    coco.add_object(image_id, category_id=90)
    coco.add_object(image_id, category_id=7)
    dataset = CocoInstances(*coco.write())
    assert dataset.categories.names == ("cat", "dog")
    assert dataset[0]["targets"].labels.tolist() == [1, 0]


def test_without_masks_boxes_are_those_of_the_file_clipped_to_the_image(coco):
    image_id = coco.add_image()
    coco.add_object(image_id, segmentation=[], bbox=[25.5, -3, 10, 8])
    targets = CocoInstances(*coco.write(), masks=False)[0]["targets"]
    assert targets.boxes.tolist() == [[25.5, 0, 30, 5]]
    assert targets.masks is None


@pytest.mark.parametrize("box", [[5, 5, 0, 4], [5, 5, 4, 0], [5, 5, -3, 4], [40, 5, 4, 4], [5, -9, 4, 9]])
def test_degenerate_boxes_are_left_out_with_a_warning(coco, caplog, box):
    image_id = coco.add_image()
    coco.add_object(image_id, bbox=box, segmentation=None)
    coco.add_object(image_id)
    targets = CocoInstances(*coco.write(), masks=False)[0]["targets"]
    assert targets.boxes.tolist() == [[4, 2, 14, 10]]
    assert "degenerate bbox" in caplog.text and "annotation id 1 of image id 1" in caplog.text


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [500, 500, 3, 3], None])
def test_with_masks_wrong_boxes_do_not_matter(coco, box):
    coco.add_object(coco.add_image(), bbox=box)
    assert CocoInstances(*coco.write())[0]["targets"].boxes.tolist() == [[4, 2, 14, 10]]


def test_polygons_of_fewer_than_three_points_are_left_out_with_a_warning(coco, caplog):
    image_id = coco.add_image()
    coco.add_object(image_id, ((1, 1, 5, 5),))
    coco.add_object(image_id, ((1, 1, 5, 5), (4, 2, 14, 2, 14, 10, 4, 10)))
    targets = CocoInstances(*coco.write())[0]["targets"]
    assert targets.boxes.tolist() == [[4, 2, 14, 10]]
    assert "1 objects with a degenerate segmentation are left out" in caplog.text


@pytest.mark.parametrize("polygon", [(50, 50, 60, 50, 60, 60), (5, 5, 5, 5, 5, 5)])
def test_masks_without_pixels_are_left_out(coco, polygon):
    image_id = coco.add_image()
    coco.add_object(image_id, (polygon,))
    coco.add_object(image_id)
    assert len(CocoInstances(*coco.write())[0]["targets"]) == 1


def test_missing_annotation_file_names_it_and_what_there_is(coco):
    with pytest.raises(FileNotFoundError, match=f"nowhere/x.json does not exist .*{coco.images}"):
        CocoInstances(coco.images, coco.images / "nowhere/x.json")


def test_truncated_annotation_file(coco):
    coco.add_image()
    _, path = coco.write()
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataError, match=r"instances.json is not JSON.*copied completely"):
        CocoInstances(coco.images, path)


def test_missing_image_is_found_on_opening(coco):
    coco.add_image()
    coco.add_image(name="gone.png")
    (coco.images / "gone.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 files .*gone.png \(image id 2\)"):
        CocoInstances(*coco.write())


def test_image_that_disappears_later(coco):
    coco.add_image()
    dataset = CocoInstances(*coco.write())
    (coco.images / "1.png").unlink()
    with pytest.raises(DataError, match=r"1.png \(image id 1\) does not exist"):
        dataset[0]


def test_images_in_subfolders(coco):
    (coco.images / "a").mkdir()
    coco.add_image(name="a/x.png")
    assert CocoInstances(*coco.write())[0]["file_name"] == "a/x.png"


def test_missing_image_folder(coco):
    coco.add_image()
    _, path = coco.write()
    with pytest.raises(DataError, match="elsewhere.* does not exist"):
        CocoInstances(coco.images / "elsewhere", path)


def test_size_other_than_listed(coco):
    coco.add_image()
    coco.content["images"][0]["width"] = 31
    dataset = CocoInstances(*coco.write())
    with pytest.raises(DataError, match=r"1.png \(image id 1\) has 20 x 30 .* annotations are for 20 x 31"):
        dataset[0]


BROKEN = {
    "category id 5, which is not listed": lambda c: c["annotations"][0].update(category_id=5),
    "image of annotation id 1 of image id 77 is not listed": lambda c: c["annotations"][0].update(
        image_id=77
    ),
    "has no 'segmentation'.*masks=False": lambda c: c["annotations"][0].pop("segmentation"),
    "annotation .* has no 'category_id'": lambda c: c["annotations"][0].pop("category_id"),
    "image id 1 occurs twice": lambda c: c["images"].append(c["images"][0]),
    "image id 1 .*1.png.* has 0 as 'height'; expected is a number of pixels": lambda c: c["images"][0].update(
        height=0
    ),
    "lists no classes": lambda c: c.pop("categories"),
    "lists no images": lambda c: c.pop("images"),
    "no key 'annotations'": lambda c: c.pop("annotations"),
    "category .* has no 'name'": lambda c: c["categories"][0].pop("name"),
    "category ids occur more than once": lambda c: c["categories"].append({"id": 1, "name": "dog"}),
    "not a list of finite numbers": lambda c: c["annotations"][0].update(
        segmentation=[[1, 2, float("nan"), 4, 5, 6]]
    ),
    "not a list of .* numbers": lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
    "one flat list of numbers": lambda c: c["annotations"][0].update(segmentation=[1, 2, 3, 4, 5, 6]),
    "RLE whose runs add up to 5": lambda c: c["annotations"][0].update(
        segmentation={"size": [20, 30], "counts": [2, 3]}
    ),
    r"RLE for \[30, 20\] pixels": lambda c: c["annotations"][0].update(
        segmentation={"size": [30, 20], "counts": "abc"}
    ),
}


@pytest.mark.parametrize("message", BROKEN)
def test_errors_in_the_file_are_found_on_opening(coco, message):
    coco.add_object(coco.add_image())
    CocoInstances(*coco.write())
    BROKEN[message](coco.content)
    with pytest.raises(DataError, match=f"instances.json.*{message}"):
        CocoInstances(*coco.write())


@pytest.mark.parametrize("counts", ["", "0", "5", "00PPP", "zzzzzzzz", "ahn12_?3M30000001M7MI5O100002Nkoa3"])
def test_rle_that_does_not_fit_its_image_is_never_decoded(coco, counts):
    coco.add_object(coco.add_image(), {"size": [20, 30], "counts": counts})
    with pytest.raises(DataError, match="'segmentation' of annotation id 1 of image id 1 is an RLE"):
        CocoInstances(*coco.write())


def test_rle_length_is_the_number_of_pixels():
    rng = np.random.default_rng(0)
    for threshold in (0.01, 0.5, 0.99, 2):
        mask = (rng.random((37, 500)) < threshold).astype(np.uint8)
        mask[:, 100:400] = mask[0, 0]  # long runs too, with numbers of several characters
        counts = coco_mask.encode(np.asfortranarray(mask))["counts"]
        assert rle_length(counts) == rle_length(counts.decode()) == 37 * 500


def test_evaluation_needs_no_annotations(coco):
    coco.add_image()
    del coco.content["annotations"]
    dataset = CocoInstances(*coco.write(), targets=False)
    assert len(dataset[0]["targets"]) == 0


@pytest.mark.parametrize(
    ("images", "annotations"),
    [
        ("coco/train2017", "coco/annotations/instances_train2017.json"),
        ("coco/val2017", "coco/annotations/instances_val2017.json"),
        ("nuclei/val", "nuclei/annotations/instances_val.json"),
        ("fruits_nuts/images/val", "fruits_nuts/annotations/instances_val.json"),
        ("ade20k_sample/images/training", "ade20k_sample/instances_training.json"),
    ],
)
def test_real_data_agrees_with_pycocotools(shared_data, images, annotations):
    dataset = CocoInstances(shared_data / images, shared_data / annotations)
    reference = COCO(shared_data / annotations)
    assert len(dataset) == len(reference.imgs)
    for i in range(min(6, len(dataset))):
        record = dataset[i]
        anns = [a for a in reference.imgToAnns[record["image_id"]] if not a["iscrowd"]]
        anns = [a for a in anns if reference.annToMask(a).any()]
        targets = record["targets"]
        assert [dataset.categories.ids[k] for k in targets.labels] == [a["category_id"] for a in anns]
        for mask, box, ann in zip(targets.masks, targets.boxes, anns, strict=True):
            assert np.array_equal(mask.numpy(), reference.annToMask(ann).astype(bool))
            x, y, w, h = ann["bbox"]
            assert np.allclose(box.numpy(), [x, y, x + w, y + h], atol=2.5)
