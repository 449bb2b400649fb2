import pytest
import torch
from torch import nn

from detrex.checkpoint import CheckpointError, load_weights
from detrex.structures import Categories


class Head(nn.Module):
    def __init__(self, classes: int, no_object: bool):
        super().__init__()
        self.classes = nn.Linear(4, classes + no_object)


class Model(nn.Module):
    def __init__(self, classes: int, no_object: bool = False):
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.heads = Head(classes, no_object)
        self.label_embed = nn.Embedding(classes, 4)


def names(*classes: str) -> Categories:
    return Categories.from_names(classes)


def test_another_class_count_keeps_the_initial_head_and_names_it():
    source, target = Model(3), Model(5)
    head = target.heads.classes.weight.clone()
    report = load_weights(target, source.state_dict(), strict=False, source="weights.file")
    assert torch.equal(target.body.weight, source.body.weight)
    assert torch.equal(target.heads.classes.weight, head)
    assert report.reinitialised == {
        "heads.classes.weight": ((3, 4), (5, 4)),
        "heads.classes.bias": ((3,), (5,)),
        "label_embed.weight": ((3, 4), (5, 4)),
    }
    assert "re-initialised: heads.classes.weight, 3x4 in the file, 5x4 in the model" in report.table()


def test_missing_and_unused_names_are_told():
    state = Model(3).state_dict()
    state["neck.weight"] = state.pop("body.weight")
    report = load_weights(Model(3), state, strict=False, source="f")
    assert report.missing == ["body.weight"] and report.unused == ["neck.weight"]
    assert not report.complete


def test_the_table_counts_by_part():
    state = Model(3).state_dict()
    state["neck.weight"] = state.pop("body.weight")
    report = load_weights(Model(5), state, strict=False, source="f")
    rows = [line.split() for line in report.table().splitlines()[:5]]
    assert rows == [
        ["part", "loaded", "re-initialised", "missing", "unused"],
        ["body", "1", "0", "1", "0"],
        ["heads", "0", "2", "0", "0"],
        ["label_embed", "0", "1", "0", "0"],
        ["neck", "0", "0", "0", "1"],
    ]


@pytest.mark.parametrize("no_object", [False, True])
def test_rows_of_classes_with_equal_names_are_kept(no_object):
    source, target = Model(3, no_object), Model(2, no_object)
    fresh = target.heads.classes.weight.clone()
    report = load_weights(
        target,
        source.state_dict(),
        strict=False,
        source="f",
        classes=(names("cat", "dog", "cow"), names("Cow", "bird")),
    )
    weight = target.heads.classes.weight
    assert torch.equal(weight[0], source.heads.classes.weight[2])
    assert torch.equal(weight[1], fresh[1])
    if no_object:
        assert torch.equal(weight[-1], source.heads.classes.weight[-1])
    assert torch.equal(target.label_embed.weight[0], source.label_embed.weight[2])
    assert report.kept_rows["heads.classes.bias"] == ["Cow"] and not report.reinitialised


def test_classes_in_another_order_find_their_rows():
    source, target = Model(2), Model(2)
    classes = (names("a", "b"), names("b", "a"))
    load_weights(target, source.state_dict(), strict=False, source="f", classes=classes)
    assert torch.equal(target.heads.classes.weight, source.heads.classes.weight.flip(0))


def test_a_strict_load_takes_rows_as_they_are():
    source, target = Model(2), Model(2)
    classes = (names("a", "b"), names("b", "a"))
    load_weights(target, source.state_dict(), strict=True, source="f", classes=classes)
    assert torch.equal(target.heads.classes.weight, source.heads.classes.weight)


def test_without_a_shared_name_the_head_keeps_its_initial_values():
    report = load_weights(
        Model(2), Model(3).state_dict(), strict=False, source="f", classes=(names(*"abc"), names(*"xy"))
    )
    assert "heads.classes.weight" in report.reinitialised and not report.kept_rows


def test_a_strict_load_refuses_and_changes_nothing():
    target = Model(5)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"heads\.classes\.weight, 3x4 in the file, 5x4 in the model"):
        load_weights(target, Model(3).state_dict(), strict=True, source="f")
    assert all(torch.equal(before[k], v) for k, v in target.state_dict().items())


def test_weights_of_another_model_are_an_error_even_if_not_strict():
    with pytest.raises(CheckpointError, match="none of its 1 tensors"):
        load_weights(Model(3), {"x": torch.zeros(1)}, strict=False, source="f")
