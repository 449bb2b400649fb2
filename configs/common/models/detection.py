"""What the models of the DETR family have in common: boxes only, padding masked, a ResNet-50.

A project sets `model.encoder` (`plain_encoder` over the coarsest feature map, or `deformable_encoder` over
several) and `model.decoder`.
"""

from detrex.config import LazyCall as L
from detrex.modeling import (
    DeformableDecoder,
    DeformableEncoder,
    Detector,
    FixedPosition,
    FocalClassLoss,
    HungarianMatcher,
    InstanceInference,
    PlainEncoder,
    PostProcess,
    PredictionHeads,
    SetCriterion,
    TimmBackbone,
    backbone_channels,
)

model = L(Detector)(
    num_classes=80,
    backbone=L(TimmBackbone)(
        name="resnet50.tv_in1k",
        strides=[32],
        pretrained=False,
        frozen_norm=True,
        frozen_stages=1,
        options={},
    ),
    encoder=None,
    pixel_head=None,
    decoder=None,
    denoising=None,
    criterion=L(SetCriterion)(
        matcher=L(HungarianMatcher)(
            class_cost=2.0,
            box_cost=5.0,
            giou_cost=2.0,
            mask_cost=0.0,
            dice_cost=0.0,
            softmax_classes=False,
            points="${..points}",
            box_stuff="${..box_stuff}",
            memory_limit_mb="${..memory_limit_mb}",
        ),
        class_loss=L(FocalClassLoss)(weight=1.0, alpha=0.25, gamma=2.0),
        box_weight=5.0,
        giou_weight=2.0,
        mask_weight=0.0,
        dice_weight=0.0,
        points=None,
        box_stuff=True,
        initial_denoising=True,
        memory_limit_mb=2048,
    ),
    postprocess=L(PostProcess)(
        instance=L(InstanceInference)(
            max_detections=300, score_threshold=0.0, one_per_query=False, clip_boxes=True
        ),
        panoptic=None,
        semantic=None,
        thing_classes=None,
        no_object_class="${..decoder.heads.no_object_class}",
        temperature=0.06,
    ),
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
    size_divisor=1,
    mask_padding=True,
    channels_last=False,
)

_in_channels = L(backbone_channels)(
    name="${...backbone.name}", options="${...backbone.options}", strides="${...backbone.strides}"
)

plain_encoder = L(PlainEncoder)(
    in_channels=_in_channels,
    hidden_dim=256,
    ffn_dim=2048,
    num_heads=8,
    num_layers=6,
    dropout=0.1,
    prelu=False,
    temperature=10000.0,
    scaled_position=False,
    checkpointing=False,
)

deformable_encoder = L(DeformableEncoder)(
    in_channels=_in_channels,
    strides=[8, 16, 32, 64],
    hidden_dim=256,
    ffn_dim=1024,
    num_heads=8,
    num_points=4,
    num_layers=6,
    dropout=0.1,
    position_offset=-0.5,
    checkpointing=False,
)

# Those of the decoders; a project changes what is its own.
heads = L(PredictionHeads)(
    hidden_dim="${..hidden_dim}",
    num_classes="${...num_classes}",
    mask_dim=None,
    no_object_class=False,
    num_sets=1,
    own_proposals=False,
    norm=True,
    norm_again=False,
)

deformable_decoder = L(DeformableDecoder)(
    query_init=None,
    position=L(FixedPosition)(),
    heads=heads,
    hidden_dim="${..encoder.hidden_dim}",
    num_levels=4,
    num_heads=8,
    ffn_dim=1024,
    num_layers=6,
    num_points=4,
    dropout=0.1,
    refine_boxes=False,
    look_forward_twice=False,
    initial_prediction=False,
    checkpointing=False,
    logit_eps=1e-3,
)
