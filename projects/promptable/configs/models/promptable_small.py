"""A small model of words and prompts: ResNet-18, 3 levels, 64 channels, and a text encoder of 13 words."""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import class_names, count_classes
from detrex.modeling import (
    BoxPosition,
    Decoder,
    DeformableDecoderLayers,
    Matcher,
    PredictionHeads,
)
from detrex.modeling.promptable import PromptableDetector
from detrex.modeling.prompts import (
    AutomaticMasks,
    PromptCriterion,
    PromptQueries,
    QualityScore,
    RandomPrompts,
)
from detrex.modeling.text import TextDenoising, TextScore, Vocabulary, WordEncoder
from projects.promptable.scenes import WORDS

model = get_config("common/models/maskdino_r50.py").model
model._target_ = PromptableDetector
model.backbone.name = "resnet18"
model.backbone.options = dict(channels=[32, 64, 128, 192], stem_type="deep_tiered", stem_width=8)
model.backbone.frozen_norm = False  # its statistics have to be learned, too
model.merge_with(
    dict(
        encoder=dict(strides=[8, 16, 32], hidden_dim=64, ffn_dim=256, num_heads=4, num_layers=2),
        pixel_head=dict(mask_dim=64),
        decoder=dict(
            layers=dict(num_levels=3, num_heads=4, ffn_dim=256, num_layers=3),
            query_init=dict(num_queries=30, anchor_sizes=[0.1, 0.2, 0.4], box_init=None),
        ),
        criterion=dict(points=dict(num_points=256, oversample=2.0)),
    )
)
model.initialisation = None

model.num_classes = L(count_classes)(annotations="${dataloader.categories}")
model.vocabulary = L(Vocabulary)(
    names=L(class_names)(annotations="${dataloader.categories}"), style="attributes"
)
model.text = L(WordEncoder)(words=list(WORDS), embed_dim=64)
model.templates = ["{}"]
model.class_score = L(TextScore)(embed_dim="${..text.embed_dim}")
model.denoising = L(TextDenoising)(
    embed_dim="${..text.embed_dim}",
    hidden_dim="${..encoder.hidden_dim}",
    num_queries=20,
    mean_over_classes=False,
)
model.decoder.query_init.leave_out_invalid = True

model.prompts = L(PromptQueries)(granularities=3, hidden_dim="${..encoder.hidden_dim}")
model.levels = [0, 1, 2]
model.drawing = L(RandomPrompts)(num_prompts=8, max_masks=3, box_share=0.2)
model.automatic = L(AutomaticMasks)(points_per_side=12, quality=0.7)
model.prompt_decoder = L(Decoder)(
    query_init=None,
    position=L(BoxPosition)(hidden_dim="${..layers.hidden_dim}"),
    heads=L(PredictionHeads)(
        hidden_dim="${..layers.hidden_dim}",
        num_classes=1,
        class_score=L(QualityScore)(),
        mask_dim="${...pixel_head.mask_dim}",
        norm_again=True,
    ),
    layers=L(DeformableDecoderLayers)(
        hidden_dim="${...encoder.hidden_dim}",
        num_levels="${...decoder.layers.num_levels}",
        num_heads="${...decoder.layers.num_heads}",
        ffn_dim="${...decoder.layers.ffn_dim}",
        num_layers=2,
    ),
    refine_boxes=True,
    look_forward_twice=True,
    logit_eps="${..decoder.logit_eps}",
)
model.prompt_criterion = L(PromptCriterion)(
    matcher=L(Matcher)(
        class_score="${...prompt_decoder.heads.class_score}",
        class_cost=0.0,
        mask_cost="${..mask_weight}",
        dice_cost="${..dice_weight}",
        points="${..points}",
    ),
    class_weight=0.0,
    mask_weight=5.0,
    dice_weight=5.0,
    points="${..criterion.points}",
    rate_all=True,
)
