"""Weights in old pickle files, read without running what a pickle may ask for."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detrex.checkpoint.pickle_machine import Global, Machine, RefusedError, dict_of
from detrex.checkpoint.weights import CheckpointError

_MOST_NESTED = 16
_MOST_AXES = 16
_MOST_ELEMENTS = 2**40
_NUMERIC = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
_ORDERS = {"<": "<", ">": ">", "|": "|", "=": "<" if sys.byteorder == "little" else ">"}


def read_pickle(path: str | Path) -> dict:
    """Reads a pickled dict of arrays, as detectron2 (``.pkl``) and Detectron published their weights.

    Nothing that the file names is imported or called; arrays are built from their bytes.

    Args:
        path: the file, of any pickle protocol, by Python 2 (whose strings are taken for Latin-1) or 3.

    Returns:
        The dict as it is nested in the file, such as ``{"model": {name: tensor}, "__author__": str}``, of
        tensors on the CPU (of the arrays' shapes and dtypes), text, bytes, numbers, None, lists and tuples.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is truncated or damaged, or asks for anything but numeric arrays.
    """
    data = Path(path).read_bytes()
    try:
        # Each byte of an array is built at most twice: as bytes out of text, and as a tensor.
        builder = _Builder(budget=2 * len(data))
        content = _plain(Machine(data, builder.calls(), builder.set_state).run())
        if not isinstance(content, dict):
            raise ValueError(f"it holds no dict but a {type(content).__name__}")
    except RefusedError as error:
        raise CheckpointError(
            f"{path} {error}. Weights need nothing like that: the file was not loaded, and nothing in it was "
            f"run. Get these weights in another format (.safetensors, or .pth with a state dict)."
        ) from None
    except ValueError as error:
        raise CheckpointError(
            f"{path} ({len(data)} bytes) cannot be read; it is truncated, damaged or no pickle of weights "
            f"({error}). Copy or download it again, or use another checkpoint."
        ) from error
    return content


# Values that only occur while a pickle is read. None of them can be called or has anything of numpy's in it.


@dataclass
class _Type:
    """Stands for a dtype: a kind and size such as "f4", and the order of bytes, which is set later."""

    code: str
    order: str = "="


@dataclass
class _Array:
    """Stands for an array, whose contents are set later."""

    tensor: Tensor | None = None


class _Builder:
    """Takes the place of what builds arrays in a pickle.

    Args:
        budget: the most bytes to build. A small file could ask for one large array any number of times.
    """

    def __init__(self, budget: int):
        self._budget = budget

    def calls(self) -> dict[str, Callable[..., object]]:
        """What can be asked for by name, and what is called instead."""
        calls = {
            "numpy.dtype": _dtype,
            "numpy.ndarray": _not_called,
            "collections.OrderedDict": dict_of,
            "_codecs.encode": self._encode,
            # no bytes at all, in protocols before 3
            "__builtin__.bytes": lambda: b"",
            "builtins.bytes": lambda: b"",
        }
        for core in ("numpy.core", "numpy._core"):  # before and since numpy 2
            calls[f"{core}.multiarray._reconstruct"] = _reconstruct
            calls[f"{core}.multiarray.scalar"] = self._scalar
            calls[f"{core}.numeric._frombuffer"] = self._from_buffer
        return calls

    def set_state(self, value: object, state: object) -> None:
        """Completes a dtype or an array."""
        if isinstance(value, _Type) and isinstance(state, tuple) and 5 <= len(state) <= 9:
            # version, byte order, subarray, names, fields, item size, alignment, flags, metadata
            order = state[1]
            if not isinstance(order, str) or order not in _ORDERS or any(s is not None for s in state[2:5]):
                raise RefusedError("has an array of a dtype with fields, which is no plain number")
            value.order = order
        elif isinstance(value, _Array) and value.tensor is None and isinstance(state, tuple):
            if len(state) != 5:
                raise ValueError(f"an array of {len(state)} properties")
            _, shape, dtype, fortran, data = state  # the first is a version
            value.tensor = self._tensor(data, dtype, shape, "F" if fortran else "C")
        else:
            raise RefusedError("sets the state of what is no new array")

    def _encode(self, text: object, encoding: object) -> bytes:
        """How bytes are written in protocols before 3."""
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise RefusedError("converts something unusual to bytes")
        self._spend(len(text))
        return text.encode("latin-1")

    def _scalar(self, dtype: object, data: object) -> float | int | bool:
        return self._tensor(data, dtype, (), "C").item()

    def _from_buffer(
        self, data: object, dtype: object, shape: object, order: object, axes: object = None
    ) -> _Array:
        """``order`` K is an array of C order whose axes were then permuted."""
        if order not in ("C", "F", "K") or (order == "K") != (axes is not None):
            raise ValueError(f"an array in order {_shown(order)}")
        tensor = self._tensor(data, dtype, shape, "F" if order == "F" else "C")
        if axes is not None:
            if not isinstance(axes, tuple) or sorted(map(_exact_int, axes)) != list(range(tensor.ndim)):
                raise ValueError("the axes of an array do not fit its shape")
            tensor = tensor.permute(axes).contiguous()
        return _Array(tensor)

    def _tensor(self, data: object, dtype: object, shape: object, order: str) -> Tensor:
        """The contents of an array; its size is compared with the data before it is built."""
        if isinstance(data, str):  # Python 2
            data = self._encode(data, "latin1")
        if not (isinstance(data, bytes) and isinstance(dtype, _Type) and isinstance(shape, tuple)):
            raise RefusedError("has an array of something else than plain numbers")
        sizes = [_exact_int(size) for size in shape]
        if len(sizes) > _MOST_AXES or any(size < 0 for size in sizes):
            raise ValueError(f"an array of {len(sizes)} axes or of a negative size")
        if math.prod(max(size, 1) for size in sizes) > _MOST_ELEMENTS:
            raise ValueError(f"an array of shape {sizes}")
        numpy_type = np.dtype(_ORDERS[dtype.order] + dtype.code)
        if math.prod(sizes) * numpy_type.itemsize != len(data):
            raise ValueError(f"{len(data)} bytes for an array of shape {sizes} and type {dtype.code}")
        self._spend(len(data))
        array = np.ndarray(sizes, numpy_type, buffer=data, order=order)
        # A copy in any case: torch needs native byte order and memory that it may write.
        return torch.from_numpy(np.array(array, dtype=numpy_type.newbyteorder("="), order="C"))

    def _spend(self, count: int) -> None:
        self._budget -= count
        if self._budget < 0:
            raise RefusedError("repeats its data")


def _reconstruct(cls: object, shape: object, code: object) -> _Array:
    if cls != Global("numpy.ndarray") or shape != (0,) or code not in (b"b", "b"):
        raise RefusedError("builds an array of an unusual kind")
    return _Array()


def _dtype(code: object, align: object = 0, copy: object = 1) -> _Type:
    if not isinstance(code, str) or code not in _NUMERIC or align not in (0, 1) or copy not in (0, 1):
        raise RefusedError(f"has an array of dtype {_shown(code)}, which is no plain number")
    return _Type(code)


def _not_called(*_: object) -> object:
    raise RefusedError("calls what can only be named")


def _exact_int(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"{_shown(value)} where a whole number is due")
    return value


def _shown(value: object) -> str:
    """For messages; the text of a list can be absurdly long."""
    return repr(value)[:80] if isinstance(value, (str, int)) else f"a {type(value).__name__}"


def _plain(value: object, depth: int = 0, done: dict[int, object] | None = None) -> object:
    """A copy without stand-ins. Each object is copied once, however often the pickle refers to it."""
    done = {} if done is None else done
    if isinstance(value, _Array) and value.tensor is not None:
        return value.tensor
    if isinstance(value, (_Array, _Type, Global)):
        raise ValueError("part of an array is without its place")
    if not isinstance(value, (dict, list, tuple)):
        return value
    if depth == _MOST_NESTED:
        raise RefusedError(f"holds lists or dicts nested deeper than {_MOST_NESTED}")
    if id(value) not in done:
        done[id(value)] = None
        if isinstance(value, dict):
            done[id(value)] = {k: _plain(v, depth + 1, done) for k, v in value.items()}
        else:
            done[id(value)] = type(value)(_plain(v, depth + 1, done) for v in value)
    if done[id(value)] is None:
        raise RefusedError("holds a list or dict that contains itself")
    return done[id(value)]
