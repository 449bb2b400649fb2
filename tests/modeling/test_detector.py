"""The whole model: samples in, losses or results out."""

import pytest
import torch
from torch import nn
from torchvision.ops import box_convert

from detrex.config import InstantiationError, LazyConfig, instantiate
from detrex.structures import Instances, Sample

ALL_TASKS = [
    "model.postprocess.panoptic={_target_: detrex.modeling.PanopticInference, score_threshold: 0.0}",
    "model.postprocess.panoptic.overlap_threshold=0.0",
    "model.postprocess.semantic={_target_: detrex.modeling.SemanticInference}",
    "model.postprocess.thing_classes=[0,1,2]",
]
GRID = "model.criterion.points={_target_: detrex.modeling.GridPoints, num_points: 64}"
QUIET = [GRID, "model.denoising.label_noise=0.0", "model.denoising.box_noise=0.0"]


@torch.no_grad()
def results(model, samples):
    return model.eval()(samples)


def assert_same_results(found, expected, **tolerance):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a["instances"].scores, b["instances"].scores, **tolerance)
        torch.testing.assert_close(a["instances"].pred_boxes, b["instances"].pred_boxes, **tolerance)
        different = (a["instances"].pred_masks != b["instances"].pred_masks).float().mean()
        assert different < 1e-3


def test_results_of_all_tasks_at_the_size_asked_for(build, make_sample):
    model = build(*ALL_TASKS, "model.postprocess.instance.max_detections=7")
    samples = [make_sample(height=64, width=50), Sample(image=make_sample(height=40, width=64)["image"])]
    samples[0].update(height=91, width=73)
    for result, (height, width) in zip(results(model, samples), [(91, 73), (40, 64)], strict=True):
        assert set(result) == {"instances", "panoptic_seg", "sem_seg"}
        found = result["instances"]
        assert isinstance(found, Instances) and found.image_size == (height, width)
        assert len(found) <= 7 and set(found.pred_classes.tolist()) <= {0, 1, 2}
        assert found.pred_boxes.shape == (len(found), 4) and found.pred_boxes.dtype == torch.float32
        assert found.scores.dtype == torch.float32 and found.pred_classes.dtype == torch.int64
        assert found.pred_masks.shape == (len(found), height, width) and found.pred_masks.dtype == torch.bool
        segments, info = result["panoptic_seg"]
        assert segments.shape == (height, width) and segments.dtype == torch.int32 and info
        assert all(set(s) == {"id", "category_id", "isthing", "score"} for s in info)
        assert all(s["isthing"] == (s["category_id"] < 3) for s in info)
        assert result["sem_seg"].shape == (5, height, width) and result["sem_seg"].is_floating_point()


def test_bytes_and_floats_are_the_same_image(tiny_model, make_sample):
    image = make_sample()["image"]
    assert_same_results(
        results(tiny_model, [{"image": image}]), results(tiny_model, [{"image": image.float()}])
    )


def test_images_are_normalised_and_then_padded_with_zeros(tiny_model):
    image = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1).expand(3, 40, 33)
    batch = tiny_model.preprocess([{"image": image + torch.tensor([58.395, 0, 0]).view(3, 1, 1)}])
    assert batch.tensor.shape == (1, 3, 64, 64) and batch.sizes == [(40, 33)]
    expected = torch.tensor([1.0, 0, 0]).view(3, 1, 1).expand(3, 40, 33)
    torch.testing.assert_close(batch.tensor[0, :, :40, :33], expected, atol=1e-5, rtol=0)
    assert batch.tensor.count_nonzero() <= 3 * 40 * 33
    assert not batch.tensor[..., 40:, :].any() and not batch.tensor[..., 33:].any()


def test_a_batch_is_its_images_one_by_one(tiny_model, make_sample):
    """Where padding is the same, 50 x 60 pixels being padded to 64 x 64 anyway."""
    samples = [make_sample(seed=0), make_sample(height=50, width=60, seed=1), make_sample(seed=2)]
    alone = [results(tiny_model, [sample])[0] for sample in samples]
    assert_same_results(results(tiny_model, samples), alone, atol=1e-4, rtol=1e-3)


def test_evaluation_needs_no_targets_and_repeats(tiny_model, make_sample):
    image = {"image": make_sample()["image"]}
    assert_same_results(results(tiny_model, [image]), results(tiny_model, [make_sample()]))


def test_a_saved_state_is_the_whole_model(build, tiny_config, make_sample):
    model = build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    torch.manual_seed(99)
    other = instantiate(tiny_config.model)
    other.load_state_dict(model.state_dict(), strict=True)
    assert_same_results(results(other, [make_sample()]), results(model, [make_sample()]))


@pytest.mark.parametrize("image", [torch.zeros(1, 64, 64), torch.zeros(64, 64), torch.zeros(64, 64, 3)])
def test_an_image_of_another_shape_is_named(tiny_model, image):
    sample = Sample(image=image, image_id=17, file_name="cat.jpg")
    with pytest.raises(ValueError, match=r"image 17 \(cat.jpg\).*\(3, H, W\).*shape"):
        results(tiny_model, [sample])


def test_an_empty_list_is_refused(tiny_model):
    with pytest.raises(ValueError, match="empty"):
        results(tiny_model, [])


@pytest.mark.parametrize("label", [-1, 5, 90])
def test_labels_beyond_the_classes_are_named(tiny_model, make_sample, label):
    sample = make_sample([0, 3])
    sample["targets"].labels[1] = label
    with pytest.raises(ValueError, match=rf"image 0 \(0.jpg\).*{label}.*5 classes.*model.num_classes"):
        tiny_model([sample])


def test_training_without_targets_names_the_image(tiny_model, make_sample):
    sample = make_sample(seed=4)
    del sample["targets"]
    with pytest.raises(ValueError, match=r"image 4 \(4.jpg\): no 'targets'"):
        tiny_model([sample])


@pytest.mark.parametrize("size", [(64, 32), (96, 96)])
def test_masks_of_another_frame_are_refused(tiny_model, make_sample, make_targets, size):
    sample = make_sample()
    sample["targets"] = make_targets([0], *size)
    with pytest.raises(ValueError, match=rf"image 0.*\({size[0]}, {size[1]}\).*\(64, 64\)"):
        tiny_model([sample])


def test_objects_without_a_pixel_give_finite_losses_and_gradients(build, make_sample):
    """Published panoptic training keeps segments that a crop cuts away."""
    model = build().train()
    samples = [make_sample(), make_sample(labels=(1, 2, 4), seed=1)]
    samples[1]["targets"].masks[1:] = False
    samples[1]["targets"].boxes[1:] = 0
    losses = model(samples)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


class Recording(nn.Module):
    """A criterion that keeps the targets it is given."""

    def forward(self, predictions, pixel_embed, targets):  # noqa: ARG002
        self.targets = targets
        return {}


@pytest.mark.parametrize("relative_to_image", [False, True])
def test_what_true_boxes_are_relative_to(relative_to_image, build, make_sample):
    model = build(f"model.true_boxes_relative_to_image={str(relative_to_image).lower()}")
    model.criterion = Recording()
    samples = [make_sample(height=64, width=96), make_sample(height=96, width=64)]
    model.train()(samples)
    sizes = [(96, 64), (64, 96)] if relative_to_image else [(96, 96), (96, 96)]  # width, height
    expected = [
        box_convert(s["targets"].boxes / torch.tensor([*size, *size]), "xyxy", "cxcywh")
        for s, size in zip(samples, sizes, strict=True)
    ]
    torch.testing.assert_close(model.criterion.targets.boxes, torch.cat(expected))
    assert model.criterion.targets.masks.size == (96, 96)


def test_boxes_from_masks_need_padding_to_count_as_image(build):
    with pytest.raises(InstantiationError, match=r"box_init=null or model.mask_padding=false"):
        build("model.mask_padding=true")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([0.4, 0.2, 0.1, 0.05], "4 anchor sizes for 3 levels.*query_init.anchor_sizes"),
        ([0.4, 0.2, 0.1], "gives 3 levels.*takes 4.*model.decoder.layers.num_levels"),
    ],
)
def test_levels_that_do_not_fit_are_named(build, make_sample, sizes, message):
    overrides = ["model.encoder.strides=[8, 16, 32]", f"model.decoder.query_init.anchor_sizes={sizes}"]
    with pytest.raises(ValueError, match=message):
        build(*overrides).eval()([make_sample()])


def test_heads_that_do_not_divide_the_channels_are_named(build):
    with pytest.raises(InstantiationError, match="model.decoder.layers .*hidden_dim 64 .*num_heads 7"):
        build("model.decoder.layers.num_heads=7")


def test_double_precision(build, make_sample):
    model = build().double()
    found = results(model, [make_sample()])[0]["instances"]
    assert found.scores.isfinite().all()
    losses = model.train()([make_sample(), make_sample([], seed=1)])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_single_precision_agrees_with_double(build, make_sample):
    single, double = build(*QUIET), build(*QUIET).double()
    samples = [make_sample([0, 1, 3]), make_sample([2], seed=1)]
    ours, exact = single.train()(samples), double.train()(samples)
    for name in exact:
        torch.testing.assert_close(ours[name].double(), exact[name].double(), atol=1e-3, rtol=1e-3)


def test_mixed_precision(build, make_sample):
    model = build(*QUIET)
    samples = [make_sample([0, 1, 3]), make_sample([], seed=1)]
    exact = model.train()(samples)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(samples)
        found = results(model, samples)[0]["instances"]
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    assert found.scores.isfinite().all() and found.pred_boxes.dtype == torch.float32
    total = sum(exact.values()).item()
    assert sum(losses.values()).item() == pytest.approx(total, rel=0.1)


@pytest.mark.parametrize("mask_padding", [False, True])
def test_layers_that_are_computed_again_change_nothing(build, make_sample, mask_padding):
    samples = [make_sample([0, 1, 3]), make_sample([2], height=50, width=90, seed=1)]
    found = {}
    for again in ("false", "true"):
        model = build(
            "model.encoder.dropout=0.1",
            "model.decoder.layers.dropout=0.1",
            f"model.encoder.checkpointing={again}",
            f"model.decoder.checkpointing={again}",
            "model.decoder.query_init.box_init=null",
            f"model.mask_padding={str(mask_padding).lower()}",
        ).train()
        torch.manual_seed(1)
        losses = model(samples)
        sum(losses.values()).backward()
        found[again] = {**losses, **{name: p.grad for name, p in model.named_parameters()}}
    for name, value in found["false"].items():
        torch.testing.assert_close(found["true"][name], value)


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(build, make_sample):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    samples = [make_sample([0, 1, 3]), make_sample([2], height=50, width=60, seed=1), make_sample([], seed=2)]
    cpu, cuda = build(*QUIET, *ALL_TASKS), build(*QUIET, *ALL_TASKS).cuda()
    on_cuda = results(cuda, samples)
    for on_gpu, on_cpu in zip(on_cuda, results(cpu, samples), strict=True):
        assert (
            on_gpu["instances"].scores.is_cuda
            and on_gpu["panoptic_seg"][0].is_cuda
            and on_gpu["sem_seg"].is_cuda
        )
        torch.testing.assert_close(on_gpu["sem_seg"].cpu(), on_cpu["sem_seg"], atol=1e-3, rtol=1e-3)
    moved = [{"instances": r["instances"].to("cpu")} for r in on_cuda]
    assert_same_results(moved, results(cpu, samples), atol=1e-2, rtol=1e-3)
    on_gpu, on_cpu = cuda.train()(samples), cpu.train()(samples)
    assert set(on_gpu) == set(on_cpu)
    for name in on_cpu:
        torch.testing.assert_close(on_gpu[name].cpu(), on_cpu[name], atol=2e-3, rtol=2e-3)
    sum(on_gpu.values()).backward()
    assert all(p.grad.isfinite().all() for p in cuda.parameters())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_on_cuda(build, make_sample, dtype):
    model = build().cuda().train()
    with torch.autocast("cuda", dtype=dtype):
        losses = model([make_sample([0, 1, 3]), make_sample([], seed=1)])
        found = results(model, [make_sample()])[0]["instances"]
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert found.scores.isfinite().all()


def test_the_config_stays_as_it_was(tiny_config):
    before = LazyConfig.to_py(tiny_config)
    instantiate(tiny_config.model)
    assert LazyConfig.to_py(tiny_config) == before
