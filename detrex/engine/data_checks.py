"""What is looked at in the data of a run before its first step: a census, and checks of the files."""

from __future__ import annotations

import logging

from torch import nn

from detrex.data import ImageDataset
from detrex.data.census import Census, Split
from detrex.data.checks import check_pixels, common_pictures, require_objects
from detrex.runtime.distributed import is_main_process

logger = logging.getLogger(__name__)


def check_data(model: nn.Module, train: object = None, validation: object = None) -> Census | None:
    """Checks the files of a run's data sets, logs what should be known of them, and counts their objects.

    Args:
        model: whose queries are compared with the number of objects.
        train: the data set for training, if there is one. Other objects than those of
            :class:`detrex.data.ImageDataset` are left alone.
        validation: likewise, for evaluation.

    Returns:
        What is in the data sets; None where that is not known.

    Raises:
        DataError: there is nothing to learn from, or images are missing, broken or of other sizes than
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
    """How many queries of an image a model has, without those of denoising; None if it does not say."""
    numbers = (
        getattr(module, "num_queries", None)
        for name, module in model.named_modules()
        if "denoising" not in name
    )
    return next((number for number in numbers if isinstance(number, int)), None)
