"""Time is split among the parts of a model, by a clock that the parts move on themselves."""

import pytest
import torch
from torch import nn

from detrex.benchmark.parts import PartTimes


class Part(nn.Module):
    def __init__(self, clock, seconds, within=None):
        super().__init__()
        self.clock, self.seconds, self.within = clock, seconds, within
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        self.clock.now += self.seconds
        if self.within is not None:
            self.within(x)
        self.clock.now += self.seconds
        return x * self.weight


class PlainPart:
    """No module, with an attribute that is asked for."""

    name = "plain"

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds

    def __call__(self, x):
        self.clock.now += self.seconds
        return x


class Criterion(Part):
    def __init__(self, clock):
        super().__init__(clock, 4.0)
        self.matcher = PlainPart(clock, 32.0)
        self.within = lambda x: self.matcher(x)


class Model(nn.Module):
    """Has no encoder; its denoising is switched off."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.backbone, self.decoder = Part(clock, 1.0), Part(clock, 2.0)
        self.denoising = None
        self.criterion, self.postprocess = Criterion(clock), PlainPart(clock, 64.0)

    def forward(self, x):
        self.clock.now += 0.5
        x = self.decoder(self.backbone(x))
        return self.criterion(x) if self.training else self.postprocess(x)


@pytest.fixture
def parts(clock):
    return PartTimes(clock)


@pytest.fixture
def model(clock, parts):
    model = Model(clock)
    parts.watch(model)
    return model


def test_inference(model, parts):
    for _ in range(2):
        parts.start()
        model.eval()(torch.ones(()))
        seconds = parts.stop()
        assert seconds == {"backbone": 2.0, "decoder": 4.0, "post-processing": 64.0, "other": 0.5}
        assert list(seconds)[-1] == "other"


def test_a_watched_part_keeps_its_attributes(model):
    assert model.postprocess.name == "plain"
    assert model.criterion.matcher.seconds == 32.0


def test_training(model, parts, clock):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    parts.watch_optimizer(optimizer)
    step = optimizer.step

    for _ in range(2):
        parts.start()
        loss = model.train()(torch.ones(()))
        clock.now += 16.0
        loss.backward()
        later = optimizer.register_step_pre_hook(lambda *_: setattr(clock, "now", clock.now + 128.0))
        step()
        clock.now += 0.25
        seconds = parts.stop()
        later.remove()
        assert seconds == {
            "backbone": 2.0,
            "decoder": 4.0,
            "losses": 8.0,
            "matching": 32.0,
            "backward": 16.0,
            "optimizer": 128.0,
            "other": 0.75,
        }


def test_a_part_that_runs_several_times_is_summed(model, parts):
    parts.start()
    model.eval()(torch.ones(()))
    model(torch.ones(()))
    assert parts.stop()["decoder"] == 8.0
