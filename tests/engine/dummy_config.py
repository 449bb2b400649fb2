"""A config of the dummy model, as a user would write one."""

from detrex.config import LazyCall as L
from detrex.config import get_config
from tests.engine import dummy

train = get_config("common/train.py").train
train.max_iter = 6
train.log_period = 1
train.eval_period = 2
train.device = "cpu"
train.checkpoint.period = 3

model = L(dummy.Model)(num_classes=3, dropout=0.3)
dataloader = dict(
    train=L(dummy.TrainLoader)(
        dataset=L(dummy.Dataset)(num_classes="${model.num_classes}"),
        total_batch_size=4,
        shuffle=True,
        poisoned=None,
        killed_at=None,
    ),
    test=L(dummy.TestLoader)(dataset=L(dummy.Dataset)(num_classes="${model.num_classes}")),
    evaluators=[L(dummy.Accuracy)()],
)
optimizer = get_config("common/optim.py").optimizer
optimizer.lr = 0.01
scheduler = get_config("common/schedule.py").cosine
scheduler.warmup_iters = 2
