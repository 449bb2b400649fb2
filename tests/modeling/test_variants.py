"""One override changes all that depends on it; every size and part is free."""

import pytest
import torch

from detrex.config import ConfigError

LEARNED = "model.decoder.query_init={_target_: detrex.modeling.LearnedBoxes, num_queries: 10, hidden_dim: 64}"
SOFTMAX = "model.class_score={_target_: detrex.modeling.SoftmaxScore}"
SMALL_SWIN = [
    "model.backbone.name=swin_tiny_patch4_window7_224",
    "model.backbone.options={img_size: [64, 64], strict_img_size: false, embed_dim: 16, "
    "depths: [1, 1, 1, 1], num_heads: [1, 2, 4, 8]}",
]


def levels(strides):
    sizes = [0.05 * 2**i for i in range(len(strides))][::-1]
    return [
        f"model.encoder.strides={strides}",
        f"model.decoder.layers.num_levels={len(strides)}",
        f"model.decoder.query_init.anchor_sizes={sizes}",
    ]


def trains_and_predicts(model, samples):
    """The results of the samples, after a training step of which every gradient is finite."""
    losses = model.train()(samples)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    with torch.no_grad():
        found = [r["instances"] for r in model.eval()(samples)]
    assert all(f.scores.isfinite().all() and f.pred_boxes.isfinite().all() for f in found)
    return found


@pytest.mark.parametrize(
    "overrides",
    [
        levels([8, 16, 32]),
        levels([4, 8, 16, 32]),
        levels([4, 8, 16, 32, 64]),
        levels([8, 16, 32, 64, 128]),
        ["model.encoder.hidden_dim=96", "model.pixel_head.mask_dim=24"],
        ["model.encoder.num_heads=2", "model.decoder.layers.num_heads=8"],
        ["model.encoder.num_points=1", "model.decoder.layers.num_points=3"],
        ["model.encoder.num_layers=2", "model.decoder.layers.num_layers=1"],
        ["model.encoder.dropout=0.1", "model.decoder.layers.dropout=0.1"],
        ["model.decoder.query_init.box_init=null"],
        ["model.decoder.query_init.box_init.past_last_pixel=true"],
        ["model.decoder.query_init.num_queries=3"],
        ["model.criterion.box_stuff=false"],
        ["model.denoising=null"],
        [LEARNED],
        [SOFTMAX],
        [LEARNED, SOFTMAX],
        ["model.backbone.strides=[4,8,16]"],
        ["model.backbone.name=test_convnext"],
        ["model.backbone.name=test_mambaout"],
        SMALL_SWIN,
    ],
    ids=str,
)
def test_it_trains_and_predicts(build, make_sample, overrides):
    samples = [make_sample([0, 1, 3], stuff=(3,)), make_sample([2], height=50, width=90, seed=1)]
    found = trains_and_predicts(build(*overrides), samples)
    assert [f.image_size for f in found] == [(64, 64), (50, 90)]


def test_more_queries_than_tokens(build, make_sample):
    model = build("model.decoder.query_init.num_queries=300")
    trains_and_predicts(model, [make_sample(), make_sample(seed=1)])
    with torch.no_grad():
        output = model.predict(model.preprocess([make_sample()]))
    assert output.final.logits.shape[1] == 8 * 8 + 4 * 4 + 2 * 2 + 1


@pytest.mark.parametrize("classes", [1, 3, 91])
@pytest.mark.parametrize("softmax", [False, True])
def test_the_number_of_classes(build, make_sample, classes, softmax):
    model = build(f"model.num_classes={classes}", *([SOFTMAX] if softmax else []))
    assert model.decoder.heads.sets[0].classes.out_features == classes + softmax
    assert model.denoising.label_embed.num_embeddings == classes
    assert model.num_classes == classes
    found = trains_and_predicts(model, [make_sample([classes - 1, 0]), make_sample([], seed=1)])
    assert all(0 <= k < classes for f in found for k in f.pred_classes.tolist())
    with pytest.raises(ValueError, match=f"{classes} classes"):
        model.train()([make_sample([classes])])


def test_another_backbone_by_name(build, make_sample):
    model = build("model.backbone.name=resnet18", "model.backbone.frozen_norm=true")
    assert model.backbone.channels == {4: 64, 8: 128, 16: 256, 32: 512}
    trains_and_predicts(model, [make_sample(), make_sample(seed=1)])


def test_an_unknown_backbone_is_named_with_its_place(build):
    with pytest.raises(ConfigError, match=r"(?s)resnet5O.*resnet50"):
        build("model.backbone.name=resnet5O")


def test_a_backbone_without_the_strides_is_named(build):
    with pytest.raises(ConfigError, match=r"(?s)test_vit.*strides \[16.*not at \[4, 8, 32\]"):
        build("model.backbone.name=test_vit")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.encoder.strides=[8,16,64]", r"twice the stride"),
        ("model.encoder.strides=[2,4,8,16]", r"no map of stride \[2\]; it has \[4, 8, 16, 32\]"),
        ("model.encoder.hidden_dim=40", r"40 is not a multiple of 32"),
        ("model.encoder.num_heads=5", r"64 is not a multiple of the number of heads 5"),
    ],
)
def test_sizes_that_do_not_fit_are_explained(build, override, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        build(override)
