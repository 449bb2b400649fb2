"""The notebook runs from its first cell to its last."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
pytest.importorskip("onnxruntime")

SMALL = (
    "dataloader.splits={train:8,val:2}",
    "dataloader.train.num_workers=0",
    "train.device=cpu",
    "model.encoder.num_layers=1",
    "model.decoder.layers.num_layers=1",
)
CHANGES = {
    "STEPS = 2000": f"SMALL = {SMALL}\nSTEPS = 2",
    'f"train.max_iter={STEPS}",': 'f"train.max_iter={STEPS}", *SMALL,',
}


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook with what its cells showed, with a few steps on a little data."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(ROOT / "notebooks/quickstart.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "commit it without results"
    for cell in notebook.cells:
        for text, other in CHANGES.items():
            cell.source = cell.source.replace(text, other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        place = {"metadata": {"path": str(folder)}}
        nbclient.NotebookClient(notebook, timeout=240, resources=place).execute()
    return notebook, folder


def test_it_runs_and_keeps_its_run(executed):
    _, folder = executed
    for name in ("report.html", "model_final.safetensors", "found.png"):
        assert (folder / "output/quickstart" / name).is_file()


def test_results_show_themselves(executed):
    notebook, _ = executed
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert {"image/png", "text/html"} <= {kind for output in outputs for kind in output.get("data", ())}
    *_, loaded_again, _, exported, _ = notebook.cells
    assert loaded_again.outputs[0]["data"]["text/plain"] == "True"
    assert exported.outputs[-1]["data"]["text/plain"].endswith("True)")  # the same boxes as PyTorch's
