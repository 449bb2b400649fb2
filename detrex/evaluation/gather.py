"""Gathers the results of all processes, with every image once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from detrex.runtime.distributed import all_gather_objects, is_main_process
from detrex.structures import Sample

Result = TypeVar("Result")


def image_id_of(sample: Sample) -> Hashable:
    """The sample's ``image_id``, which connects results with ground truth.

    Raises:
        ValueError: the sample has no ``image_id``.
    """
    if "image_id" not in sample:
        name = sample.get("file_name", "unknown file")
        raise ValueError(f"{name}: evaluation needs samples with an 'image_id', as EvalMapper makes them")
    return sample["image_id"]


def merge_by_image(results: dict[Hashable, Result]) -> dict[Hashable, Result]:
    """The results of all processes by image id; an image that several processes have seen counts once."""
    merged: dict[Hashable, Result] = {}
    for part in all_gather_objects(results):
        merged.update(part)
    return merged


def on_main_process(compute: Callable[[], Result]) -> Result:
    """Calls ``compute`` on the main process only, and returns its result on every process."""
    return all_gather_objects(compute() if is_main_process() else None)[0]
