"""Draws the samples of a config's data loader beside the original images and annotations."""

from __future__ import annotations

import argparse
import logging
from functools import partial
from itertools import islice

from omegaconf import DictConfig

from detrex.cli.arguments import read_config
from detrex.cli.commands.view import DEFAULT_COUNT
from detrex.cli.gallery import Row, find_images, loader_config, save_gallery
from detrex.config import instantiate
from detrex.data import DataError, ImageDataset, Record, TrainLoader
from detrex.data.census import Census, Split
from detrex.data.checks import check_pixels
from detrex.data.samplers import Draw, ShuffledBatches
from detrex.engine.run_evaluation import build_dataset
from detrex.report.pictures import spread
from detrex.structures import Sample, Targets
from detrex.visualization import draw_targets

logger = logging.getLogger(__name__)


def draw_data(options: argparse.Namespace) -> int:
    """Runs the command, and returns the number of images that were drawn."""
    config = read_config(options)
    loader = loader_config(config, options.split)
    dataset = build_dataset(loader, targets=not options.no_targets)
    chosen = find_images(dataset, options.image_id, options.file_name)
    show_census(dataset, options.split)
    kind = TrainingSamples if options.split == "train" else EvaluationSamples
    samples = kind(loader, dataset, chosen, options.count)
    draw = partial(draw_row, dataset, samples, not options.no_labels)
    save_gallery(samples.draws, draw, ["image", samples.title], options.output, options.grid)
    return len(samples.draws)


def show_census(dataset: ImageDataset, split: str) -> None:
    """Prints the content of the data set, and warnings about it."""
    if (counts := dataset.counts()) is not None:
        census = Census([Split(split, dataset.categories, counts)])
        print(census.text())
        for warning in census.warnings():
            logger.warning("%s", warning)
    try:
        for warning in check_pixels(dataset):
            logger.warning("%s", warning)
    except DataError as error:  # the other images are still drawn
        logger.error("%s", error)


class TrainingSamples:
    """Samples of training.

    A sample depends only on the seed and its number, so a loader with batches of one image returns the same
    samples as any batch size.

    Args:
        loader: config of the loader.
        dataset: built from it.
        chosen: indices of images, whose samples in the first epoch are taken; None: the first samples.
        count: largest number of samples; None: all chosen ones.

    Attributes:
        draws: the draws of the samples.
    """

    title = "training sample"

    def __init__(
        self, loader: DictConfig, dataset: ImageDataset, chosen: list[int] | None, count: int | None
    ):
        self._loader: TrainLoader = instantiate(
            loader,
            dataset=dataset,
            total_batch_size=1,
            num_workers=0,
            aspect_ratio_grouping=False,
            pin_memory=False,
        )
        seed = self._loader.state_dict()["seed"]
        draws = (draw for (draw,) in ShuffledBatches(len(dataset), 1, seed))
        if chosen is None:
            self.draws = list(islice(draws, count or DEFAULT_COUNT))
        else:
            first_epoch = {draw.image: draw for draw in islice(draws, len(dataset))}
            self.draws = [first_epoch[index] for index in chosen[:count]]

    def sample(self, draw: Draw, _record: Record) -> Sample:
        """The augmented image with its targets."""
        self._loader.load_state_dict({**self._loader.state_dict(), "consumed_batches": draw.number})
        (sample,) = next(iter(self._loader))
        return sample


class EvaluationSamples:
    """Samples for evaluation; arguments and attributes are those of :class:`TrainingSamples`.

    Without ``chosen``, images are spread evenly over the data set.
    """

    title = "model input"

    def __init__(
        self, loader: DictConfig, dataset: ImageDataset, chosen: list[int] | None, count: int | None
    ):
        self._mapper = instantiate(loader.mapper)
        if chosen is None:
            chosen = spread(len(dataset), count or DEFAULT_COUNT)
        self.draws = [Draw(number, index) for number, index in enumerate(chosen[:count])]

    def sample(self, _draw: Draw, record: Record) -> Sample:
        """The image at the size for evaluation; it has no targets."""
        return self._mapper(record)


def draw_row(
    dataset: ImageDataset, samples: TrainingSamples | EvaluationSamples, labels: bool, draw: Draw
) -> Row:
    """The image with its annotations, and the sample with its targets."""
    record = dataset[draw.image]
    sample = samples.sample(draw, record)
    image, targets = sample["image"], sample.get("targets")
    height, width = image.shape[-2:]
    caption = (
        f"{record['file_name']} (image id {record['image_id']})\n"
        f"image {_described(record['height'], record['width'], record['targets'])}; "
        f"{samples.title} {_described(height, width, targets)} (height x width)"
    )
    pictures = [
        draw_targets(record["image"], record["targets"], dataset.categories, labels=labels),
        draw_targets(image, targets or Targets.empty(height, width), dataset.categories, labels=labels),
    ]
    return Row(record["file_name"], caption, pictures)


def _described(height: int, width: int, targets: Targets | None) -> str:
    return f"{height} x {width}" + ("" if targets is None else f", {len(targets)} objects")
