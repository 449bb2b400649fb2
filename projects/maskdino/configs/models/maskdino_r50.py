"""Mask DINO with a ResNet-50, four levels and 300 queries: the model of the published COCO results.

Whatever two parts must agree on stands once; the other place refers to it.
"""

from detrex.config import LazyCall as L
from detrex.modeling import (
    BoxPosition,
    DeformableDecoder,
    DeformableEncoder,
    Denoising,
    Detector,
    FocalClassLoss,
    HungarianMatcher,
    InstanceInference,
    PixelHead,
    PostProcess,
    PredictionHeads,
    ProposalQueries,
    RandomPoints,
    SetCriterion,
    TimmBackbone,
    backbone_channels,
)

model = L(Detector)(
    num_classes=80,
    backbone=L(TimmBackbone)(
        name="resnet50.tv_in1k",
        strides=[4, 8, 16, 32],
        pretrained=False,
        frozen_norm=True,
        frozen_stages=0,
        options={},
    ),
    encoder=L(DeformableEncoder)(
        in_channels=L(backbone_channels)(
            name="${...backbone.name}", options="${...backbone.options}", strides="${...backbone.strides}"
        ),
        strides=[8, 16, 32, 64],
        hidden_dim=256,
        ffn_dim=2048,
        num_heads=8,
        num_points=4,
        num_layers=6,
        dropout=0.0,
        position_offset=0.0,
        checkpointing=False,
    ),
    pixel_head=L(PixelHead)(
        in_channels="${..encoder.in_channels}", hidden_dim="${..encoder.hidden_dim}", mask_dim=256
    ),
    decoder=L(DeformableDecoder)(
        query_init=L(ProposalQueries)(
            num_queries=300,
            hidden_dim="${..hidden_dim}",
            # Finest level first; see ProposalQueries for why the coarsest level has the smallest anchors.
            anchor_sizes=[0.4, 0.2, 0.1, 0.05],
            box_init="mask2box",
            learned_content=False,
        ),
        position=L(BoxPosition)(hidden_dim="${..hidden_dim}"),
        heads=L(PredictionHeads)(
            hidden_dim="${..hidden_dim}",
            num_classes="${...num_classes}",
            mask_dim="${...pixel_head.mask_dim}",
            no_object_class=False,
            num_sets=1,
            own_proposals=False,
            norm=True,
            norm_again=True,
        ),
        hidden_dim="${..encoder.hidden_dim}",
        num_levels=4,
        num_heads=8,
        ffn_dim=2048,
        num_layers=9,
        num_points=4,
        dropout=0.0,
        refine_boxes=True,
        look_forward_twice=True,
        initial_prediction=True,
        checkpointing=False,
        logit_eps=1e-5,
    ),
    denoising=L(Denoising)(
        num_classes="${..num_classes}",
        hidden_dim="${..encoder.hidden_dim}",
        num_queries=100,
        label_noise=0.4,
        box_noise=0.4,
    ),
    criterion=L(SetCriterion)(
        matcher=L(HungarianMatcher)(
            class_cost=4.0,
            box_cost=5.0,
            giou_cost=2.0,
            mask_cost=5.0,
            dice_cost=5.0,
            points="${..points}",
            softmax_classes=False,
            box_stuff="${..box_stuff}",
            memory_limit_mb="${..memory_limit_mb}",
        ),
        class_loss=L(FocalClassLoss)(weight=4.0, alpha=0.25, gamma=2.0),
        box_weight=5.0,
        giou_weight=2.0,
        mask_weight=5.0,
        dice_weight=5.0,
        points=L(RandomPoints)(num_points=12544, oversample=3.0, uncertain=0.75),
        box_stuff=True,
        initial_denoising=True,
        memory_limit_mb=2048,
    ),
    postprocess=L(PostProcess)(
        instance=L(InstanceInference)(
            max_detections=100, score_threshold=0.0, one_per_query=False, clip_boxes=False
        ),
        panoptic=None,
        semantic=None,
        thing_classes=None,
        no_object_class="${..decoder.heads.no_object_class}",
        temperature=0.06,
    ),
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    size_divisor=32,
    mask_padding=False,
)
