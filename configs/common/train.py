"""What every run needs; `get_config("common/train.py").train` in a config, then change what differs."""

from detrex.config import LazyCall as L
from detrex.engine import TensorBoardWriter, WandbWriter

train = dict(
    output_dir="output/run",
    # Weights to start from, or to evaluate: a file or folder, an https:// URL or a name in the model zoo (see
    # docs/checkpoints.md). In training, what does not fit is initialised anew.
    init_checkpoint=None,
    allow_pickle=False,  # of detectron2's old .pkl files; the reader runs no code in them
    # Lengths here and in the scheduler are in iterations, or in epochs: `train.max_iter = epochs(12)` in a
    # config, with `epochs` of detrex.engine; then train.max_iter.epochs=24 on the command line.
    max_iter=10000,
    iterations_per_epoch=None,  # None: as the training data and its batch size say
    # Learning rates times the ratio of the batch size to this one ("linear"), or its square root ("sqrt").
    lr_scaling=dict(rule="off", base_batch_size=16),
    seed=0,
    device="auto",  # "auto": the GPU where there is one, else "cpu"
    amp="off",  # or "bf16", "fp16"
    clip_grad=dict(max_norm=0.01, norm_type=2.0),  # of the whole model's gradient; max_norm=None: no clipping
    find_unused_parameters=False,  # distributed training of models that leave parameters out in some steps
    log_period=20,
    eval_period=5000,  # iterations; 0: only at the end
    checkpoint=dict(
        period=5000,  # iterations; 0: only at the end
        keep=3,  # the newest; the best one and model_final.safetensors stay besides
        best_metric=None,  # such as "segm/AP": keep the checkpoint with its largest value
    ),
    writers=dict(
        tensorboard=dict(
            enabled=False, writer=L(TensorBoardWriter)(directory="${train.output_dir}/tensorboard")
        ),
        wandb=dict(
            enabled=False,
            writer=L(WandbWriter)(
                directory="${train.output_dir}", project="detrex", name=None, entity=None, mode=None
            ),
        ),
    ),
    pictures=dict(count=8, score_threshold=0.5),  # in predictions.png, made at the end
)
