"""HOTA, MOTA and IDF1 of tracks whose errors are known."""

import math

import numpy as np
import pytest
import torch

from detrex.data.mot import frame_id, read_videos
from detrex.data.moving_shapes import ensure_moving_shapes
from detrex.structures import Instances

pytest.importorskip("trackeval")
from detrex.evaluation.tracking import MotEvaluator  # noqa: E402  # imports TrackEval when made

FRAMES = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("data") / "moving"
    return ensure_moving_shapes(str(root), {"val": 2}, FRAMES, 64, file="val")


def outputs(folder: str, shift: int = 0, least: int = 0):
    """Samples and outputs of a model that finds all objects of tracks from ``least`` on.

    The numbers of its tracks change by ``shift`` from frame to frame.
    """
    for video in read_videos(folder):
        for frame in range(len(video)):
            tracks, boxes = video.boxes(frame)
            found = tracks >= least
            count = int(found.sum())
            boxes = torch.from_numpy(boxes[found]).float()
            ids = torch.from_numpy(tracks[found] + shift * frame)
            scores, labels = torch.ones(count), torch.zeros(count).long()
            instances = Instances(video.size, boxes, scores, labels, track_ids=ids)
            yield {"image_id": frame_id(video.name, frame)}, {"instances": instances}


def measured(folder: str, **options) -> dict[str, float]:
    evaluator = MotEvaluator(folder)
    for sample, output in outputs(folder, **options):
        evaluator.process([sample], [output])
    return evaluator.evaluate()


def counted(folder: str, least: int = 0) -> tuple[int, int]:
    """Objects of all frames, and tracks."""
    truth = [video.truth[video.truth[:, 1] >= least] for video in read_videos(folder)]
    return sum(map(len, truth)), sum(len(np.unique(rows[:, 1])) for rows in truth)


def test_perfect_tracks(folder):
    found = measured(folder)
    assert found == pytest.approx({f"track/{name}": 100 for name in ("HOTA", "DetA", "AssA", "MOTA", "IDF1")})


def test_objects_that_are_missed(folder):
    all_rows, counted_rows = counted(folder)[0], counted(folder, least=2)[0]
    found = measured(folder, least=2)
    assert found["track/MOTA"] == pytest.approx(100 * counted_rows / all_rows)
    assert found["track/IDF1"] == pytest.approx(100 * 2 * counted_rows / (all_rows + counted_rows))
    assert found["track/DetA"] == pytest.approx(100 * counted_rows / all_rows)
    assert found["track/HOTA"] == pytest.approx(
        math.sqrt(found["track/DetA"] * found["track/AssA"]), rel=1e-3
    )


def test_tracks_that_change_their_number_in_every_frame(folder):
    found = measured(folder, shift=100)
    objects, tracks = counted(folder)
    assert found["track/MOTA"] == pytest.approx(100 * (1 - (objects - tracks) / objects))
    assert found["track/IDF1"] == pytest.approx(100 * tracks / objects)
    assert found["track/DetA"] == pytest.approx(100)


def test_nothing_found(folder):
    assert MotEvaluator(folder).evaluate() == pytest.approx(
        {f"track/{name}": 0 for name in ("HOTA", "DetA", "AssA", "MOTA", "IDF1")}
    )


def test_tracks_are_written_in_mots_format(folder, tmp_path):
    evaluator = MotEvaluator(folder, tmp_path / "tracks")
    for sample, output in outputs(folder):
        evaluator.process([sample], [output])
    evaluator.evaluate()
    for video in read_videos(folder):
        rows = np.loadtxt(tmp_path / f"tracks/{video.name}.txt", delimiter=",")
        np.testing.assert_allclose(rows[:, :6], video.truth, atol=0.011)


def test_a_model_that_does_not_track(folder):
    evaluator = MotEvaluator(folder)
    sample, output = next(iter(outputs(folder)))
    with pytest.raises(ValueError, match="needs a model that tracks"):
        output["instances"].track_ids = None
        evaluator.process([sample], [output])
