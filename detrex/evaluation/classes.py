"""Relates class indices of a model to category ids of the ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from detrex.data.categories import read_categories
from detrex.data.errors import DataError
from detrex.structures import Categories


def model_categories(
    classes: str | Path | Categories | None, listed: Categories, ground_truth: str | Path
) -> Categories:
    """The classes of the model, in its order, checked against those of the ground truth.

    Args:
        classes: an annotation file whose categories, ordered by id, are the model's classes; the categories
            themselves; or None if the model's classes are those of the ground truth.
        listed: the classes of the ground truth.
        ground_truth: its annotation file, for messages.

    Raises:
        DataError: the ground truth has categories that the model does not know or that have other names.
    """
    if classes is None:
        return listed
    known = classes if isinstance(classes, Categories) else read_categories(classes)
    names = dict(zip(known.ids, known.names, strict=True))
    for category_id, name in zip(listed.ids, listed.names, strict=True):
        if names.get(category_id) != name:
            found = f"has the name {names[category_id]!r}" if category_id in names else "is missing"
            raise DataError(
                f"{ground_truth}: category {category_id} ({name!r}) {found} among the model's classes"
                + (f" ({classes})" if isinstance(classes, (str, Path)) else "")
                + ". Give the annotation file that the model was trained on, or make the two files agree."
            )
    return known


def check_class_indices(indices: Tensor | Sequence[int], count: int) -> None:
    """Raises ValueError for a predicted class that is not among the ``count`` classes of the data."""
    if len(indices) and (largest := int(torch.as_tensor(indices).max())) >= count:
        raise ValueError(
            f"the model predicts the class index {largest}, but the data has {count} classes: set "
            "model.num_classes to the data's count"
        )


def missing_output(task: str, evaluator: object) -> str:
    """The message for outputs without the entry ``task``."""
    name = type(evaluator).__name__
    return (
        f"the model's output has no {task!r} for {name}: let the model's post-processing make it, or take "
        f"{name} out of dataloader.evaluators"
    )
