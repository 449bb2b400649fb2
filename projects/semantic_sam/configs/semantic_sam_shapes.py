"""A small Semantic-SAM on the embedded data set of shapes: masks by clicks and boxes, from nothing on a CPU.

python tools/train_net.py --config-file projects/semantic_sam/configs/semantic_sam_shapes.py
detrex predict PHOTO --model output/semantic_sam_shapes
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import OneClickMapper, category_file
from detrex.evaluation import OneClickEvaluator
from detrex.modeling import TimmBackbone

from .models.semantic_sam_swin_tiny import model

dataloader = get_config("common/data/shapes.py").dataloader
optimizer = get_config("common/optim.py").optimizer
scheduler = get_config("common/schedule.py").poly
train = get_config("common/train.py").train

dataloader.categories = L(category_file)(name="object")
dataloader.image_size = 96
dataloader.train.total_batch_size = 4
dataloader.train.mapper.min_scale = dataloader.train.mapper.max_scale = 1.0
dataloader.train.num_workers = 1
dataloader.train.one_class = True
dataloader.test.dataset.targets = True
dataloader.test.mapper = L(OneClickMapper)(
    size="${dataloader.image_size}", max_size="${dataloader.image_size}"
)
dataloader.evaluators = dict(one_click=L(OneClickEvaluator)())

model.backbone = L(TimmBackbone)(
    name="resnet18",
    strides=[4, 8, 16, 32],
    frozen_norm=False,  # its statistics have to be learned, too
    options=dict(channels=[32, 64, 128, 192], stem_type="deep_tiered", stem_width=8),
)
model.merge_with(
    dict(
        encoder=dict(strides=[8, 16, 32], hidden_dim=64, ffn_dim=256, num_heads=4, num_layers=2),
        pixel_head=dict(mask_dim=64),
        decoder=dict(layers=dict(num_levels=3, num_heads=4, ffn_dim=256, num_layers=3)),
        criterion=dict(points=dict(num_points=256)),
        drawing=dict(num_prompts=12, box_share=0.5),
        automatic=dict(points_per_side=16),
    )
)
model.initialisation = None

optimizer.lr = 2e-3
optimizer.weight_decay = 0.02
optimizer.lr_factors = {}
scheduler.warmup_iters = 60
train.clip_grad.max_norm = 0.1

train.output_dir = "output/semantic_sam_shapes"
train.max_iter = 2000
train.log_period = 50
train.pictures.count = train.pictures.rated = 0  # pictures would be of everything, without clicks
train.eval_period = 0
train.checkpoint.period = 1000
