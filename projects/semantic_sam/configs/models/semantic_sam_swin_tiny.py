"""Semantic-SAM with a Swin-T, four levels, and six masks for every click or box."""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.modeling import SwinBackbone
from detrex.modeling.prompts import (
    AutomaticMasks,
    PromptCriterion,
    PromptDetector,
    PromptQueries,
    QualityScore,
    RandomPrompts,
)

model = get_config("common/models/maskdino_r50.py").model
model._target_ = PromptDetector

model.num_classes = 1  # "object": prompts say what is meant
model.class_score = L(QualityScore)()
model.prompts = L(PromptQueries)(granularities=6, hidden_dim="${..decoder.layers.hidden_dim}")
model.drawing = L(RandomPrompts)(num_prompts=60)
model.automatic = L(AutomaticMasks)(points_per_side=32)

model.backbone = L(SwinBackbone)(
    name="swin_tiny_patch4_window7_224.ms_in1k",
    strides=[4, 8, 16, 32],
    options=dict(drop_path_rate=0.3),
)
model.decoder.query_init = None
model.decoder.initial_prediction = False
model.decoder.heads.boxes_norm_again = True
model.denoising = None
model.true_boxes_relative_to_image = True

model.criterion._target_ = PromptCriterion
model.criterion.quality_weight = 1.0
model.criterion.class_weight = 0.0
model.criterion.matcher.class_cost = 0.0
