"""Writes a folder with a page that runs an exported model in the browser, where pictures stay.

The page consists of the files in ``page/`` beside this module. It computes with onnxruntime-web from npm,
which users provide or let the command download; the open page fetches nothing from elsewhere.
"""

from __future__ import annotations

import json
import logging
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from detrex.export.capture import SIDES, ExportError
from detrex.export.export import export
from detrex.export.prompting import answers_prompts, export_prompts
from detrex.export.quantisation import quantise
from detrex.predict import Predictor, load
from detrex.runtime.exported import Description, PromptGraphs
from detrex.runtime.files import replaced_file

RUNTIME_VERSION = "1.30.0"
"""Version of onnxruntime-web with which the page is tested."""
RUNTIME_URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{RUNTIME_VERSION}.tgz"
RUNTIME_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
MODEL, DESCRIPTION = "model.onnx", "model.json"
RUNTIME_FOLDER = "onnxruntime-web"
"""Names in the folder of a page."""

_FOLDER = Path(__file__).with_name("page")
# Names in a page of the files in that folder, for models in one file and for models for prompts.
_PAGE = {"index.html": "index.html", "app.js": "app.js"}
_PROMPT_PAGE = {"index.html": "prompts.html", "prompts.js": "prompts.js"}
_SHARED = ("common.js", "results.js", "style.css", "worker.js")
# The build with only WebAssembly, in one module; package.json contains its version and licence.
_RUNTIME_FILES = ("dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm", "package.json")
_LARGEST_RUNTIME_FILE = 64 * 2**20

logger = logging.getLogger(__name__)


def export_web(
    model: Predictor | str | Path,
    folder: str | Path,
    runtime: str | Path,
    *,
    tasks: Sequence[str] | None = None,
    sides: tuple[int, int] = SIDES,
    calibration: Sequence[str] = (),
    keep: Sequence[str] = (),
    half: bool = False,
) -> Path:
    """Writes a folder that any static web server can serve: a page, the model and its runtime.

    Args:
        model: a predictor on the CPU, or an argument for :func:`detrex.load`.
        folder: created if need be. An existing page is replaced; other files in the folder are an error.
        runtime: onnxruntime-web: the archive that ``npm pack`` makes, or a folder with the package.
        tasks: those of the model's tasks that the page shows; None for all.
        sides: the smallest and the largest height and width of pictures in pixels.
        calibration: pictures, for weights and activations of 8 bits; empty for 32 bits.
        keep: modules that stay in float32 with 8 bits, see :func:`detrex.export.quantisation.quantise`.
        half: store weights in 16 bits, which halves the file.

    Returns:
        The path of the ONNX file in the folder; for models that answer prompts, the folder of all files.

    Raises:
        ExportError: the model cannot be exported so, the folder has other files, or ``runtime`` is not
            onnxruntime-web.
        ImportError: a package is missing.
    """
    check_folder(Path(folder))
    libraries = read_runtime(runtime)
    predictor = model if isinstance(model, Predictor) else load(model, device="cpu")
    if answers_prompts(predictor):
        return _export_prompt_page(predictor, Path(folder), libraries, tasks, sides, calibration, half)
    path = export(predictor, Path(folder, MODEL), tasks=tasks, batch=1, sides=sides, half=half)
    if calibration:
        quantise(path, path, calibration, keep=keep)
    write_page(path, libraries)
    return path


def write_page(path: Path, libraries: Mapping[str, bytes]) -> None:
    """Writes a page beside a model.

    Args:
        path: the ONNX file in the folder of the page, named :data:`MODEL`.
        libraries: the result of :func:`read_runtime`.
    """
    description, _ = _descriptions(path)
    _write(path.parent, _PAGE, asdict(description), libraries)


def write_prompt_page(folder: Path, libraries: Mapping[str, bytes]) -> None:
    """Writes a page beside the graphs of a model that answers prompts.

    Args:
        folder: with the graphs.
        libraries: the result of :func:`read_runtime`.
    """
    description, metadata = _descriptions(folder / "prompts.onnx")
    graphs = PromptGraphs.from_metadata(metadata, str(folder))
    _write(folder, _PROMPT_PAGE, {**asdict(description), "prompts": asdict(graphs)}, libraries)


def _export_prompt_page(
    predictor: Predictor,
    folder: Path,
    libraries: Mapping[str, bytes],
    tasks: Sequence[str] | None,
    sides: tuple[int, int],
    calibration: Sequence[str],
    half: bool,
) -> Path:
    if calibration or tasks is not None:
        raise ExportError("--int8 and --tasks are not for models that answer clicks")
    export_prompts(predictor, folder, sides=sides, half=half)
    write_prompt_page(folder, libraries)
    return folder


def _write(
    folder: Path, page: Mapping[str, str], description: Mapping[str, Any], libraries: Mapping[str, bytes]
) -> None:
    content = {f"{RUNTIME_FOLDER}/{name}": data for name, data in libraries.items()}
    files = {**page, **{name: name for name in _SHARED}}
    content |= {name: (_FOLDER / source).read_bytes() for name, source in files.items()}
    content[DESCRIPTION] = json.dumps(description, indent=1).encode()
    for name, data in content.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        with replaced_file(file) as temporary:
            temporary.write_bytes(data)


def check_folder(folder: Path) -> None:
    """
    Raises:
        ExportError: a page must not be written here, because there are other files.
    """
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder} is a file; name the folder to write")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / DESCRIPTION).is_file():
        raise ExportError(f"{folder} has files that are no page of 'detrex export'; name another folder")


def read_runtime(source: str | Path) -> dict[str, bytes]:
    """The files of onnxruntime-web that a page needs, by name.

    Args:
        source: the archive that ``npm pack`` makes, or a folder with the package.

    Raises:
        ExportError: there is no such package.
    """
    source = Path(source)
    if not source.exists():
        raise ExportError(f"{source} does not exist; {how_to_get_runtime()}")
    try:
        if source.is_dir():
            content = _content(lambda name: (source / name).read_bytes())
        else:
            with tarfile.open(source) as archive:
                content = _content(lambda name: _member(archive, f"package/{name}"))
        package = json.loads(content["package.json"])
        name, version = package["name"], package["version"]
    except (OSError, EOFError, KeyError, TypeError, ValueError, tarfile.TarError) as error:
        raise ExportError(
            f"{source} is no package onnxruntime-web ({error}): expected is the archive that 'npm pack' "
            f"makes, or a folder with {', '.join(_RUNTIME_FILES)}; {how_to_get_runtime()}"
        ) from error
    if name != "onnxruntime-web":
        raise ExportError(f"{source} is the package {name}, not onnxruntime-web; {how_to_get_runtime()}")
    if version != RUNTIME_VERSION:
        logger.warning(
            "%s is onnxruntime-web %s; the page is tested with %s", source, version, RUNTIME_VERSION
        )
    return content


def how_to_get_runtime() -> str:
    """How to get onnxruntime-web, for error messages."""
    return (
        f"get it by 'npm pack onnxruntime-web@{RUNTIME_VERSION}' and give --onnxruntime-web "
        f"onnxruntime-web-{RUNTIME_VERSION}.tgz, or give --download, which fetches these 33 MB from "
        "registry.npmjs.org once; 14 MB of them go into the folder"
    )


def _content(read: Callable[[str], bytes]) -> dict[str, bytes]:
    return {Path(name).name: read(name) for name in _RUNTIME_FILES}


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    """
    Raises:
        KeyError: there is no such file in the archive.
        ValueError: it is not a plain file, or too large.
    """
    member = archive.getmember(name)
    file = archive.extractfile(member) if member.isfile() else None
    if file is None or member.size > _LARGEST_RUNTIME_FILE:
        raise ValueError(f"{name} is not what it should be")
    return file.read()


def _descriptions(path: Path) -> tuple[Description, dict[str, str]]:
    """What a file says about itself, and all its metadata."""
    import onnx

    proto = onnx.load(path, load_external_data=False)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    return Description.from_metadata(metadata, str(path)), metadata
