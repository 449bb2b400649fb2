"""Several looks at one image, against one look where the two must agree, and against published formulas."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from detrex.config import LazyConfig, instantiate
from detrex.modeling import (
    InstanceInference,
    PanopticInference,
    PostProcess,
    SemanticInference,
    SlidingWindow,
    TestTimeAugmentation,
)
from detrex.modeling.inference.fusion import fuse_boxes, fuse_instances, fuse_panoptic
from detrex.structures import CroppedMask, Instances, RunLengthMasks
from detrex.structures.crops import vote
from tests.predict.tiny_run import FIXED, lively, noise, tiny_config

ALL = PostProcess(InstanceInference(), PanopticInference(), SemanticInference())
SEMANTIC = PostProcess(semantic=SemanticInference())


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return lively(instantiate(LazyConfig.apply_overrides(tiny_config(), FIXED).model)).eval()


@pytest.fixture
def sample():
    image = torch.from_numpy(noise(64, 96)).permute(2, 0, 1)
    return {"image": image, "height": 50, "width": 75}


def pixelwise(samples, _postprocess):
    """A model whose scores of a pixel depend on its colours alone, at the size that is asked for."""
    results = []
    for one in samples:
        scores = one["image"].float() / 255
        size = one["height"], one["width"]
        results.append({"sem_seg": F.interpolate(scores[None], size, mode="bilinear")[0]})
    return results


@pytest.mark.parametrize(
    ("size", "stride"), [(32, None), (32, 32), ((20, 96), (7, 50)), (200, None), (64, 1), ((1, 1), None)]
)
def test_windows_of_a_pixelwise_model_are_the_whole_image(sample, size, stride):
    expected = pixelwise([sample], SEMANTIC)[0]["sem_seg"]
    if stride == 1:
        sample["image"] = sample["image"][:, :, :70]
        expected = pixelwise([sample], SEMANTIC)[0]["sem_seg"]
    found = SlidingWindow(size, stride, batch_size=3)(pixelwise, sample, SEMANTIC)["sem_seg"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_windows_lie_as_published_and_overlaps_are_averaged(model, sample):
    """The grid of the usual test code: ceil((side - window) / stride) + 1 windows, the last moved back."""
    size, stride = (40, 48), (20, 40)
    total, count = torch.zeros(3, 64, 96), torch.zeros(1, 64, 96)
    with torch.inference_mode():
        for i in range(max(64 - 40 + 20 - 1, 0) // 20 + 1):
            for j in range(max(96 - 48 + 40 - 1, 0) // 40 + 1):
                bottom, right = min(i * 20 + 40, 64), min(j * 40 + 48, 96)
                rows, columns = slice(max(bottom - 40, 0), bottom), slice(max(right - 48, 0), right)
                crop = {"image": sample["image"][:, rows, columns]}
                total[:, rows, columns] += model.detect_once([crop], SEMANTIC)[0]["sem_seg"]
                count[:, rows, columns] += 1
        found = SlidingWindow(size, stride)(model.detect_once, sample, SEMANTIC)["sem_seg"]
    expected = F.interpolate((total / count)[None], (50, 75), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert count.max() > 1


def test_windows_are_for_semantic_results(model, sample):
    with pytest.raises(ValueError, match="semantic results alone"):
        SlidingWindow()(model.detect_once, sample, ALL)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SlidingWindow(0),
        lambda: SlidingWindow((3, 4, 5)),
        lambda: SlidingWindow(10, 11),
        lambda: SlidingWindow(batch_size=0),
        lambda: TestTimeAugmentation(()),
        lambda: TestTimeAugmentation((0.0,)),
        lambda: TestTimeAugmentation(iou_threshold=2),
    ],
)
def test_wrong_settings_are_named(make):
    with pytest.raises(ValueError, match=r"model\.inference\.\w+="):
        make()


def test_weighted_box_fusion_against_the_reference_package():
    """Numbers of ensemble-boxes 1.0.9, ``weighted_boxes_fusion`` with three models and ``iou_thr=0.55``."""
    boxes = [[10, 10, 40, 50], [12, 10, 42, 50], [10, 12, 40, 48], [50, 50, 90, 90], [52, 50, 90, 92]]
    boxes = np.array([*boxes, [10, 10, 40, 50]], float)
    scores, labels = np.array([0.9, 0.8, 0.4, 0.7, 0.6, 0.3]), np.array([0, 0, 0, 1, 1, 1])
    fused, means, members = fuse_boxes(boxes, scores, labels, 3, 0.55)
    expected = [
        [10.761905, 10.380952, 40.761909, 49.619046],
        [50.923079, 49.999997, 89.999998, 90.923083],
        [10, 10, 40, 50],
    ]
    np.testing.assert_allclose(fused, expected, atol=1e-4)
    np.testing.assert_allclose(means, [0.7, 0.43333332, 0.1], atol=1e-6)
    assert members == [[0, 1, 2], [3, 4], [5]]


def rectangle(top, left, bottom, right, size=(50, 75)):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize("seed", range(4))
def test_cropped_masks_are_the_masks(seed):
    random = np.random.default_rng(seed)
    mask = random.random((13, 9)) < (0.5, 0.05, 0.0, 1.0)[seed]
    other = random.random((13, 9)) < 0.3
    rles = RunLengthMasks.encode(torch.from_numpy(np.stack([mask, other]))).rles
    one, two = map(CroppedMask.decode, rles)
    assert np.array_equal(CroppedMask.from_mask(mask).pixels, one.pixels) and one.area == mask.sum()
    assert one.encode((13, 9)) == rles[0]
    assert one.intersection(two) == (mask & other).sum()
    flipped = RunLengthMasks((13, 9), [one.flipped(9).encode((13, 9))]).one(0).numpy()
    assert np.array_equal(flipped, mask[:, ::-1])
    moved = RunLengthMasks((20, 30), [one.moved(5, 7).encode((20, 30))]).one(0).numpy()
    assert np.array_equal(moved[5:18, 7:16], mask) and moved.sum() == mask.sum()
    either = RunLengthMasks((13, 9), [vote([one, two], [1, 1], share=0).encode((13, 9))]).one(0).numpy()
    assert np.array_equal(either, mask | other)


def test_a_mask_is_what_half_of_the_scores_say():
    masks = [rectangle(0, 0, 10, 10), rectangle(0, 0, 10, 20), rectangle(0, 0, 20, 20)]
    views = [
        Instances(
            (50, 75),
            torch.tensor([[0.0, 0, 20, 20]]),
            torch.tensor([score]),
            torch.tensor([1]),
            RunLengthMasks.encode(torch.from_numpy(mask[None])),
        )
        for mask, score in zip(masks, (0.5, 0.3, 0.3), strict=True)
    ]
    fused = fuse_instances(views, 0.5)
    assert len(fused) == 1 and fused.pred_classes.tolist() == [1]
    assert fused.scores.item() == pytest.approx(1.1 / 3)
    assert np.array_equal(fused.pred_masks[0].numpy(), rectangle(0, 0, 10, 20))


def test_segments_of_views_are_one_where_they_agree():
    def view(*placed):
        ids, segments = torch.zeros(50, 75, dtype=torch.int32), []
        for number, (where, label, is_thing, score) in enumerate(placed, start=1):
            ids[torch.from_numpy(rectangle(*where))] = number
            segments.append({"id": number, "category_id": label, "isthing": is_thing, "score": score})
        return ids, segments

    sky, car, far = (0, 0, 20, 75), (30, 0, 50, 30), (30, 50, 50, 70)
    views = [
        view((sky, 2, False, 0.9), (car, 0, True, 0.8), (far, 0, True, 0.6)),
        view((far, 0, True, 0.9), (sky, 2, False, 0.7), ((30, 1, 50, 31), 0, True, 0.6)),
        view((sky, 2, False, 0.8), ((0, 40, 10, 50), 1, True, 0.4), (car, 0, True, 0.7)),
    ]
    ids, segments = fuse_panoptic(views, 0.25)
    assert sorted((s["category_id"], round(s["score"], 3)) for s in segments) == [
        (0, 0.5),
        (0, 0.7),
        (2, 0.8),
    ]
    by_label = {(s["category_id"], round(s["score"], 1)): s["id"] for s in segments}
    assert np.array_equal((ids == by_label[2, 0.8]).numpy(), rectangle(*sky))
    assert np.array_equal((ids == by_label[0, 0.7]).numpy(), rectangle(*car))
    assert np.array_equal((ids == by_label[0, 0.5]).numpy(), rectangle(*far))


def test_one_view_is_one_look(model, sample):
    with torch.inference_mode():
        expected = model.detect_once([sample], model.postprocess)[0]
        found = TestTimeAugmentation((1.0,), flip=False, iou_threshold=1.0)(
            model.detect_once, sample, model.postprocess
        )
    torch.testing.assert_close(found["sem_seg"], expected["sem_seg"])
    one, other = found["instances"], expected["instances"]
    torch.testing.assert_close(one.scores, other.scores)
    torch.testing.assert_close(one.pred_boxes, other.pred_boxes)
    assert torch.equal(one.pred_masks, other.pred_masks) and torch.equal(one.pred_classes, other.pred_classes)


def test_a_mirrored_image_has_mirrored_results(model, sample):
    """The views of an image and of its mirror image are the same, so their results must mirror each other."""
    mirrored = {**sample, "image": sample["image"].flip(-1)}
    augmentation = TestTimeAugmentation((1.0, 0.5))
    with torch.inference_mode():
        one = augmentation(model.detect_once, sample, model.postprocess)
        other = augmentation(model.detect_once, mirrored, model.postprocess)
    torch.testing.assert_close(one["sem_seg"], other["sem_seg"].flip(-1), atol=1e-4, rtol=0)
    torch.testing.assert_close(one["instances"].scores, other["instances"].scores, atol=1e-3, rtol=0)
    assert len(one["instances"]) > 3
    differing = (one["panoptic_seg"][0] > 0) != (other["panoptic_seg"][0].flip(-1) > 0)
    assert differing.float().mean() < 0.01


def test_views_are_made_of_the_original(model, sample):
    sample["original"] = torch.from_numpy(noise(100, 150, seed=3)).permute(2, 0, 1)
    seen = []

    def detect(samples, postprocess):
        seen.extend(one["image"].shape[1:] for one in samples)
        return model.detect_once(samples, postprocess)

    with torch.inference_mode():
        inner = TestTimeAugmentation((1.0, 1.5), flip=True, inference=SlidingWindow(80, 80))
        found = inner(detect, sample, SEMANTIC)["sem_seg"]
        other = inner(detect, {k: v for k, v in sample.items() if k != "original"}, SEMANTIC)["sem_seg"]
    assert found.shape == (3, 50, 75) and not torch.equal(found, other)
    assert set(seen) == {(64, 80), (80, 80)}


def test_the_detector_looks_as_its_config_says(sample):
    config = LazyConfig.apply_overrides(
        tiny_config(),
        [*FIXED, "model.inference={_target_: detrex.modeling.TestTimeAugmentation, flip: false}"],
    )
    model = instantiate(config.model).eval()
    assert isinstance(model.inference, TestTimeAugmentation) and not model.inference.flip
    plain = copy.copy(model)
    plain.inference = None
    with torch.inference_mode():
        augmented, once = model([sample])[0], plain([sample])[0]
    assert augmented.keys() == once.keys()
    assert not torch.equal(augmented["sem_seg"], once["sem_seg"])
