"""Evaluates the model of a config: metrics, the validation loss, and pictures of results."""

from __future__ import annotations

import logging
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from detrex.config import ConfigError, instantiate
from detrex.data import ImageDataset, KeepOriginal, Record, TrainingMapper
from detrex.engine.ema import WeightAverage
from detrex.engine.parallel import put_together
from detrex.engine.thresholds import describe_thresholds
from detrex.evaluation import (
    CocoEvaluator,
    PerClass,
    SemanticEvaluator,
    collect_per_class,
    evaluate,
    evaluation_mode,
    format_classes,
    format_per_class,
    format_summary,
    format_table,
    write_results,
)
from detrex.evaluation.report import class_labels
from detrex.evaluation.thresholds import BestThreshold
from detrex.report import RunResults
from detrex.report.detection import error_pictures
from detrex.report.pictures import RatedImage, ResultPictures
from detrex.report.series import main_names
from detrex.runtime.device import autocast
from detrex.runtime.distributed import (
    all_gather_objects,
    alone,
    barrier,
    is_main_process,
    rank,
    share_buffers,
    world_size,
)
from detrex.runtime.random_state import preserved_random_state
from detrex.structures import Categories, Sample

logger = logging.getLogger(__name__)

Mapper = Callable[[Record], Sample]

DEFAULT_THRESHOLD = 0.5
"""Score threshold for drawing instances, unless the evaluation finds a better one."""


class Evaluation:
    """The test data of a config and its evaluators, built once.

    Attributes:
        dataset: the test data, or None if the loader has none.
        categories: its classes, or None if it has none.
        average: of the model's weights, if there is one to evaluate.
        metrics: of the last evaluation.
        best, worst: the images that :meth:`report` found, on the main process.
    """

    def __init__(self, config: DictConfig, model: nn.Module, average: WeightAverage | None = None):
        """
        Args:
            config: with ``dataloader.test``, ``dataloader.evaluators`` and ``train``.
            model: on its device, without a distributed wrapper.
            average: of its weights, if there is one to evaluate.
        """
        self._config = config
        self._model = model
        self.average = average
        self._mapper = _mapper(config)
        changes = {} if self._mapper is None else {"mapper": self._mapper}
        self._loader = instantiate(config.dataloader.test, **changes)
        self._evaluators = instantiate(config.dataloader.evaluators)
        self._validation_loss = _validation_loss(config)
        self.dataset = getattr(self._loader, "dataset", None)
        self.categories = getattr(self.dataset, "categories", None)
        self.metrics: dict[str, float] = {}
        self.best: list[RatedImage] = []
        self.worst: list[RatedImage] = []
        self._evaluated = model  # the model evaluated last, whose results are drawn
        self._drawn: Image.Image | None = None
        self._error_pictures: dict[str, list[str]] = {}

    @property
    def results(self) -> RunResults:
        """The results of the last evaluation, for a page."""
        chosen = self._evaluators
        evaluators = list(chosen.values() if isinstance(chosen, Mapping) else chosen)
        found = (getattr(evaluator, "analysis", None) for evaluator in evaluators)
        semantic = next((e for e in evaluators if isinstance(e, SemanticEvaluator)), None)
        return RunResults(
            self.metrics,
            collect_per_class(evaluators),
            self.best,
            self.worst,
            next((analysis for analysis in found if analysis is not None), None),
            self._error_pictures,
            None if semantic is None else (semantic.confusion, class_labels(semantic.categories)),
        )

    @property
    def score_thresholds(self) -> dict[int, BestThreshold]:
        """The thresholds with the best F1 in the last evaluation, by category id; empty if not known."""
        chosen = self._evaluators
        evaluators = chosen.values() if isinstance(chosen, Mapping) else chosen
        found = (e.score_thresholds() for e in evaluators if isinstance(e, CocoEvaluator))
        return next(found, {})

    @property
    def evaluates_average(self) -> bool:
        """Whether :meth:`report` describes the averaged weights."""
        return self.average is not None and self._evaluated is self.average.module

    def metric_names(self) -> list[str] | None:
        """Names of the metrics that :meth:`run` will return; None if an evaluator does not know them before.

        The parts of the validation loss are not included, because they are known only with the first batch.
        """
        chosen = self._evaluators
        names: list[str] = []
        for evaluator in chosen.values() if isinstance(chosen, Mapping) else chosen:
            if not hasattr(evaluator, "metric_names"):
                return None
            names += evaluator.metric_names()
        if self._validation_loss is not None:
            names.append("val/loss")
        if self.average is None or self._config.train.ema.evaluate != "both":
            return names
        return [*names, *(f"ema/{name}" for name in names)]

    def run(self) -> dict[str, float]:
        """Evaluates the model, its average, or both, as ``train.ema.evaluate`` says.

        Call it on all processes; the main one logs the metrics as a table.

        Returns:
            The metrics over all processes. For ``both``, names of the average's metrics begin with ``ema/``,
            as in ``ema/segm/AP``; other results, such as pictures, are those of the model itself.
        """
        choice = "raw" if self.average is None else self._config.train.ema.evaluate
        averaged = {}
        if self.average is not None and choice != "raw":
            logger.info("evaluating the averaged weights")
            averaged = self._measure(self.average.module)
        if choice == "ema":
            self.metrics = averaged
        else:
            if self.average is not None:
                logger.info("evaluating the weights as they are")
            metrics = self._measure(self._model)
            self.metrics = {**metrics, **{f"ema/{name}": value for name, value in averaged.items()}}
        return self.metrics

    def _measure(self, model: nn.Module) -> dict[str, float]:
        # Each process has statistics of its own images; the checkpoint has those of the main one.
        share_buffers(model)
        put_together(model)  # processes have different numbers of batches
        self._evaluated, self._drawn = model, None
        with self._autocast():
            metrics = evaluate(model, self._loader, self._evaluators)
            if self._validation_loss is not None:
                metrics.update(self._validation_loss.measure(model))
        if is_main_process():
            classes = format_classes(collect_per_class(self._evaluators))
            logger.info("results:\n%s%s", format_table(metrics), f"\n{classes}" if classes else "")
        return metrics

    def draw(self, categories: Categories | None = None) -> Image.Image | None:
        """``train.pictures.count`` images with results; None if nothing can be drawn.

        Args:
            categories: the model's classes, if not those of the test data.
        """
        count = self._config.train.pictures.count
        if self._drawn is None and count > 0 and (pictures := self._pictures(categories)) is not None:
            with self._autocast():
                self._drawn = pictures.grid(count)
        return self._drawn

    def report(self, categories: Categories | None = None) -> None:
        """Writes ``results.json`` and ``predictions.png`` of the last :meth:`run`; finds the best and worst.

        Args:
            categories: the model's classes, if not those of the test data.
        """
        if is_main_process():
            output_dir = Path(self._config.train.output_dir)
            per_class: PerClass = self.results.per_class
            thresholds = self.score_thresholds
            if per_class:
                logger.info("results per class:\n%s", format_per_class(per_class))
            _keep(
                output_dir / "results.json",
                lambda path: write_results(path, self.metrics, per_class, thresholds),
            )
            if (grid := self.draw(categories)) is not None:
                _keep(output_dir / "predictions.png", grid.save)
            self._find_extremes(categories)
            self._draw_errors()
            if thresholds and self.categories is not None:
                words = describe_thresholds(thresholds, self.categories)
                logger.info("score thresholds with the best F1: %s", words)
            logger.info("summary:\n%s", format_summary(self.metrics))
        barrier()

    def _find_extremes(self, categories: Categories | None) -> None:
        options = self._config.train.pictures
        pictures = self._pictures(categories)
        if pictures is not None and options.rated > 0 and options.extremes > 0:
            with self._autocast():
                self.best, self.worst = pictures.extremes(options.rated, options.extremes)

    def _draw_errors(self) -> None:
        analysis = self.results.analysis
        if (
            analysis is not None
            and isinstance(self.dataset, ImageDataset)
            and self._config.train.pictures.rated > 0
        ):
            self._error_pictures = error_pictures(analysis, self.dataset)

    def _pictures(self, categories: Categories | None) -> ResultPictures | None:
        node = self._config.dataloader.test
        categories = categories or self.categories
        if categories is None or node.get("mapper") is None or node.get("dataset") is None:
            return None
        # Evaluators read annotations themselves, so the loader's data set may be configured not to.
        dataset = build_dataset(node)
        chosen = self._config.train.pictures.score_threshold
        best = {} if chosen is not None else {i: b.threshold for i, b in self.score_thresholds.items()}
        default = DEFAULT_THRESHOLD if chosen is None else chosen
        thresholds = [best.get(category_id, default) for category_id in categories.ids]
        note = "from each class's best F1 on" if best else f"from {default:g} on"
        assert self._mapper is not None, "looked at above"
        return ResultPictures(self._evaluated, dataset, self._mapper, categories, thresholds, note)

    def _autocast(self) -> AbstractContextManager:
        return autocast(self._config.train.amp, next(self._model.parameters()).device)


def build_evaluation(
    config: DictConfig, model: nn.Module, average: WeightAverage | None = None
) -> Evaluation | None:
    """Builds the evaluation; None, with a message, if the config has no test data or no evaluators."""
    dataloader = config.dataloader
    if dataloader.get("test") is None or not dataloader.get("evaluators"):
        logger.warning("the config has no dataloader.test or no dataloader.evaluators: nothing is evaluated")
        return None
    return Evaluation(config, model, average)


def build_dataset(loader: DictConfig, targets: bool = True) -> ImageDataset:
    """The data set of a loader's config, with or without its annotations.

    Data sets for evaluation are mostly configured without them, because evaluators read annotations
    themselves.
    """
    if targets and "targets" not in loader.dataset:
        return instantiate(loader.dataset)
    return instantiate(loader.dataset, targets=targets)


def _mapper(config: DictConfig) -> Mapper | None:
    """The mapper of the test data, if any; it keeps original images if the model looks more than once."""
    loader = OmegaConf.select(config, "dataloader.test")
    node = (
        loader.get("mapper") if isinstance(loader, DictConfig) else None
    )  # the loader may be a plain list of batches
    if node is None:
        return None
    mapper = instantiate(node)
    return mapper if OmegaConf.select(config, "model.inference") is None else KeepOriginal(mapper)


def _keep(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file beside a run's checkpoints; a full disk does not end the run."""
    try:
        write(path)
        logger.info("wrote %s", path)
    except OSError as error:
        logger.warning("%s could not be written: %s", path, error.strerror or error)


def _validation_loss(config: DictConfig) -> ValidationLoss | None:
    options = config.train.validation_loss
    return ValidationLoss(config.dataloader.test, options.max_images) if options.enabled else None


class ValidationLoss:
    """The training loss over the test data, as means over images.

    The losses are those of training, including denoising, but the network is in evaluation mode: dropout is
    off, and batch norms use their running statistics and do not change them. Every image is a separate batch,
    and the random numbers of losses (noise, points) depend on the image alone. So values can be compared over
    a run, and do not depend on the number of processes. Training divides by the objects of a whole batch
    instead; its loss has a similar size, but is not the same mean.

    It costs about as much time as the evaluation itself, and a second copy of the test data's annotations.
    """

    def __init__(self, loader: DictConfig, max_images: int | None = None):
        """
        Args:
            loader: config of the loader for testing.
            max_images: use only the first so many images; None for all.

        Raises:
            ValueError: ``max_images`` is below 1.
        """
        if max_images is not None and max_images < 1:
            raise ValueError(f"train.validation_loss.max_images must be at least 1, not {max_images}")
        self._max_images = max_images
        changes: dict[str, Any] = {"dataset": build_dataset(loader)}
        if "mapper" in loader:
            changes["mapper"] = _WithTargets(instantiate(loader.mapper))
        self._loader = instantiate(loader, **changes)

    def measure(self, model: nn.Module) -> dict[str, float]:
        """``val/loss`` and the losses of the final layer (``val/loss_ce`` etc.); call it on all processes.

        Args:
            model: with a method ``losses`` from samples to weighted losses by name, such as
                :class:`detrex.modeling.Detector`; afterwards, it is in the same mode as before.

        Raises:
            ConfigError: the model has no such method.
        """
        start = time.perf_counter()
        totals: dict[str, float] = defaultdict(float)
        images = 0
        losses_of = getattr(model, "losses", None)
        if losses_of is None:
            raise ConfigError(
                f"train.validation_loss.enabled=true needs a model with a method 'losses', which "
                f"{type(model).__name__} has not"
            )
        with preserved_random_state(), evaluation_mode(model):
            for sample in self._samples():
                for name, value in _losses(losses_of, sample).items():
                    totals[name] += value
                images += 1
        everyone = all_gather_objects((dict(totals), images))
        count = sum(images for _, images in everyone)
        names = dict.fromkeys(name for totals, _ in everyone for name in totals)
        sums = {name: sum(totals.get(name, 0.0) for totals, _ in everyone) for name in names}
        logger.info("validation loss of %d images in %.1f s", count, time.perf_counter() - start)
        shown = {"loss": sum(sums.values()), **{name: sums[name] for name in main_names(names)}}
        return {f"val/{name}": value / count for name, value in shown.items()}

    def _samples(self):
        """This process's share of the first ``max_images`` images."""
        limit = None if self._max_images is None else len(range(rank(), self._max_images, world_size()))
        done = 0
        for samples in self._loader:
            for sample in samples:
                if done == limit:
                    return
                yield sample
                done += 1


class _WithTargets:
    """A mapper for evaluation whose samples also have the record's targets, resized like the image."""

    def __init__(self, mapper: Callable[[Record], Sample]):
        self._mapper = mapper

    def __call__(self, record: Record) -> Sample:
        sample = self._mapper(record)
        resize = TrainingMapper(v2.Resize(list(sample["image"].shape[-2:])))
        return Sample(**{**sample, "targets": resize(record)["targets"]})


def _losses(losses_of: Callable[[list[Sample]], Mapping[str, Tensor]], sample: Sample) -> dict[str, float]:
    torch.manual_seed(zlib.crc32(str(sample["image_id"]).encode()))
    with alone():
        losses = losses_of([sample])
    values = torch.stack([loss.float() for loss in losses.values()]).tolist()
    return dict(zip(losses, values, strict=True))
