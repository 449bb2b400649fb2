"""Arithmetic of training steps: what is rounded under mixed precision, and what is not."""

import pytest
import torch

from detrex.config import LazyConfig, instantiate
from detrex.engine import Trainer, build_adamw, do_eval, do_train, schedule
from detrex.engine.ema import WeightAverage
from detrex.layers import deformable_attention
from detrex.modeling.queries import position
from detrex.runtime.device import set_tf32
from detrex.structures import Sample, Targets
from tests.config_files import config_of
from tests.engine.runs import load
from tests.modeling.conftest import ROOT, TINY


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = config_of(ROOT / "projects/maskdino/configs/models/maskdino_r50.py")
    return instantiate(LazyConfig.apply_overrides(config, TINY).model)


def sample() -> Sample:
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 5:30, 8:40] = masks[1, 40:60, 20:60] = True
    boxes = torch.tensor([[8.0, 5.0, 40.0, 30.0], [20.0, 40.0, 60.0, 60.0]])
    targets = Targets(torch.tensor([0, 3]), boxes, masks, torch.ones(2, dtype=torch.bool))
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    return Sample(image=image, targets=targets, image_id=1, file_name="1.jpg")


def forever(batch):
    while True:
        yield batch


def check(model, monkeypatch, tmp_path, device: str, amp: str) -> None:
    seen = {"locations": set(), "positions": set(), "boxes": set(), "losses": set(), "logits": set()}
    attend, encode = deformable_attention.multi_scale_deformable_attention, position.box_sine_encoding

    def attending(value, shapes, locations, weights):
        seen["locations"].add(locations.dtype)
        return attend(value, shapes, locations, weights)

    def encoding(boxes, dim):
        encoded = encode(boxes, dim)
        seen["positions"] |= {boxes.dtype, encoded.dtype}
        return encoded

    def after_decoder(_module, _inputs, output):
        predictions = [part.prediction for part in output.supervised]
        seen["boxes"] |= {p.boxes.dtype for p in predictions}
        seen["logits"] |= {p.logits.dtype for p in predictions}

    def after_model(_module, _inputs, losses):
        seen["losses"] |= {loss.dtype for loss in losses.values()}

    monkeypatch.setattr(deformable_attention, "multi_scale_deformable_attention", attending)
    monkeypatch.setattr(position, "box_sine_encoding", encoding)
    model.to(device).register_forward_hook(after_model)
    model.decoder.register_forward_hook(after_decoder)
    optimizer = build_adamw(model, lr=1e-4)
    average = WeightAverage(model, 0.9, 1)
    settings = {"max_iter": 2, "output_dir": tmp_path, "amp": amp, "average": average, "max_skipped_steps": 0}
    batches = forever([sample()])
    Trainer(model, batches, optimizer, schedule.constant(optimizer), **settings).train()
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}[amp]
    assert seen["logits"] == {low}  # the test is of mixed precision indeed
    for name in ("locations", "positions", "boxes", "losses"):
        assert seen[name] == {torch.float32}, name
    kept = [*model.parameters(), *(p.grad for p in model.parameters() if p.grad is not None)]
    kept += [value for state in optimizer.state.values() for value in state.values()]
    kept += [value for value in average.weights().values() if value.is_floating_point()]
    assert {value.dtype for value in kept} == {torch.float32}


def test_coordinates_losses_and_what_is_kept_stay_in_float32(model, monkeypatch, tmp_path):
    check(model, monkeypatch, tmp_path, "cpu", "bf16")


@pytest.mark.gpu
@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_these_stay_in_float32_on_a_gpu(model, monkeypatch, tmp_path, amp):
    check(model, monkeypatch, tmp_path, "cuda", amp)


@pytest.fixture
def tf32_restored():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.usefixtures("tf32_restored")
@pytest.mark.parametrize("enabled", [True, False])
def test_tf32_is_a_switch_of_runs_and_evaluations(tmp_path, enabled):
    def found() -> tuple[bool, bool]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    set_tf32(not enabled)
    do_train(load(tmp_path, f"train.tf32={enabled}", "train.max_iter=1"))
    assert found() == (enabled, enabled)
    set_tf32(not enabled)
    do_eval(load(tmp_path, f"train.tf32={enabled}"), resume=True)
    assert found() == (enabled, enabled)


@pytest.mark.gpu
@pytest.mark.usefixtures("tf32_restored")
def test_tf32_rounds_products_on_a_gpu():
    values = torch.rand(256, 256, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    exact = values.double() @ values.double()
    errors = []
    for enabled in (False, True):
        set_tf32(enabled)
        errors.append((values @ values - exact).abs().max().item())
    assert errors[0] < 1e-4 and errors[1] > 10 * errors[0]
