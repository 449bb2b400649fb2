"""Converts results to the bodies of answers."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from pycocotools import mask as coco_mask

from detrex.predict import Result
from detrex.predict.result import by_content
from detrex.structures import Categories, PromptedMasks


def coco_answer(results: Sequence[Result], names: Sequence[str], categories: Categories) -> dict[str, Any]:
    """COCO's JSON: ``images``, ``categories`` and, by task, ``annotations``, ``panoptic`` and ``semantic``.

    Annotations are those of :meth:`detrex.predict.Result.to_coco`, with ids from 1 on; entries of
    ``panoptic`` have the PNG of their segments in base64, as ``png``.

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
            entries = enumerate(result.to_coco(i), start=len(found) + 1)
            found += [{"id": number, **entry} for number, entry in entries]
        if result.panoptic is not None:
            entry, picture = result.to_coco_panoptic(i, f"{i}.png")
            buffer = io.BytesIO()
            picture.save(buffer, "png")
            entry["png"] = base64.b64encode(buffer.getvalue()).decode("ascii")
            answer.setdefault("panoptic", []).append(entry)
        if result.semantic is not None:
            answer.setdefault("semantic", []).extend(result.to_coco_semantic(i))
    return answer


def prompted_answer(found: Sequence[PromptedMasks], name: str) -> dict[str, Any]:
    """COCO's JSON of the masks that answer clicks and boxes on one picture.

    Args:
        found: masks of each prompt, best first. In an annotation, ``prompt`` is the number of the prompt,
            from 0 on, ``level`` the granularity, and ``score`` the IoU that the model expects.
        name: of the file.
    """
    height, width = found[0].masks.size
    annotations: list[dict[str, Any]] = []
    for number, masks in enumerate(found):
        rows = zip(masks.masks.rles, masks.quality.tolist(), masks.level.tolist(), strict=True)
        for rle, quality, level in rows:
            code = {"size": list(rle["size"]), "counts": rle["counts"]}
            if isinstance(code["counts"], bytes):
                code["counts"] = code["counts"].decode("ascii")
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 1,
                    "category_id": 1,
                    "prompt": number,
                    "level": level,
                    "score": quality,
                    "bbox": coco_mask.toBbox(rle).tolist(),
                    "area": float(coco_mask.area(rle)),
                    "iscrowd": 0,
                    "segmentation": code,
                }
            )
    return {
        "images": [{"id": 1, "file_name": name, "height": height, "width": width}],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": annotations,
    }


def drawn_answer(result: Result) -> bytes:
    """A PNG of the kind of result that shows most."""
    buffer = io.BytesIO()
    result.draw(by_content(result.tasks)[0], min_size=1).save(buffer, "png")
    return buffer.getvalue()
