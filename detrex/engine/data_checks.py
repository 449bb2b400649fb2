"""Checks the data of a run before its first step: counts objects, and checks files."""

from __future__ import annotations

import logging

from torch import nn

from detrex.data import ImageDataset
from detrex.data.census import Census, Split
from detrex.data.checks import check_pixels, common_pictures, require_objects
from detrex.runtime.distributed import is_main_process

logger = logging.getLogger(__name__)


def check_data(model: nn.Module, train: object = None, validation: object = None) -> Census | None:
    """Checks the files of a run's data sets, logs warnings about them, and counts their objects.

    Args:
        model: its number of queries is compared with the number of objects.
        train: the data set for training, if there is one. It is ignored unless it is a
            :class:`detrex.data.ImageDataset`.
        validation: the data set for evaluation, likewise.

    Returns:
        The content of the data sets; None if it is not known.

    Raises:
        DataError: there is nothing to learn from, or images are missing, broken, of a different size than
            listed, or contradict their annotations.
    """
    datasets = {"train": train, "validation": validation}
    if isinstance(train, ImageDataset):
        require_objects(train)
    known = {name: data for name, data in datasets.items() if isinstance(data, ImageDataset)}
    warnings = [f"{name}: {warning}" for name, data in known.items() for warning in check_pixels(data)]
    counts = {name: data.counts() for name, data in known.items()}
    splits = [Split(name, known[name].categories, c) for name, c in counts.items() if c is not None]
    census = Census(splits, number_of_queries(model)) if splits else None
    if not is_main_process():
        return census
    if len(known) == len(datasets) and (warning := common_pictures(known["validation"], known["train"])):
        warnings.append(warning)
    if census is not None:
        logger.info("data:\n%s", census.text())
        warnings += census.warnings()
    for warning in warnings:
        logger.warning("%s", warning)
    return census


def number_of_queries(model: nn.Module) -> int | None:
    """The number of queries of a model, without denoising queries; None if the model does not tell."""
    numbers = (
        getattr(module, "num_queries", None)
        for name, module in model.named_modules()
        if "denoising" not in name
    )
    return next((number for number in numbers if isinstance(number, int)), None)
