"""Reads weights in old pickle files without running the code that a pickle may ask for.

A pickle is a program that may call any function of any installed module. Here, the standard library's
unpickler runs it with only the instructions that plain data and arrays need, and with stand-ins in place of
the few functions of numpy that build arrays. The unpickler written in Python is used, because the one in C
takes objects from a registry of extensions without any check of names, allocates whatever memory a file asks
for, and overflows the stack when it hashes deeply nested keys.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detrex.checkpoint.weights import CheckpointError

_MOST_NESTED = 16
_MOST_AXES = 16
_MOST_ELEMENTS = 2**40
_NUMERIC = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
_ORDERS = {"<": "<", ">": ">", "|": "|", "=": "<" if sys.byteorder == "little" else ">"}
_INSTRUCTION_NAMES = """
    PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE INT LONG LONG1 BININT BININT1 BININT2 FLOAT BINFLOAT
    STRING SHORT_BINSTRING BINSTRING UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8
    SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST
    APPEND APPENDS EMPTY_DICT DICT SETITEM SETITEMS PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
    GLOBAL STACK_GLOBAL REDUCE BUILD
"""
_INSTRUCTIONS = [ord(getattr(pickle, name)) for name in _INSTRUCTION_NAMES.split()]


def read_pickle(path: str | Path) -> dict:
    """Reads a pickled dict of arrays, as detectron2 (``.pkl``) and Detectron published their weights.

    Nothing that the file names is imported or called; arrays are built from their bytes.

    Args:
        path: the file, of any pickle protocol, from Python 2 (whose strings are read as Latin-1) or 3.

    Returns:
        The dict with the file's nesting, such as ``{"model": {name: tensor}, "__author__": str}``, of tensors
        on the CPU (with the arrays' shapes and dtypes), text, bytes, numbers, None, lists and tuples.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is truncated or damaged, or asks for anything other than numeric arrays.
    """
    data = Path(path).read_bytes()
    try:
        content = _plain(_Unpickler(data).load())
        if not isinstance(content, dict):
            raise ValueError(f"it holds no dict but a {type(content).__name__}")
    except _RefusedError as error:
        raise CheckpointError(
            f"{path} {error}. Weights need nothing like that: the file was not loaded, and nothing in it was "
            f"run. Get these weights in another format (.safetensors, or .pth with a state dict)."
        ) from None
    except Exception as error:  # the library documents that a damaged file may end in any of them
        reason = str(error) or type(error).__name__
        raise CheckpointError(
            f"{path} ({len(data)} bytes) cannot be read; it is truncated, damaged or no pickle of weights "
            f"({reason[:200]}). Copy or download it again, or use another checkpoint."
        ) from error
    return content


class _RefusedError(Exception):
    """A pickle does something that plain data does not need; the message continues "the file"."""


# Values that only occur while a pickle is read. None of them can be called or contains objects of numpy.


@dataclass(frozen=True)
class _Global:
    """Stands for a function or class by its name."""

    name: str


@dataclass
class _Type:
    """Stands for a dtype: a kind and size such as "f4", and the order of bytes, which is set later."""

    code: str
    order: str = "="


@dataclass
class _Array:
    """Stands for an array, whose contents are set later."""

    tensor: Tensor | None = None


class _Instructions(dict[int, Callable[..., None]]):
    """The unpickler's method for each allowed instruction; other instructions are refused."""

    def __missing__(self, code: int) -> Callable[..., None]:
        names = [known.name for known in pickletools.opcodes if known.code == chr(code)]
        if not names:
            raise ValueError(f"byte {code:#04x} is no instruction")
        raise _RefusedError(f"has the pickle instruction {names[0]}")


class _Data(io.BytesIO):
    """The bytes of a pickle. Reading beyond their end is an error; the library would continue with fewer."""

    def read(self, count: int | None = -1) -> bytes:
        data = super().read(count)
        if count is not None and len(data) < count:
            raise EOFError(f"{count} bytes are due and {len(data)} are left")
        return data

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n"):
            raise EOFError("the last line has no end")
        return line


class _Unpickler(pickle._Unpickler):
    """Python's unpickler, which looks up nothing, and only calls stand-ins and sets their state."""

    # Attributes of the library's class that its published types do not list.
    stack: list[Any]
    append: Callable[[object], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, data: bytes):
        super().__init__(_Data(data), encoding="latin1")
        # Each byte of an array is built at most twice: as bytes out of text, and as a tensor.
        self._builder = _Builder(budget=2 * len(data))
        self._calls = self._builder.calls()

    def find_class(self, module: object, name: object) -> _Global:
        if (full := f"{module}.{name}") not in self._calls:
            raise _RefusedError(f"asks for {full[:200]}")
        return _Global(full)

    def load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise _RefusedError("calls something that is no function")
        self.append(self._calls[function.name](*arguments))

    def load_build(self) -> None:
        state = self.stack.pop()
        self._builder.set_state(self.stack[-1], state)

    def load_bytearray8(self) -> None:
        # The library's method would allocate the size that the file states before it reads the bytes.
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(size))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(_dict_of(_pairs(items)))

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _set_item(self.stack[-1], key, value)

    def load_setitems(self) -> None:
        items = self.pop_mark()
        for key, value in _pairs(items):
            _set_item(self.stack[-1], key, value)

    dispatch = _Instructions(
        {
            **{code: pickle._Unpickler.dispatch[code] for code in _INSTRUCTIONS},
            ord(pickle.REDUCE): load_reduce,
            ord(pickle.BUILD): load_build,
            ord(pickle.BYTEARRAY8): load_bytearray8,
            ord(pickle.DICT): load_dict,
            ord(pickle.SETITEM): load_setitem,
            ord(pickle.SETITEMS): load_setitems,
        }
    )


def _pairs(items: list) -> Iterable[tuple]:
    return zip(items[::2], items[1::2], strict=True)


def _dict_of(items: Iterable = ()) -> dict:
    out: dict = {}
    for key, value in items:
        _set_item(out, key, value)
    return out


def _set_item(target: object, key: object, value: object) -> None:
    if not isinstance(target, dict):
        raise ValueError("an entry for something that is no dict")
    # Text and numbers only: hashing nested tuples can overflow the C stack.
    if not isinstance(key, (str, int)):
        raise _RefusedError(f"has a dict with a {type(key).__name__.lstrip('_')} as key")
    target[key] = value


class _Builder:
    """Replaces the functions that build arrays in a pickle.

    Args:
        budget: largest number of bytes to build. A small file could ask for one large array repeatedly.
    """

    def __init__(self, budget: int):
        self._budget = budget

    def calls(self) -> dict[str, Callable[..., object]]:
        """The functions that a pickle may name, with the methods that are called instead."""
        calls: dict[str, Callable[..., object]] = {
            "numpy.dtype": _dtype,
            "numpy.ndarray": _not_called,
            "collections.OrderedDict": _dict_of,
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
                raise _RefusedError("has an array of a dtype with fields, which is no plain number")
            value.order = order
        elif isinstance(value, _Array) and value.tensor is None and isinstance(state, tuple):
            _, shape, dtype, fortran, data = state  # the first is a version
            value.tensor = self._tensor(data, dtype, shape, "F" if fortran else "C")
        else:
            raise _RefusedError("sets the state of what is no new array")

    def _encode(self, text: object, encoding: object) -> bytes:
        """Bytes, as they are written in protocols before 3."""
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise _RefusedError("converts something unusual to bytes")
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
            raise _RefusedError("has an array of something else than plain numbers")
        sizes = [_exact_int(size) for size in shape]
        if len(sizes) > _MOST_AXES or any(size < 0 for size in sizes):
            raise ValueError(f"an array of {len(sizes)} axes or of a negative size")
        if math.prod(max(size, 1) for size in sizes) > _MOST_ELEMENTS:
            raise ValueError("an array of more elements than any file has")
        numpy_type = np.dtype(_ORDERS[dtype.order] + dtype.code)
        if math.prod(sizes) * numpy_type.itemsize != len(data):
            raise ValueError(f"{len(data)} bytes for an array of shape {sizes} and type {dtype.code}")
        self._spend(len(data))
        array = np.ndarray(sizes, numpy_type, buffer=data, order="F" if order == "F" else "C")
        # Always a copy: torch needs native byte order and writable memory.
        return torch.from_numpy(np.array(array, dtype=numpy_type.newbyteorder("="), order="C"))

    def _spend(self, count: int) -> None:
        self._budget -= count
        if self._budget < 0:
            raise _RefusedError("repeats its data")


def _reconstruct(cls: object, shape: object, code: object) -> _Array:
    if cls != _Global("numpy.ndarray") or shape != (0,) or code not in (b"b", "b"):
        raise _RefusedError("builds an array of an unusual kind")
    return _Array()


def _dtype(code: object, align: object = 0, copy: object = 1) -> _Type:
    if not isinstance(code, str) or code not in _NUMERIC or align not in (0, 1) or copy not in (0, 1):
        raise _RefusedError(f"has an array of dtype {_shown(code)}, which is no plain number")
    return _Type(code)


def _not_called(*_: object) -> object:
    raise _RefusedError("calls what can only be named")


def _exact_int(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"{_shown(value)} where a whole number is due")
    return value


def _shown(value: object) -> str:
    """A short text of an object for messages; the text of a list could be very long."""
    return repr(value)[:80] if isinstance(value, (str, int)) else f"a {type(value).__name__}"


def _plain(value: object, depth: int = 0, done: dict[int, object] | None = None) -> object:
    """A copy without stand-ins. Each object is copied once, however often the pickle refers to it."""
    done = {} if done is None else done
    if isinstance(value, _Array) and value.tensor is not None:
        return value.tensor
    if isinstance(value, (_Array, _Type, _Global)):
        raise ValueError("part of an array is without its place")
    if not isinstance(value, (dict, list, tuple)):
        return value
    if depth == _MOST_NESTED:
        raise _RefusedError(f"holds lists or dicts nested deeper than {_MOST_NESTED}")
    if id(value) not in done:
        done[id(value)] = None
        if isinstance(value, dict):
            done[id(value)] = {k: _plain(v, depth + 1, done) for k, v in value.items()}
        else:
            done[id(value)] = type(value)(_plain(v, depth + 1, done) for v in value)
    if done[id(value)] is None:
        raise _RefusedError("holds a list or dict that contains itself")
    return done[id(value)]
