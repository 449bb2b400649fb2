"""A Mask DINO in two processes on the CPU (gloo), against the same in one."""

from pathlib import Path

import pytest
import torch
from torch import nn

from detrex.config import ConfigError
from detrex.engine import launch
from detrex.engine.parallel import distribute, synchronise_batch_norms
from detrex.modeling import TimmBackbone
from detrex.runtime.distributed import mean_over_processes, rank
from tests.engine.tiny import EXACT, TINY, batch, build, losses_and_gradients

# Objects per image; half of the images for each process. The last three: a process without objects, none at
# all, and one on the second process.
COUNTS = [(2, 1, 3, 2), (2, 3, 0, 0), (0, 0, 0, 0), (0, 0, 1, 0)]
FSDP = {"fsdp": True, "fsdp_modules": ["backbone.model.layer?", "decoder.layers.*.self_attention"]}
# Settings of the model, counts and switches of what two processes do, in one go: starting them takes long.
CASES = {
    **{f"ddp {counts}": (EXACT, counts, {}) for counts in COUNTS},
    **{
        f"fsdp {counts}": (EXACT, counts, FSDP)
        for counts in COUNTS
        if hasattr(torch.cpu.Stream, "record_event")
    },
    **{
        f"{switch} {counts}": (TINY, counts, {switch: True})
        for switch in ("static_graph", "find_unused_parameters")
        for counts in [(2, 0), (0, 0)]
    },
}
WRONG = {
    "does not go together with train.accumulation=2": {"static_graph": True, "accumulation": 2},
    "sync_batch_norm needs GPUs": {"sync_batch_norm": True},
    "neither with train.amp=fp16": {"fsdp": True, "amp": "fp16"},
    "nor with train.ema.enabled": {"fsdp": True, "averaged": True},
}


def one_of_two(folder: str) -> None:
    found = {}
    for case, (overrides, counts, options) in CASES.items():
        model = distribute(build(overrides), **options)
        share = len(counts) // 2
        samples = batch(counts)[rank() * share : (rank() + 1) * share]
        for step in range(2):  # the second one meets what PyTorch has noted in the first
            model.zero_grad()
            torch.manual_seed(100 * step + rank())
            losses, gradients = losses_and_gradients(model, samples)
        # Without objects there are no denoising losses, and nothing to average them with.
        means = {name: mean_over_processes(loss) for name, loss in losses.items() if "_dn" not in name}
        found[case] = (means, gradients)
    for message, options in WRONG.items():
        with pytest.raises(ConfigError, match=message):
            distribute(nn.Linear(2, 2), **options)
    torch.save(found, Path(folder, f"{rank()}.pt"))


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> list[dict[str, tuple[dict, dict]]]:
    """What each of them found in the cases: losses, averaged over both, and gradients."""
    folder = tmp_path_factory.mktemp("two")
    launch(one_of_two, (str(folder),), num_gpus=2)
    return [torch.load(folder / f"{k}.pt") for k in range(2)]


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_losses_and_gradients_are_those_of_the_joint_batch(two_processes, kind, counts):
    if f"{kind} {counts}" not in CASES:
        pytest.skip("this version of PyTorch splits weights on GPUs only")
    losses, gradients = losses_and_gradients(build(EXACT), batch(counts))
    # Published models divide by at least one object per process.
    scale = max(1, sum(counts)) / max(2, sum(counts))
    for found in two_processes:
        means, averaged = found[f"{kind} {counts}"]
        assert means.keys() == losses.keys() and averaged.keys() == gradients.keys()
        for name, loss in losses.items():
            torch.testing.assert_close(means[name], scale * loss.detach(), rtol=1e-4, atol=1e-6, msg=name)
        for name, gradient in gradients.items():
            torch.testing.assert_close(averaged[name], scale * gradient, rtol=2e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("case", [case for case in CASES if case[:4] not in ("ddp ", "fsdp")])
def test_processes_without_objects_train_with_denoising_too(two_processes, case):
    (_, first), (_, second) = (found[case] for found in two_processes)
    assert all(gradient.isfinite().all() for gradient in first.values())
    assert all(torch.equal(gradient, second[name]) for name, gradient in first.items())


def test_batch_norms_are_replaced_and_compute_the_same():
    model = TimmBackbone("test_resnet", frozen_norm=False).eval()
    images = torch.rand(2, 3, 64, 64)
    expected = model(images)
    weights = dict(model.state_dict(keep_vars=True))
    assert synchronise_batch_norms(model, "cuda") is model
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(isinstance(m, nn.SyncBatchNorm) for m in norms)
    assert all(tensor is weights[name] for name, tensor in model.state_dict(keep_vars=True).items())
    for stride, features in model(images).items():
        torch.testing.assert_close(features, expected[stride])


def test_frozen_batch_norms_cannot_be_synchronised():
    with pytest.raises(ConfigError, match="no batch norm that is trained"):
        synchronise_batch_norms(TimmBackbone("test_resnet"), "cuda")


def test_one_process_needs_no_wrapper():
    model = nn.Linear(2, 2)
    assert distribute(model, static_graph=True, sync_batch_norm=True) is model
