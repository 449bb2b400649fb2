"""The loop and its hooks without a config."""

import io
import logging

import pytest
import torch
from rich.console import Console
from torch import nn

from detrex.engine import Hook, LogHook, ProgressHook, Trainer, Writers, schedule
from detrex.engine.log import METRICS_LOGGER, run_logging
from detrex.engine.random_state import preserved_random_state, random_state, seed_everything, set_random_state


class Quadratic(nn.Module):
    """Losses ``sum(w * x)`` and, on every second step only, ``sum(w)``."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([3.0, 4.0]))
        self.steps = 0

    def forward(self, samples):
        self.steps += 1
        losses = {"main": (self.w * samples[0]["image"]).sum()}
        if self.steps % 2 == 0:
            losses["extra"] = self.w.sum()
        return losses


class Memory:
    """A writer that keeps everything."""

    def __init__(self):
        self.kept = []

    def open(self, iteration, config):
        pass

    def write(self, iteration, metrics):
        self.kept.append((iteration, metrics))

    def close(self):
        pass


def forever(*vectors):
    class Loader:
        def __iter__(self):
            while True:
                for vector in vectors:
                    yield [{"image": torch.tensor(vector), "file_name": "a.png"}]

    return Loader()


def make_trainer(tmp_path, loader, hooks=(), max_iter=1, lr=1.0, **kwargs) -> Trainer:
    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return Trainer(
        model,
        loader,
        optimizer,
        schedule.constant(optimizer),
        max_iter=max_iter,
        output_dir=tmp_path,
        hooks=hooks,
        **kwargs,
    )


def test_the_gradient_is_scaled_down_to_the_norm(tmp_path):
    trainer = make_trainer(tmp_path, forever([6.0, 8.0]), max_norm=5.0)
    trainer.train()
    assert trainer.grad_norm.item() == pytest.approx(10.0)  # before clipping
    assert trainer.module.w.tolist() == pytest.approx([3.0 - 3.0, 4.0 - 4.0], abs=1e-5)


def test_a_small_gradient_is_not_clipped(tmp_path):
    trainer = make_trainer(tmp_path, forever([0.6, 0.8]), max_norm=5.0)
    trainer.train()
    assert trainer.module.w.tolist() == pytest.approx([2.4, 3.2])


def test_means_over_the_period_and_over_the_steps_that_had_a_loss(tmp_path):
    memory = Memory()
    hook = LogHook(2, Writers([memory]))
    make_trainer(tmp_path, forever([1.0, 1.0], [2.0, 0.0]), [hook], max_iter=3, lr=0.0).train()
    (first, figures), (last, rest) = memory.kept
    assert (first, last) == (2, 3)
    assert figures["main"] == pytest.approx((7 + 6) / 2) and figures["extra"] == pytest.approx(7)
    assert figures["loss"] == pytest.approx((7 + 13) / 2) and figures["lr"] == 0.0
    assert rest["main"] == pytest.approx(7) and "extra" not in rest
    assert figures["step_time"] > figures["data_time"] > 0


def test_hooks_are_called_in_order_and_closed_after_an_error(tmp_path):
    calls = []

    class Recorder(Hook):
        def before_train(self, trainer):
            calls.append(("before_train", trainer.iteration))

        def before_step(self, trainer):
            calls.append(("before_step", trainer.iteration))

        def after_step(self, trainer):
            calls.append(("after_step", trainer.iteration))
            if trainer.iteration == 2:
                raise KeyError

        def close(self):
            calls.append("close")

    with pytest.raises(KeyError):
        make_trainer(tmp_path, forever([1.0, 1.0]), [Recorder()], max_iter=9).train()
    steps = [("before_step", 0), ("after_step", 1), ("before_step", 1), ("after_step", 2)]
    assert calls == [("before_train", 0), *steps, "close"]


def test_a_loader_that_ends_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="must be endless, but ended after 1 of 2 steps"):
        make_trainer(tmp_path, [[{"image": torch.ones(2)}]], max_iter=2).train()


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(tmp_path):
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(1))

        def forward(self, _samples):
            return {"root": self.w.sqrt().sum()}

    model = Root()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = schedule.constant(optimizer)
    trainer = Trainer(
        model, forever([1.0]), optimizer, scheduler, max_iter=1, output_dir=tmp_path, max_norm=1.0
    )
    with pytest.raises(Exception, match="the gradient is not finite at iteration 1"):
        trainer.train()
    assert model.w.item() == 0.0


def test_the_message_shows_the_losses_that_are_not_finite_first_and_every_image_once(tmp_path):
    class Many(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, _samples):
            return {f"loss_{i}": self.w.sum() * (float("nan") if i == 7 else i) for i in range(9)}

    model = Many()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    trainer = Trainer(
        model,
        [[{"file_name": "a.png"}, {"file_name": "a.png"}, {"file_name": "b.png"}]],
        optimizer,
        schedule.constant(optimizer),
        max_iter=1,
        output_dir=tmp_path,
    )
    with pytest.raises(Exception, match="not finite") as raised:
        trainer.train()
    text = "loss_7 nan, loss_8 8, loss_6 6, loss_5 5 and 5 more (images a.png, b.png)."
    assert text in str(raised.value)


def test_progress_bar_and_log_in_a_terminal(tmp_path):
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with run_logging(tmp_path, console):
        hooks = [LogHook(1, Writers([])), ProgressHook(console)]
        make_trainer(tmp_path, forever([1.0, 1.0]), hooks, max_iter=3, lr=0.0).train()
        logging.getLogger("detrex.x").info("a message")
    shown = console.file.getvalue()
    assert "3/3" in shown and "loss 7.000" in shown and "s/it" in shown and "eta" in shown
    assert "a message" in shown and "iteration 3/3" not in shown
    assert "iteration 3/3  eta 0:00:00  loss 7.0000" in (tmp_path / "log.txt").read_text()


def test_plain_lines_without_a_terminal(tmp_path, capsys):
    with run_logging(tmp_path):
        logging.getLogger(METRICS_LOGGER).info("iteration 1/2")
        logging.getLogger("detrex.x").debug("only in the file")
    assert logging.getLogger("detrex").level == logging.NOTSET
    out = capsys.readouterr().out
    assert out.endswith("INFO detrex.metrics: iteration 1/2\n") and "only in the file" not in out
    assert "only in the file" in (tmp_path / "log.txt").read_text()


def draw() -> tuple:
    import random

    import numpy as np

    return random.random(), np.random.rand(), np.random.randn(), torch.rand(()).item()


def test_random_state_survives_a_safe_file(tmp_path):
    seed_everything(3)
    draw()
    torch.save(random_state(), tmp_path / "r.pt")
    expected = draw()
    seed_everything(9)
    set_random_state(torch.load(tmp_path / "r.pt", weights_only=True))
    assert draw() == expected


def test_a_block_can_draw_without_a_trace():
    seed_everything(3)
    expected = draw()
    seed_everything(3)
    with preserved_random_state():
        draw()
    assert draw() == expected


def test_the_log_line_leaves_out_single_layers(tmp_path, caplog):
    class Layers(Quadratic):
        def forward(self, samples):
            losses = super().forward(samples)
            return {f"{name}{layer}": loss for name, loss in losses.items() for layer in ("", "_0", "_12")}

    memory = Memory()
    trainer = make_trainer(tmp_path, forever([1.0, 1.0]), [LogHook(1, Writers([memory]))])
    trainer.model = Layers()
    with caplog.at_level(logging.INFO, logger=METRICS_LOGGER):
        trainer.train()
    assert "main 7" in caplog.text and "main_" not in caplog.text
    assert memory.kept[0][1]["main_12"] == 7.0
