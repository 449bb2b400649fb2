"""Mask DINO R50 as published, exported once: five sizes of picture, one and three at a time, in two runtimes.

It takes about half an hour on two cores; with ``-s`` it says what it found after each size.
"""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detrex.export import capture, verify
from detrex.export.formats import onnx_to_openvino, write_onnx
from detrex.predict import Predictor, Result, load
from detrex.runtime.exported import load as load_exported

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
ROOT = Path(__file__).resolve().parents[2]
SIZES = ((640, 160), (480, 640), (120, 640), (100, 400), (427, 640))
"""(height, width) of pictures; the model sees them with a shorter side of 800 and a longer one up to 1333."""
FOLDER = os.environ.get("DETREX_EXPORTED_R50")
"""Where the exported files are kept for another time; nowhere by default."""


class Remembering:
    """A predictor that looks at each picture once."""

    def __init__(self, predictor: Predictor):
        self.predictor = predictor
        self.results: dict[tuple[bytes, tuple[int, ...]], Result] = {}

    def predict(self, image: np.ndarray, **options: Any) -> Result:
        key = image.tobytes(), image.shape
        if key not in self.results:
            self.results[key] = self.predictor.predict(image, **options)
        return self.results[key]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return Path(FOLDER) if FOLDER else tmp_path_factory.mktemp("r50")


@pytest.fixture(scope="module")
def model(parity, folder) -> Predictor:
    """The panoptic model of all tasks, with the weights of the kit."""
    spec = importlib.util.spec_from_file_location("parity_reference", parity / "reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    weights = reference.state_dict("panoptic_r50")
    path = folder / "published.pth"
    torch.save(
        {"model": {name: torch.from_numpy(np.asarray(value)) for name, value in weights.items()}}, path
    )
    config = ROOT / "projects/maskdino/configs/maskdino_r50_coco_panoptic_50ep.py"
    return load(config, path, overrides=["model.postprocess.panoptic.overlap_threshold=0.1"], device="cpu")


@pytest.fixture(scope="module")
def remembering(model) -> Remembering:
    return Remembering(model)


@pytest.fixture(scope="module")
def onnx_file_of_r50(model, folder) -> Path:
    path = folder / "r50.onnx"
    if not path.is_file():
        write_onnx(capture(model), path)
    return path


@pytest.fixture(scope="module")
def files(onnx_file_of_r50) -> dict[str, Path]:
    """The file of each runtime."""
    pytest.importorskip("openvino")
    path = onnx_file_of_r50.with_suffix(".xml")
    if not path.is_file():
        exported = load_exported(onnx_file_of_r50)
        onnx_to_openvino(onnx_file_of_r50, path, exported.description, exported.runner.outputs)
    return {"onnxruntime": onnx_file_of_r50, "OpenVINO": path}


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("runtime", ["onnxruntime", "OpenVINO"])
def test_both_runtimes_find_what_pytorch_finds(shared_data, remembering, files, runtime):
    exported = load_exported(files[runtime], threads=torch.get_num_threads())
    photos = sorted((shared_data / "coco" / "val2017").iterdir())[:3]
    objects = 0
    for height, width in SIZES:
        pictures = [np.asarray(Image.open(photo).convert("RGB").resize((width, height))) for photo in photos]
        for batch in (1, 3):
            found = verify(remembering, exported, pictures[:batch], batch_size=batch)
            sys.stdout.write(f"{runtime}, {height} x {width}, batch {batch}: {found.describe()}\n")
            sys.stdout.flush()
            assert found.same and found.objects > 0, found.describe()
            objects += found.objects
    assert objects > 100
