"""Thresholds that an evaluation kept with weights travel with exported files."""

import logging

import numpy as np
import pytest

from detrex.export.capture import SIDES, describe
from detrex.export.graph import PictureToResults
from detrex.predict import Precision
from detrex.runtime.exported import Description, ExportedModelError
from detrex.runtime.exported import Predictor as ExportedPredictor
from tests.export.small_models import GraphRunner, description_of, small_model
from tests.predict.tiny_run import noise


@pytest.fixture(scope="module")
def predictor():
    predictor = small_model("detr")
    scores = np.sort(predictor.predict(noise(50, 70), score_threshold=0.0).scores.numpy())
    low, high = (float(scores[len(scores) * k // 4]) for k in (1, 3))
    predictor.score_thresholds = [low, None, high]
    predictor.precision_thresholds = [{0.5: low, 0.9: high, 0.95: high}, {0.5: high}, {}]
    return predictor


@pytest.fixture(scope="module")
def exported(predictor):
    graph = PictureToResults(predictor.model, predictor.mapper, predictor.tasks).eval()
    description = describe(predictor, graph.tasks, graph.thresholds, None, [SIDES, SIDES])
    read = Description.from_metadata(description.to_metadata(), "it")
    assert read == description
    return ExportedPredictor(GraphRunner(graph, read))


@pytest.mark.parametrize("threshold", ["best", Precision(0.5), Precision(0.6), Precision(0.95)])
def test_files_choose_what_the_model_chooses(predictor, exported, threshold, caplog):
    image = noise(50, 70)
    with caplog.at_level(logging.WARNING):
        expected = predictor.predict(image, score_threshold=threshold)
        found = exported.predict(image, score_threshold=threshold)
    everything = exported.predict(image)
    assert 0 < len(found) == len(expected) < len(everything)
    np.testing.assert_array_equal(found.classes, expected.classes.numpy())
    np.testing.assert_allclose(found.scores, expected.scores.numpy(), atol=1e-5)
    lacking = [record.getMessage() for record in caplog.records]
    assert len(lacking) == 2 * (threshold != "best")
    assert len(set(lacking)) <= 1


@pytest.mark.parametrize(
    ("precision", "message"), [(0.0, "above 0"), (1.5, "up to 1"), (0.99, "no class reached it")]
)
def test_precisions_that_cannot_be_are_explained(exported, precision, message):
    with pytest.raises(ValueError, match=message):
        exported.predict(noise(50, 70), score_threshold=Precision(precision))


def test_files_of_weights_that_were_not_evaluated(predictor):
    description = description_of(predictor, predictor.tasks)
    exported = ExportedPredictor(GraphRunner(None, description))
    assert exported.class_thresholds().tolist() == [0.5] * 3
    with pytest.raises(ValueError, match="'detrex eval' of their run"):
        exported.class_thresholds(precision=0.9)
    metadata = description.to_metadata()
    with pytest.raises(ExportedModelError, match="damaged"):
        Description.from_metadata({**metadata, "precision_thresholds": '[{"high": 0.1}, {}, {}]'}, "it")
    del metadata["precision_thresholds"]  # as files were before there were any
    assert Description.from_metadata(metadata, "it") == description
