"""The loader and the evaluators of a config, without a model."""

import pytest

from detrex.benchmark import data, evaluators
from detrex.config import ConfigError, LazyConfig
from detrex.evaluation import CocoEvaluator, SemanticEvaluator
from tests.benchmark.conftest import CONFIG
from tests.config_files import config_of


@pytest.fixture
def config(overrides):
    return LazyConfig.apply_overrides(config_of(CONFIG), overrides)


def test_images_per_second(config, monkeypatch):
    """By a clock that goes on by half a second whenever it is looked at: 6 images are 3 batches."""
    moments = iter(range(100))
    monkeypatch.setattr(data.time, "perf_counter", lambda: next(moments) / 2)
    result = data.measure_loading(config, images=5, repeats=2)
    assert result["images_per_second"] == {"median": 12.0, "low": 12.0, "high": 12.0}
    assert (result["images"], result["batch_size"], result["workers"]) == (6, 2, 0)


def test_workers_load_as_well(config):
    config.dataloader.train.num_workers = 1
    result = data.measure_loading(config, images=2, repeats=1)
    assert result["workers"] == 1 and result["images_per_second"]["median"] > 0


def test_a_config_needs_what_is_measured(config):
    config.dataloader.train = config.dataloader.test = None
    with pytest.raises(ConfigError, match="dataloader.train"):
        data.measure_loading(config)
    with pytest.raises(ConfigError, match="dataloader.test"):
        evaluators.measure_evaluation(config)


def test_seconds_of_evaluators(config, monkeypatch):
    """By a clock that goes on by a second whenever it is looked at."""
    moments = iter(range(1000))
    monkeypatch.setattr(evaluators.time, "perf_counter", lambda: next(moments))
    result = evaluators.measure_evaluation(config, images=2, detections=4, repeats=2)
    same = {"median": 1000.0, "low": 1000.0, "high": 1000.0}
    half = {"median": 500.0, "low": 500.0, "high": 500.0}
    assert result["seconds_per_1000_images"] == {
        name: {"process": same, "evaluate": half} for name in ("coco", "panoptic", "semantic")
    }


def test_evaluators_get_results_worth_their_time(config, monkeypatch):
    """All classes of things, masks, and every image once."""
    seen = {}

    def note(evaluator, samples, outputs):
        (sample,), (output,) = samples, outputs
        seen.setdefault(type(evaluator), {})[sample["image_id"]] = output

    for evaluator in (CocoEvaluator, SemanticEvaluator):
        monkeypatch.setattr(evaluator, "process", note)
        monkeypatch.setattr(evaluator, "evaluate", lambda _: {})
    result = evaluators.measure_evaluation(config, images=99, detections=30, repeats=1)
    assert result["images"] == 3 == len(seen[CocoEvaluator]) == len(seen[SemanticEvaluator])
    for output in seen[CocoEvaluator].values():
        found = output["instances"]
        assert len(found) == 30 and found.pred_masks.flatten(1).any(1).all()
        assert output["panoptic_seg"][0].shape == found.image_size == output["sem_seg"].shape[1:]
