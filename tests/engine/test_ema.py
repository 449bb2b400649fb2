"""Moving averages of weights, against sums written out."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from detrex.checkpoint import CheckpointError, read_weights
from detrex.engine import do_eval, do_train
from detrex.engine.ema import WeightAverage
from tests.engine import dummy
from tests.engine.quadratic import forever, make_trainer
from tests.engine.runs import killed_at, load, losses, metrics

FINAL = ("model_final.safetensors", "model_final_ema.safetensors")
EMA = ("train.ema.enabled=true", "train.ema.decay=0.8")


def closed_form(history: np.ndarray, decay: float, warmup: float) -> np.ndarray:
    """The sum of all weights ``history`` (the start first), each times its factor in the last average."""
    steps = len(history) - 1
    kept = [min(decay, t / (t + warmup)) if warmup else decay for t in range(steps)]
    factors = [np.prod(kept)] + [(1 - kept[t]) * np.prod(kept[t + 1 :]) for t in range(steps)]
    return (np.array(factors)[:, None] * history).sum(0)


def random_walk(average: WeightAverage, weights: torch.Tensor, steps: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    history = [weights.detach().double().numpy().copy()]
    for _ in range(steps):
        with torch.no_grad():
            weights.add_(torch.randn(weights.shape, generator=generator))
        average.update()
        history.append(weights.detach().double().numpy().copy())
    return np.stack(history)


@pytest.mark.parametrize(("decay", "warmup"), [(0.9, 0), (0.9, 1), (0.9, 3.5), (0.5, 1), (0.999, 10)])
def test_the_average_is_the_weighted_sum_of_all_weights(decay, warmup):
    model = nn.Linear(5, 1, bias=False)
    average = WeightAverage(model, decay, warmup)
    history = random_walk(average, model.weight, 40)
    expected = closed_form(history.reshape(41, 5), decay, warmup)
    assert average.weights()["weight"].numpy().ravel() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert average.updates == 40


def test_with_a_warm_up_of_1_it_is_the_plain_mean_until_the_decay_is_reached():
    model = nn.Linear(5, 1, bias=False)
    average = WeightAverage(model, 0.999, 1)
    history = random_walk(average, model.weight, 20)
    expected = history[1:].mean(0).ravel()  # without the start
    assert average.weights()["weight"].numpy().ravel() == pytest.approx(expected, rel=1e-4, abs=1e-5)


class Mixed(nn.Module):
    """With a tied, a frozen and a normalisation parameter, and buffers of every kind."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("table", torch.arange(3), persistent=False)


def test_names_ties_frozen_parameters_and_buffers():
    model = Mixed()
    average = WeightAverage(model, 0.5, 0)
    start = model.first.weight.detach().clone()
    model.train()
    model.norm(torch.randn(4, 2) + 3)
    with torch.no_grad():
        model.first.weight.add_(1)
    average.update()
    weights = average.weights()
    assert weights.keys() == model.state_dict().keys()
    assert torch.equal(weights["first.weight"], weights["second.weight"])
    assert torch.allclose(weights["first.weight"], start + 0.5)
    for name in ("frozen", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked"):
        assert torch.equal(weights[name], model.state_dict()[name]), name
    other = Mixed()
    other.load_state_dict(weights)
    restored = WeightAverage(other, 0.5, 0)
    restored.load(weights, average.updates)
    assert restored.updates == 1 and torch.equal(restored.weights()["first.weight"], weights["first.weight"])
    with pytest.raises(ValueError, match=r"do not fit the model: bias, first\.weight"):
        WeightAverage(nn.Linear(2, 2), 0.5, 0).load(weights, 1)


def test_the_averaged_module_is_a_model_of_its_own():
    model = nn.Linear(2, 2)
    average = WeightAverage(model, 0.5, 0)
    random_walk(average, model.weight, 3)
    samples = torch.eye(2)
    expected = nn.functional.linear(samples, *average.weights().values())
    assert torch.equal(average.module(samples), expected) and not torch.equal(model(samples), expected)
    assert not any(parameter.requires_grad for parameter in average.module.parameters())


def test_only_steps_that_were_taken_count_and_micro_batches_are_none(tmp_path):
    bad = [float("nan"), 0.0]
    trainer = make_trainer(
        tmp_path,
        forever([1.0, 2.0], [3.0, 0.0], bad, [1.0, 1.0], [0.0, 2.0], [2.0, 0.0]),
        max_iter=3,
        accumulation=2,
        max_skipped_steps=1,
    )
    trainer.average = WeightAverage(trainer.module, 0.75, 0)
    start = np.array([3.0, 4.0])
    trainer.train()
    # The mean gradients of the pairs, but for the second pair, which is left out; half is of the other loss.
    history = np.stack([start, start - [2.5, 1.5], start - [2.5, 1.5] - [1.5, 1.5]])
    assert trainer.module.w.tolist() == pytest.approx(history[-1])
    assert trainer.average.updates == 2 and trainer.iteration == 3
    expected = closed_form(history, 0.75, 0)
    assert trainer.average.weights()["w"].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("decay=1.0", "decay must be from 0 to below 1"),
        ("warmup=-1", "warmup must not be negative"),
        ("evaluate=all", "evaluate must be one of both, ema, raw, not 'all'"),
    ],
)
def test_settings_out_of_range_are_errors(tmp_path, setting, message):
    with pytest.raises(ValueError, match=f"train.ema.{message}"):
        do_train(load(tmp_path, "train.ema.enabled=true", f"train.ema.{setting}"))


def test_both_are_evaluated_and_saved_and_a_resumed_run_has_the_same_average(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    evaluated = do_train(load(whole, *EMA))
    with pytest.raises(dummy.Killed):
        do_train(load(parts, *EMA, killed_at(3)))
    torch.manual_seed(12345)
    do_train(load(parts, *EMA), resume=True)
    assert losses(parts) == losses(whole)
    for name in FINAL:
        one, other = (read_weights(d / name)[0] for d in (whole, parts))
        assert all(torch.equal(one[key], other[key]) for key in one), name
    raw, averaged = (read_weights(whole / name)[0]["head.weight"] for name in FINAL)
    assert not torch.equal(raw, averaged)
    assert evaluated.keys() == {"dummy/accuracy", "ema/dummy/accuracy"}
    assert [m["iteration"] for m in metrics(whole) if "ema/dummy/accuracy" in m] == [2, 4, 6]
    assert json.loads((whole / "results.json").read_text())["metrics"] == evaluated


def test_averaging_does_not_change_training(tmp_path):
    do_train(load(tmp_path / "a", *EMA))
    do_train(load(tmp_path / "b"))
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


class Checksum:
    """Returns the sum of all weights of the model: of two sets of weights it can hardly be the same."""

    def __init__(self):
        self.per_class = {}

    def reset(self):
        pass

    def process(self, _samples, outputs):
        self.total = outputs[0]["checksum"]

    def evaluate(self):
        return {"dummy/sum": self.total}


def test_eval_only_chooses(tmp_path):
    evaluator = f"dataloader.evaluators=[{{_target_: {Checksum.__module__}.Checksum}}]"
    settings = (*EMA, evaluator)
    run = tmp_path / "run"
    both = do_train(load(run, *settings))
    raw, averaged = both["dummy/sum"], both["ema/dummy/sum"]
    assert raw != averaged
    assert do_eval(load(run, *settings), resume=True) == both
    assert do_eval(load(run, *settings, "train.ema.evaluate=raw"), resume=True) == {"dummy/sum": raw}
    assert do_eval(load(run, *settings, "train.ema.evaluate=ema"), resume=True) == {"dummy/sum": averaged}
    for name, expected in zip(FINAL, (raw, averaged), strict=True):
        config = load(tmp_path / "eval", *settings, f"train.init_checkpoint={run / name}")
        assert do_eval(config) == {"dummy/sum": expected}


def test_a_run_without_average_can_begin_one_but_has_none_to_evaluate(tmp_path, caplog):
    do_train(load(tmp_path, "train.max_iter=2"))
    with pytest.raises(CheckpointError, match=r"no averaged weights; train\.ema\.evaluate=raw"):
        do_eval(load(tmp_path, *EMA), resume=True)
    do_train(load(tmp_path, *EMA, "train.max_iter=4"), resume=True)
    assert "has no averaged weights; their average starts anew" in caplog.text
    assert (tmp_path / "model_final_ema.safetensors").is_file()
