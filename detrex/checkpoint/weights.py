"""Reads and writes files of weights: safetensors, and files of ``torch.save``."""

from __future__ import annotations

import json
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from detrex.checkpoint.plain import check_archive, check_tensors
from detrex.runtime.files import replaced_file

WEIGHTS_NAME = "model.safetensors"
_LENGTH = 8  # bytes of the length of a safetensors header, to which its tensors are aligned
_CHUNK = 1 << 24
_ALIASES, _CHECKSUM = "aliases", "checksum"
# Other training code stores the state dict under these keys.
_OUTER = ("model", "state_dict", "model_state", "blobs")


class CheckpointError(Exception):
    """A checkpoint that cannot be read or does not fit; the message names the file."""


def write_weights(path: str | Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file, atomically.

    Args:
        path: the file.
        weights: tensors by name, on any device. A tensor that occurs under several names (tied weights)
            is stored once; its other names go into the metadata.
        metadata: further text, such as class names as JSON. A checksum of the tensors is added, by which
            :func:`read_weights` finds damage.
    """
    stored, aliases = _without_ties(weights)
    extra = {_ALIASES: json.dumps(aliases)} if aliases else {}
    extra[_CHECKSUM] = _checksum(stored)
    with replaced_file(path) as temporary:
        # Not with save_file, whose files only their owner can read.
        temporary.write_bytes(save(stored, metadata={"format": "pt", **metadata, **extra}))


def add_metadata(path: str | Path, metadata: Mapping[str, str]) -> None:
    """Adds text to a file of :func:`write_weights`, atomically; its tensors are copied unchanged.

    Raises:
        CheckpointError: it is not such a file.
    """
    path = Path(path)
    with path.open("rb") as file:
        size = int.from_bytes(file.read(_LENGTH), "little")
        try:
            header = json.loads(file.read(min(size, path.stat().st_size)))
            header["__metadata__"].update(metadata)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(_unreadable(path, error)) from error
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % _LENGTH)
        with replaced_file(path) as temporary, temporary.open("wb") as copy:
            copy.write(len(text).to_bytes(_LENGTH, "little") + text)
            shutil.copyfileobj(file, copy, _CHUNK)


def read_metadata(path: str | Path) -> dict[str, str]:
    """The text in a safetensors file, without its tensors.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return dict(file.metadata() or {})
    except Exception as error:  # a damaged file may end in any of them
        raise CheckpointError(_unreadable(path, error)) from error


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads weights on the CPU.

    Args:
        path: a safetensors file, a directory of a checkpoint, or a file by ``torch.save`` of a state dict
            (see :func:`state_dict_of`).

    Returns:
        Tensors by name, and the metadata of the file (empty for files by ``torch.save``).

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is truncated, damaged (according to its checksum, if it has one) or holds
            something else.
    """
    path = Path(path)
    if path.is_dir():
        path = path / WEIGHTS_NAME
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return state_dict_of(read_torch_file(path), path), {}


def read_torch_file(path: Path) -> dict:
    """A dict written by ``torch.save``, on the CPU; tensors and plain values only.

    Raises:
        CheckpointError: the file is truncated, damaged or holds other kinds of objects.
    """
    try:
        check_archive(path)
        _check_records(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        check_tensors(content, path)
    except Exception as error:  # a damaged file may end in any of them
        raise CheckpointError(_unreadable(path, error)) from error
    return content


def _check_records(path: Path) -> None:
    """Compares the checksums in a file by ``torch.save``, which PyTorch writes but does not read."""
    if not zipfile.is_zipfile(path):
        return  # from before PyTorch 1.6, or cut off, which the reader reports
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(str(error)) from error
    if damaged is not None:
        raise ValueError(f"{damaged} in it does not have the checksum that was written with it")


def write_torch_file(path: Path, content: dict) -> None:
    """Writes with ``torch.save``; :func:`read_torch_file` reads it.

    Raises:
        OSError: the disk is full, or the file cannot be written for another reason.
    """
    try:
        with path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        # PyTorch replaces the error of the disk with one about positions in the file.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            # A copy, because the file is memory-mapped and may be replaced while its tensors are in use.
            weights = {name: file.get_tensor(name).clone() for name in file.keys()}
        _check(weights, metadata.pop(_CHECKSUM, None))
        for alias, name in json.loads(metadata.pop(_ALIASES, "{}")).items():
            weights[alias] = weights[name]
    except Exception as error:  # a damaged file may end in any of them
        raise CheckpointError(_unreadable(path, error)) from error
    return weights, metadata


def _check(weights: Mapping[str, Tensor], expected: str | None) -> None:
    if expected is not None and _checksum(weights) != expected:
        raise ValueError("its tensors do not have the checksum that was written with them")


def _checksum(weights: Mapping[str, Tensor]) -> str:
    """CRC-32 of names, types, shapes and values: it finds every flipped bit, in a fraction of a second."""
    value = 0
    for name in sorted(weights):
        tensor = weights[name]
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        if tensor.numel():
            value = zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data, value)
    return f"crc32 {value:08x}"


def _unreadable(path: Path, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    size = path.stat().st_size if path.exists() else 0
    return (
        f"{path} ({size} bytes) cannot be read; it is truncated, damaged or no checkpoint "
        f"({type(error).__name__}: {reason}). Copy or download it again, or use another checkpoint."
    )


def state_dict_of(content: object, path: Path) -> dict[str, Tensor]:
    """The tensors by name in the content of a file, directly or under one of the usual keys.

    The prefix ``module.`` of models saved in their distributed wrapper is removed, and so is the prefix
    ``model.`` of trainers if all entries have it.

    Raises:
        CheckpointError: there is no dict of tensors.
    """
    for key in _OUTER:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(
            f"{path} holds no dict of tensors, neither itself nor under one of the keys {', '.join(_OUTER)}"
        )
    for wrapper in ("module.", "model."):
        if content and all(name.startswith(wrapper) for name in content):
            content = {name.removeprefix(wrapper): value for name, value in content.items()}
    return content


def _without_ties(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors to store, on the CPU and each storage once, and the other names of tied tensors."""
    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple, str] = {}
    for name, tensor in weights.items():
        memory = (tensor.untyped_storage().data_ptr(), tensor.storage_offset())
        identity = (*memory, tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)
        if tensor.numel() and identity in first:
            aliases[name] = first[identity]
            continue
        first[identity] = name
        # clone: safetensors refuses views that share memory, such as parts of one flat buffer.
        stored[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return stored, aliases
