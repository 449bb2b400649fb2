"""``import detrex``: training, loading and predicting from Python."""

import pytest

import detrex
from tests.tools.conftest import SMALL, Data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps, begun in the first and resumed in the second call."""
    folder = tmp_path_factory.mktemp("api")
    data = Data(folder / "data")
    settings = {"dataloader": {"root": data.root}, "train": {"output_dir": folder / "run"}}
    detrex.train("maskdino_custom_instance", *SMALL, "train.max_iter=1", **settings)
    return detrex.train("maskdino_custom_instance", *SMALL, resume=True, **settings)


def test_training_returns_the_folder_and_the_metrics(run):
    assert (run.folder / "report.html").is_file()
    assert {"bbox/AP", "segm/AP"} <= set(run.metrics)


def test_the_model_of_a_run(run):
    model = run.load(device="cpu")
    assert isinstance(model, detrex.Predictor) and model.names == ("cat", "dog")
    result = model(run.folder.parent / "data/train/1.png")
    assert isinstance(result, detrex.Result) and len(result) > 0


def test_errors_are_raised(run):
    with pytest.raises(FileExistsError, match="holds the checkpoints of an earlier run"):
        detrex.train("maskdino_custom_instance", f"train.output_dir='{run.folder}'")


def test_names_are_there_before_they_are_imported():
    assert {"load", "train", "Predictor"} <= set(dir(detrex))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        detrex.trian  # noqa: B018
