"""Checks that a stranger's file of weights holds only plain tensors, whose memory fits the file's size."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

# Files may compress numbers, and tensors may share them, so this many times the file's bytes are allowed.
_FACTOR, _ALLOWANCE = 4, 2**26


def check_archive(path: Path) -> None:
    """Refuses a zip file that would unpack to far more than its own size, before anything is unpacked.

    Raises:
        ValueError: it would, or it begins like a zip file but cannot be read.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from error
    _check_memory(unpacked, path)


def check_tensors(content: object, path: Path) -> None:
    """Refuses tensors that are not plain ones on the CPU, or that would grow when they are copied.

    A tensor of any shape can repeat a single number of the file; only a copy of it would take the memory.

    Args:
        content: nested dicts, lists and tuples.
        path: the file that the content comes from.

    Raises:
        ValueError: there are such tensors.
    """
    distinct = {}
    for tensor in _tensors(content):
        plain = (
            type(tensor) in (Tensor, nn.Parameter)
            and tensor.layout == torch.strided
            and tensor.device.type == "cpu"
            and not (tensor.is_nested or tensor.is_quantized)
        )
        if not plain:
            kind = f"{tensor.device.type}, {tensor.layout}, {tensor.dtype}"
            raise ValueError(f"it holds a tensor of an unusual kind ({type(tensor).__name__}, {kind})")
        distinct[tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()] = tensor.nbytes
    _check_memory(sum(distinct.values()), path)


def _check_memory(needed: int, path: Path) -> None:
    size = path.stat().st_size
    if needed > _FACTOR * size + _ALLOWANCE:
        raise ValueError(f"its content would take {needed / 2**30:.1f} GiB of memory")


def _tensors(content: object) -> Iterator[Tensor]:
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value
