"""The graph that is exported finds what the predictor finds, for every project and in batches."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import v2

from detrex.export import capture, verify
from detrex.export.graph import PictureToResults
from detrex.export.resizing import resize, resize_weights
from detrex.runtime.exported import Predictor as ExportedPredictor
from tests.export.small_models import PROJECTS, SIZES, GraphRunner, description_of, pictures, small_model


@pytest.mark.parametrize("project", PROJECTS)
def test_it_finds_what_the_predictor_finds(project):
    predictor = small_model(project)
    graph = PictureToResults(predictor.model, predictor.mapper, predictor.tasks).eval()
    exported = ExportedPredictor(GraphRunner(graph, description_of(predictor, predictor.tasks)))
    found = verify(predictor, exported, pictures(2, SIZES[:3]), score_threshold=0.0, batch_size=2)
    assert found.same, found.describe()
    assert found.pictures == 6 and found.objects > 20


def test_a_graph_without_thresholds_takes_the_picture_alone():
    captured = capture(small_model("maskdino"), tasks=["semantic"], batch=1, size=(64, 96))
    assert captured.inputs == ["images"] and captured.outputs == ["semantic"]


@pytest.mark.parametrize("size", [(7, 5), (40, 61), (64, 64), (130, 33)])
@pytest.mark.parametrize("antialias", [False, True])
def test_matrices_resize_as_pytorch_does(size, antialias):
    image = torch.rand(3, 64, 48)
    rows, columns = (
        resize_weights(a, b, cells=(a, b), antialias=antialias, device=image.device)
        for a, b in zip(image.shape[1:], size, strict=True)
    )
    expected = F.interpolate(image[None], size, mode="bilinear", antialias=antialias)[0]
    torch.testing.assert_close(resize(image, rows, columns), expected, atol=1e-5, rtol=0)


def test_cells_of_padding_have_no_part():
    padded = resize_weights(10, torch.tensor(7), cells=(12, 9), antialias=True, device=torch.device("cpu"))
    expected = resize_weights(10, 7, cells=(10, 7), antialias=True, device=torch.device("cpu"))
    torch.testing.assert_close(padded[:7, :10], expected)
    assert padded.shape == (9, 12) and not padded[7:].any() and not padded[:, 10:].any()


@pytest.mark.parametrize("size", [(40, 61), (131, 250)])
def test_pictures_are_resized_as_for_the_predictor(size):
    predictor = small_model("maskdino")
    graph = PictureToResults(predictor.model, predictor.mapper, ("instance",))
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    record = {"image": image, "height": size[0], "width": size[1], "image_id": 0, "file_name": ""}
    expected = predictor.mapper(record)["image"]
    assert expected.shape[1:] == v2.functional.resize(image, list(expected.shape[1:])).shape[1:]
    target = torch.tensor(expected.shape[1:]).unbind()
    found = graph.input(image.permute(1, 2, 0)[None], target, (96, 96))
    pixels = found[0] * predictor.model.pixel_std + predictor.model.pixel_mean
    change = (pixels[:, : expected.shape[1], : expected.shape[2]] - expected).abs()
    assert change.max() < 1e-3
