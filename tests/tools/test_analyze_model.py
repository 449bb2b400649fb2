"""Parameters, multiply-adds and activations: against numbers by hand, and from the command line."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from detrex.analysis import (
    MASK_PRODUCT,
    Cost,
    Parameters,
    build_on_meta,
    count_parameters,
    evaluation_sizes,
    measure,
    table,
)
from detrex.cli.commands.analyze import parse_arguments, run
from detrex.config import LazyConfig, instantiate
from detrex.ops import FLOP_FORMULAS
from detrex.runtime.shapes_only import shapes_only
from detrex.structures import PaddedImages, Prediction
from tests.config_files import config_of
from tests.tools.conftest import CONFIG, ROOT, SMALL

PUBLISHED = ROOT / "projects/maskdino/configs/maskdino_r50_coco_instance_50ep.py"

# In 64 x 96 pixels: tokens of 8 x 12, 4 x 6 and 2 x 3 cells, and then 10 queries, take 4 samples of 64
# channels at each of 3 levels.
SMALL_OPERATOR_MACS = (96 + 24 + 6 + 10) * 12 * 64 * 5


class Block(nn.Module):
    """Has no ``forward``, as heads of which the parts are used one by one."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 5, bias=False)
        self.linear.weight.requires_grad_(False)
        self.again = self.linear
        self.scale = nn.Parameter(torch.ones(5, 6))

    def features(self, x):
        return self.linear(x) @ self.scale


class Toy(nn.Module):
    """A convolution, a block of which only a method is called, attention with learned queries, four masks."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.block = Block()
        self.queries = nn.Parameter(torch.ones(4, 6))
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def preprocess(self, samples):
        return PaddedImages.from_list([s["image"].float() for s in samples], 8)

    def predict(self, images):
        features = self.conv(images.tensor).relu()
        memory = self.block.features(features.flatten(2).transpose(1, 2))
        x, _ = self.attention(self.queries[None], memory, memory, need_weights=False)
        return SimpleNamespace(final=Prediction(x, x, x[:, :, 2:]), pixel_embed=features)


@pytest.fixture
def toy():
    with shapes_only():
        return Toy().eval()


@pytest.fixture
def small_config(data):
    return LazyConfig.apply_overrides(config_of(CONFIG), [f"dataloader.root={data.root}", *SMALL])


def test_a_toy_by_hand(toy):
    cost = measure(toy, [(9, 16)])
    assert cost.padded == ((16, 16),)
    assert cost.modules == {
        "conv": Cost(64 * 4 * 27, 0, 64 * 4),  # 8 x 8 cells of 4 channels from 3 x 3 x 3 values each
        "block.linear": Cost(64 * 4 * 5, 0, 64 * 5),
        "": Cost(64 * 5 * 6, 0, 64 * 6),
        # Projections of 4 queries, to and fro, of keys and values; 4 x 64 products in each of 2 heads, twice.
        "attention": Cost((2 * 4 + 2 * 64) * 36 + 2 * 2 * 4 * 64 * 3, 0, (3 * 4 + 2 * 64) * 6 + 2 * 4 * 64),
        MASK_PRODUCT: Cost(4 * 4 * 64, 0, 4 * 64),
    }
    assert cost.total.flops == 2 * cost.total.macs == 2 * sum(c.macs for c in cost.modules.values())


def test_parameters_of_a_toy(toy):
    assert count_parameters(toy) == {
        "conv": Parameters(3 * 4 * 9 + 4, 3 * 4 * 9 + 4),
        "block.linear": Parameters(20, 0),  # once, though it has two names, and frozen
        "block": Parameters(30, 30),
        "": Parameters(24, 24),
        "attention": Parameters(3 * 36 + 18, 3 * 36 + 18),
        "attention.out_proj": Parameters(36 + 6, 36 + 6),
    }


def test_rows_of_a_toy(toy):
    rows = table(count_parameters(toy), measure(toy, [(16, 16)]), depth=2)
    assert [(row.depth, row.name) for row in rows] == [
        (0, ""),
        (1, "conv"),
        (1, "block"),
        (2, "block.linear"),
        (2, "block itself"),
        (1, "attention"),
        (2, "attention.out_proj"),
        (2, "attention itself"),
        (1, MASK_PRODUCT),
        (1, "itself"),
    ]


def test_the_mean_of_several_sizes(toy):
    """Each image is padded by itself, and counts once."""
    small, large = measure(toy, [(8, 8)]).total, measure(toy, [(16, 24)]).total
    several = measure(toy, [(8, 8), (15, 17), (16, 24), (9, 23)])
    assert several.padded == ((8, 8), (16, 24), (16, 24), (16, 24))
    assert several.total.macs == pytest.approx((small.macs + 3 * large.macs) / 4)
    assert several.total.activations == pytest.approx((small.activations + 3 * large.activations) / 4)


def test_a_detector_costs_what_a_run_on_numbers_counts(small_config):
    cost = measure(build_on_meta(small_config), [(64, 90)])
    model = instantiate(small_config.model).eval()
    images = model.preprocess([{"image": torch.zeros(3, 64, 90)}])
    # With gradients, and with the plainest attention: else it is one operator, which counters may not know.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        output = model.predict(images)
        output.final.mask_logits(output.pixel_embed)
    counted = counter.get_flop_counts()["Global"]
    assert 2 * cost.total.macs_without_operator == sum(
        flops for operator, flops in counted.items() if operator not in FLOP_FORMULAS
    )
    assert cost.total.operator_macs == SMALL_OPERATOR_MACS


@pytest.mark.parametrize("depth", [1, 2, 3, 9])
def test_rows_add_up(small_config, depth):
    model = build_on_meta(small_config)
    cost = measure(model, [(64, 96)])
    rows = table(count_parameters(model), cost, depth)
    assert rows[0].cost == cost.total
    assert rows[0].parameters.total == sum(p.numel() for p in model.parameters())
    parts = {"backbone", "encoder", "pixel_head", "decoder", MASK_PRODUCT}
    assert parts <= {r.name for r in rows if r.depth == 1}
    with_parts = 0
    for i, row in enumerate(rows):
        end = next((j for j in range(i + 1, len(rows)) if rows[j].depth <= row.depth), len(rows))
        parts = [r for r in rows[i + 1 : end] if r.depth == row.depth + 1]
        if parts:
            with_parts += 1
            assert sum((p.cost for p in parts), Cost()) == row.cost
            assert sum((p.parameters for p in parts), Parameters()) == row.parameters
    assert with_parts >= depth


def test_parameters_of_the_published_model():
    model = build_on_meta(config_of(PUBLISHED))
    counts = count_parameters(model)
    assert sum((p.total for p in counts.values()), 0) == 52_058_004  # published: 52.06 million
    assert sum(p.numel() for p in model.parameters()) == 52_058_004


def test_nothing_is_downloaded(small_config, monkeypatch):
    create, asked = timm.create_model, []
    monkeypatch.setattr(
        timm, "create_model", lambda *a, **k: asked.append(k["pretrained"]) or create(*a, **k)
    )
    config = LazyConfig.apply_overrides(small_config, ["model.backbone.pretrained=true"])
    build_on_meta(config)
    assert asked and not any(asked)
    assert config.model.backbone.pretrained is True  # the caller's config stays


def test_sizes_are_those_that_the_loader_gives(data, small_config):
    for number, (height, width) in enumerate([(48, 64), (70, 30), (200, 90)]):
        data.save("val", number + 1, np.zeros((height, width, 3), np.uint8))
        data.content["images"][number].update(height=height, width=width)
    data.write("val")
    config = LazyConfig.apply_overrides(small_config, ["dataloader.test.mapper={size: 100, max_size: 150}"])
    loaded = [tuple(s["image"].shape[-2:]) for batch in instantiate(config.dataloader.test) for s in batch]
    assert evaluation_sizes(config, 3) == loaded
    assert evaluation_sizes(config, 2) == loaded[:2] == [(100, 133), (150, 64)]


@pytest.fixture
def analyze(tool):
    return partial(tool, "analyze_model.py")


def test_json_of_the_command(analyze, data):
    done = analyze(
        *("--config-file", str(CONFIG), "--format", "json", "--depth", "1", "--data", "2"),
        *("--input", "64x90", "96x96", f"dataloader.root={data.root}", *SMALL),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    first, second, mean = report["inputs"]
    assert (first["sizes"], first["padded_sizes"]) == ([[64, 90]], [[64, 96]])
    assert first["gmacs"] - first["gmacs_without_operator"] == pytest.approx(SMALL_OPERATOR_MACS / 1e9)
    assert second["gmacs"] > first["gmacs"]
    assert first["gflops"] == 2 * first["gmacs"]
    assert len(mean["sizes"]) == len(mean["padded_sizes"]) == 2
    whole, *parts = first["modules"]
    assert whole["parameters"] == report["parameters"] == sum(p["parameters"] for p in parts)
    assert whole["gmacs"] == first["gmacs"] == pytest.approx(sum(p["gmacs"] for p in parts))


def test_tables_of_the_command(analyze, data):
    done = analyze("--config-file", str(CONFIG), f"dataloader.root={data.root}", *SMALL)
    assert done.returncode == 0, done.stderr
    for words in ("800x1333", "800x1344", "trainable", "pixel_head", MASK_PRODUCT, "without op", "GMACs"):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "4"), "4 images are asked for, but dataloader.test.dataset has 3"),
        (("--data", "1", "~dataloader.test"), "no dataloader.test"),
        (("~model",), "no 'model'"),
        (("model={_target_: torch.nn.Identity}",), "'model' is of class Identity"),
        (("--input", "64x64", "model.decoder.layers.num_levels=4"), "set model.decoder.layers.num_levels"),
        (("model.decoder.num_lyers=4",), "num_layers"),
    ],
)
def test_errors_are_one_message_and_exit_code_1(data, caplog, capsys, arguments, message):
    given = ["--config-file", str(CONFIG), f"dataloader.root={data.root}", *SMALL, *arguments]
    with pytest.raises(SystemExit) as stopped:
        run(parse_arguments(given))
    assert stopped.value.code == 1
    (error,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert message in error
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("size", ["800", "0x64", "800x", "64x-2", "800X1333"])
def test_what_is_no_size_is_refused(capsys, size):
    with pytest.raises(SystemExit):
        parse_arguments(["--config-file", str(CONFIG), "--input", size])
    assert f"'{size}' is not a size like 800x1333" in capsys.readouterr().err


def test_overrides_may_follow_sizes():
    arguments = parse_arguments(["a=1", "--config-file", "f", "--input", "8x9", "b=2", "--input", "7x6"])
    assert arguments.input == [(8, 9), (7, 6)] and sorted(arguments.overrides) == ["a=1", "b=2"]
