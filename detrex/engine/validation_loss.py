"""The loss on test data."""

from __future__ import annotations

import logging
import time
import zlib
from collections import defaultdict
from collections.abc import Callable

import torch
from omegaconf import DictConfig
from torch import nn
from torchvision.transforms import v2

from detrex.config import instantiate
from detrex.data import TrainingMapper
from detrex.data.image_dataset import Record
from detrex.engine.gallery import build_dataset
from detrex.engine.loss_names import main_names
from detrex.evaluation import evaluation_mode
from detrex.runtime.distributed import all_gather_objects, alone, rank, world_size
from detrex.runtime.random_state import preserved_random_state
from detrex.structures import Sample

logger = logging.getLogger(__name__)


class ValidationLoss:
    """The training loss over the test data, as means over images.

    What is measured is the loss of training, denoising part included, of the network that is evaluated:
    dropout is off, and batch norms use and keep their running statistics. Every image is a batch of its own,
    and what losses draw (noise, points) depends on the image alone, so that the figures are comparable
    over a run, and the same for any number of processes. Training divides by the objects of a whole batch
    instead, so its loss is of the same size, but not the same mean.

    Costs about as much as the evaluation itself, and a second copy of the test data's annotations.
    """

    def __init__(self, model: nn.Module, loader: DictConfig, max_images: int | None = None):
        """
        Args:
            model: returns weighted losses by name if it is itself in training mode, whatever its parts are.
            loader: config of the loader for testing.
            max_images: use only so many, the first; None for all.

        Raises:
            ValueError: ``max_images`` is below 1.
        """
        if max_images is not None and max_images < 1:
            raise ValueError(f"train.validation_loss.max_images must be at least 1, not {max_images}")
        self._model = model
        self._max_images = max_images
        changes = {"dataset": build_dataset(loader)}
        if "mapper" in loader:
            changes["mapper"] = _WithTargets(instantiate(loader.mapper))
        self._loader = instantiate(loader, **changes)

    def measure(self) -> dict[str, float]:
        """``val/loss`` and, of the final layer, its parts: ``val/loss_ce`` and so on. On all processes."""
        start = time.perf_counter()
        totals: dict[str, float] = defaultdict(float)
        images = 0
        # Only the outermost module is in training mode: it returns losses, while its parts are evaluated.
        with preserved_random_state(), evaluation_mode(self._model):
            self._model.training = True
            for sample in self._samples():
                for name, value in self._losses(sample).items():
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
        """This process's share, as it would be in a data set of ``max_images``."""
        limit = None if self._max_images is None else len(range(rank(), self._max_images, world_size()))
        done = 0
        for samples in self._loader:
            for sample in samples:
                if done == limit:
                    return
                yield sample
                done += 1

    def _losses(self, sample: Sample) -> dict[str, float]:
        torch.manual_seed(zlib.crc32(str(sample["image_id"]).encode()))
        with alone():
            losses = self._model([sample])
        values = torch.stack([loss.float() for loss in losses.values()]).tolist()
        return dict(zip(losses, values, strict=True))


class _WithTargets:
    """Samples as a mapper for evaluation makes them, with the record's targets resized like the image."""

    def __init__(self, mapper: Callable[[Record], Sample]):
        self._mapper = mapper

    def __call__(self, record: Record) -> Sample:
        sample = self._mapper(record)
        resize = TrainingMapper(v2.Resize(list(sample["image"].shape[-2:])))
        return Sample(**{**sample, "targets": resize(record)["targets"]})
