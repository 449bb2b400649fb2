"""Mask DINO R50 as published, exported once: five sizes of picture, one and three at a time, in two runtimes.

It takes about half an hour on two cores; with ``-s`` it says what it found after each size.
"""

import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detrex.export import capture, verify
from detrex.export.formats import onnx_to_openvino, write_onnx
from detrex.modeling.queries import ProposalQueries
from detrex.predict import Predictor, Result, load
from detrex.runtime.exported import Predictor as ExportedPredictor
from detrex.runtime.exported import load as load_exported

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
ROOT = Path(__file__).resolve().parents[2]
SIZES = ((640, 160), (480, 640), (120, 640), (100, 400), (427, 640))
"""(height, width) of pictures; the model sees them with a shorter side of 800 and a longer one up to 1333."""
FOLDER = os.environ.get("DETREX_EXPORTED_R50")
"""Where the exported files are kept for another time; nowhere by default."""
SCORE_THRESHOLD = 0.1
TIE = 2e-5
"""Scores of proposals that differ by less may stand in another order in another runtime: the runtimes' scores
differ from PyTorch's by 2e-6 on average."""


class Remembering:
    """A predictor that looks at each picture once."""

    def __init__(self, predictor: Predictor):
        self.predictor = predictor
        self.results: dict[tuple[bytes, tuple[int, ...]], tuple[Result, float]] = {}
        self.last_gap = 0.0
        predictor.model.decoder.query_init.register_forward_pre_hook(self.measure_gap)

    def measure_gap(self, queries: ProposalQueries, inputs: tuple[Any, ...]) -> None:
        memory, _, heads = inputs[:3]
        tokens, _ = queries.candidates(memory)
        best = heads.proposal_logits(tokens).amax(-1).topk(queries.num_queries + 1).values
        self.last_gap = float(best[0, -2] - best[0, -1])

    def look(self, image: np.ndarray) -> tuple[Result, float]:
        """What is in the picture, and by how much the last score that makes a query exceeds the next one."""
        key = image.tobytes(), image.shape
        if key not in self.results:
            result = self.predictor.predict(image, score_threshold={"instance": SCORE_THRESHOLD})
            self.results[key] = result, self.last_gap
        return self.results[key]

    def predict(self, image: np.ndarray, **_: Any) -> Result:
        return self.look(image)[0]


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


@pytest.fixture(scope="module", params=["onnxruntime", "OpenVINO"])
def exported(request, files) -> ExportedPredictor:
    return load_exported(files[request.param], threads=torch.get_num_threads())


def pictures_without_tie(
    photos: Iterable[Path], size: tuple[int, int], predictor: Remembering
) -> Iterator[np.ndarray]:
    """Pictures of which rounding does not decide what becomes a query."""
    height, width = size
    for photo in photos:
        picture = np.asarray(Image.open(photo).convert("RGB").resize((width, height)))
        _, gap = predictor.look(picture)
        if gap > TIE:
            yield picture
        else:
            sys.stdout.write(f"{photo.name} of {height} x {width} has a tie: {gap:.1e}\n")


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "{}x{}".format(*size))
def test_both_runtimes_find_what_pytorch_finds(shared_data, remembering, exported, size):
    photos = sorted((shared_data / "coco" / "val2017").iterdir())
    pictures = list(islice(pictures_without_tie(photos, size, remembering), 3))
    for batch in (1, 3):
        found = verify(
            remembering,
            exported,
            pictures[:batch],
            score_threshold=SCORE_THRESHOLD,
            batch_size=batch,
        )
        sys.stdout.write(f"batch {batch}: {found.describe()}\n")
        sys.stdout.flush()
        assert found.same and found.objects > 20, found.describe()
