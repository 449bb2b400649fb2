"""The loss on test data."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.engine import do_train, launch
from detrex.engine.run_evaluation import ValidationLoss
from detrex.runtime.distributed import mean_over_processes, rank
from tests.engine import dummy
from tests.engine.runs import load, losses, metrics


class Lossy(nn.Module):
    """Losses that depend on dropout, statistics of the batch, random numbers and other processes."""

    def __init__(self):
        super().__init__()
        self.dropout, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(dummy.FEATURES)
        self.weight = nn.Parameter(torch.tensor(2.0))

    def losses(self, samples):
        images = torch.stack([s["image"] for s in samples])
        features = self.dropout(self.norm(images)).abs().sum()
        share = mean_over_processes(torch.tensor(float(samples[0]["image_id"])))
        return {
            "loss_a": self.weight * features,
            "loss_a_0": torch.rand(()),
            "loss_b": share,
        }


def loader():
    return L(dummy.TestLoader)(dataset=L(dummy.Dataset)(num_classes=3))


def by_hand(images=range(dummy.IMAGES)) -> float:
    """Mean of ``loss_a``: a fresh batch norm in evaluation mode divides by nearly 1."""
    data = dummy.Dataset()
    return 2.0 * sum(float(data[i]["image"].abs().sum()) for i in images) / len(images)


def test_the_network_is_that_of_evaluation_and_left_as_it_was():
    model = Lossy().train()
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    found = ValidationLoss(loader()).measure(model)
    assert found["val/loss_a"] == pytest.approx(by_hand(), rel=1e-4)
    assert found["val/loss_b"] == pytest.approx(sum(range(dummy.IMAGES)) / dummy.IMAGES)
    # The total also has the parts of inner layers, which are not returned one by one.
    assert set(found) == {"val/loss", "val/loss_a", "val/loss_b"}
    assert found["val/loss_a"] + found["val/loss_b"] < found["val/loss"]
    assert model.training and model.dropout.training and not model.norm.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state) and model.weight.grad is None


def test_random_numbers_are_the_same_every_time():
    model = Lossy()
    measured = ValidationLoss(loader())
    first = measured.measure(model)
    torch.rand(5)
    assert measured.measure(model) == first


def test_only_the_first_images():
    found = ValidationLoss(loader(), max_images=3).measure(Lossy())
    assert found["val/loss_a"] == pytest.approx(by_hand(range(3)), rel=1e-4)
    with pytest.raises(ValueError, match="max_images must be at least 1"):
        ValidationLoss(loader(), max_images=0)


def measure() -> list[dict[str, float]]:
    """With an odd number of images processes have different numbers, and one may have none."""
    return [ValidationLoss(loader(), images).measure(Lossy()) for images in (None, 1, 5)]


def write_measured(folder):
    Path(folder, str(rank())).write_text(json.dumps(measure()))


def test_two_processes_measure_the_same(tmp_path):
    launch(write_measured, (str(tmp_path),), num_gpus=2)
    found = [json.loads((tmp_path / name).read_text()) for name in ("0", "1")]
    assert found[0] == found[1]
    for two, one in zip(found[0], measure(), strict=True):
        assert two == pytest.approx(one)


def test_a_run_measures_it_at_every_evaluation_without_a_trace(tmp_path):
    settings = ("train.eval_period=2", "train.max_iter=4")
    with_loss = (*settings, "train.validation_loss.enabled=true", "train.checkpoint.best_metric=val/loss")
    do_train(load(tmp_path / "a", *settings))
    evaluated = do_train(load(tmp_path / "b", *with_loss, "train.checkpoint.best_mode=min"))
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    measured = {m["iteration"]: m["val/loss"] for m in metrics(tmp_path / "b") if "val/loss" in m}
    assert list(measured) == [2, 4] and measured[4] == evaluated["val/loss"] != measured[2]
    best = json.loads((tmp_path / "b" / "checkpoints" / "best_checkpoint").read_text())
    assert best["value"] == min(measured.values())


def test_samples_get_targets_in_the_frame_of_their_resized_image(tmp_path):
    data = get_config("common/data/shapes.py").dataloader
    data.root, data.image_size, data.splits = str(tmp_path), 64, {"train": 2, "val": 3}
    data.test.num_workers, data.test.mapper.size, data.test.mapper.max_size = 0, 96, 96
    seen = []

    class Model(nn.Module):
        def losses(self, samples):
            seen.extend(samples)
            return {"loss": torch.tensor(float(len(samples[0]["targets"])))}

    assert data.test.dataset.targets is False
    from omegaconf import OmegaConf

    config = OmegaConf.create({"dataloader": data})
    ValidationLoss(config.dataloader.test).measure(Model())
    assert len(seen) == 3
    for sample in seen:
        targets = sample["targets"]
        assert sample["image"].shape == (3, 96, 96) and targets.masks.shape[1:] == (96, 96)
        assert len(targets) > 0 and float(targets.boxes.max()) > 64
        for box, mask in zip(targets.boxes, targets.masks, strict=True):
            rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
            tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == [float(v) for v in tight]
