"""The tiny model of :mod:`tests.predict.tiny_run`, as a run, loaded, and built by hand."""

import pytest
from torch import nn

from detrex.config import LazyConfig, instantiate
from detrex.predict import Predictor, load
from tests.predict.tiny_run import FIXED, TinyRun, write_run


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> TinyRun:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def predictor(tiny_run) -> Predictor:
    return load(tiny_run.folder, device="cpu")


@pytest.fixture(scope="session")
def reference(tiny_run) -> nn.Module:
    """The same model, built and filled by other means than ``load``."""
    model = instantiate(LazyConfig.apply_overrides(tiny_run.config, FIXED).model).eval()
    model.load_state_dict(tiny_run.weights)
    return model
