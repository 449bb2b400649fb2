"""The page that sums a run up."""

import base64
import json
import math
import re
from html.parser import HTMLParser
from io import BytesIO

import pytest
import torch
from PIL import Image

from detrex.data.census import Census, ObjectCounts, Split
from detrex.engine import do_eval, do_train
from detrex.evaluation.per_image import Rating
from detrex.report import RunResults, save_report
from detrex.report.curves import Chart, Series, number, render, ticks
from detrex.report.pictures import RatedImage
from detrex.report.series import evaluation_charts, optimizer_charts, read_curves, training_charts
from detrex.structures import Categories
from tests.engine.runs import load

EMPTY = {"meta", "img"}


class Page(HTMLParser):
    """Texts by the tag they are in; every tag must be closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.tags = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def texts_in(self, tag) -> list[str]:
        return [text for where, text in self.texts if where == tag]


def page_of(folder) -> Page:
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    # Nothing comes from elsewhere.
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"}
    assert not re.search(r"url\(|@import|srcset", text)
    for _, attributes in page.tags:
        assert not {"src", "href"} & set(attributes) or attributes["src"].startswith(
            "data:image/jpeg;base64,"
        )
    return page


def test_the_page_of_a_run(tmp_path):
    folder = tmp_path / "a <b> & c"
    config = load(tmp_path, "train.max_iter=4", "train.eval_period=2", "train.validation_loss.enabled=true")
    config.train.output_dir = str(folder)
    do_train(config)
    page = page_of(folder)
    assert page.texts_in("h1") == ["a <b> & c"]
    assert page.texts_in("h2") == ["Evaluation", "Losses", "Optimization", "Results", "Settings"]
    titles = page.texts_in("b")
    assert {"loss", "loss_class", "loss_size", "dummy/accuracy", "gradient norm"} <= set(titles)
    assert "max_iter: 4" in "".join(page.texts_in("pre"))
    assert "torch" in page.texts_in("td") and torch.__version__.partition("+")[0] in " ".join(
        page.texts_in("td")
    )
    accuracy = json.loads((folder / "results.json").read_text())["metrics"]["dummy/accuracy"]
    assert f"{accuracy:.2f}" in page.texts_in("td")
    hints = page.texts_in("title")
    last = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()][-2]
    assert f"training: {last['loss']:.4g} at iteration 4" in hints


def test_a_run_without_evaluation_and_an_evaluation_without_run(tmp_path):
    do_train(load(tmp_path / "a", "train.max_iter=1", "dataloader.evaluators=[]"))
    assert page_of(tmp_path / "a").texts_in("h2") == ["Losses", "Optimization", "Settings"]
    weights = tmp_path / "a" / "model_final.safetensors"
    do_eval(load(tmp_path / "b", f"train.init_checkpoint={weights}"))
    assert page_of(tmp_path / "b").texts_in("h2") == ["Results", "Settings"]


def test_best_and_worst_images_and_classes(tmp_path):
    def image(name, value, color):
        return RatedImage(name, Rating(value, f"F1 {value:.1%}"), Image.new("RGB", (3000, 500), color))

    results = RunResults(
        metrics={"bbox/AP": 51.25, "bbox/AP50": math.nan},
        per_class={"bbox/AP": {"cat <1>": 10.0, "dog": math.nan}},
        best=[image("a&b.png", 1.0, (0, 200, 0))],
        worst=[image("c.png", 0.0, (200, 0, 0))],
    )
    counts = ObjectCounts(9, [5, 0], [1, 0], {"are <odd>": 3}, 1, 2, 2, 4, 0.5, 3.5, 4)
    census = Census([Split("train", Categories.from_names(["cat", "dog"]), counts)], queries=3)
    save_report(tmp_path / "report.html", tmp_path / "none.jsonl", "a: 1", "torch: 2", results, census)
    page = page_of(tmp_path)
    titles = ["Results", "Results per class", "Best images", "Worst images", "Data", "Settings"]
    assert page.texts_in("h2") == titles
    assert {"objects", "5", "left out: are <odd>", "3.5"} <= set(page.texts_in("td"))
    assert "train: 1 of 2 classes have no objects (dog)" in page.texts_in("p")
    assert "box AP" in page.texts_in("span") and "51.2" in page.texts_in("b")
    assert {"cat <1>", "10.00", "dog", "-"} <= set(page.texts_in("td"))
    assert page.texts_in("figcaption") == ["a&b.png", "c.png"] and {"F1 100.0%", "F1 0.0%"} <= set(
        page.texts_in("b")
    )
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    shown = [Image.open(BytesIO(base64.b64decode(s.partition(",")[2]))) for s in sources]
    assert [picture.size for picture in shown] == [(1400, 233)] * 2  # no larger than can be seen
    for picture, color in zip(shown, [(0, 200, 0), (200, 0, 0)], strict=True):
        assert all(abs(a - b) < 8 for a, b in zip(picture.getpixel((700, 100)), color, strict=True))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, [0, 50, 100]),
        (0.12, 0.93, [0, 0.5, 1.0]),
        (3.1, 3.4, [3.1, 3.2, 3.3, 3.4]),
        (-7, 12, [-10, -5, 0, 5, 10, 15]),
    ],
)
def test_ticks_are_round_and_cover_all(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(("low", "high"), [(0, 0), (5, 5), (1e-7, 3e-7), (-2e9, 7e12), (1e-300, 2e-300)])
def test_any_range_has_ticks(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 8 and found[0] <= low and found[-1] >= high and found == sorted(found)


def path_of(text) -> list[tuple[float, float]]:
    path = re.search(r"class='line' d='M([^']*)'", text).group(1)
    return [tuple(float(v) for v in pair.split()) for pair in path.split("L")]


def test_a_line_goes_where_its_values_are():
    linear = path_of(render(Chart("c", [Series("s", [(0, 0.0), (50, 50.0), (100, 100.0)])])))
    (x0, y0), (x1, y1), (x2, y2) = linear
    assert x1 - x0 == pytest.approx(x2 - x1) and y0 - y1 == pytest.approx(y1 - y2) and y0 > y2
    powers = path_of(render(Chart("c", [Series("s", [(0, 1.0), (1, 10.0), (2, 100.0)])], logarithmic=True)))
    assert powers[0][1] - powers[1][1] == pytest.approx(powers[1][1] - powers[2][1], abs=0.2)


def test_long_lines_are_averaged_and_their_end_stays():
    points = [(k, float(k % 2)) for k in range(100_001)]
    text = render(Chart("c", [Series("s", points)]))
    line = path_of(text)
    assert len(line) <= 202 and len(text) < 20_000
    heights = [y for _, y in line[:-1]]
    assert max(heights) - min(heights) < 1  # of zeros and ones, the mean
    assert "s: 0 at iteration 100000" in text


def test_gaps_are_left_out():
    gaps = [(0, math.nan), (1, 0.0), (2, -1.0), (3, 5.0)]
    assert Chart("c", [Series("s", gaps[:1])]).is_empty
    assert Chart("c", [Series("s", gaps[:3])], logarithmic=True).is_empty
    assert len(path_of(render(Chart("c", [Series("s", gaps)])))) == 3


def test_numbers():
    found = [number(v) for v in (12345.6, 0.12345, 1e-5, math.nan, 3e7)]
    assert found == ["12346", "0.1235", "1e-05", "-", "3e+07"]


def test_which_curves_there_are(tmp_path):
    lines = [
        {
            "iteration": 1,
            "loss": 3.0,
            "loss_ce": 1.0,
            "loss_ce_0": 1.0,
            "loss_ce_dn": 1.0,
            "lr": 0.1,
            "lr/a": 0.1,
            "lr/b": 0.01,
            "grad_norm": None,
            "grad_norm/a": 2.0,
            "step_time": 1.0,
            "data_time": 0.5,
            "process_memory_mb": 500.0,
        },
        {
            "iteration": 1,
            "bbox/AP": 5.0,
            "bbox/AP50": 9.0,
            "ema/bbox/AP": 6.0,
            "val/loss": 4.0,
            "ema/val/loss": 3.0,
        },
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    curves = read_curves(path)

    def shown(charts):
        return {chart.title: [series.label for series in chart.series] for chart in charts}

    assert shown(training_charts(curves)) == {
        "loss": ["training", "validation", "validation of the average"],
        "loss_ce": ["training"],
    }
    main, others = evaluation_charts(curves)
    assert shown(main) == {"box AP": ["weights", "average"]} and shown(others) == {"bbox/AP50": ["weights"]}
    assert shown(optimizer_charts(curves)) == {
        "learning rate": ["a", "b"],
        "gradient norm": ["all", "a"],
        "seconds per iteration": ["all", "waiting for data"],
        "MiB of memory (process)": ["process"],
    }
    assert read_curves(tmp_path / "none.jsonl") == {}
