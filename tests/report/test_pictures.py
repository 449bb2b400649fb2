import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from detrex.report.pictures import ResultPictures
from detrex.structures import Categories, Instances, Targets

CATEGORIES = Categories.from_names(["a", "b"])


class Dataset:
    """Ten images with an object of class b each."""

    categories = CATEGORIES

    def __len__(self):
        return 10

    def __getitem__(self, index):
        masks = torch.zeros(1, 20, 30, dtype=torch.bool)
        masks[:, 5:10, 5:15] = True
        targets = Targets(torch.tensor([1]), torch.tensor([[5.0, 5, 15, 10]]), masks, torch.tensor([True]))
        image = torch.full((3, 20, 30), 25 * index, dtype=torch.uint8)
        return {
            "image": image,
            "image_id": index,
            "file_name": f"{index}.png",
            "height": 20,
            "width": 30,
            "targets": targets,
        }


class Model(nn.Module):
    """Finds one object: of class ``label`` in the images ``right``, else class a; nothing in ``empty``."""

    def __init__(self, tasks, right=(), empty=(), label=1):
        super().__init__()
        self.tasks, self.right, self.empty, self.label, self.seen = tasks, right, empty, label, []

    def forward(self, samples):
        assert not self.training
        index = samples[0]["image_id"]
        self.seen.append(index)
        masks = torch.zeros(1, 20, 30, dtype=torch.bool)
        masks[:, 5:10, 5:15] = True
        label = self.label if index in self.right else 0
        score = 0.1 if index in self.empty else 1.0
        results = {
            "instances": Instances(
                (20, 30),
                torch.tensor([[5.0, 5, 15, 10]]),
                torch.full((1,), score),
                torch.tensor([label]),
                masks,
            ),
            "panoptic_seg": (
                masks[0].int(),
                [{"id": 1, "category_id": label, "isthing": True, "score": 1.0}],
            ),
            "sem_seg": torch.rand(2, 20, 30),
        }
        return [{task: results[task] for task in self.tasks}]


def pictures_of(model, categories=CATEGORIES):
    return ResultPictures(model, Dataset(), lambda record: record, categories, [0.5] * len(categories))


def test_a_row_per_image_and_a_column_per_result():
    model = Model(["instances"]).train()
    one = np.asarray(pictures_of(model).grid(1))
    assert model.seen == [0] and model.training
    model = Model(["instances", "panoptic_seg", "sem_seg"])
    four = np.asarray(pictures_of(model).grid(4))
    assert model.seen == [0, 2, 5, 7]
    assert four.shape[0] > 3 * one.shape[0] - 200 and four.shape[1] > 1.9 * one.shape[1]
    assert len(np.unique(one.reshape(-1, 3), axis=0)) > 2


def test_results_have_the_classes_of_the_model_though_the_data_has_fewer(monkeypatch):
    drawn = []

    def draw(image, _instances, categories, _threshold):
        drawn.append(categories.names)
        return Image.fromarray(image.permute(1, 2, 0).numpy())

    monkeypatch.setattr("detrex.report.pictures.draw_instances", draw)
    pictures_of(Model(["instances"]), Categories.from_names(["x", "a", "b"])).grid(1)
    assert drawn == [("x", "a", "b")]


def test_not_more_rows_than_images():
    model = Model(["instances"])
    pictures_of(model).grid(99)
    assert model.seen == list(range(10))


def test_the_best_and_the_worst_images():
    # Wrong is worse than nothing: it has a missed object and a false one.
    model = Model(["instances"], right=[3, 4, 6], empty=[0, 1, 2, 5, 7, 8])
    best, worst = pictures_of(model).extremes(10, 3)
    assert {image.name for image in best} == {"3.png", "4.png", "6.png"}
    assert worst[0].name == "9.png" and worst[0].rating.text == "F1 0.0%: 0 right, 1 wrong, 1 missed"
    assert best[0].rating.value == 1 and best[0].picture.width > 2 * 300


def test_no_image_is_both_among_the_best_and_the_worst():
    best, worst = pictures_of(Model(["instances"])).extremes(3, 8)
    assert len(best) == 2 and len(worst) == 1
    assert not {image.name for image in best} & {image.name for image in worst}


@pytest.mark.parametrize("task", ["instances", "panoptic_seg"])
def test_ratings_compare_classes_by_id(task):
    """Class b of the data, with id 1, is the third class of this model."""
    categories = Categories.from_coco({"id": i, "name": n} for i, n in [(-1, "x"), (0, "a"), (1, "b")])
    best, _ = pictures_of(Model([task], right=range(10), label=2), categories).extremes(10, 1)
    assert best[0].rating.value == 1


def test_results_that_cannot_be_rated():
    assert pictures_of(Model([])).extremes(10, 2) == ([], [])
