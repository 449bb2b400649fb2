"""Evaluating what a config describes, and showing the results."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig
from PIL import Image
from torch import nn

from detrex.config import instantiate
from detrex.engine.gallery import build_dataset
from detrex.engine.pictures import RatedImage, ResultPictures
from detrex.engine.sharding import put_together
from detrex.engine.validation_loss import ValidationLoss
from detrex.evaluation import (
    PerClass,
    collect_per_class,
    evaluate,
    format_per_class,
    format_summary,
    format_table,
    write_results,
)
from detrex.runtime.device import autocast
from detrex.runtime.distributed import barrier, is_main_process, share_buffers
from detrex.structures import Categories

logger = logging.getLogger(__name__)


class Evaluation:
    """The test data of a config and its evaluators, built once.

    Attributes:
        categories: classes of the test data, or None if it has none.
        metrics: figures of the last :meth:`run`.
        best, worst: images that :meth:`report` has found, on the main process.
    """

    def __init__(self, config: DictConfig, model: nn.Module):
        """
        Args:
            config: with ``dataloader.test``, ``dataloader.evaluators`` and ``train``.
            model: on its device, without a distributed wrapper.
        """
        self._config = config
        self._model = model
        self._loader = instantiate(config.dataloader.test)
        self._evaluators = instantiate(config.dataloader.evaluators)
        self._validation_loss = _validation_loss(config, model)
        self.categories = getattr(getattr(self._loader, "dataset", None), "categories", None)
        self.metrics: dict[str, float] = {}
        self.best: list[RatedImage] = []
        self.worst: list[RatedImage] = []
        self._drawn: Image.Image | None = None

    @property
    def per_class(self) -> PerClass:
        """Figures per class of the last :meth:`run`."""
        return collect_per_class(self._evaluators)

    def run(self) -> dict[str, float]:
        """Figures over all processes; the main one logs them as a table."""
        # Each process has statistics of its own images; those of the main one are in the checkpoint.
        share_buffers(self._model)
        put_together(self._model)  # processes have different numbers of batches
        with self._autocast():
            self.metrics = evaluate(self._model, self._loader, self._evaluators)
            if self._validation_loss is not None:
                self.metrics.update(self._validation_loss.measure())
        self._drawn = None
        if is_main_process():
            logger.info("results:\n%s", format_table(self.metrics))
        return self.metrics

    def draw(self, categories: Categories | None = None) -> Image.Image | None:
        """``train.pictures.count`` images with results; None where nothing can be drawn.

        Args:
            categories: the model's classes, if not those of the test data.
        """
        count = self._config.train.pictures.count
        if self._drawn is None and count > 0 and (pictures := self._pictures(categories)) is not None:
            with self._autocast():
                self._drawn = pictures.grid(count)
        return self._drawn

    def report(self, categories: Categories | None = None) -> None:
        """Writes ``results.json`` and ``predictions.png`` of the last :meth:`run`; finds the extremes.

        Args:
            categories: the model's classes, if not those of the test data.
        """
        if is_main_process():
            output_dir = Path(self._config.train.output_dir)
            if self.per_class:
                logger.info("results per class:\n%s", format_per_class(self.per_class))
            write_results(output_dir / "results.json", self.metrics, self.per_class)
            logger.info("wrote %s", output_dir / "results.json")
            if (grid := self.draw(categories)) is not None:
                grid.save(output_dir / "predictions.png")
                logger.info("wrote %s", output_dir / "predictions.png")
            self._find_extremes(categories)
            logger.info("summary:\n%s", format_summary(self.metrics))
        barrier()

    def _find_extremes(self, categories: Categories | None) -> None:
        options = self._config.train.pictures
        pictures = self._pictures(categories)
        if pictures is not None and options.rated > 0 and options.extremes > 0:
            with self._autocast():
                self.best, self.worst = pictures.extremes(options.rated, options.extremes)

    def _pictures(self, categories: Categories | None) -> ResultPictures | None:
        node = self._config.dataloader.test
        categories = categories or self.categories
        if categories is None or node.get("mapper") is None or node.get("dataset") is None:
            return None
        # Evaluators read annotations themselves, so the loader's data set may have been told not to.
        dataset = build_dataset(node)
        threshold = self._config.train.pictures.score_threshold
        return ResultPictures(self._model, dataset, instantiate(node.mapper), categories, threshold)

    def _autocast(self):
        return autocast(self._config.train.amp, next(self._model.parameters()).device)


def _validation_loss(config: DictConfig, model: nn.Module) -> ValidationLoss | None:
    options = config.train.validation_loss
    return ValidationLoss(model, config.dataloader.test, options.max_images) if options.enabled else None


def build_evaluation(config: DictConfig, model: nn.Module) -> Evaluation | None:
    """None, with a message, if the config has no test data or no evaluators."""
    dataloader = config.dataloader
    if dataloader.get("test") is None or not dataloader.get("evaluators"):
        logger.warning("the config has no dataloader.test or no dataloader.evaluators: nothing is evaluated")
        return None
    return Evaluation(config, model)
