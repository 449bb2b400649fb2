"""Clips of videos in the format of DanceTrack and the MOT challenge, with augmentation alike for all frames.

Expected under `dataloader.root`: `train/` and `val/`, folders of videos as they are distributed, each with
`seqinfo.ini`, `img1/` and `gt/gt.txt`. The evaluator needs TrackEval (extra `track`).
"""

from detrex.config import LazyCall as L
from detrex.data import DetrMapper, build_test_loader, build_train_loader, category_file, dataset_root
from detrex.data.mot import ClipMapper, FrameMapper, MotVideos
from detrex.evaluation.tracking import MotEvaluator

dataloader = dict(
    root=dataset_root("dancetrack"),
    categories=L(category_file)(name="dancetrack"),
    train=L(build_train_loader)(
        dataset=L(MotVideos)(
            images="${dataloader.root}/train",
            categories="${dataloader.categories}",
            clip_length=5,
            max_step=10,
        ),
        mapper=L(ClipMapper)(
            mapper=L(DetrMapper)(
                sizes=[608, 640, 672, 704, 736, 768, 800, 832, 864, 896, 928, 960, 992],
                max_size=1536,
                crop_base_sizes=[800, 1000, 1200],
                crop_range=[800, 1200],
            )
        ),
        total_batch_size=8,
        num_workers=4,
        seed="${train.seed}",
    ),
    test=L(build_test_loader)(
        dataset=L(MotVideos)(
            images="${dataloader.root}/val", categories="${dataloader.categories}", targets=False
        ),
        mapper=L(FrameMapper)(size=800, max_size=1536),
        batch_size=1,
        num_workers=4,
    ),
    evaluators=dict(
        tracks=L(MotEvaluator)(
            images="${dataloader.test.dataset.images}",
            output_dir=None,  # where to write the tracks, in MOT's format of results
        ),
    ),
)
