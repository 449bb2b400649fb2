import json
import math

import pytest

from detrex.evaluation import format_classes, format_per_class, format_summary, format_table, write_results
from detrex.evaluation.report import class_labels, metric_tables
from detrex.evaluation.thresholds import BestThreshold
from detrex.structures import Categories


def test_table():
    table = format_table(
        {"bbox/AP": 51.234, "bbox/AP50": 100.0, "segm/AP": math.nan, "segm/AP50": 7.0, "semantic/mIoU": 70.0}
    )
    rows = [line.replace("|", " ").split() for line in table.splitlines()]
    assert rows[0] == ["AP", "AP50"]
    assert ["bbox", "51.23", "100.00"] in rows
    assert ["segm", "-", "7.00"] in rows
    assert ["mIoU"] in rows and ["semantic", "70.00"] in rows
    assert len({len(line.rstrip()) for line in table.splitlines()[2:4]}) == 1  # right-aligned


def test_table_is_not_cut():
    names = [f"panoptic/a_rather_long_figure_{k}" for k in range(20)]
    table = format_table(dict.fromkeys(names, 12.5))
    assert all(name.split("/")[1] in table for name in names)
    assert len(table.splitlines()) == 3
    assert "[bold]" in format_per_class({"PQ": {"[bold]": 1.0}})


def test_summary_has_one_figure_of_each_task_that_was_measured():
    summary = format_summary({"bbox/AP": 51.234, "bbox/AP50": 80.0, "semantic/mIoU": math.nan})
    rows = [line.replace("|", " ").split() for line in summary.splitlines()]
    assert rows[0] == ["box", "AP", "mIoU"]
    assert rows[-1] == ["51.23", "-"]


def test_empty_table():
    assert format_table({}) == ""


def test_per_class_table():
    table = format_per_class({"bbox/AP": {"cat": 1.0, "dog": 2.0}, "segm/AP": {"dog": math.nan, "cat": 3.0}})
    rows = [line.replace("|", " ").split() for line in table.splitlines()]
    assert rows[0] == ["bbox/AP", "segm/AP"]
    assert rows[-2:] == [["cat", "1.00", "3.00"], ["dog", "2.00", "-"]]


def test_results_file(tmp_path):
    path = tmp_path / "new/results.json"
    per_class = {"bbox/AP": {"cat": math.inf, "dög": 1.0}}
    thresholds = {3: BestThreshold(0.25, 0.5, {0.9: 0.75})}
    write_results(path, {"bbox/AP": 50.5, "segm/AP": math.nan}, per_class, thresholds)
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "metrics": {"bbox/AP": 50.5, "segm/AP": None},
        "per_class": {"bbox/AP": {"cat": None, "dög": 1.0}},
        "classes_measured": {"bbox/AP": [1, 2]},
        "score_thresholds": {"3": {"threshold": 0.25, "f1": 0.5, "for_precision": {"0.9": 0.75}}},
    }
    assert "NaN" not in path.read_text()


def test_classes_of_one_name_are_kept_apart():
    categories = Categories.from_coco({"id": i, "name": n} for i, n in [(1, "cat"), (4, "bar"), (9, "bar")])
    assert class_labels(categories) == ["cat", "bar (4)", "bar (9)"]


@pytest.mark.parametrize("value", [0.0, 100.0])
def test_table_of_one_figure(value):
    assert f"{value:.2f}" in format_table({"semantic/mIoU": value})


def test_tasks_with_the_same_figures_share_a_table():
    tables = metric_tables(
        {"bbox/AP": 1.0, "bbox/AR": 2.0, "ema/bbox/AP": 3.0, "ema/bbox/AR": 4.0, "a/b": 5.0}
    )
    assert tables == [
        (("AP", "AR"), [("bbox", [1.0, 2.0]), ("ema/bbox", [3.0, 4.0])]),
        (("b",), [("a", [5.0])]),
    ]


def test_over_how_many_classes_a_mean_was_taken():
    per_class = {"bbox/AP": {"cat": 1.0, "dog": math.nan}, "panoptic/PQ": {"cat": 0.0, "dog": 2.0}}
    assert format_classes(per_class) == (
        "means were taken of bbox/AP over 1 of 2 classes, panoptic/PQ over 2 of 2 classes"
    )
    assert format_classes({}) == ""
