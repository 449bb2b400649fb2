"""Damaged and hostile weights of every format: they are read, or end in our error, which names the file.

No other exception, no hang (the time limit of every test), and no more than 1 GiB of memory.
"""

import io
import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings

from detrex.checkpoint import CheckpointError, read_source, write_weights
from detrex.structures import Categories
from tests.reliability.fuzzing import (
    FEW,
    MANY,
    REASONABLE,
    edited,
    edits,
    within_a_gibibyte,
)

amounts = pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])

TENSORS = OrderedDict(
    {
        "backbone.weight": torch.arange(24, dtype=torch.float32).view(2, 3, 4),
        "backbone.bias": torch.ones(3, dtype=torch.float16),
        "head.steps": torch.tensor(5),
        "head.mask": torch.tensor([True, False]),
    }
)
TENSORS["head.tied"] = TENSORS["backbone.weight"]


def torch_bytes(content: object, **options: bool) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, **options)
    return out.getvalue()


def safetensors_file(path) -> bytes:
    categories = json.dumps(Categories.from_names(["a", "b"]).to_dict())
    write_weights(path, TENSORS, {"categories": categories, "config": "model: {}"})
    return path.read_bytes()


def split_header(data: bytes) -> tuple[bytes, bytes]:
    length = int.from_bytes(data[:8], "little")
    return data[8 : 8 + length], data[8 + length :]


def with_header(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    header, rest = split_header(data)
    header = change(header)
    return len(header).to_bytes(8, "little") + header + rest


def with_pickle_in_zip(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """A file by ``torch.save`` whose pickle is changed and whose checksums are right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, change(content) if name.endswith("data.pkl") else content)
    return out.getvalue()


def arrays() -> dict:
    return {"model": {name: tensor.numpy() for name, tensor in TENSORS.items()}, "__author__": "somebody"}


def everywhere(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    return change(data)


# Name of the file, its content, and what of it is changed.
FORMATS = {
    "safetensors": ("a.safetensors", safetensors_file, everywhere),
    "header of safetensors": ("a.safetensors", safetensors_file, with_header),
    "zip": ("a.pth", lambda _: torch_bytes({"model": TENSORS, "epoch": 3}), everywhere),
    "pickle in a zip": ("a.pth", lambda _: torch_bytes({"model": TENSORS, "epoch": 3}), with_pickle_in_zip),
    "legacy": ("a.pth", lambda _: torch_bytes(TENSORS, _use_new_zipfile_serialization=False), everywhere),
    "pickle, protocol 0": ("a.pkl", lambda _: pickle.dumps(arrays(), 0), everywhere),
    "pickle, protocol 2": ("a.pkl", lambda _: pickle.dumps(arrays(), 2), everywhere),
    "pickle, protocol 5": ("a.pkl", lambda _: pickle.dumps(arrays(), 5), everywhere),
}


@pytest.mark.timeout(900)
@amounts
@pytest.mark.parametrize("name", FORMATS)
def test_changed_bytes(tmp_path, name, examples):
    file_name, make, change = FORMATS[name]
    path = tmp_path / file_name
    original = make(path)
    path.write_bytes(original)
    assert read_source(path, allow_pickle=True).tensors.keys() == TENSORS.keys()

    @settings(REASONABLE, max_examples=examples)
    @given(edits)
    def check(changes):
        path.write_bytes(change(original, lambda data: edited(data, changes)))
        try:
            file = read_source(path, allow_pickle=True)
        except CheckpointError as error:
            assert str(path) in str(error)
        else:
            assert all(type(tensor) is torch.Tensor for tensor in file.tensors.values())

    with within_a_gibibyte():
        check()
