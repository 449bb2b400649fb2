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
    amp="off",  # or "bf16", "fp16"; losses, matching and coordinates are computed in float32 all the same
    tf32=False,  # faster, coarser float32 products and convolutions on GPUs that can
    # On CPUs, memory that tensors leave is kept for later ones instead of going back to the system (glibc):
    # faster, with large images by a third, for some memory. A process that has begun with it stays so.
    keep_memory=True,
    # Patterns for names of the model's modules that torch.compile makes faster, such as [backbone]; the first
    # steps of each new image size take longer then. dynamic=true: one compilation for all sizes.
    compile=dict(modules=[], backend="inductor", dynamic=None),
    # Loader batches per optimizer step, whose gradients are averaged: a step then sees
    # dataloader.train.total_batch_size times this many images. Iterations are optimizer steps everywhere.
    accumulation=1,
    max_skipped_steps=10,  # left out in a row because a loss is not finite, before the run ends with a report
    clip_grad=dict(max_norm=0.01, norm_type=2.0),  # of the whole model's gradient; max_norm=None: no clipping
    # Moving average of the weights: d * average + (1 - d) * weights after each step, where d rises to decay
    # as n / (n + warmup) after n steps (0: no warm-up). Saved as model_ema.safetensors in checkpoints and as
    # model_final_ema.safetensors. evaluate: "both" (metrics of the average begin with "ema/"), "ema" or
    # "raw", in training and with --eval-only --resume.
    ema=dict(enabled=False, decay=0.9999, warmup=10, evaluate="both"),
    distributed=dict(  # of several processes
        find_unused_parameters=False,  # some parameters take no part in some steps
        static_graph=False,  # the same parameters take part in all steps, which saves time
        sync_batch_norm=False,  # statistics over all processes, on GPUs
        # Split weights, gradients and optimizer state over the processes, for large backbones; weights of
        # these modules are put together one by one. Blocks themselves cannot be named where only their parts
        # are called, as in SwinBackbone.
        fsdp=False,
        fsdp_modules=["*.blocks.*.attn", "*.blocks.*.mlp"],
    ),
    # Of several processes: seconds without a sign of life of one, after which the others end; 0: never.
    process_timeout=300,
    log_period=20,
    # Steps from 1 on, both included, that are profiled; 0 and 0: none. Files are in output_dir/profile.
    profiler=dict(start=0, stop=0),
    eval_period=5000,  # iterations; 0: only at the end
    # Evaluate on the way in a process of its own, while training goes on; the last evaluation is as usual. It
    # needs processor cores, or memory of the GPU, besides. device: None: that of training; or such as "cpu".
    # threads: on a CPU; None: half of PyTorch's number.
    eval_beside=dict(enabled=False, device=None, threads=None),
    # The loss on test images at every evaluation: "val/loss" and its parts. max_images: only the first ones.
    validation_loss=dict(enabled=False, max_images=None),
    # Ends training when `patience` evaluations in a row have not improved on the best one by more than
    # min_delta. metric: None: never; or such as "segm/AP" with mode "max", "val/loss" with "min".
    early_stopping=dict(metric=None, mode="max", patience=5, min_delta=0.0),
    checkpoint=dict(
        period=5000,  # iterations; 0: only at the end
        keep=3,  # the newest; the best one and model_final.safetensors stay besides
        best_metric=None,  # such as "segm/AP": keep the checkpoint with its best value
        best_mode="max",  # or "min", for a metric such as "val/loss"
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
    # Made at the end: predictions.png of `count` test images and, of `rated` ones, the `extremes` best and
    # worst in report.html. TensorBoard and wandb get predictions at every evaluation.
    # score_threshold: of instances; None: for each class that with the best F1 in the evaluation, else 0.5.
    pictures=dict(count=8, score_threshold=None, rated=100, extremes=4),
)
