"""A model whose gradients can be worked out by hand, a trainer of it and a writer that remembers."""

from __future__ import annotations

import torch
from torch import nn

from detrex.engine import Trainer, schedule


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
