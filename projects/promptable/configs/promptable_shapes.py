"""Words and clicks in one small model, trained from nothing on a CPU: what `make demo-prompts` runs.

    python tools/train_net.py --config-file projects/promptable/configs/promptable_shapes.py

The scenes are drawn at first use; nothing is downloaded. Evaluation is on what training shows, such as blue
stars; `promptable_shapes_held_out.py` is for the rest, such as red ones.
"""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import OneClickMapper
from detrex.evaluation import OneClickEvaluator
from projects.promptable.scenes import ensure_scenes

from .models.promptable_small import model


def scenes(file):
    return L(ensure_scenes)(
        root="${dataloader.root}",
        splits="${dataloader.splits}",
        image_size="${dataloader.image_size}",
        seed="${dataloader.seed}",
        file=file,
    )


dataloader = get_config("common/data/coco_instance.py").dataloader
optimizer = get_config("common/optim.py").optimizer
scheduler = get_config("common/schedule.py").poly
train = get_config("common/train.py").train

dataloader.root = "datasets/promptable_shapes"
dataloader.splits = dict(train=4000, val=100, held_out=200)
dataloader.image_size = 96
dataloader.seed = 0
dataloader.categories = "${dataloader.train.dataset.annotations}"
dataloader.train.dataset.images = scenes("train")
dataloader.train.dataset.annotations = scenes("annotations/instances_train.json")
dataloader.train.num_workers = 1
dataloader.test.dataset.images = scenes("val")
dataloader.test.dataset.annotations = scenes("annotations/instances_val.json")
dataloader.test.num_workers = 1
dataloader.train.total_batch_size = 4
dataloader.train.mapper.image_size = "${dataloader.image_size}"
dataloader.train.mapper.min_scale = dataloader.train.mapper.max_scale = 1.0
dataloader.test.batch_size = 10
dataloader.test.dataset.targets = True
dataloader.test.mapper = L(OneClickMapper)(
    size="${dataloader.image_size}", max_size="${dataloader.image_size}"
)
dataloader.evaluators.one_click = L(OneClickEvaluator)()

optimizer.lr = 2e-3
optimizer.weight_decay = 0.02
optimizer.lr_factors = {}
scheduler.warmup_iters = 60
train.clip_grad.max_norm = 0.1

train.output_dir = "output/promptable_shapes"
train.max_iter = 4500
train.log_period = 50
train.pictures.count = 4
train.eval_period = 0
train.checkpoint.period = 1000
