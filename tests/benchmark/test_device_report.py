"""The report of a device, and how often a run waits for it, on a CPU and a tiny model."""

import pytest
import torch

from detrex.benchmark.device_report import device_report
from detrex.benchmark.model import Setup
from detrex.benchmark.syncs import SyncCounter, count_syncs
from detrex.modeling.mask_regions import MaskResize
from tests.benchmark.conftest import CONFIG

SIZE = (48, 64)


def test_operations_that_wait():
    x = torch.arange(6)
    quiet = (
        lambda: x + 1,
        lambda: x[torch.tensor([0, 2])],
        lambda: x.sum(),
        lambda: torch.where(x > 2, x, 0),
    )
    waiting = (
        lambda: x.sum().item(),
        lambda: x[x > 2],
        lambda: x.nonzero(),
        lambda: bool(x[0] > 1),
        lambda: x.unique(),
    )
    for operations, count in ((quiet, 0), (waiting, 1)):
        for operation in operations:
            with SyncCounter() as counter:
                operation()
            assert counter.places.total() == count


def test_masks_are_encoded_with_few_waits():
    resize = MaskResize((40, 60), (160, 240), (150, 230), (300, 460), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    masks = torch.randn(100, 40, 60, generator=generator)
    with SyncCounter() as counter:
        rles, _ = resize.encode(masks)
    # Of 14 MB: one group. That one copy says where masks reach does not count.
    assert len(rles) == 100 and counter.places.total() == 1
    with SyncCounter() as counter:
        resize.encode(masks[:0])
    assert counter.places.total() == 0


@pytest.mark.parametrize("training", [False, True])
def test_counts_of_a_run(overrides, training):
    found = count_syncs(Setup(CONFIG, overrides, training=training, size=SIZE))
    assert found["is_bound"] and found["count"] == sum(place["count"] for place in found["places"]) > 0
    assert all(place["place"].startswith("detrex/") for place in found["places"])


def test_report(overrides, monkeypatch):
    monkeypatch.setattr("detrex.benchmark.op.SCRATCH_BYTES", 2**10)
    good = {"float32": (), "bf16": ("train.amp=bf16",)}
    base = Setup(CONFIG, overrides, size=SIZE)
    device = torch.device("cpu")
    machine, *sections = device_report(base, device, [SIZE], repeats=1, variants=good)
    assert torch.__version__ in machine and CONFIG in machine
    titles = [section.partition("\n")[0] for section in sections]
    assert titles == [
        "### Inference, 1 image(s) of 48x64", "### Training step, 1 image(s) of 48x64",
        "### Deformable attention, float32, batch 1", "### Deformable attention, bfloat16, batch 1",
        "### Waiting for the device, inference", "### Waiting for the device, training step",
    ]  # fmt: skip
    assert all("| ---" in section and "Failed" not in section for section in sections)
    assert "| bf16 |" in sections[0] and "backward" in sections[1]
    _, *late = device_report(base, device, [SIZE], minutes=0, variants=good)
    assert len(late) == 6 and all("Left out" in section for section in late)
