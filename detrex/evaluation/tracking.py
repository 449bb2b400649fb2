"""HOTA, MOTA and IDF1 of tracks, by TrackEval (https://pypi.org/project/trackeval, an extra)."""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detrex.data.mot import Video, frame_id, read_videos
from detrex.evaluation.gather import image_id_of, merge_by_image, on_main_process
from detrex.evaluation.report import PerClass
from detrex.structures import Sample
from detrex.structures.boxes import pairwise_iou

COLUMNS = 6
"""Columns of a found object: track, box as absolute xyxy in pixels, score."""


class MotEvaluator:
    """Measures ``outputs["instances"]`` with their ``track_ids``, over all frames of all videos.

    Metrics, in percent: ``track/HOTA``, ``DetA`` and ``AssA`` (arXiv 2009.07736), ``MOTA`` and ``IDF1``.
    Frames that were not processed have no objects.

    Args:
        images: folder of videos, see :class:`detrex.data.mot.MotVideos`.
        output_dir: folder for ``{video}.txt`` in MOT's format of results; None for none.

    Raises:
        DataError: files are missing or broken.
        ImportError: TrackEval is not installed.
    """

    def __init__(self, images: str | Path, output_dir: str | Path | None = None):
        _metrics()  # to fail now, not after the last frame
        self.videos = read_videos(images)
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.reset()

    def reset(self) -> None:
        """Forgets all frames."""
        self.per_class: PerClass = {}
        self._frames: dict[Hashable, np.ndarray] = {}

    def process(self, samples: Sequence[Sample], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Adds tracks and boxes of each frame.

        Raises:
            ValueError: instances have no track.
        """
        for sample, output in zip(samples, outputs, strict=True):
            found = output["instances"]
            if found.track_ids is None:
                raise ValueError("instances have no track_ids: MotEvaluator needs a model that tracks")
            columns = [found.track_ids[:, None], found.pred_boxes, found.scores[:, None]]
            rows = torch.cat([column.cpu().double() for column in columns], 1)
            self._frames[image_id_of(sample)] = rows.numpy()

    def evaluate(self) -> dict[str, float]:
        """Metrics over the videos of all processes."""
        frames = merge_by_image(self._frames)
        return on_main_process(lambda: self._evaluate(frames))

    def _evaluate(self, frames: Mapping[Hashable, np.ndarray]) -> dict[str, float]:
        metrics = _metrics()
        found: dict[str, dict[str, Any]] = defaultdict(dict)
        for video in self.videos:
            nothing = np.zeros((0, COLUMNS))
            rows = [frames.get(frame_id(video.name, frame), nothing) for frame in range(len(video))]
            if self.output_dir is not None:
                _write_results(self.output_dir / f"{video.name}.txt", rows)
            data = _comparison(video, rows)
            for name, metric in metrics.items():
                found[name][video.name] = metric.eval_sequence(data)
        total = {name: metric.combine_sequences(found[name]) for name, metric in metrics.items()}
        # The mean over thresholds of IoU.
        values = {name: np.mean(total["HOTA"][name]) for name in ("HOTA", "DetA", "AssA")}
        values |= {"MOTA": total["CLEAR"]["MOTA"], "IDF1": total["Identity"]["IDF1"]}
        return {f"track/{name}": 100 * float(value) for name, value in values.items()}


def _metrics() -> dict[str, Any]:
    """TrackEval's metrics, by the names of their classes.

    Raises:
        ImportError: it is not installed.
    """
    try:
        from trackeval.metrics import CLEAR, HOTA, Identity
    except ImportError as error:
        raise ImportError(
            "HOTA, MOTA and IDF1 need TrackEval: pip install 'detrex-maskdino[track]' or trackeval"
        ) from error
    with contextlib.redirect_stdout(io.StringIO()):  # the metrics print their settings
        return {metric.__name__: metric() for metric in (HOTA, CLEAR, Identity)}


def _comparison(video: Video, rows: list[np.ndarray]) -> dict[str, Any]:
    """The input of TrackEval: for every frame, numbers of true and found tracks, from 0, and their IoU."""
    truth = [video.boxes(frame) for frame in range(len(video))]
    true_count, true_tracks = _numbered([tracks for tracks, _ in truth])
    count, tracks = _numbered([found[:, 0].astype(np.int64) for found in rows])
    return {
        "num_timesteps": len(video),
        "num_gt_ids": true_count,
        "num_tracker_ids": count,
        "num_gt_dets": sum(map(len, true_tracks)),
        "num_tracker_dets": sum(map(len, tracks)),
        "gt_ids": true_tracks,
        "tracker_ids": tracks,
        "similarity_scores": [
            pairwise_iou(torch.from_numpy(boxes), torch.from_numpy(found[:, 1:5])).numpy()
            for (_, boxes), found in zip(truth, rows, strict=True)
        ],
    }


def _numbered(tracks: list[np.ndarray]) -> tuple[int, list[np.ndarray]]:
    """The number of tracks, and the tracks of each frame, numbered from 0."""
    known, numbers = np.unique(np.concatenate(tracks), return_inverse=True)
    return len(known), np.split(numbers, np.cumsum([len(frame) for frame in tracks])[:-1])


def _write_results(path: Path, rows: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{frame},{int(track)},{x0:.2f},{y0:.2f},{x1 - x0:.2f},{y1 - y0:.2f},{score:.4f},-1,-1,-1\n"
        for frame, found in enumerate(rows, start=1)
        for track, x0, y0, x1, y1, score in found
    ]
    path.write_text("".join(lines), encoding="utf-8")
