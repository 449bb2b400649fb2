"""Models at work on synthetic images, in this process and in others."""

import pytest
import torch

from detrex.benchmark.model import Setup, Subject, make_samples, random_ellipses
from detrex.benchmark.worker import measure_models
from detrex.config import ConfigError
from detrex.structures import boxes_from_masks
from tests.benchmark.conftest import CONFIG

SIZE = (48, 64)


def setup(overrides, **options):
    return Setup(CONFIG, overrides, size=SIZE, **options)


def test_ellipses_fill_their_boxes():
    boxes, masks = random_ellipses(20, (200, 300), torch.Generator().manual_seed(0))
    assert masks.shape == (20, 200, 300)
    torch.testing.assert_close(boxes_from_masks(masks, inclusive=False), boxes, atol=1.5, rtol=0)
    width, height = (boxes[:, 2:] - boxes[:, :2]).unbind(1)
    torch.testing.assert_close(masks.sum((1, 2)).float(), torch.pi / 4 * width * height, atol=1, rtol=0.05)


def test_samples_are_always_the_same_and_have_targets_in_training_only():
    wanted = Setup(CONFIG, training=True, size=SIZE, batch=2, objects=3)
    first, again = make_samples(wanted, 5), make_samples(wanted, 5)
    assert len(first) == 2
    for a, b in zip(first, again, strict=True):
        assert a["image"].shape == (3, *SIZE) and torch.equal(a["image"], b["image"])
        assert len(a["targets"]) == 3 and torch.equal(a["targets"].masks, b["targets"].masks)
        assert a["targets"].labels.max() < 5
    assert "targets" not in make_samples(Setup(CONFIG, size=SIZE), 5)[0]


def test_inference(overrides):
    subject = Subject(setup(overrides, batch=2))
    run = subject.run()
    assert set(run.parts) == {"backbone", "encoder", "pixel head", "decoder", "post-processing", "other"}
    assert 0 < sum(run.parts.values()) <= run.duration.seconds
    facts = subject.facts()
    assert facts["machine"]["device"] == "cpu" and facts["machine"]["torch"] == torch.__version__
    assert 0 < facts["memory_before"] <= facts["peak_memory"]


def test_training_takes_steps(overrides, monkeypatch):
    steps = []
    monkeypatch.setattr(torch.optim.AdamW, "step", counted(torch.optim.AdamW.step, steps))
    subject = Subject(setup(overrides, training=True))
    runs = [subject.run() for _ in range(2)]
    assert len(steps) == 2
    for run in runs:
        assert {"losses", "matching", "denoising", "backward", "optimizer"} <= set(run.parts)
        assert "post-processing" not in run.parts
        assert 0 < sum(run.parts.values()) <= run.duration.seconds


def counted(step, steps):
    def count(*args, **kwargs):
        steps.append(1)
        return step(*args, **kwargs)

    return count


def test_a_config_is_checked_before_a_process_starts(tmp_path, overrides):
    path = tmp_path / "config.py"
    path.write_text("train = {}\nmodel = {}\n")
    with pytest.raises(ConfigError, match="has no optimizer"):
        measure_models({"model": Setup(str(path), training=True)})
    with pytest.raises(ConfigError, match="decoderr"):
        measure_models({"model": setup((*overrides, "model.decoderr=1"))})


@pytest.mark.gpu
def test_memory_of_a_gpu(overrides):
    subject = Subject(setup((*overrides, "train.device=cuda", "train.amp=bf16"), training=True))
    run = subject.run()
    assert 0 < sum(run.parts.values()) <= run.duration.seconds
    facts = subject.facts()
    assert facts["peak_memory"] > facts["memory_before"] > 0


def test_a_process_that_is_killed(tmp_path):
    path = tmp_path / "killed.py"
    path.write_text(
        "import os\nfrom detrex.config import LazyCall as L, get_config\n"
        "train = get_config('common/train.py').train\nmodel = L(os._exit)(status=9)\n"
    )
    with pytest.raises(ChildProcessError, match="was killed"):
        measure_models({"model": Setup(str(path))})
