import json
import logging
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from detrex.engine import launch
from detrex.evaluation import (
    CocoEvaluator,
    PanopticEvaluator,
    SemanticEvaluator,
    collect_per_class,
    evaluate,
    loop,
)
from detrex.runtime.distributed import rank
from detrex.structures import Instances
from detrex.structures.panoptic import rgb_from_ids

NUM_IMAGES, SIZE = 5, (20, 24)


class Guess(nn.Module):
    """Predicts boxes, masks and labels that depend on the image id alone."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.BatchNorm2d(1).eval()
        self.seen = []

    def forward(self, samples):
        assert torch.is_inference_mode_enabled() and not self.training
        self.seen += [s["image_id"] for s in samples]
        return [self.predict(s["image_id"]) for s in samples]

    def predict(self, image_id):
        labels = torch.zeros(SIZE, dtype=torch.int32)
        labels[2:10, 2 : 10 + image_id] = 1
        return {
            "instances": Instances(
                image_size=SIZE,
                pred_boxes=torch.tensor([[2.0, 2, 10 + image_id, 10], [0, 0, 5, 5]]),
                scores=torch.tensor([0.9, 0.1 + 0.19 * image_id]),
                pred_classes=torch.tensor([0, 0]),
                pred_masks=torch.stack([labels == 1, labels == 0]),
            ),
            "panoptic_seg": (
                labels + 1,
                [{"id": 2, "category_id": 0, "isthing": True}, {"id": 1, "category_id": 1, "isthing": False}],
            ),
            "sem_seg": torch.stack([labels == 1, labels == 0]).float(),
        }


@pytest.fixture
def files(tmp_path):
    """Ground truth of ``NUM_IMAGES`` images in all formats: a 10 x 10 square on a background."""
    ids = np.full(SIZE, 7)
    ids[2:12, 2:12] = 8
    categories = [{"id": 1, "name": "square", "isthing": 1}, {"id": 2, "name": "ground", "isthing": 0}]
    (tmp_path / "panoptic").mkdir()
    Image.fromarray(rgb_from_ids(ids)).save(tmp_path / "panoptic/all.png")
    segments = [{"id": 8, "category_id": 1}, {"id": 7, "category_id": 2}]
    images = [
        {"id": i, "file_name": f"{i}.jpg", "height": SIZE[0], "width": SIZE[1]} for i in range(NUM_IMAGES)
    ]
    panoptic = [{"image_id": i, "file_name": "all.png", "segments_info": segments} for i in range(NUM_IMAGES)]
    objects = [
        {
            "id": i,
            "image_id": i,
            "category_id": 1,
            "bbox": [2, 2, 10, 10],
            "segmentation": [[2, 2, 12, 2, 12, 12, 2, 12]],
        }
        for i in range(NUM_IMAGES)
    ]
    for name, annotations, chosen in [
        ("instances", objects, categories[:1]),
        ("panoptic", panoptic, categories),
    ]:
        content = {"images": images, "annotations": annotations, "categories": chosen}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def all_evaluators(files):
    panoptic = {"annotations": files / "panoptic.json", "segments": files / "panoptic"}
    return {
        "coco": CocoEvaluator(
            files / "instances.json", classes=files / "panoptic.json", output_dir=files / "out"
        ),
        "panoptic": PanopticEvaluator(**panoptic, output_dir=files / "out"),
        "semantic": SemanticEvaluator(**panoptic),
    }


def batches(image_ids, size=2):
    samples = [{"image_id": i, "file_name": "all.png"} for i in image_ids]
    return [samples[i : i + size] for i in range(0, len(samples), size)]


# Image 3 comes to both, as from a sampler that pads the shares to one length; or one process has no
# image, as with fewer images than processes.
SHARES = [[0, 1, 3], [2, 3, 4]], [[0, 1, 2, 3, 4], []]


def one_of_two(files):
    results = []
    for shares in SHARES:
        evaluators = all_evaluators(files)
        metrics = evaluate(Guess(), batches(shares[rank()]), evaluators)
        results.append({"metrics": metrics, "per_class": collect_per_class(evaluators)})
    (files / f"rank{rank()}.json").write_text(json.dumps(results))


def test_two_processes_give_the_figures_of_one(files):
    evaluators = all_evaluators(files)
    metrics = evaluate(Guess(), batches(range(NUM_IMAGES)), evaluators)
    results = (files / "out/coco_instances_results.json").read_text()
    panoptic = (files / "out/panoptic_results.json").read_text()
    assert (
        10 < metrics["segm/AP"] < 95
        and 10 < metrics["panoptic/PQ"] < 95
        and 10 < metrics["semantic/mIoU"] < 95
    )

    launch(one_of_two, (files,), num_gpus=2)
    found = [result for rank in range(2) for result in json.loads((files / f"rank{rank}.json").read_text())]
    assert len(found) == 4
    for result in found:
        assert result["metrics"] == pytest.approx(metrics, nan_ok=True)
        for name, values in collect_per_class(evaluators).items():
            assert result["per_class"][name] == pytest.approx(values, nan_ok=True)
    by_image = {"key": lambda entry: (entry["image_id"], entry.get("score"))}
    again = json.loads((files / "out/coco_instances_results.json").read_text())
    assert sorted(again, **by_image) == sorted(json.loads(results), **by_image)
    again = json.loads((files / "out/panoptic_results.json").read_text())["annotations"]
    assert sorted(again, **by_image) == sorted(json.loads(panoptic)["annotations"], **by_image)


def test_modes_come_back(files):
    model = Guess()
    model.train()
    model.frozen.eval()
    evaluate(model, batches([0]), all_evaluators(files))
    assert model.training and not model.frozen.training
    model.eval()
    evaluate(model, batches([0]), all_evaluators(files))
    assert not model.training


def test_modes_come_back_after_an_error(files):
    model = Guess().train()
    with pytest.raises(ValueError, match="image id 99"):
        evaluate(model, batches([99]), all_evaluators(files))
    assert model.training


def test_evaluators_forget_earlier_images(files):
    evaluators = list(all_evaluators(files).values())
    metrics = evaluate(Guess(), batches([4]), evaluators)
    evaluate(Guess(), batches([0, 1, 2]), evaluators)
    assert evaluate(Guess(), batches([4]), evaluators) == pytest.approx(metrics, nan_ok=True)


def test_max_images(files):
    model = Guess()
    evaluate(
        model, batches(range(NUM_IMAGES)), [SemanticEvaluator(files / "panoptic", files / "panoptic.json")], 3
    )
    assert model.seen == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="max_images=0"):
        evaluate(model, [], [], max_images=0)


def test_figures_of_the_same_name_are_an_error(files):
    twice = [CocoEvaluator(files / "instances.json", tasks=["bbox"]) for _ in range(2)]
    with pytest.raises(ValueError, match="bbox/AP"):
        evaluate(Guess(), [], twice)


def test_wrong_number_of_outputs(files):
    class Short(Guess):
        def forward(self, samples):
            return super().forward(samples)[1:]

    with pytest.raises(ValueError, match="1 outputs for 2 images"):
        evaluate(Short(), batches([0, 1]), all_evaluators(files))


def test_progress_is_logged(files, monkeypatch, caplog):
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_LOGS", 0.0)
    with caplog.at_level(logging.INFO):
        evaluate(Guess(), batches(range(4)), all_evaluators(files))
    lines = [r.message for r in caplog.records if r.name == "detrex.evaluation.loop"]
    assert "2 images" in lines[0] and "50%" in lines[0] and "ETA 0:00:0" in lines[0]
    assert lines[-1].startswith("evaluated 4 images in") and "s/image" in lines[-1]


def test_no_evaluators():
    assert evaluate(Guess(), batches([0]), {}) == {}


def test_empty_loader(files):
    metrics = evaluate(Guess(), [], all_evaluators(files))
    assert all(math.isnan(value) for value in metrics.values())


@pytest.mark.gpu
def test_outputs_on_a_gpu(files):
    class OnGpu(Guess):
        def predict(self, image_id):
            output = super().predict(image_id)
            ids, infos = output["panoptic_seg"]
            return {
                "instances": output["instances"].to("cuda"),
                "panoptic_seg": (ids.to("cuda"), infos),
                "sem_seg": output["sem_seg"].to("cuda"),
            }

    expected = evaluate(Guess(), batches(range(NUM_IMAGES)), all_evaluators(files))
    metrics = evaluate(OnGpu(), batches(range(NUM_IMAGES)), all_evaluators(files))
    assert metrics == pytest.approx(expected, nan_ok=True)
