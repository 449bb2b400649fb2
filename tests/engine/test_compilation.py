"""torch.compile and channels_last, against the model as it is."""

import shutil

import pytest
import torch

from detrex.config import ConfigError
from detrex.engine import do_eval, do_train
from detrex.engine.parallel import compile_modules
from tests.engine.runs import load, losses
from tests.engine.tiny import TINY, batch, build, losses_and_gradients

# A layer of each kind stands for all of them.
EVERYTHING = ["backbone", "encoder.layers.0", "pixel_head", "decoder.layers.0"]
NO_NOISE = "model.denoising=null"  # which is drawn anew in each step


def compiled(modules, overrides=(NO_NOISE,), **options):
    torch._dynamo.reset()
    model = build([*TINY, *overrides])
    compile_modules(model, modules, **options)
    return model


def assert_same(one, other):
    for found, expected in zip(one, other, strict=True):
        assert found.keys() == expected.keys()
        for name in found:
            # Gradients sum many terms, so their rounding is measured by the largest of them.
            atol = 1e-4 * max(1.0, expected[name].abs().max().item())
            torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=atol, msg=name)


@pytest.mark.parametrize(("modules", "dynamic"), [(EVERYTHING, None), (["decoder.layers.0"], True)])
def test_compiled_modules_compute_the_same(modules, dynamic):
    samples = batch((2, 3))
    expected = losses_and_gradients(build([*TINY, NO_NOISE]), samples)
    model = compiled(modules, backend="aot_eager", dynamic=dynamic)
    assert_same(losses_and_gradients(model, samples), expected)
    assert model.state_dict().keys() == build([*TINY, NO_NOISE]).state_dict().keys()


def test_they_take_part_in_evaluation_and_other_sizes():
    model, plain = compiled(["backbone"], backend="aot_eager").eval(), build([*TINY, NO_NOISE]).eval()
    for size in ((64, 64), (64, 96)):
        samples = [{"image": torch.randint(0, 256, (3, *size), dtype=torch.uint8)}]
        with torch.inference_mode():
            (found,), (expected,) = model(samples), plain(samples)
        torch.testing.assert_close(
            found["instances"].scores, expected["instances"].scores, rtol=1e-3, atol=1e-4
        )


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
def test_inductor_compiles_a_stage_of_the_backbone():
    samples = batch((2, 1))
    expected = losses_and_gradients(build([*TINY, NO_NOISE]), samples)
    # A C++ compiler takes a second for each of the 33 kernels of a whole backbone.
    assert_same(losses_and_gradients(compiled(["backbone.model.layer1"]), samples), expected)


def test_a_run_compiles_what_its_config_names(tmp_path, caplog):
    eager, compiled = tmp_path / "eager", tmp_path / "compiled"
    switches = "train.compile.modules=['*']", "train.compile.backend=eager"
    do_train(load(eager))
    torch._dynamo.reset()
    do_train(load(compiled, *switches))
    assert losses(compiled) == losses(eager)
    with caplog.at_level("INFO"):
        metrics = do_eval(load(compiled, *switches), resume=True)
    assert "torch.compile (eager): " in caplog.text and metrics == do_eval(load(compiled), resume=True)


def test_a_name_of_no_module_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"'backbon' is the name of no module; those of the model are .*"):
        do_train(load(tmp_path, "train.compile.modules=[backbon]"))


def test_a_machine_without_a_compiler_is_told_so(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ConfigError, match="needs a C"):
        compile_modules(build([*TINY]), ["backbone"])
    compile_modules(build([*TINY]), [])


def test_channels_last_changes_the_layout_and_not_the_results():
    samples = batch((2, 3))
    model, plain = build([*TINY, NO_NOISE, "model.channels_last=true"]), build([*TINY, NO_NOISE])
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    assert_same(losses_and_gradients(model, samples), losses_and_gradients(plain, samples))
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)
    weights = [p for p in model.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    assert weights and all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    model.load_state_dict(plain.state_dict())
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
