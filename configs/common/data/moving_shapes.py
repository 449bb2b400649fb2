"""Made videos of shapes that look alike, in DanceTrack's format, drawn at first use in `dataloader.root`."""

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.data import LargeScaleJitterMapper
from detrex.data.moving_shapes import ensure_moving_shapes


def moving_shapes(file):
    return L(ensure_moving_shapes)(
        root="${dataloader.root}",
        splits="${dataloader.splits}",
        frames="${dataloader.frames}",
        image_size="${dataloader.image_size}",
        seed="${dataloader.seed}",
        file=file,
    )


dataloader = get_config("common/data/dancetrack.py").dataloader
dataloader.root = "datasets/moving_shapes"
dataloader.splits = dict(train=120, val=12)
dataloader.frames = 16
dataloader.image_size = 96
dataloader.seed = 0
dataloader.categories.name = "moving_shapes"
dataloader.train.dataset.images = moving_shapes("train")
dataloader.train.dataset.clip_length = 4
dataloader.train.dataset.max_step = 2
dataloader.test.dataset.images = moving_shapes("val")
dataloader.train.mapper.mapper = L(LargeScaleJitterMapper)(
    image_size="${dataloader.image_size}", min_scale=1.0, max_scale=1.0
)
dataloader.train.total_batch_size = 2
dataloader.test.mapper.size = "${dataloader.image_size}"
dataloader.test.mapper.max_size = "${dataloader.image_size}"
dataloader.test.batch_size = 8
for loader in (dataloader.train, dataloader.test):
    loader.num_workers = 1
