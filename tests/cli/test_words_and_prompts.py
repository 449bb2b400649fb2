"""Models that read words or take prompts, by the commands that all models share."""

import json
from pathlib import Path

import pytest

from detrex.cli.main import main
from detrex.data.shapes import write_shapes_dataset

STEPS = ("train.max_iter=1", "scheduler.warmup_iters=0", "train.device=cpu", "train.pictures.count=0")
LOADERS = ("dataloader.train.num_workers=0", "dataloader.test.num_workers=0")
MODEL = (
    "model.encoder={hidden_dim: 32, ffn_dim: 16, num_heads: 2, num_layers: 1}",
    "model.decoder.layers={num_heads: 2, ffn_dim: 16, num_layers: 1}",
    "model.pixel_head.mask_dim=8",
    "model.criterion.points.num_points=32",
    "model.backbone.options={channels: [8, 8, 8, 8], stem_width: 4}",
)
TEXT = ("model.text={width: 8, num_layers: 1, num_heads: 2, embed_dim: 8}",)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    return write_shapes_dataset(tmp_path_factory.mktemp("data") / "shapes", {"train": 2, "val": 2}, 64)


@pytest.fixture(scope="module")
def words_of(shapes):
    return [
        f"dataloader.root={shapes}",
        "dataloader.splits={train: 2, val: 2}",
        "dataloader.image_size=64",
        "dataloader.train.total_batch_size=2",
        *LOADERS,
        *MODEL,
    ]


def metrics(folder: Path) -> dict[str, float]:
    return json.loads((folder / "results.json").read_text())["metrics"]


def test_openseed_by_other_words(shapes, words_of, tmp_path):
    pytest.importorskip("open_clip")
    run, other = tmp_path / "run", tmp_path / "other"
    main(["train", "openseed_shapes", *words_of, *TEXT, *STEPS, f"train.output_dir={run}"])
    names = tmp_path / "words.txt"
    names.write_text("disc\nbox\npyramid\nsun\nmeadow:stuff\nlines:stuff\nfloor:stuff\n")
    evaluate = ["eval", "openseed_shapes", "--weights", str(run), "--output", str(other), *words_of, *TEXT]
    evaluate += ["train.pictures.count=0", "train.device=cpu"]
    main([*evaluate, "--classes", str(names)])
    assert set(metrics(other)) == set(metrics(run)) and "panoptic/PQ" in metrics(run)
    (tmp_path / "few.txt").write_text("disc\nbox\n")
    with pytest.raises(SystemExit):
        main([*evaluate, "--classes", str(tmp_path / "few.txt")])
    photo, found = str(shapes / "val/000000.png"), tmp_path / "found"
    ask = ["predict", photo, "--model", str(run), "--output", str(found), "--classes", "sun, meadow:stuff"]
    main([*ask, "--tiles", "48"])
    assert [path.suffix for path in found.iterdir()]


def test_semantic_sam_by_the_common_commands(shapes, words_of, tmp_path):
    run, found = tmp_path / "run", tmp_path / "found"
    few = ["model.drawing.num_prompts=2", "model.automatic.points_per_side=2", "model.automatic.quality=-9"]
    few += ["model.automatic.stability=0.0"]
    main(["train", "semantic_sam_shapes", *words_of, *few, *STEPS, f"train.output_dir={run}"])
    assert {"one_click/IoU_max", "one_click/IoU_oracle"} <= set(metrics(run))
    evaluate = ["eval", "semantic_sam_shapes", "--weights", str(run), *words_of, *few]
    main([*evaluate, "--output", str(tmp_path / "again"), "train.pictures.count=0", "train.device=cpu"])
    assert metrics(tmp_path / "again") == metrics(run)
    photo = str(shapes / "val/000000.png")
    main(["predict", photo, "--model", str(run), "--output", str(found), "--tiles", "48"])
    assert [path.suffix for path in found.iterdir()]
    with pytest.raises(SystemExit):
        main(["predict", photo, "--model", str(run), "--output", str(found), "--classes", "star"])
