import json
import zipfile

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from detrex.checkpoint import CheckpointError, read_source, read_weights, write_weights
from detrex.structures import Categories


class Model(nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, classes)


def test_weights_and_metadata_come_back(tmp_path):
    model = Model(3)
    write_weights(tmp_path / "a.safetensors", model.state_dict(), {"note": "äöü"})
    weights, metadata = read_weights(tmp_path / "a.safetensors")
    assert metadata["note"] == "äöü"
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())


def test_tied_weights_are_stored_once_and_come_back_under_all_names(tmp_path):
    model = nn.ModuleDict({"a": nn.Linear(64, 64), "b": nn.Linear(64, 64)})
    model["b"].weight = model["a"].weight
    write_weights(tmp_path / "a.safetensors", model.state_dict(), {})
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert set(file.keys()) == {"a.weight", "a.bias", "b.bias"}
    weights, metadata = read_weights(tmp_path / "a.safetensors")
    assert torch.equal(weights["b.weight"], model["a"].weight)
    assert "aliases" not in metadata
    model.load_state_dict(weights, strict=True)


def test_views_of_one_buffer_are_stored_apart(tmp_path):
    buffer = torch.arange(6.0)
    write_weights(
        tmp_path / "a.safetensors", {"low": buffer[:4], "high": buffer[2:], "t": buffer.view(2, 3).T}, {}
    )
    weights, _ = read_weights(tmp_path / "a.safetensors")
    assert weights["low"].tolist() == [0, 1, 2, 3]
    assert weights["high"].tolist() == [2, 3, 4, 5]
    assert weights["t"].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("key", [None, "model", "state_dict"])
def test_files_of_torch_save_are_read(tmp_path, key):
    state = Model(3).state_dict()
    torch.save(state if key is None else {key: state, "iteration": 3}, tmp_path / "a.pth")
    weights, metadata = read_weights(tmp_path / "a.pth")
    assert torch.equal(weights["head.weight"], state["head.weight"])
    assert metadata == {}


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path, name, share):
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save(Model(3).state_dict(), path)
    else:
        write_weights(path, Model(3).state_dict(), {})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=rf"{name} \(\d+ bytes\) cannot be read; it is truncated"):
        read_weights(path)


def test_a_file_of_something_else_is_an_error(tmp_path):
    torch.save({"model": [1, 2]}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth"):
        read_weights(tmp_path / "a.pth")


def unpacks_to_much(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**28))


HOSTILE = {
    "repeats one number": lambda path: torch.save({"a": torch.zeros(1).expand(2**40)}, path),
    "repeats one number, legacy": lambda path: torch.save(
        {"a": torch.zeros(1).expand(2**40)}, path, _use_new_zipfile_serialization=False
    ),
    "sparse": lambda path: torch.save({"a": torch.eye(3).to_sparse()}, path),
    "quantized": lambda path: torch.save(
        {"a": torch.quantize_per_tensor(torch.eye(3), 1, 0, torch.qint8)}, path
    ),
    "without memory": lambda path: torch.save({"a": torch.zeros(2**40, device="meta")}, path),
    "unpacks to much": unpacks_to_much,
    "ties to nothing": lambda path: save_file({"a": torch.ones(2)}, path, {"aliases": '{"b": "c"}'}),
    "ties that are no dict": lambda path: save_file({"a": torch.ones(2)}, path, {"aliases": "[1]"}),
    "ties that are no JSON": lambda path: save_file({"a": torch.ones(2)}, path, {"aliases": "{"}),
    "deep ties": lambda path: save_file({"a": torch.ones(2)}, path, {"aliases": "[" * 100_000}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_strangers_file_takes_no_more_memory_than_it_explains(tmp_path, kind):
    path = tmp_path / ("a.safetensors" if "ties" in kind else "a.pth")
    HOSTILE[kind](path)
    with pytest.raises(CheckpointError, match=path.name):
        read_weights(path)


@pytest.mark.parametrize(
    "change", [{"names": [1]}, {"ids": ["1"]}, {"is_thing": [1]}, {"colors": [[0, 0, 256]]}, {"colors": None}]
)
def test_classes_in_a_file_are_checked(tmp_path, change):
    categories = {**Categories.from_names(["a"]).to_dict(), **change}
    write_weights(tmp_path / "a.safetensors", Model(1).state_dict(), {"categories": json.dumps(categories)})
    with pytest.raises(CheckpointError, match=r"a\.safetensors does not name its classes"):
        read_source(tmp_path / "a.safetensors")


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"b\.safetensors"):
        read_weights(tmp_path / "b.safetensors")


def test_the_prefix_of_a_distributed_wrapper_is_taken_off(tmp_path):
    state = Model(3).state_dict()
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "a.pth")
    assert read_weights(tmp_path / "a.pth")[0].keys() == state.keys()


def test_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    write_weights(tmp_path / "a.safetensors", Model(3).state_dict(), {})
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "usual").stat().st_mode
