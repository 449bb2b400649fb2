"""AP of tiles on a mosaic of small pictures, against that of each of these pictures alone.

    python -m tests.modeling.mosaic output/nuclei --data ../shared/data/nuclei --overlap 96

Prints AP of boxes and masks, seconds and the memory of the process: of each picture alone, of tiles that are
one picture each, whose results are joined, and of tiles that overlap. So the first two differ by what joining
does, the last two by what tiles see: parts of several pictures.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from PIL import Image

from detrex.modeling import Tiles
from detrex.predict import Predictor, load
from detrex.structures.crops import CroppedMask

CELL = 256
"""Pixels along a side of a picture of the mosaic, and of a tile."""
DARK = 64
"""Mean brightness below which pictures are of one stain: nuclei on a dark ground."""
LOWEST_SCORE, MOST = 0.05, 20000
"""Objects that are compared: from this score on, and so many, the best ones."""


def mosaic(data: Path, cells: int, brightest: float = DARK) -> tuple[np.ndarray, dict[str, Any]]:
    """Validation pictures up to a mean brightness, ``cells`` along a side, and their annotations as JSON."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(data / "annotations" / "instances_val.json"))
    pictures = {i: Image.open(data / "val" / image["file_name"]) for i, image in sorted(coco.imgs.items())}
    fitting = [
        i for i, p in pictures.items() if CELL <= min(p.size) <= 1.5 * CELL and _brightness(p) < brightest
    ]
    side, random = cells * CELL, np.random.default_rng(0)
    canvas, entries = np.zeros((side, side, 3), np.uint8), []
    for k in range(cells * cells):
        chosen, turns = fitting[int(random.integers(len(fitting)))], int(random.integers(4))
        top, left = (place * CELL for place in divmod(k, cells))
        pixels = np.asarray(pictures[chosen].convert("RGB"))[:CELL, :CELL]
        canvas[top : top + CELL, left : left + CELL] = np.rot90(pixels, turns)
        for entry in coco.imgToAnns[chosen]:
            mask = np.rot90(coco.annToMask(entry)[:CELL, :CELL], turns).astype(bool)
            if mask.sum() < max(10, entry["area"] / 2):
                continue  # most of it was cut off
            crop = CroppedMask.from_mask(mask).moved(top, left)
            place, rle = crop.rectangle, crop.encode((side, side))
            box = [place.left, place.top, place.right - place.left, place.bottom - place.top]
            entries.append(
                {
                    "id": len(entries) + 1,
                    "image_id": 1,
                    "category_id": entry["category_id"],
                    "iscrowd": 0,
                    "area": crop.area,
                    "bbox": box,
                    "segmentation": _as_text(rle),
                }
            )
    image = {"id": 1, "file_name": "mosaic.png", "height": side, "width": side}
    categories = list(coco.cats.values())
    return canvas, {"images": [image], "annotations": entries, "categories": categories}


def one_by_one(predictor: Predictor, canvas: np.ndarray) -> list[dict[str, Any]]:
    """What the model finds in each picture alone, in the frame of the mosaic."""
    found = []
    for top in range(0, len(canvas), CELL):
        for left in range(0, len(canvas), CELL):
            picture = canvas[top : top + CELL, left : left + CELL]
            result = predictor.predict(picture, tasks=["instance"], score_threshold=LOWEST_SCORE)
            for entry in result.to_coco(1):
                mask = CroppedMask.decode(entry["segmentation"]).moved(top, left).encode(canvas.shape[:2])
                x, y, *size = entry["bbox"]
                found.append({**entry, "bbox": [x + left, y + top, *size], "segmentation": _as_text(mask)})
    return found


def average_precision(truth: Path, found: list[dict[str, Any]], kind: str) -> float:
    """COCO's AP of ``bbox`` or ``segm``, in percent."""
    best = sorted(found, key=lambda entry: -entry["score"])[:MOST]
    unused = "segmentation" if kind == "bbox" else "bbox"
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        rows = [{key: value for key, value in entry.items() if key != unused} for entry in best]
        evaluation = COCOeval_faster(coco, coco.loadRes(rows), kind)
        evaluation.params.maxDets = [MOST]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])
    return 100 * float(precision[precision > -1].mean())


def _brightness(picture: Image.Image) -> float:
    return float(np.asarray(picture.convert("L")).mean())


def _as_text(rle: dict[str, Any]) -> dict[str, Any]:
    counts = rle["counts"]
    return {**rle, "counts": counts.decode() if isinstance(counts, bytes) else counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("model", help="folder of a run")
    parser.add_argument("--data", type=Path, required=True, help="folder with val/ and annotations/")
    parser.add_argument("--cells", type=int, default=16, help="pictures along a side")
    parser.add_argument("--overlap", type=int, default=96, help="of tiles, in pixels")
    parser.add_argument(
        "--brightest",
        type=float,
        default=DARK,
        help="mean brightness up to which pictures are taken; 256: all",
    )
    words = parser.parse_args()
    size = [f"dataloader.test.mapper.{name}={CELL}" for name in ("size", "max_size")]
    predictor = load(words.model, device="cpu", overrides=size)
    canvas, annotations = mosaic(words.data, words.cells, words.brightest)
    sys.stdout.write(f"{len(canvas)} pixels a side, {len(annotations['annotations'])} objects\n")
    with tempfile.TemporaryDirectory() as folder:
        truth = Path(folder) / "truth.json"
        truth.write_text(json.dumps(annotations))
        for name, overlap in (("pictures", None), ("aligned tiles", 0), ("tiles", words.overlap)):
            start = time.perf_counter()
            if overlap is None:
                found = one_by_one(predictor, canvas)
            else:
                predictor.model.inference = Tiles(CELL, overlap, CELL)
                found = predictor.predict(canvas, tasks=["instance"], score_threshold=LOWEST_SCORE).to_coco(1)
            seconds, memory = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            box, mask = (average_precision(truth, found, kind) for kind in ("bbox", "segm"))
            sys.stdout.write(
                f"{name}: box AP {box:.2f}, mask AP {mask:.2f}, {len(found)} objects, {seconds:.0f} s, "
                f"{memory / 2**20:.2f} GiB at most\n"
            )


if __name__ == "__main__":
    main()
