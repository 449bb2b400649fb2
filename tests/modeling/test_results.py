"""Results against direct computations that resize every mask and walk over queries and pixels."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_convert

from detrex.modeling import (
    InstanceInference,
    PanopticInference,
    PostProcess,
    SemanticInference,
    SigmoidScore,
    SoftmaxScore,
)
from detrex.modeling.results import Frame, QueryMasks
from detrex.runtime import chunking
from detrex.structures import Prediction, rle

FRAMES = [
    Frame(padded=(32, 64), image=(32, 64), output=(32, 64)),
    Frame(padded=(64, 64), image=(48, 57), output=(40, 33)),
    Frame(padded=(32, 32), image=(30, 20), output=(75, 50)),
]
QUERIES, CLASSES = 8, 5


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunking, "CPU_BYTES", 3 * 64 * 64)


def smooth_masks(frame, count=QUERIES, seed=0):
    """Blobs at stride 4 rather than noise, so that masks have areas worth comparing."""
    random = torch.Generator().manual_seed(seed)
    coarse = 8 * torch.randn(1, count, 3, 3, generator=random)
    size = (frame.padded[0] // 4, frame.padded[1] // 4)
    return F.interpolate(coarse, size, mode="bicubic")[0]


def full_size(mask, frame):
    """One mask at output size."""
    padded = F.interpolate(mask[None, None], size=frame.padded, mode="bilinear", align_corners=False)
    image = padded[:, :, : frame.image[0], : frame.image[1]]
    return F.interpolate(image, size=frame.output, mode="bilinear", align_corners=False)[0, 0]


def one_prediction(frame, no_object=False, sharpness=3.0):
    masks = smooth_masks(frame)
    prediction = Prediction(
        sharpness * torch.randn(1, QUERIES, CLASSES + no_object),
        torch.rand(1, QUERIES, 4),
        torch.eye(QUERIES)[None],
    )
    return prediction, masks


def run(process, prediction, masks, frame):
    return process(prediction, masks[None], [frame])[0]


def direct_instances(scores, boxes, masks, frame, limit):
    """All (score, class, box, mask) in order, best ``limit`` pairs by class score first."""
    pairs = sorted(
        ((s.item(), q, c) for q, row in enumerate(scores) for c, s in enumerate(row)), reverse=True
    )
    rows = []
    for score, q, c in pairs[:limit]:
        logits = full_size(masks[q], frame)
        inside = logits > 0
        quality = logits[inside].sigmoid().mean().item() if inside.any() else 0.0
        x, y = (
            frame.padded[1] / frame.image[1] * frame.output[1],
            frame.padded[0] / frame.image[0] * frame.output[0],
        )
        box = box_convert(boxes[q], "cxcywh", "xyxy") * torch.tensor([x, y, x, y])
        rows.append((score * quality, c, box, inside))
    return sorted(rows, key=lambda row: -row[0])


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("frame", FRAMES)
def test_instances(frame):
    prediction, masks = one_prediction(frame)
    found = run(PostProcess(InstanceInference(max_detections=20)), prediction, masks, frame)["instances"]
    expected = direct_instances(prediction.logits[0].sigmoid(), prediction.boxes[0], masks, frame, 20)
    assert len(found) == 20 and found.image_size == frame.output
    torch.testing.assert_close(found.scores, torch.tensor([row[0] for row in expected]), atol=1e-5, rtol=0)
    assert found.pred_classes.tolist() == [row[1] for row in expected]
    torch.testing.assert_close(found.pred_boxes, torch.stack([row[2] for row in expected]))
    assert torch.equal(found.pred_masks, torch.stack([row[3] for row in expected]))
    assert found.pred_masks.dtype == torch.bool and found.pred_classes.dtype == torch.int64


def test_instances_of_a_softmax_model_leave_out_no_object():
    frame = FRAMES[0]
    prediction, masks = one_prediction(frame, no_object=True)
    prediction.logits[..., -1] = 9.0
    process = PostProcess(InstanceInference(max_detections=1000), class_score=SoftmaxScore())
    found = run(process, prediction, masks, frame)["instances"]
    scores = prediction.logits[0].softmax(-1)[:, :-1]
    expected = direct_instances(scores, prediction.boxes[0], masks, frame, 1000)
    assert len(found) == QUERIES * CLASSES
    torch.testing.assert_close(found.scores, torch.tensor([row[0] for row in expected]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("limit", [0, 1, 7, 1000])
@pytest.mark.parametrize("with_masks", [True, False])
def test_at_most_so_many_detections(limit, with_masks):
    prediction, masks = one_prediction(FRAMES[1])
    if not with_masks:
        prediction.mask_embed = None
    found = run(PostProcess(InstanceInference(max_detections=limit)), prediction, masks, FRAMES[1])[
        "instances"
    ]
    assert len(found) == min(limit, QUERIES * CLASSES)


@pytest.mark.parametrize("threshold", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("with_masks", [True, False])
def test_the_score_threshold_takes_away_the_end_of_the_list(threshold, with_masks):
    prediction, masks = one_prediction(FRAMES[1])
    if not with_masks:
        prediction.mask_embed = None
    everything = run(PostProcess(InstanceInference(40)), prediction, masks, FRAMES[1])["instances"]
    found = run(PostProcess(InstanceInference(40, threshold)), prediction, masks, FRAMES[1])["instances"]
    assert len(found) == (everything.scores >= threshold).sum() < len(everything)
    assert (found.scores.diff() <= 0).all()
    torch.testing.assert_close(found.scores, everything.scores[: len(found)])
    torch.testing.assert_close(found.pred_boxes, everything.pred_boxes[: len(found)])
    assert (found.pred_masks is None) == (not with_masks)


def test_boxes_of_the_whole_image_and_of_a_quarter():
    # The image fills the upper left 48 x 57 of 64 x 64 and is asked for at 40 x 33.
    boxes = torch.tensor([[57 / 128, 48 / 128, 57 / 64, 48 / 64], [57 / 256, 48 / 256, 57 / 128, 48 / 128]])
    expected = [[0, 0, 33, 40], [0, 0, 16.5, 20]]
    torch.testing.assert_close(FRAMES[1].boxes(boxes), torch.tensor(expected), atol=1e-4, rtol=0)


def test_only_things_have_instances():
    prediction, masks = one_prediction(FRAMES[0])
    process = PostProcess(InstanceInference(1000), thing_classes=[1, 4])
    found = run(process, prediction, masks, FRAMES[0])["instances"]
    assert len(found) == QUERIES * 2 and set(found.pred_classes.tolist()) == {1, 4}


def test_an_empty_mask_has_score_zero():
    prediction, masks = one_prediction(FRAMES[0])
    masks[2] = -5.0
    found = run(PostProcess(InstanceInference(1000)), prediction, masks, FRAMES[0])["instances"]
    empty = ~found.pred_masks.flatten(1).any(1)
    assert empty.sum() >= CLASSES and (found.scores[empty] == 0).all()


def direct_panoptic(kept, scores, labels, masks, frame, things, overlap):
    """Pixel by pixel, segments as sets of pixels."""
    probability = {q: full_size(masks[q], frame).sigmoid() for q in kept}
    height, width = frame.output
    value = {q: (scores[q] * probability[q]).tolist() for q in kept}
    won = {q: set() for q in kept}
    for y in range(height):
        for x in range(width):
            winner = max(kept, key=lambda q: value[q][y][x])
            won[winner].add((y, x))
    rows = []
    for q in kept:
        pixels = {tuple(p) for p in (probability[q] >= 0.5).nonzero().tolist()}
        visible = won[q] & pixels
        if visible and len(won[q]) / len(pixels) >= overlap:
            rows.append((labels[q], visible, scores[q]))
    merged = {}
    for i, (label, pixels, score) in enumerate(rows):
        key = ("thing", i) if label in things else ("stuff", label)
        old = merged.get(key, (label, set(), 0.0))
        merged[key] = (label, old[1] | pixels, max(old[2], score))
    return [(label, label in things, pixels, score) for label, pixels, score in merged.values()]


def check_panoptic(result, expected, frame):
    segments, info = result
    assert segments.dtype == torch.int32 and tuple(segments.shape) == frame.output
    assert [s["id"] for s in info] == list(range(1, len(info) + 1))
    assert set(segments.unique().tolist()) - {0} == {s["id"] for s in info}
    ours = []
    for s in info:
        pixels = {tuple(p) for p in (segments == s["id"]).nonzero().tolist()}
        ours.append((s["category_id"], s["isthing"], pixels, s["score"]))
    assert [row[:3] for row in ours] == [row[:3] for row in expected]
    assert [row[3] for row in ours] == pytest.approx([row[3] for row in expected], rel=1e-4)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("things", [[0, 1], [], [0, 1, 2, 3, 4]])
def test_panoptic_of_a_sigmoid_model(frame, overlap, things):
    prediction, masks = one_prediction(frame, sharpness=2.0)
    prediction.logits[..., :3] -= 2.0  # several queries of the same classes
    process = PostProcess(
        panoptic=PanopticInference(0.4, overlap),
        thing_classes=things,
        class_score=SigmoidScore(temperature=0.06),
    )
    result = run(process, prediction, masks, frame)["panoptic_seg"]
    sigmoid = prediction.logits[0].sigmoid()
    kept = [q for q in range(QUERIES) if sigmoid[q].max() > 0.4]
    assert 2 <= len(kept)
    exclusive = torch.exp(sigmoid / 0.06) / torch.exp(sigmoid / 0.06).sum(1, keepdim=True)
    scores = {q: exclusive[q].max().item() for q in kept}
    labels = {q: int(exclusive[q].argmax()) for q in kept}
    check_panoptic(result, direct_panoptic(kept, scores, labels, masks, frame, things, overlap), frame)


def test_panoptic_of_a_softmax_model_leaves_out_no_object():
    frame = FRAMES[1]
    prediction, masks = one_prediction(frame, no_object=True)
    prediction.logits[0, :3, -1] = 20.0
    process = PostProcess(
        panoptic=PanopticInference(0.3, 0.5), thing_classes=[0, 1], class_score=SoftmaxScore()
    )
    result = run(process, prediction, masks, frame)["panoptic_seg"]
    softmax = prediction.logits[0].softmax(-1)
    kept = [q for q in range(QUERIES) if softmax[q].argmax() < CLASSES and softmax[q].max() > 0.3]
    assert 2 <= len(kept) <= QUERIES - 3
    scores = {q: softmax[q].max().item() for q in kept}
    labels = {q: int(softmax[q].argmax()) for q in kept}
    check_panoptic(result, direct_panoptic(kept, scores, labels, masks, frame, [0, 1], 0.5), frame)


def test_without_thing_classes_every_segment_is_a_thing():
    prediction, masks = one_prediction(FRAMES[0])
    _, info = run(PostProcess(panoptic=PanopticInference(0.1, 0.0)), prediction, masks, FRAMES[0])[
        "panoptic_seg"
    ]
    assert info and all(s["isthing"] is True for s in info)


def halves(frame):
    """Two masks: the left half and the right half."""
    masks = torch.full((2, frame.padded[0] // 4, frame.padded[1] // 4), -9.0)
    middle = masks.shape[2] // 2
    masks[0, :, :middle] = 9.0
    masks[1, :, middle:] = 9.0
    return masks


@pytest.mark.parametrize(("things", "segments"), [([0], 2), ([], 1)])
def test_stuff_of_a_class_is_one_segment(things, segments):
    frame = FRAMES[0]
    logits = torch.tensor([[[4.0, -9], [5.0, -9]]])
    prediction = Prediction(logits, torch.rand(1, 2, 4), torch.eye(2)[None])
    process = PostProcess(panoptic=PanopticInference(), thing_classes=things)
    ids, info = run(process, prediction, halves(frame), frame)["panoptic_seg"]
    assert len(info) == segments and (ids > 0).all()
    assert (ids[:, :32] == ids[0, 0]).all() and (ids[:, 32:] == ids[0, 63]).all()
    assert (ids[0, 0] == ids[0, 63]).item() == (segments == 1)


def test_nothing_above_the_threshold_is_an_empty_result():
    prediction, masks = one_prediction(FRAMES[1])
    process = PostProcess(panoptic=PanopticInference(score_threshold=1.0))
    ids, info = run(process, prediction, masks, FRAMES[1])["panoptic_seg"]
    assert info == [] and not ids.any()
    assert ids.shape == FRAMES[1].output and ids.dtype == torch.int32


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("resize_masks", [True, False])
def test_semantic_scores(frame, resize_masks):
    prediction, masks = one_prediction(frame)
    process = PostProcess(semantic=SemanticInference(resize_masks), class_score=SigmoidScore(temperature=0.1))
    scores = run(process, prediction, masks, frame)["sem_seg"]
    sigmoid = prediction.logits[0].sigmoid()
    classes = torch.exp(sigmoid / 0.1) / torch.exp(sigmoid / 0.1).sum(1, keepdim=True)
    rows = []
    for c in range(CLASSES):
        if resize_masks:
            total = sum(classes[q, c] * full_size(masks[q], frame).sigmoid() for q in range(QUERIES))
        else:
            image = Frame(frame.padded, frame.image, frame.image)  # a resize to its own size changes nothing
            total = sum(classes[q, c] * full_size(masks[q], image).sigmoid() for q in range(QUERIES))
            total = F.interpolate(total[None, None], frame.output, mode="bilinear", align_corners=False)[0, 0]
        rows.append(total)
    assert scores.shape == (CLASSES, *frame.output)
    torch.testing.assert_close(scores, torch.stack(rows), atol=1e-5, rtol=1e-5)


def test_chunks_change_nothing(monkeypatch):
    frame = FRAMES[2]
    prediction, masks = one_prediction(frame)
    process = PostProcess(
        InstanceInference(), PanopticInference(0.1, 0.3), SemanticInference(), thing_classes=[0, 1]
    )
    whole = run(process, prediction, masks, frame)
    for pixels in (1, 75 * 50 * 3):
        monkeypatch.setattr(chunking, "CPU_BYTES", pixels)
        parts = run(process, prediction, masks, frame)
        torch.testing.assert_close(parts["sem_seg"], whole["sem_seg"])
        assert torch.equal(parts["panoptic_seg"][0], whole["panoptic_seg"][0])
        assert parts["panoptic_seg"][1] == whole["panoptic_seg"][1]
        assert torch.equal(parts["instances"].pred_masks, whole["instances"].pred_masks)
        torch.testing.assert_close(parts["instances"].scores, whole["instances"].scores)


def test_tasks_that_are_off_are_absent():
    prediction, masks = one_prediction(FRAMES[0])
    assert run(PostProcess(), prediction, masks, FRAMES[0]) == {}
    assert set(run(PostProcess(semantic=SemanticInference()), prediction, masks, FRAMES[0])) == {"sem_seg"}
    assert set(run(PostProcess(InstanceInference()), prediction, masks, FRAMES[0])) == {"instances"}


def test_every_image_of_a_batch_has_its_own_results():
    frames = FRAMES[:1] * 2
    first, masks = one_prediction(frames[0])
    second, _ = one_prediction(frames[1])
    other_masks = smooth_masks(frames[1], seed=1)
    both = Prediction(
        *(torch.cat([getattr(p, k) for p in (first, second)]) for k in ("logits", "boxes", "mask_embed"))
    )
    process = PostProcess(InstanceInference())
    together = process(both, torch.stack([masks, other_masks]), frames)
    for result, single, single_masks in zip(together, (first, second), (masks, other_masks), strict=True):
        alone = run(process, single, single_masks, frames[0])["instances"]
        torch.testing.assert_close(result["instances"].scores, alone.scores)
        assert torch.equal(result["instances"].pred_masks, alone.pred_masks)


def test_only_masks_of_results_are_multiplied_out(monkeypatch):
    counts = []
    logits = QueryMasks.logits
    monkeypatch.setattr(QueryMasks, "logits", lambda *a: counts.append(len(logits(*a))) or logits(*a))
    prediction, masks = one_prediction(FRAMES[0])
    prediction.logits[0, 3:] = -9.0
    found = run(PostProcess(InstanceInference(2 * CLASSES)), prediction, masks, FRAMES[0])["instances"]
    assert len(found) == 2 * CLASSES and sum(counts) <= 3


def test_one_result_per_query_is_its_best_class():
    """DETR: arg-max over the softmax without the background, and all queries."""
    prediction, masks = one_prediction(FRAMES[0], no_object=True)
    prediction.mask_embed = None
    process = PostProcess(InstanceInference(one_per_query=True), class_score=SoftmaxScore())
    found = process(prediction, None, FRAMES[:1])[0]["instances"]
    scores, labels = prediction.logits[0].softmax(-1)[:, :-1].max(-1)
    order = scores.argsort(descending=True)
    torch.testing.assert_close(found.scores, scores[order])
    assert found.pred_classes.tolist() == labels[order].tolist()
    torch.testing.assert_close(found.pred_boxes, FRAMES[0].boxes(prediction.boxes[0])[order])
    fewer = PostProcess(InstanceInference(3, one_per_query=True), class_score=SoftmaxScore())
    assert torch.equal(fewer(prediction, None, FRAMES[:1])[0]["instances"].pred_boxes, found.pred_boxes[:3])


def test_boxes_relative_to_the_image_and_clipped():
    frame = Frame(padded=(64, 64), image=(48, 32), output=(96, 64), box_size=(48, 32))
    boxes = torch.tensor([[[0.5, 0.5, 0.5, 0.5], [1.0, 0.25, 0.5, 1.0]]])
    prediction = Prediction(torch.tensor([[[2.0], [1.0]]]), boxes)
    free = PostProcess(InstanceInference())(prediction, None, [frame])[0]["instances"]
    assert free.pred_boxes.tolist() == [[16, 24, 48, 72], [48, -24, 80, 72]]
    clipped = PostProcess(InstanceInference(clip_boxes=True))(prediction, None, [frame])[0]["instances"]
    assert clipped.pred_boxes.tolist() == [[16, 24, 48, 72], [48, 0, 64, 72]]


@pytest.mark.parametrize("task", [dict(panoptic=PanopticInference()), dict(semantic=SemanticInference())])
def test_tasks_that_need_masks_say_so(task):
    prediction, _ = one_prediction(FRAMES[0])
    prediction.mask_embed = None
    with pytest.raises(ValueError, match="need masks"):
        PostProcess(**task)(prediction, None, FRAMES[:1])


@pytest.mark.parametrize(
    ("task", "named"),
    [
        ({"panoptic": PanopticInference()}, "a panoptic map"),
        ({"semantic": SemanticInference()}, "semantic scores of 5 classes"),
    ],
)
def test_results_that_do_not_fit_the_memory_are_named(task, named):
    prediction, masks = one_prediction(FRAMES[0])
    frame = Frame(FRAMES[0].padded, FRAMES[0].image, output=(2_000_000, 3_000_000))
    with pytest.raises(
        ValueError, match=rf"2000000 x 3000000 pixels.*{named}.* need \d+\.\d GiB, and .* are free"
    ):
        run(PostProcess(**task), prediction, masks, frame)


@pytest.mark.parametrize("inference", [InstanceInference, PanopticInference])
@pytest.mark.parametrize("value", [-0.1, 50, float("nan")])
def test_a_threshold_that_no_score_can_be_compared_with(inference, value):
    with pytest.raises(ValueError, match=rf"score_threshold={value}: expected a number from 0 to 1"):
        inference(score_threshold=value)


def test_masks_with_more_pixels_than_can_be_counted():
    prediction, masks = one_prediction(FRAMES[0])
    frame = Frame(FRAMES[0].padded, FRAMES[0].image, output=(2_000_000, 3_000_000))
    with pytest.raises(ValueError, match="2000000 x 3000000 pixels.*at most 4,294,967,295 pixels"):
        run(PostProcess(InstanceInference()), prediction, masks, frame)


def test_areas_of_more_masks_than_a_byte_counts():
    masks = rle.RunLengthMasks.encode(torch.ones(300, 4, 5, dtype=torch.bool).tril())
    assert masks.areas().tolist() == [10] * 300


def test_masks_of_large_images_are_compressed_until_they_are_asked_for(monkeypatch):
    prediction, masks = one_prediction(FRAMES[0])
    frame = Frame(FRAMES[0].padded, FRAMES[0].image, output=(3000, 10000))
    found = run(PostProcess(InstanceInference(QUERIES * CLASSES)), prediction, masks, frame)["instances"]
    compressed = found.masks
    assert sum(len(rle["counts"]) for rle in compressed.rles) < 0.01 * 3000 * 10000 * len(found)
    areas = compressed.areas()
    monkeypatch.setattr(rle, "available_bytes", lambda device: 2**29)  # noqa: ARG005
    with pytest.raises(
        ValueError, match=r"40 masks of 3000 x 10000 pixels .* need 1\.1 GiB, and 0\.5 GiB are"
    ):
        _ = found.pred_masks
    monkeypatch.undo()
    best = found[:2]
    assert (
        best.pred_masks.shape == (2, 3000, 10000)
        and best.pred_masks.sum((1, 2)).tolist() == areas[:2].tolist()
    )
    best.pred_masks[:] = False
    assert best.masks.areas().tolist() == [0, 0]
