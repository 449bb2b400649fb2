"""Evaluating what a config describes, and showing the results."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig
from torch import nn
from torch.utils.data import Dataset

from detrex.config import instantiate
from detrex.engine.pictures import save_pictures
from detrex.engine.precision import autocast
from detrex.evaluation import (
    collect_per_class,
    evaluate,
    format_per_class,
    format_summary,
    format_table,
    write_results,
)
from detrex.structures import Categories
from detrex.utils.distributed import barrier, is_main_process, share_buffers

logger = logging.getLogger(__name__)


class Evaluation:
    """The test data of a config and its evaluators, built once.

    Attributes:
        categories: classes of the test data, or None if it has none.
        metrics: figures of the last :meth:`run`.
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
        self._dataset = getattr(self._loader, "dataset", None)
        self.categories = getattr(self._dataset, "categories", None)
        self.metrics: dict[str, float] = {}

    def run(self) -> dict[str, float]:
        """Figures over all processes; the main one logs them as a table."""
        # Each process has statistics of its own images; those of the main one are in the checkpoint.
        share_buffers(self._model)
        device = next(self._model.parameters()).device
        with autocast(self._config.train.amp, device):
            self.metrics = evaluate(self._model, self._loader, self._evaluators)
        if is_main_process():
            logger.info("results:\n%s", format_table(self.metrics))
        return self.metrics

    def report(self, categories: Categories | None = None) -> None:
        """Writes ``results.json`` and ``predictions.png`` of the last :meth:`run` to the output folder.

        Args:
            categories: the model's classes, if not those of the test data.
        """
        if is_main_process():
            output_dir = Path(self._config.train.output_dir)
            per_class = collect_per_class(self._evaluators)
            if per_class:
                logger.info("results per class:\n%s", format_per_class(per_class))
            write_results(output_dir / "results.json", self.metrics, per_class)
            logger.info("wrote %s", output_dir / "results.json")
            self._save_pictures(output_dir / "predictions.png", categories or self.categories)
            logger.info("summary:\n%s", format_summary(self.metrics))
        barrier()

    def _save_pictures(self, path: Path, categories: Categories | None) -> None:
        pictures = self._config.train.pictures
        mapper = instantiate(self._config.dataloader.test.get("mapper"))
        if self._dataset is None or mapper is None or categories is None or pictures.count < 1:
            return
        device = next(self._model.parameters()).device
        with autocast(self._config.train.amp, device):
            save_pictures(
                path,
                self._model,
                self._dataset_with_targets(),
                mapper,
                categories,
                pictures.count,
                pictures.score_threshold,
            )
        logger.info("wrote %s", path)

    def _dataset_with_targets(self) -> Dataset:
        """Evaluators read annotations themselves, so data sets for evaluation may have been told not to."""
        node = self._config.dataloader.test.get("dataset")
        return instantiate(node, targets=True) if node is not None and "targets" in node else self._dataset


def build_evaluation(config: DictConfig, model: nn.Module) -> Evaluation | None:
    """None, with a message, if the config has no test data or no evaluators."""
    dataloader = config.dataloader
    if dataloader.get("test") is None or not dataloader.get("evaluators"):
        logger.warning("the config has no dataloader.test or no dataloader.evaluators: nothing is evaluated")
        return None
    return Evaluation(config, model)
