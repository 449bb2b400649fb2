"""Results as the bodies of answers."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from detrex.predict import Result
from detrex.predict.result import by_content
from detrex.structures import Categories


def coco_answer(results: Sequence[Result], names: Sequence[str], categories: Categories) -> dict[str, Any]:
    """COCO's JSON: ``images``, ``categories`` and, by task, ``annotations``, ``panoptic`` and ``semantic``.

    Annotations are as :meth:`detrex.predict.Result.to_coco`, with ids from 1 on; entries of ``panoptic`` have
    the PNG of their segments in base64, as ``png``.

    Args:
        results: of the pictures.
        names: of their files.
        categories: the model's classes.
    """
    answer: dict[str, Any] = {
        "images": [
            {"id": i, "file_name": name, "height": result.image_size[0], "width": result.image_size[1]}
            for i, (name, result) in enumerate(zip(names, results, strict=True), start=1)
        ],
        "categories": [
            {"id": i, "name": name, "isthing": int(thing)}
            for i, name, thing in zip(categories.ids, categories.names, categories.is_thing, strict=True)
        ],
    }
    for i, result in enumerate(results, start=1):
        if result.instances is not None:
            found = answer.setdefault("annotations", [])
            found += [{"id": len(found) + k, **one} for k, one in enumerate(result.to_coco(i), start=1)]
        if result.panoptic is not None:
            entry, picture = result.to_coco_panoptic(i, f"{i}.png")
            buffer = io.BytesIO()
            picture.save(buffer, "png")
            entry["png"] = base64.b64encode(buffer.getvalue()).decode("ascii")
            answer.setdefault("panoptic", []).append(entry)
        if result.semantic is not None:
            answer.setdefault("semantic", []).extend(result.to_coco_semantic(i))
    return answer


def drawn_answer(result: Result) -> bytes:
    """A PNG of the result that tells most."""
    buffer = io.BytesIO()
    result.draw(by_content(result.tasks)[0], min_size=1).save(buffer, "png")
    return buffer.getvalue()
