"""H-DETR: the one-to-many group teaches, and neither the other group nor inference knows of it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from detrex.config import LazyConfig, instantiate
from detrex.modeling import OneToOne, SupervisedPrediction
from detrex.structures import BatchTargets, Sample, Targets
from tests.config_files import config_of

ROOT = Path(__file__).resolve().parents[2]
PROJECT = ROOT / "projects/h_deformable_detr"
CONFIG = PROJECT / "configs/h_deformable_detr_r50_coco_12ep.py"
QUERIES, EXTRA, COPIES = 5, 20, 3
TINY = [
    "model.num_classes=4",
    "model.backbone.name=test_resnet",
    "model.encoder={hidden_dim: 32, ffn_dim: 16, num_heads: 4, num_layers: 1, dropout: 0.0}",
    "model.decoder.layers={ffn_dim: 16, num_heads: 4, num_layers: 2, dropout: 0.0}",
    f"model.decoder.query_init={{num_queries: {QUERIES}, num_extra: {EXTRA}}}",
    f"model.decoder.query_init.extra_assignment.copies={COPIES}",
]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return instantiate(LazyConfig.apply_overrides(config_of(CONFIG), TINY).model)


@pytest.fixture
def samples() -> list[Sample]:
    random = torch.Generator().manual_seed(0)
    rows = []
    for count in (2, 3):
        image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8, generator=random)
        corner = 8 + 32 * torch.rand(count, 2, generator=random)
        targets = Targets(
            torch.arange(count), torch.cat([corner, corner + 20], 1), None, torch.ones(count) > 0
        )
        rows.append(Sample(image=image, targets=targets))
    return rows


def predict(model: nn.Module, samples: list[Sample]) -> dict[str, SupervisedPrediction]:
    """What is supervised, by the suffix of its losses."""
    with torch.no_grad():
        return {s.loss_suffix: s for s in model.predict(model.preprocess(samples)).supervised}


def same(one: SupervisedPrediction, other: SupervisedPrediction) -> None:
    torch.testing.assert_close(one.prediction.logits, other.prediction.logits)
    torch.testing.assert_close(one.prediction.boxes, other.prediction.boxes)


def test_inference_uses_what_training_has_as_its_first_group(model, samples):
    trained, inferred = predict(model.train(), samples), predict(model.eval(), samples)
    assert set(inferred) == {"_0", "", "_interm"}
    assert set(trained) == {*inferred, "_0_one2many", "_one2many"}
    # Also that the first group does not see the second: it is the same without it.
    for suffix in ("_0", ""):
        assert trained[f"{suffix}_one2many"].prediction.logits.shape == (2, EXTRA, 4)
        assert trained[suffix].prediction.logits.shape == (2, QUERIES, 4)
        same(trained[suffix], inferred[suffix])
    assert model(samples)[0]["instances"].scores.numel() <= QUERIES * 4


def test_the_second_group_does_not_see_the_first(model, samples):
    before = predict(model.train(), samples)
    query_init, start = model.decoder.query_init, model.decoder.query_init.forward

    def other_first_queries(*arguments):
        queries = start(*arguments)
        queries.groups[0].content = queries.groups[0].content + 1
        return queries

    query_init.forward = other_first_queries
    after = predict(model, samples)
    assert not torch.equal(before[""].prediction.logits, after[""].prediction.logits)
    for suffix in ("_0_one2many", "_one2many"):
        same(before[suffix], after[suffix])


def test_losses_are_those_of_two_models(model, samples):
    """One with the first group, and one with the second whose images show every object several times."""
    targets = BatchTargets.collate(
        [s["targets"] for s in samples], (64, 96), torch.device("cpu"), [(64, 96)] * 2
    )
    order = torch.tensor([0, 1] * COPIES + [2, 3, 4] * COPIES)
    fields = {name: getattr(targets, name)[order] for name in ("labels", "boxes", "is_thing", "image")}
    repeated = BatchTargets(**fields, masks=None, counts=[2 * COPIES, 3 * COPIES])
    parts = predict(model.train(), samples).values()
    one = [part for part in parts if "one2many" not in part.loss_suffix]
    many = [replace(part, assignment=OneToOne()) for part in parts if "one2many" in part.loss_suffix]
    expected = {**model.criterion(one, None, targets), **model.criterion(many, None, repeated)}
    losses = model.train()(samples)
    assert sorted(losses) == sorted(expected) and len(losses) == 3 * 5
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, atol=1e-5, rtol=1e-4)


def test_images_with_few_tokens_have_no_second_group(model, samples):
    model.decoder.query_init.first_group = 1000
    output = predict(model.train(), samples)
    assert set(output) == {"_0", "", "_interm"} and output[""].size == QUERIES + EXTRA
    assert not any("one2many" in name for name in model(samples))


def test_the_page_on_new_projects_shows_this_one():
    """docs/new_project.md: its line counts, and its excerpts of code."""
    page = (ROOT / "docs/new_project.md").read_text()
    code = {path: path.read_text() for path in sorted(PROJECT.rglob("*.py"))}
    lines = {path: len(text.splitlines()) for path, text in code.items()}
    lines |= {path: len(path.read_text().splitlines()) for path in (PROJECT / "README.md", Path(__file__))}
    small = lines.pop(PROJECT / "configs/h_deformable_detr_shapes.py")
    besides = (
        r"(\d+) lines of README, (\d+) of \[test\].*?and\s+(\d+)\s+of\s+\[`configs/h_deformable_detr_shapes"
    )
    stated = [int(count) for count in re.search(besides, page, re.S).groups()]
    assert stated == [lines.pop(PROJECT / "README.md"), lines.pop(Path(__file__)), small]
    rows = re.findall(r"^\| (\d+) \| \[`(.+?)`\]", page, re.M)
    counted = {PROJECT / name: int(count) for count, name in rows}
    assert counted == {path: lines[path] for path in counted}
    further = set(lines) - set(counted)  # rows of the zoo alone
    assert all("configs" in path.parts for path in further)
    assert int(re.search(r"^\| \*\*(\d+)\*\* \|", page, re.M)[1]) == sum(counted.values()) < 110
    excerpts = re.findall(r"```py\n(.*?)```", page, re.S)
    assert len(excerpts) == 3 and all(any(part in text for text in code.values()) for part in excerpts)
