"""Every project takes steps of training on tiny shapes, evaluates and predicts, by the same tools."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detrex.cli.commands.train import parse_arguments, run
from detrex.data.shapes import write_shapes_dataset
from detrex.predict import load

ROOT = Path(__file__).resolve().parents[2]
# Trained on videos, for clicks or on other scenes: test_co_mot.py, test_prompts.py, test_promptable.py.
OTHERS = {"co_mot", "promptable", "semantic_sam"}
PROJECTS = sorted({path.parent.name for path in ROOT.glob("projects/*/configs")} - OTHERS)
STEPS, SIZE = 3, 64
SPLITS = {"train": 6, "val": 2}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    return write_shapes_dataset(tmp_path_factory.mktemp("data") / "shapes", SPLITS, SIZE)


def arguments(project: str, shapes: Path, output: Path) -> list[str]:
    """Those of a short run of a project that writes its detections."""
    return [
        f"--config-file={ROOT / 'projects' / project / 'configs' / f'{project}_shapes.py'}",
        f"dataloader.root={shapes}",
        f"dataloader.splits={{train: {SPLITS['train']}, val: {SPLITS['val']}}}",
        f"dataloader.image_size={SIZE}",
        f"dataloader.evaluators.coco.output_dir={output}",
        "dataloader.train.total_batch_size=2",
        "dataloader.train.num_workers=0",
        "dataloader.test.num_workers=0",
        "model.postprocess.instance.max_detections=30",
        "scheduler.warmup_iters=0",
        "train.device=cpu",
        f"train.max_iter={STEPS}",
        "train.log_period=1",
        "train.pictures.count=1",
        f"train.output_dir={output}",
    ]


@pytest.mark.parametrize("project", PROJECTS)
def test_it_trains_evaluates_and_predicts(project, shapes, tmp_path):
    trained, evaluated = tmp_path / "trained", tmp_path / "evaluated"
    run(parse_arguments(arguments(project, shapes, trained)))
    losses = [m["loss"] for m in map(json.loads, (trained / "metrics.jsonl").open()) if "loss" in m]
    assert len(losses) == STEPS and np.isfinite(losses).all() and min(losses) > 0
    assert (trained / "predictions.png").is_file()

    weights = f"train.init_checkpoint={trained / 'model_final.safetensors'}"
    run(parse_arguments([*arguments(project, shapes, evaluated), weights, "--eval-only"]))
    same(detections(trained), detections(evaluated))

    predictor = load(trained, device="cpu")
    images = read_json(shapes / "annotations/instances_val.json")["images"]
    found = [
        entry
        for image in images
        for entry in predictor.predict(shapes / "val" / image["file_name"], score_threshold=0.0).to_coco(
            image["id"]
        )
    ]
    same(found, detections(trained))


def detections(folder: Path) -> list[dict[str, Any]]:
    """What an evaluation wrote."""
    return read_json(folder / "coco_instances_results.json")


def same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Compares detections, in whatever order those of (nearly) one score are."""
    found, expected = by_class(found), by_class(expected)
    assert found.keys() == expected.keys() != set()
    for key, values in found.items():
        assert values.shape == expected[key].shape
        np.testing.assert_allclose(values[:, 0], expected[key][:, 0], atol=1e-4)  # scores
        np.testing.assert_allclose(values[:, 1:], expected[key][:, 1:], atol=0.02)  # pixels


def by_class(entries: list[dict[str, Any]]) -> dict[tuple[int, int], np.ndarray]:
    """Scores and boxes by image and class, each column sorted by itself."""
    rows = {}
    for entry in entries:
        key = entry["image_id"], entry["category_id"]
        rows.setdefault(key, []).append([entry["score"], *entry["bbox"]])
    return {key: np.sort(values, axis=0) for key, values in rows.items()}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
