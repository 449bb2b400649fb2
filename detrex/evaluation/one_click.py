"""Measures how well masks answer one click: the mean IoU over all true masks.

Shape letters: N masks, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from detrex.evaluation.gather import image_id_of, merge_by_image
from detrex.evaluation.report import PerClass
from detrex.structures import RunLengthMasks, Sample


class OneClickEvaluator:
    """IoU of the answers to one click in the middle of each true mask, in percent.

    ``one_click/IoU_max`` is the IoU of the answer with the highest expected IoU, ``one_click/IoU_oracle``
    that of the best answer. Samples come from :class:`~detrex.data.OneClickMapper`.
    """

    def __init__(self) -> None:
        self.per_class: PerClass = {}
        self._found: dict[Hashable, tuple[list[float], list[float]]] = {}

    def metric_names(self) -> list[str]:
        """Names of the metrics that :meth:`evaluate` returns."""
        return ["one_click/IoU_max", "one_click/IoU_oracle"]

    def reset(self) -> None:
        """See :class:`~detrex.evaluation.Evaluator`."""
        self._found = {}

    def process(self, samples: Sequence[Sample], outputs: Sequence[Mapping[str, Any]]) -> None:
        """See :class:`~detrex.evaluation.Evaluator`.

        Raises:
            ValueError: a sample has no true masks, or an output no answers.
        """
        for sample, output in zip(samples, outputs, strict=True):
            targets = sample.get("targets")
            if targets is None or targets.masks is None:
                raise ValueError(
                    "one click is evaluated with true masks: dataloader.test.mapper=OneClickMapper"
                )
            if not len(targets):
                continue
            if "prompted" not in output:
                raise ValueError("one click is evaluated of models that answer prompts, such as Semantic-SAM")
            found, truth = output["prompted"], RunLengthMasks.encode(targets.masks).rles
            chosen, best = [], []
            for number, true in enumerate(truth):
                rows = (found.prompt == number).nonzero().squeeze(1).tolist()
                overlaps = coco_mask.iou([found.masks.rles[i] for i in rows], [true], [False])[:, 0]
                chosen.append(float(overlaps[int(found.quality[rows].argmax())]))
                best.append(float(overlaps.max()))
            self._found[image_id_of(sample)] = chosen, best

    def evaluate(self) -> dict[str, float]:
        """See :class:`~detrex.evaluation.Evaluator`; NaN without true masks."""
        merged = merge_by_image(self._found).values()
        chosen, best = ([v for row in merged for v in row[kind]] for kind in (0, 1))
        values = [100 * float(np.mean(v)) if v else float("nan") for v in (chosen, best)]
        return dict(zip(self.metric_names(), values, strict=True))
