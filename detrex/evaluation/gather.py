"""Results of all processes in one place, every image once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from detrex.runtime.distributed import all_gather_objects, is_main_process
from detrex.structures import Sample

Result = TypeVar("Result")


def image_id_of(sample: Sample) -> Hashable:
    """The sample's ``image_id``, by which results and ground truth are joined.

    Raises:
        ValueError: the sample has none.
    """
    if "image_id" not in sample:
        name = sample.get("file_name", "unknown file")
        raise ValueError(f"{name}: evaluation needs samples with an 'image_id', as EvalMapper makes them")
    return sample["image_id"]


def merge_by_image(results: dict[Hashable, Result]) -> dict[Hashable, Result]:
    """The results of all processes by image id; an image that several have processed comes once."""
    merged: dict[Hashable, Result] = {}
    for part in all_gather_objects(results):
        merged.update(part)
    return merged


def on_main_process(compute: Callable[[], Result]) -> Result:
    """``compute()`` done by the main process alone; every process gets its result."""
    return all_gather_objects(compute() if is_main_process() else None)[0]
