"""A small OpenSeeD on the embedded data set of shapes: classes by words, within minutes on a CPU.

    python tools/train_net.py --config-file projects/openseed/configs/openseed_shapes.py
    detrex predict PHOTO --model output/openseed_shapes --classes "red circle, sky:stuff"

The text encoder is small and trained with the rest, so that it knows the words of this data set alone.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.modeling import TimmBackbone

from .models.openseed_swin_tiny import model

dataloader = get_config("common/data/shapes.py").dataloader
optimizer = get_config("common/optim.py").optimizer
scheduler = get_config("common/schedule.py").poly
train = get_config("common/train.py").train

dataloader.image_size = 96
dataloader.train.total_batch_size = 4
dataloader.train.mapper.min_scale = dataloader.train.mapper.max_scale = 1.0
dataloader.train.num_workers = 1

model.backbone = L(TimmBackbone)(
    name="resnet18",
    strides=[4, 8, 16, 32],
    frozen_norm=False,  # its statistics have to be learned, too
    options=dict(channels=[32, 64, 128, 192], stem_type="deep_tiered", stem_width=8),
)
model.merge_with(
    dict(
        vocabulary=dict(style="plain"),
        text=dict(context_length=12, width=64, num_layers=2, num_heads=4, embed_dim=64),
        encoder=dict(strides=[8, 16, 32], hidden_dim=64, ffn_dim=256, num_heads=4, num_layers=2),
        pixel_head=dict(mask_dim=64),
        decoder=dict(
            layers=dict(num_levels=3, num_heads=4, ffn_dim=256, num_layers=3),
            query_init=dict(num_queries=30, anchor_sizes=[0.1, 0.2, 0.4]),
        ),
        denoising=dict(num_queries=20),
        criterion=dict(points=dict(num_points=256)),
    )
)
model.templates = ["{}.", "a photo of a {}."]
model.initialisation = None

optimizer.lr = 2e-3
optimizer.weight_decay = 0.02
optimizer.lr_factors = {}
scheduler.warmup_iters = 60
train.clip_grad.max_norm = 0.1

train.output_dir = "output/openseed_shapes"
train.max_iter = 2000
train.log_period = 50
train.pictures.count = 4
train.eval_period = 0
train.checkpoint.period = 1000
