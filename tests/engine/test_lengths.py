import logging

import pytest
from omegaconf import OmegaConf

from detrex.config import ConfigError, LazyConfig, get_config
from detrex.config import LazyCall as L
from detrex.engine import do_train, epochs, schedule
from detrex.engine.lengths import in_iterations, iterations
from tests.config_files import config_of
from tests.engine import dummy
from tests.engine.runs import CONFIG, losses, metrics
from tests.engine.runs import load as load_run

LOADER = dummy.TrainLoader(dummy.Dataset())  # 12 images


def load(*overrides: str):
    """The dummy's config with lengths in epochs; 4 images in a step, so 3 iterations in an epoch."""
    config = config_of(CONFIG)
    config.train.max_iter = epochs(4)
    config.train.eval_period = epochs(1)
    config.scheduler = get_config("common/schedule.py").twelve_epochs
    config.scheduler.milestones = epochs([2, 3])
    return LazyConfig.apply_overrides(config, list(overrides))


def test_epochs_become_iterations_of_data_and_batch_size(caplog):
    with caplog.at_level(logging.INFO):
        config = in_iterations(load("scheduler.warmup_iters=2"), LOADER)
    assert (config.train.max_iter, config.train.eval_period) == (12, 3)
    assert config.scheduler.milestones == [6, 9] and config.scheduler.warmup_iters == 2
    assert "train.max_iter: 4.0 epochs are 12 iterations" in caplog.text
    assert "scheduler.milestones: [2.0, 3.0] epochs are [6, 9] iterations" in caplog.text
    assert "warmup_iters" not in caplog.text


def test_the_command_line_changes_epochs_and_puts_iterations_in_their_place():
    config = in_iterations(load("train.max_iter.epochs=2.5", "train.eval_period=5"), LOADER)
    assert (config.train.max_iter, config.train.eval_period) == (8, 5)  # 7.5, rounded to even


def test_a_larger_batch_makes_fewer_iterations():
    config = in_iterations(load("dataloader.train.total_batch_size=8"), LOADER)
    assert (config.train.max_iter, config.train.eval_period) == (6, 2)


def test_the_length_of_an_epoch_can_be_said():
    assert in_iterations(load("train.iterations_per_epoch=100"), LOADER).train.max_iter == 400


def test_schedules_follow_the_length_of_the_run():
    config = load()
    config.scheduler = get_config("common/schedule.py").cosine
    assert in_iterations(config, LOADER).scheduler.max_iter == 12


def test_data_without_a_length_is_an_error_only_for_lengths_in_epochs():
    endless = iter([])
    assert in_iterations(config_of(CONFIG), endless).train.max_iter == 6
    with pytest.raises(ConfigError, match="set train.iterations_per_epoch"):
        in_iterations(load(), endless)


def test_milestones_after_the_end_are_named(caplog):
    config = load("train.max_iter=8", "scheduler.milestones=[4,8]")
    in_iterations(config, LOADER)
    assert "scheduler.milestones [8] come after the end of training, train.max_iter=8" in caplog.text


def test_a_warm_up_that_is_longer_than_the_run_is_named(caplog):
    in_iterations(load("train.max_iter=8", "scheduler.warmup_iters=9"), LOADER)
    assert "scheduler.warmup_iters=9 is longer than the run, train.max_iter=8" in caplog.text


def test_a_length_of_some_epochs_is_never_0():
    assert iterations(0.01, 3) == 1 and iterations(0, 3) == 0
    with pytest.raises(ConfigError, match="-1 epochs"):
        iterations(-1, 3)


def test_all_periods_of_a_run_may_be_in_epochs(tmp_path):
    config = load(f"train.output_dir={tmp_path}", "train.max_iter.epochs=1.5", "train.checkpoint.keep=9")
    config.train.checkpoint.period = config.train.eval_period = epochs(0.7)
    do_train(config)
    assert [d.name[-1] for d in sorted((tmp_path / "checkpoints").glob("iteration_*"))] == ["2", "4"]
    assert [m["iteration"] for m in metrics(tmp_path) if "dummy/accuracy" in m] == [2, 4]


def test_a_run_in_epochs_is_the_run_in_iterations(tmp_path):
    in_epochs = load(f"train.output_dir={tmp_path / 'epochs'}", "train.max_iter.epochs=1")
    milestones = dict(milestones=[6, 9], gamma=0.1, warmup_iters=1, warmup_factor=0.001)
    as_usual = load_run(tmp_path / "iterations", "train.max_iter=3")
    as_usual.scheduler = L(schedule.multi_step)(**milestones)
    in_epochs.scheduler.warmup_iters = 1
    do_train(in_epochs)
    do_train(as_usual)
    assert losses(tmp_path / "epochs") == losses(tmp_path / "iterations")
    saved = OmegaConf.load(tmp_path / "epochs/config.yaml")
    assert saved.train.max_iter == 3 and saved.scheduler.milestones == [6, 9]
