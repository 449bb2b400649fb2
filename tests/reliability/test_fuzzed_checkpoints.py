"""Damaged and hostile weights of every format: they are read, or end in our error, which names the file.

No other exception, no hang (the time limit of every test), and no more than 1 GiB of memory.
"""

import io
import json
import pickle
import resource
import zipfile
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detrex.checkpoint import CheckpointError, read_source, write_weights
from detrex.structures import Categories

FEW, MANY = 60, 5000
KIBIBYTES_OF_A_GIBIBYTE = 2**20
REASONABLE = settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
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

places = st.integers(0, 4095)
edits = st.lists(
    st.one_of(
        st.tuples(st.just("replace"), places, st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("insert"), places, st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("delete"), places, st.integers(1, 64)),
        st.tuples(st.just("repeat"), places, st.integers(1, 64)),
        st.tuples(st.just("flip"), places, st.integers(0, 7)),
        st.tuples(st.just("end"), places, st.none()),
    ),
    min_size=1,
    max_size=4,
)


def edited(data: bytes, changes: list[tuple]) -> bytes:
    for kind, place, value in changes:
        at = place % max(1, len(data))
        if kind == "replace":
            data = data[:at] + value + data[at + len(value) :]
        elif kind == "insert":
            data = data[:at] + value + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + value :]
        elif kind == "repeat":
            data = data[: at + value] + data[at:]
        elif kind == "flip" and data:
            data = data[:at] + bytes([data[at] ^ (1 << value)]) + data[at + 1 :]
        elif kind == "end":
            data = data[:at]
    return data


def peak_kibibytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.timeout(900)
@amounts
@pytest.mark.parametrize("name", FORMATS)
def test_changed_bytes(tmp_path, name, examples):
    file_name, make, change = FORMATS[name]
    path = tmp_path / file_name
    original = make(path)
    path.write_bytes(original)
    assert read_source(path, allow_pickle=True).tensors.keys() == TENSORS.keys()
    before = peak_kibibytes()

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

    check()
    assert peak_kibibytes() - before < KIBIBYTES_OF_A_GIBIBYTE
