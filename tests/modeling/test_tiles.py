"""Tiles of a picture, seen by a perfect model: together they give what it finds in the whole."""

import resource

import numpy as np
import pytest
import torch

from detrex.modeling import (
    InstanceInference,
    PanopticInference,
    PostProcess,
    SemanticInference,
    TestTimeAugmentation,
    Tiles,
)
from detrex.modeling.inference import seams
from detrex.structures import Instances, RunLengthMasks, boxes_from_masks

INSTANCE = PostProcess(InstanceInference())
PANOPTIC = PostProcess(panoptic=PanopticInference())
SEMANTIC = PostProcess(semantic=SemanticInference())
EVERYTHING = PostProcess(InstanceInference(), PanopticInference(), SemanticInference())
CLASSES = 3


def painted(size, objects, seed=0):
    """Up to so many ellipses (3, H, W), each in its colour: class in red, number in green and blue."""
    random = np.random.default_rng(seed)
    image = np.zeros((3, *size), np.uint8)
    rows, columns = np.mgrid[: size[0], : size[1]]
    for number in range(1, objects + 1):
        radii = random.uniform(4, 12, 2) if number % 10 else random.uniform(20, 60, 2)
        middle = random.uniform(0, size[0]), random.uniform(0, size[1])
        inside = ((rows - middle[0]) / radii[0]) ** 2 + ((columns - middle[1]) / radii[1]) ** 2 <= 1
        if (inside & image.any(0)).any():
            continue  # objects do not overlap
        image[:, inside] = np.array([[1 + number % CLASSES], [number % 256], [number // 256]])
    return torch.from_numpy(image)


def perfect(samples, postprocess):
    """Finds each colour as an object, however little of it there is."""
    outputs = []
    for sample in samples:
        image = sample["image"].long()
        code = image[1] + 256 * image[2]
        numbers = [n for n in code.unique().tolist() if n]
        masks = torch.stack([code == n for n in numbers]) if numbers else torch.zeros(0, *code.shape).bool()
        labels = torch.tensor([n % CLASSES for n in numbers], dtype=torch.int64)
        scores = torch.tensor([0.5 + n % 97 / 200 for n in numbers])
        output = {}
        if postprocess.instance is not None:
            boxes = boxes_from_masks(masks, inclusive=False)
            compressed = RunLengthMasks.encode(masks)
            output["instances"] = Instances(tuple(code.shape), boxes, scores, labels, compressed)
        if postprocess.panoptic is not None:
            ids, segments = torch.zeros(code.shape, dtype=torch.int32), []
            for mask, label, score in zip(masks, labels.tolist(), scores.tolist(), strict=True):
                ids[mask] = len(segments) + 1
                segments.append(
                    {"id": len(segments) + 1, "category_id": label, "isthing": label > 0, "score": score}
                )
            output["panoptic_seg"] = ids, segments
        if postprocess.semantic is not None:
            output["sem_seg"] = torch.stack([image[0] == k for k in range(CLASSES + 1)]).float()
        outputs.append(output)
    return outputs


def in_order(found):
    """Masks and boxes by class and place, since equal scores have no order."""
    boxes, labels = found.pred_boxes.numpy(), found.pred_classes.numpy()
    order = np.lexsort((*boxes.T, labels))
    masks = None if found.masks is None else found.masks[torch.from_numpy(order)].rles
    return labels[order], boxes[order], masks


@pytest.mark.parametrize(("size", "overlap"), [(64, 16), (100, 50), (90, None), (64, 0)])
def test_objects_across_seams_are_one(size, overlap):
    image = painted((200, 260), 60)
    sample = {"image": image, "height": 200, "width": 260}
    expected = perfect([sample], INSTANCE)[0]["instances"]
    found = Tiles(size, overlap, batch_size=3)(perfect, sample, INSTANCE)["instances"]
    if overlap == 0:  # nothing tells that two parts are one
        assert len(found) > len(expected)
        return
    assert len(found) == len(expected) > 25
    labels, boxes, masks = in_order(found)
    expected_labels, expected_boxes, expected_masks = in_order(expected)
    assert np.array_equal(labels, expected_labels)
    np.testing.assert_allclose(boxes, expected_boxes)
    assert masks == expected_masks
    assert (np.diff(found.scores.numpy()) <= 0).all()


def test_boxes_alone_are_joined_too():
    image = painted((200, 260), 25)
    sample = {"image": image, "height": 200, "width": 260}

    def boxes_of(samples, postprocess):
        outputs = perfect(samples, postprocess)
        for output in outputs:
            output["instances"].pred_masks = None
        return outputs

    expected = boxes_of([sample], INSTANCE)[0]["instances"]
    found = Tiles(80, 40)(boxes_of, sample, INSTANCE)["instances"]
    assert found.masks is None and len(found) == len(expected)
    np.testing.assert_allclose(in_order(found)[1], in_order(expected)[1])


@pytest.mark.parametrize("in_memory", [2**26, 0])
def test_maps_are_those_of_the_whole(monkeypatch, in_memory):
    monkeypatch.setattr(seams, "MAP_IN_MEMORY", in_memory)
    image = painted((150, 210), 40)
    sample = {"image": image, "height": 150, "width": 210}
    whole = perfect([sample], EVERYTHING)[0]
    tiled = Tiles(64, 24)(perfect, sample, EVERYTHING)
    assert torch.equal(tiled["sem_seg"].long(), whole["sem_seg"].argmax(0))
    (ids, segments), (expected, _) = tiled["panoptic_seg"], whole["panoptic_seg"]
    assert torch.equal(ids > 0, expected > 0)
    assert sorted(ids.unique().tolist()) == list(range(len(segments) + 1))
    by_id = {segment["id"]: segment for segment in segments}
    for number in range(1, 41):
        pixels = (image[1].long() == number).numpy()
        found = set(ids.numpy()[pixels].tolist())
        assert len(found) <= 1
        if found:
            (one,) = found
            assert by_id[one]["category_id"] == number % CLASSES
            if by_id[one]["isthing"]:
                assert np.array_equal(ids.numpy() == one, pixels)
    stuff = [segment["category_id"] for segment in segments if not segment["isthing"]]
    assert stuff == [0]
    ids[0, 0] = 1  # users may change it


def test_an_object_larger_than_tiles_is_joined_from_its_parts():
    image = torch.zeros(3, 200, 300, dtype=torch.uint8)
    image[:, 20:180, 30:280] = torch.tensor([1, 3, 0], dtype=torch.uint8)[:, None, None]
    found = Tiles(64, 16)(perfect, {"image": image}, INSTANCE)["instances"]
    assert found.pred_boxes.tolist() == [[30, 20, 280, 180]]
    assert found.masks.areas().tolist() == [160 * 250]


def test_parts_are_joined_where_the_one_between_them_is_the_least_certain():
    """Both ends come first, as objects of their own, among others; the middle makes them one."""
    image = painted((100, 260), 0)
    for number, (top, left, bottom, right) in enumerate([(5, 5, 20, 20), (40, 30, 60, 230), (80, 5, 95, 20)]):
        color = torch.tensor([1, 3 * number + 3, 0], dtype=torch.uint8)
        image[:, top:bottom, left:right] = color[:, None, None]

    def unsure_of_the_middle(samples, postprocess):
        outputs = perfect(samples, postprocess)
        for output in outputs:
            found = output["instances"]
            widths = found.pred_boxes[:, 2] - found.pred_boxes[:, 0]
            found.scores = torch.where(widths == 100, 0.2, 0.6 + widths / 1000)
        return outputs

    found = Tiles(100, 20)(unsure_of_the_middle, {"image": image}, INSTANCE)["instances"]
    boxes = sorted(found.pred_boxes.tolist())
    assert boxes == [[5, 5, 20, 20], [5, 80, 20, 95], [30, 40, 230, 60]]


def test_a_sliver_of_an_object_is_no_second_one():
    """A tile sees the rim of an object badly; the neighbour, which sees all of it, is believed."""
    image = painted((100, 180), 0)
    image[:, 40:60, 60:92] = torch.tensor([1, 3, 0], dtype=torch.uint8)[:, None, None]

    def careless(samples, postprocess):
        outputs = perfect(samples, postprocess)
        for sample, output in zip(samples, outputs, strict=True):
            found = output["instances"]
            if len(found) and found.pred_boxes[0, 0] == 0 and sample["image"].shape[-1] == 100:
                mask = found.pred_masks.clone()
                mask[:, 45:] = False  # a quarter of what is to be seen
                output["instances"] = Instances(
                    found.image_size,
                    boxes_from_masks(mask, inclusive=False),
                    torch.tensor([0.99]),
                    found.pred_classes,
                    RunLengthMasks.encode(mask),
                )
        return outputs

    found = Tiles(100, 20)(careless, {"image": image}, INSTANCE)["instances"]
    assert found.pred_boxes.tolist() == [[60, 40, 92, 60]]


def test_tiles_come_from_the_original_at_the_size_that_is_asked_for():
    seen = []

    def detect(samples, postprocess):
        seen.extend((s["image"].shape[1:], (s["height"], s["width"])) for s in samples)
        return perfect([{"image": s["original"]} for s in samples], postprocess)

    sample = {"image": painted((30, 45), 1), "original": painted((90, 135), 9), "height": 90, "width": 135}
    found = Tiles(60, 20, input_size=120)(detect, sample, INSTANCE)["instances"]
    assert set(seen) == {((120, 120), (60, 60))}
    assert found.image_size == (90, 135)
    assert len(found) == len(perfect([{"image": sample["original"]}], INSTANCE)[0]["instances"])


def test_a_small_picture_is_one_tile():
    sample = {"image": painted((40, 50), 5), "height": 40, "width": 50}
    found = Tiles(64)(perfect, sample, EVERYTHING)
    assert [len(Tiles(64).tiles((40, 50))), len(Tiles(64).tiles((65, 50)))] == [1, 2]
    assert found["sem_seg"].shape == (40, 50)


def test_tiles_are_looked_at_as_one_says():
    sample = {"image": painted((100, 120), 12), "height": 100, "width": 120}
    plain = Tiles(64, 30)(perfect, sample, INSTANCE)["instances"]
    inner = Tiles(64, 30, inference=TestTimeAugmentation((1.0,)))(perfect, sample, INSTANCE)["instances"]
    assert in_order(inner)[2] == in_order(plain)[2]


@pytest.mark.parametrize(
    "settings", [{"size": 0}, {"overlap": 1024}, {"overlap": -1}, {"input_size": 0}, {"iou_threshold": 0}]
)
def test_wrong_settings_are_named(settings):
    with pytest.raises(ValueError, match=rf"model\.inference\.{next(iter(settings))}="):
        Tiles(**settings)


@pytest.mark.slow
def test_a_picture_of_8000_pixels_with_thousands_of_objects_takes_bounded_memory():
    side, step = 8000, 100
    image = torch.zeros(3, side, side, dtype=torch.uint8)
    for number in range(1, (side // step) ** 2 + 1):
        top, left = divmod(number - 1, side // step)
        place = slice(top * step + 10, top * step + 60), slice(left * step + 20, left * step + 80)
        image[:, place[0], place[1]] = torch.tensor(
            [1 + number % CLASSES, number % 256, number // 256], dtype=torch.uint8
        )[:, None, None]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = Tiles(1024, 128)(perfect, {"image": image}, EVERYTHING)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert len(found["instances"]) == 6400
    assert found["instances"].masks.areas().tolist() == [3000] * 6400
    assert len(found["panoptic_seg"][1]) == 6400 - 6400 // CLASSES + 1
    assert grown < 1500, f"{grown:.0f} MiB"
