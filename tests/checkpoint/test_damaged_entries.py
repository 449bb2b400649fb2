"""Weights with missing, renamed or reshaped entries: loaded as far as they fit, or a clear error."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detrex.checkpoint import CheckpointError, WeightsFile, load_pretrained
from detrex.checkpoint.backbones import detectron2_resnet_name
from detrex.checkpoint.published import to_published

PATH = Path("stranger.pth")


def detectron2_backbone(model):
    prefix = "backbone.model."
    state = model.state_dict()
    names = [name for name in state if name.startswith(prefix)]
    return {f"backbone.{detectron2_resnet_name(n.removeprefix(prefix))}": state[n] for n in names}


def family(model):
    """Names of the detrex zoo, by which detectors of the DETR family are recognised."""
    layer = "transformer.encoder.layers.0"
    state = {f"{layer}.norms.{i}.{part}": torch.zeros(64) for i in range(2) for part in ("weight", "bias")}
    state |= {f"{layer}.ffns.0.layers.0.0.weight": torch.zeros(32, 64), "class_embed.0.bias": torch.zeros(5)}
    backbone = {name: value for name, value in model.state_dict().items() if name.startswith("backbone.")}
    return {**state, "class_embed.0.weight": torch.zeros(5, 64), **backbone}


SOURCES = {
    "our own": lambda model: dict(model.state_dict()),
    "published": lambda model: to_published(model.state_dict(), model),
    "detectron2": detectron2_backbone,
    "family": family,
}
FORMATS = {
    "our own": "detrex weights",
    "published": "published Mask DINO",
    "detectron2": "ResNet of detectron2",
    "family": "DETR-family detector",
}
CHANGES = {
    "flat": lambda t: t.flatten(),
    "scalar": lambda t: t.flatten()[:1].sum(),
    "more axes": lambda t: t[None],
    "fewer": lambda t: t[: len(t) // 2] if t.ndim else t,
    "empty": lambda t: t.new_zeros(0),
    "integers": lambda t: t.long(),
    "turned": lambda t: t.transpose(0, -1) if t.ndim else t,
    "not finite": lambda t: torch.full_like(t.float(), float("nan")),
}
changes = st.lists(
    st.one_of(
        st.tuples(st.just("drop"), st.integers(0), st.none()),
        st.tuples(st.just("change"), st.integers(0), st.sampled_from(sorted(CHANGES))),
        st.tuples(st.just("rename"), st.integers(0), st.sampled_from(["9", "", "x.", "weight", ".."])),
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("examples", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_changed_entries(build, source, examples):
    model = build()
    # Copies: weights of a file share no memory with the model that they are loaded into.
    original = {name: value.clone() for name, value in SOURCES[source](model).items()}
    assert load_pretrained(model, WeightsFile(PATH, dict(original), {}, None)).format == FORMATS[source]

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(changes)
    def check(steps):
        tensors = dict(original)
        for kind, place, value in steps:
            name = sorted(tensors)[place % len(tensors)]
            tensor = tensors.pop(name)
            if kind == "change":
                tensors[name] = CHANGES[value](tensor)
            elif kind == "rename":
                middle = place % len(name)
                tensors[name[:middle] + value + name[middle + 1 :]] = tensor
        try:
            load_pretrained(model, WeightsFile(PATH, tensors, {}, None))
        except CheckpointError as error:
            assert str(PATH) in str(error)

    check()
