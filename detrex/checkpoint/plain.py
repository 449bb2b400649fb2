"""What a stranger's file of weights may hold: plain tensors, of no more memory than the file explains."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

# Files may compress their numbers, and tensors share theirs: so much more memory than bytes is allowed.
_FACTOR, _ALLOWANCE = 4, 2**26


def check_archive(path: Path) -> None:
    """Refuses a zip file that unpacks to far more than its own size, before any of it is unpacked.

    Raises:
        ValueError: it does, or it is no readable zip file although it begins as one.
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
    """Refuses content whose tensors are not plain ones on the CPU, or would grow when they are copied.

    A tensor of any shape can repeat a single number of the file; the first copy of it would take the memory.

    Args:
        content: nested dicts, lists and tuples.
        path: the file that it comes from.

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
