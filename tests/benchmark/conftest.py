"""A model and a data set so small that benchmarks take moments, and time that passes at will."""

from pathlib import Path

import pytest
import torch

from detrex.benchmark.timing import Clock

CONFIG = str(Path(__file__).resolve().parents[2] / "projects/maskdino/configs/maskdino_shapes.py")


def tiny(root: Path) -> tuple[str, ...]:
    """Overrides of :data:`CONFIG`, with a data set of a few images under ``root``."""
    return (
        f"dataloader.root={root}",
        "dataloader.splits={train: 6, val: 3}",
        "dataloader.image_size=64",
        "dataloader.train.total_batch_size=2",
        "dataloader.train.num_workers=0",
        "model.backbone.name=test_resnet",
        "model.backbone.options={}",
        "model.encoder.num_layers=1",
        "model.decoder.layers.num_layers=1",
        "model.decoder.query_init.num_queries=10",
        "model.criterion.points.num_points=64",
        "train.device=cpu",
    )


@pytest.fixture(scope="session")
def overrides(tmp_path_factory) -> tuple[str, ...]:
    return tiny(tmp_path_factory.mktemp("shapes"))


class ManualClock(Clock):
    """Shows the seconds that a test has let pass."""

    def __init__(self):
        super().__init__(torch.device("cpu"))
        self.now = 0.0

    def mark(self) -> float:
        return self.now


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
