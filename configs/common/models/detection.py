"""What the models of the DETR family have in common: boxes only, padding masked, a ResNet-50.

A project sets `model.encoder` (`plain_encoder` over the coarsest feature map, or `deformable_encoder` over
several) and `model.decoder` (`decoder`, or `deformable_decoder`, with its own source of queries). What is not
written here has the default of its class; whatever two parts must agree on stands once, and the other place
refers to it.
"""

from detrex.config import LazyCall as L
from detrex.modeling import (
    Decoder,
    DeformableDecoderLayers,
    DeformableEncoder,
    Detector,
    FixedPosition,
    InstanceInference,
    Matcher,
    PlainDecoderLayers,
    PlainEncoder,
    PostProcess,
    PredictionHeads,
    SetCriterion,
    SigmoidScore,
    TimmBackbone,
    backbone_channels,
)

model = L(Detector)(
    num_classes=80,
    class_score=L(SigmoidScore)(),
    backbone=L(TimmBackbone)(name="resnet50.tv_in1k", strides=[32], frozen_stages=1, options={}),
    encoder=None,
    decoder=None,
    criterion=L(SetCriterion)(
        matcher=L(Matcher)(
            class_score="${...class_score}",
            points="${..points}",
            box_stuff="${..box_stuff}",
            memory_limit_mb="${..memory_limit_mb}",
        ),
        class_score="${..class_score}",
    ),
    postprocess=L(PostProcess)(
        instance=L(InstanceInference)(max_detections=300, clip_boxes=True),
        class_score="${..class_score}",
    ),
    size_divisor=1,
    mask_padding=True,
)

_in_channels = L(backbone_channels)(
    name="${...backbone.name}", options="${...backbone.options}", strides="${...backbone.strides}"
)

plain_encoder = L(PlainEncoder)(in_channels=_in_channels, dropout=0.1)

deformable_encoder = L(DeformableEncoder)(in_channels=_in_channels, position_offset=-0.5)

_heads = L(PredictionHeads)(
    hidden_dim="${..layers.hidden_dim}", num_classes="${...num_classes}", class_score="${...class_score}"
)

decoder = L(Decoder)(
    query_init=None,
    position=L(FixedPosition)(),
    heads=_heads,
    layers=L(PlainDecoderLayers)(hidden_dim="${...encoder.hidden_dim}", dropout=0.1),
)

deformable_decoder = L(Decoder)(
    query_init=None,
    position=L(FixedPosition)(),
    heads=_heads,
    layers=L(DeformableDecoderLayers)(hidden_dim="${...encoder.hidden_dim}"),
)
