"""Programs of PyTorch that leave the toolbox: as ``torch.export`` saves them, and compiled by AOTInductor."""

import shutil
import zipfile

import pytest
import torch

from detrex.export import ExportError, export, verify
from detrex.runtime.exported import ExportedModelError
from detrex.runtime.exported import load as load_exported
from tests.export.small_models import SIZES, pictures, small_model

HEIGHT, WIDTH = SIZES[0]


def test_a_program_has_operators_of_pytorch_alone(tmp_path):
    predictor = small_model("detr")
    path = export(predictor, tmp_path / "model.pt2", to="torch", batch=1, size=SIZES[0])
    found = verify(predictor, load_exported(path, trust_code=True), pictures(2, SIZES[:1]), score_threshold=0)
    assert found.same and found.objects > 0, found.describe()
    called = [node.target for node in torch.export.load(path).graph.nodes if node.op == "call_function"]
    names = {getattr(target, "namespace", getattr(target, "__module__", "")) for target in called}
    assert names <= {"aten", "_operator", "prims"}, names


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_programs_find_what_the_model_finds(tmp_path):
    predictor = small_model("detr")
    path = export(predictor, tmp_path / "model.pt2", to="aotinductor", batch=2, size=SIZES[0])
    exported = load_exported(path, trust_code=True)
    found = verify(predictor, exported, pictures(4, SIZES[:1]), score_threshold=0.0, batch_size=2)
    assert found.same and found.objects > 0, found.describe()
    assert exported.description.sides == ((HEIGHT,) * 2, (WIDTH,) * 2)
    with pytest.raises(ValueError, match="exported for pictures that are 50 pixels high"):
        exported.predict(pictures(1, SIZES[1:2])[0], batch_size=2)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_what_aotinductor_cannot_compile_is_explained(tmp_path):
    with pytest.raises(ExportError, match="AOTInductor cannot compile this model here .*--to torch"):
        export(small_model("maskdino"), tmp_path / "model.pt2", to="aotinductor", batch=2, size=SIZES[0])
    assert not list(tmp_path.iterdir())


def test_a_compiled_program_that_cannot_be_loaded_is_explained(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as archive:
        archive.writestr("model/data/aotinductor/model/a.txt", "nothing")
    with pytest.raises(ExportedModelError, match="cannot be loaded by this PyTorch"):
        load_exported(tmp_path / "model.pt2", trust_code=True)
