"""Evaluating the embedded data set, as the common configs describe it."""

import json

import pytest
import torch
from PIL import Image
from torch import nn

from detrex.config import LazyCall as L
from detrex.config import get_config
from detrex.engine import run_evaluation
from detrex.structures import Instances


class OneBox(nn.Module):
    """Finds a box of class 0 in the upper left quarter of every image."""

    def __init__(self):
        super().__init__()
        self.score = nn.Parameter(torch.tensor(0.9))

    def forward(self, samples):
        return [self._output(s["height"], s["width"]) for s in samples]

    def _output(self, height, width):
        masks = torch.zeros(1, height, width, dtype=torch.bool)
        masks[:, : height // 2, : width // 2] = True
        box = torch.tensor([[0.0, 0.0, width / 2, height / 2]])
        found = Instances((height, width), box, self.score[None], torch.tensor([0]), masks)
        return {"instances": found}


@pytest.fixture
def config(tmp_path):
    config = get_config("common/data/shapes.py")
    config.train = get_config("common/train.py").train
    config.train.output_dir = str(tmp_path)
    config.train.pictures.count = 2
    config.model = L(OneBox)()
    data = config.dataloader
    data.root, data.image_size, data.splits = str(tmp_path / "shapes"), 64, {"train": 2, "val": 3}
    data.test.num_workers = 0
    del data.evaluators.panoptic, data.evaluators.semantic
    return config


def test_results_and_pictures_are_written(config, tmp_path):
    found = run_evaluation.build_evaluation(config, OneBox())
    metrics = found.run()
    found.report()
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["metrics"]["bbox/AP"] == pytest.approx(metrics["bbox/AP"])
    assert set(results["per_class"]["segm/AP"]) >= {"circle", "square"}
    assert (tmp_path / "predictions.png").stat().st_size > 1000
    assert len(found.best) == 2 and len(found.worst) == 1  # of three images
    assert found.best[0].rating.value >= found.worst[0].rating.value


def test_a_picture_is_drawn_once_for_each_evaluation(config):
    found = run_evaluation.build_evaluation(config, OneBox())
    picture = found.draw()
    assert found.draw() is picture
    found.run()
    assert found.draw() is not picture


def test_pictures_have_ground_truth_though_evaluation_reads_none(config, monkeypatch):
    assert config.dataloader.test.dataset.targets is False
    drawn = []

    def draw(image, targets, _categories):
        drawn.append(len(targets))
        return Image.fromarray(image.permute(1, 2, 0).numpy())

    monkeypatch.setattr("detrex.report.pictures.draw_targets", draw)
    run_evaluation.build_evaluation(config, OneBox()).report()
    assert drawn and min(drawn) > 0


def test_no_pictures_on_request(config, tmp_path):
    config.train.pictures.count = 0
    run_evaluation.build_evaluation(config, OneBox()).report()
    assert not (tmp_path / "predictions.png").exists()


def test_a_config_without_test_data_is_told(config, caplog):
    config.dataloader.test = None
    assert run_evaluation.build_evaluation(config, OneBox()) is None
    assert "nothing is evaluated" in caplog.text


def test_a_model_that_looks_more_than_once_gets_the_images_as_they_are(config):
    sizes = []

    class Looking(OneBox):
        def forward(self, samples):
            sizes.extend((s["original"].shape[1:], s["image"].shape[1:]) for s in samples)
            return super().forward(samples)

    config.model.inference = {"any": 1}
    config.dataloader.test.mapper.size = 32
    found = run_evaluation.build_evaluation(config, Looking())
    found.run()
    assert sizes == [((64, 64), (32, 32))] * 3
    found.report()  # pictures, too
    assert len(sizes) > 3 and set(sizes) == {((64, 64), (32, 32))}
