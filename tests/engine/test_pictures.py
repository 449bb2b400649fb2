import numpy as np
import torch
from PIL import Image
from torch import nn

from detrex.engine.pictures import save_pictures
from detrex.structures import Categories, Instances, Targets

CATEGORIES = Categories.from_names(["a", "b"])


class Dataset:
    categories = CATEGORIES

    def __len__(self):
        return 10

    def __getitem__(self, index):
        masks = torch.zeros(1, 20, 30, dtype=torch.bool)
        masks[:, 5:10, 5:15] = True
        targets = Targets(torch.tensor([1]), torch.tensor([[5.0, 5, 15, 10]]), masks, torch.tensor([True]))
        image = torch.full((3, 20, 30), 25 * index, dtype=torch.uint8)
        return {"image": image, "image_id": index, "height": 20, "width": 30, "targets": targets}


class Model(nn.Module):
    """Finds one object; panoptic and semantic results on request."""

    def __init__(self, tasks):
        super().__init__()
        self.tasks, self.seen = tasks, []

    def forward(self, samples):
        assert not self.training
        self.seen.append(samples[0]["image_id"])
        masks = torch.zeros(1, 20, 30, dtype=torch.bool)
        masks[:, 5:10, 5:15] = True
        results = {
            "instances": Instances(
                (20, 30), torch.tensor([[5.0, 5, 15, 10]]), torch.ones(1), torch.tensor([0]), masks
            ),
            "panoptic_seg": (
                masks[0].int(),
                [{"id": 1, "category_id": 0, "isthing": True, "score": 1.0}],
            ),
            "sem_seg": torch.rand(2, 20, 30),
        }
        return [{task: results[task] for task in self.tasks}]


def grid(tmp_path, tasks, count):
    model = Model(tasks)
    save_pictures(tmp_path / "p.png", model, Dataset(), lambda record: record, CATEGORIES, count)
    return model, np.asarray(Image.open(tmp_path / "p.png"))


def test_a_row_per_image_and_a_column_per_result(tmp_path):
    model, one = grid(tmp_path, ["instances"], 1)
    assert model.seen == [0]
    model, four = grid(tmp_path, ["instances", "panoptic_seg", "sem_seg"], 4)
    assert model.seen == [0, 2, 5, 7]
    assert four.shape[0] > 3 * one.shape[0] - 200 and four.shape[1] > 1.9 * one.shape[1]
    assert len(np.unique(one.reshape(-1, 3), axis=0)) > 2


def test_results_have_the_classes_of_the_model_though_the_data_has_fewer(tmp_path, monkeypatch):
    drawn = []

    def draw(image, _instances, categories, _threshold):
        drawn.append(categories.names)
        return Image.fromarray(image.permute(1, 2, 0).numpy())

    monkeypatch.setattr("detrex.engine.pictures.draw_instances", draw)
    trained = Categories.from_names(["x", "a", "b"])
    save_pictures(tmp_path / "p.png", Model(["instances"]), Dataset(), lambda record: record, trained, 1)
    assert drawn == [("x", "a", "b")]


def test_not_more_rows_than_images(tmp_path):
    model, _ = grid(tmp_path, ["instances"], 99)
    assert model.seen == list(range(10))
