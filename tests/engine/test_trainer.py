"""The loop and its hooks without a config."""

import io
import logging

import pytest
import torch
from rich.console import Console
from torch import nn

from detrex.checkpoint import Checkpoint
from detrex.engine import Hook, LogHook, NonFiniteLossError, ProgressHook, Trainer, Writers, schedule
from detrex.engine.log import METRICS_LOGGER, run_logging
from detrex.runtime.random_state import (
    preserved_random_state,
    random_state,
    seed_everything,
    set_random_state,
)
from tests.engine.quadratic import Memory, Quadratic, forever, make_trainer


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
    (first, logged), (last, rest) = memory.kept
    assert (first, last) == (2, 3)
    assert logged["main"] == pytest.approx((7 + 6) / 2) and logged["extra"] == pytest.approx(7)
    assert logged["loss"] == pytest.approx((7 + 13) / 2) and logged["lr"] == 0.0
    assert rest["main"] == pytest.approx(7) and "extra" not in rest
    assert logged["step_time"] > logged["data_time"] > 0


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


class Recorded(Quadratic):
    """Notes the gradient of every micro-batch by itself."""

    def gradients(self, *batches):
        self.steps = 0
        found = []
        for vector in batches:
            losses = self([{"image": torch.tensor(vector)}])
            found.append(torch.autograd.grad(sum(losses.values()), self.w)[0])
        self.steps = 0
        return found


def test_a_step_takes_the_mean_gradient_of_its_micro_batches(tmp_path):
    batches = [1.0, 2.0], [5.0, -4.0], [3.0, 3.0], [0.0, 7.0]
    first, second, third, fourth = Recorded().gradients(*batches)
    memory = Memory()
    trainer = make_trainer(tmp_path, forever(*batches), [LogHook(1, Writers([memory]))], 2, accumulation=2)
    trainer.train()
    expected = torch.tensor([3.0, 4.0]) - (first + second) / 2 - (third + fourth) / 2
    assert torch.allclose(trainer.module.w, expected)
    assert trainer.grad_norm.item() == pytest.approx(((third + fourth) / 2).norm().item())
    assert trainer.iteration == 2 and trainer.scheduler.last_epoch == 2
    # Of the first step: the mean of 3 + 8 and 15 - 16, and half of the other loss, which one of two has.
    assert memory.kept[0][1]["main"] == pytest.approx((11 - 1) / 2)
    assert memory.kept[0][1]["extra"] == pytest.approx(7 / 2)
    assert memory.kept[0][1]["loss"] == pytest.approx(5 + 3.5)


@pytest.mark.parametrize("setting", [{"accumulation": 0}, {"max_skipped_steps": -1}])
def test_numbers_of_steps_out_of_range_are_errors(tmp_path, setting):
    with pytest.raises(ValueError, match=f"train.{next(iter(setting))} must"):
        make_trainer(tmp_path, forever([1.0, 1.0]), **setting)


NAN = float("nan")


def test_steps_that_are_not_finite_are_left_out_and_named(tmp_path, caplog):
    loader = forever([1.0, 1.0], [NAN, 1.0], [NAN, 2.0], [2.0, 1.0], [NAN, 1.0])
    seen = []

    class Taken(Hook):
        def after_step(self, trainer):
            seen.append(trainer.step_taken)

    trainer = make_trainer(tmp_path, loader, [Taken()], max_iter=5, max_skipped_steps=2)
    trainer.model.steps = 10**9 + 1  # an odd number: the second loss comes in steps 1, 3 and 5
    trainer.train()
    assert seen == [True, False, False, True, False]
    assert trainer.module.w.tolist() == pytest.approx([3 - 1 - 1 - 2, 4 - 1 - 1 - 1])
    assert trainer.iteration == 5 and trainer.scheduler.last_epoch == 5
    warnings = [r.getMessage() for r in caplog.records]
    assert [w.partition(":")[0] for w in warnings] == [
        f"the loss is not finite at iteration {k}" for k in (2, 3, 5)
    ]
    assert all("images a.png" in w and "main nan" in w for w in warnings)
    assert ["1 of at most 2 in a row", "2 of at most 2 in a row", "1 of at most 2 in a row"] == [
        w.partition("(")[2].partition("(")[2].rstrip(").") for w in warnings
    ]


def test_too_many_in_a_row_end_the_run_with_a_report(tmp_path):
    trainer = make_trainer(tmp_path, forever([1.0, 1.0], *[[NAN, 1.0]] * 3), max_iter=9, max_skipped_steps=2)
    with pytest.raises(
        NonFiniteLossError, match=r"at iteration 4: main nan.*images a\.png.*a summary in .*json"
    ):
        trainer.train()
    (report,) = (tmp_path / "nonfinite").glob("*.json")
    assert "0000004" in report.name


def test_a_report_that_cannot_be_written_does_not_hide_the_reason(tmp_path):
    (tmp_path / "nonfinite").write_text("in the way")
    trainer = make_trainer(tmp_path, forever([NAN, 1.0]))
    with pytest.raises(
        NonFiniteLossError, match=r"main nan \(images a\.png\)\. A report could not be written"
    ):
        trainer.train()


def test_a_batch_that_is_not_finite_leaves_no_trace_in_statistics(tmp_path):
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(1)
            self.head = nn.Linear(1, 1)

        def forward(self, samples):
            return {"loss": self.head(self.norm(samples[0]["image"][:, None])).sum()}

    def train(*batches) -> Normed:
        torch.manual_seed(0)
        model = Normed()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule_ = schedule.constant(optimizer)
        settings = {"max_iter": len(batches), "output_dir": tmp_path, "max_skipped_steps": 1}
        Trainer(model, forever(*batches), optimizer, schedule_, **settings).train()
        return model

    good, other = [1.0, 5.0], [2.0, 3.0]
    expected, found = train(good, other), train(good, [NAN, 1.0], other)
    for name, value in expected.state_dict().items():
        assert torch.equal(value, found.state_dict()[name]), name


def test_fp16_lowers_the_scale_until_gradients_fit_and_counts_no_skipped_step(tmp_path):
    class Halves(Quadratic):
        """Its gradient passes through a half-precision tensor."""

        def forward(self, samples):
            return {"main": (self.w.half() * samples[0]["image"].half()).float().sum()}

    model = Halves()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    trainer = Trainer(
        model,
        forever([4.0, 1.0]),  # 4 * 65536 is beyond half precision, as is 4 * 32768, but not 4 * 8192
        optimizer,
        schedule.constant(optimizer),
        max_iter=4,
        output_dir=tmp_path,
        amp="fp16",
    )
    trainer.train()
    assert trainer.scaler.get_scale() == 8192
    assert trainer.module.w.tolist() == pytest.approx([3.0 - 4.0, 4.0 - 1.0])
    assert trainer.iteration == 4 and trainer.step_taken


def test_fp16_gradients_that_never_fit_end_the_run(tmp_path):
    class Root(Quadratic):
        def forward(self, _samples):
            return {"root": (self.w * 0).sqrt().sum()}

    model = Root()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = schedule.constant(optimizer)
    loader = forever([1.0, 1.0])
    settings = {"max_iter": 100, "output_dir": tmp_path, "amp": "fp16", "max_skipped_steps": 2}
    trainer = Trainer(model, loader, optimizer, scheduler, **settings)
    with pytest.raises(NonFiniteLossError, match="the gradient is not finite at iteration 19"):
        trainer.train()  # after 16 halvings from 65536 to 1


def test_hooks_find_their_state_by_name(tmp_path):
    class Counter(Hook):
        def __init__(self):
            self.count = 0

        def after_step(self, _trainer):
            self.count += 1

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state):
            self.count = state["count"]

    class Other(Counter):
        pass

    trainer = make_trainer(tmp_path, forever([1.0, 1.0]), [Counter(), Other()], max_iter=3)
    trainer.train()
    state = trainer.state_dict()
    resumed = make_trainer(tmp_path, forever([1.0, 1.0]), [LogHook(1, Writers([])), Other()], max_iter=3)
    resumed.load_state(Checkpoint(tmp_path, 3, {}, {}, state))
    assert resumed.iteration == 3 and resumed.hooks[1].count == 3
