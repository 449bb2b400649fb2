"""Follows objects from frame to frame with ByteTrack (arXiv 2110.06864) from the package ``trackers``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torchvision.ops import batched_nms

from detrex.structures import Instances

LOWEST_SCORE = 0.1
"""Objects with at least this score continue a track; those that reach their class's threshold begin one."""

_DUPLICATES = 0.7  # two results of one class with a larger IoU are one object
_SECONDS = 1.0  # how long a track waits for its object


class ObjectTracks:
    """The tracks of one video.

    An object keeps its class: each class has separate tracks. The first objects of a class are numbered when
    they are first seen, later ones when they are seen for the second time.

    Args:
        thresholds: for each class, the score from which on an object begins a track.
        frame_rate: frames per second.

    Raises:
        ImportError: the package ``trackers`` is not installed.
        ValueError: the frame rate is not a positive number.
    """

    def __init__(self, thresholds: Sequence[float], frame_rate: float = 30.0):
        try:
            import trackers
        except ImportError as error:
            raise ImportError(
                "tracking needs the package trackers: pip install 'detrex-maskdino[track]'"
            ) from error
        if not 0 < frame_rate < float("inf"):
            raise ValueError(f"frame_rate={frame_rate}: expected a number above 0")
        self._library: Any = trackers
        self._thresholds, self._frame_rate = list(thresholds), frame_rate
        self._of_class: dict[int, Any] = {}
        self._numbers: dict[tuple[int, int], int] = {}  # by class and the tracker's number

    def update(self, found: Instances) -> Instances:
        """The objects of the next frame that have a track, with ``track_ids``, best first."""
        kept = batched_nms(found.pred_boxes.float(), found.scores.float(), found.pred_classes, _DUPLICATES)
        found = found[kept.sort().values]
        classes = found.pred_classes.numpy()
        tracks = np.zeros(len(found), np.int64)
        for label in sorted({*self._of_class, *classes.tolist()}):
            places = np.flatnonzero(classes == label)
            tracks[places] = self._tracked(label, found, places)
        shown = torch.from_numpy(tracks > 0)
        result = found[shown]
        result.track_ids = torch.from_numpy(tracks)[shown]
        return result

    def _tracked(self, label: int, found: Instances, places: np.ndarray) -> np.ndarray:
        """The number of each object of one class, 0 for objects without a track."""
        import supervision

        is_new = label not in self._of_class
        if is_new:
            threshold = self._thresholds[label]
            self._of_class[label] = self._library.ByteTrackTracker(
                lost_track_buffer=max(1, round(_SECONDS * self._frame_rate)),
                frame_rate=self._frame_rate,
                track_activation_threshold=threshold,
                high_conf_det_threshold=threshold,
                minimum_consecutive_frames=1,
            )
        detections = supervision.Detections(
            xyxy=found.pred_boxes.numpy()[places].reshape(-1, 4),
            confidence=found.scores.numpy()[places],
            class_id=np.full(len(places), label),
            data={"place": np.arange(len(places))},
        )
        updated = self._of_class[label].update(detections)
        if is_new:  # ByteTrack numbers an object when it has seen it twice
            updated = self._of_class[label].update(detections)
        numbers = np.zeros(len(places), np.int64)
        if len(updated):
            for place, track_id in zip(
                updated.data["place"].tolist(), updated.tracker_id.tolist(), strict=True
            ):
                if track_id >= 0:
                    numbers[place] = self._numbers.setdefault((label, track_id), len(self._numbers) + 1)
        return numbers
