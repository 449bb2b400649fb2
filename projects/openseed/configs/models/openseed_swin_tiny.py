"""OpenSeeD with a Swin-T, four levels, 300 queries for things and stuff, and texts of up to 18 tokens."""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import class_names, count_classes, thing_classes
from detrex.modeling import PanopticInference, SemanticInference, SwinBackbone
from detrex.modeling.text import TextDenoising, TextDetector, TextEncoder, TextScore, Vocabulary

model = get_config("common/models/maskdino_r50.py").model
model._target_ = TextDetector

# The words at first: those of the data set. `model.set_classes` changes them.
model.num_classes = L(count_classes)(annotations="${dataloader.categories}")
model.vocabulary = L(Vocabulary)(
    names=L(class_names)(annotations="${dataloader.categories}"), style="coco_panoptic"
)
model.text = L(TextEncoder)(context_length=18)
model.class_score = L(TextScore)(embed_dim="${..text.embed_dim}")

model.backbone = L(SwinBackbone)(
    name="swin_tiny_patch4_window7_224.ms_in1k",
    strides=[4, 8, 16, 32],
    options=dict(drop_path_rate=0.3),
)
model.decoder.query_init.box_init = None
model.decoder.query_init.leave_out_invalid = True
model.denoising = L(TextDenoising)(
    embed_dim="${..text.embed_dim}", hidden_dim="${..encoder.hidden_dim}", num_queries=100
)
model.true_boxes_relative_to_image = True

model.postprocess.thing_classes = L(thing_classes)(annotations="${dataloader.categories}")
model.postprocess.panoptic = L(PanopticInference)(score_threshold=0.25, overlap_threshold=0.8)
model.postprocess.semantic = L(SemanticInference)(resize_masks=True)
model.postprocess.interpolation = "bicubic"
