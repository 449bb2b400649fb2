"""Exports a predictor to a file in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detrex.export.capture import SIDES, ExportError, capture
from detrex.export.formats import HALVING, SUFFIXES, WRITERS
from detrex.export.prompting import answers_prompts
from detrex.predict import Predictor, load


def export(
    model: Predictor | str | Path,
    path: str | Path,
    *,
    to: str = "onnx",
    tasks: Sequence[str] | None = None,
    batch: int | None = None,
    size: tuple[int, int] | None = None,
    sides: tuple[int, int] = SIDES,
    half: bool = False,
) -> Path:
    """Writes a model as a file that :func:`detrex.runtime.load` loads.

    Args:
        model: a predictor on the CPU, or an argument for :func:`detrex.load`.
        path: of the file; its suffix must be that of the format, such as ``.onnx``.
        to: the format: ``onnx``, ``openvino``, ``torch`` (a program of ``torch.export``) or ``aotinductor``
            (such a program compiled for this kind of processor, for one ``batch`` and ``size``).
        tasks: those of the model's tasks that the file performs; None for all.
        batch: number of pictures in each call; None for any up to 64.
        size: (height, width) of all pictures in pixels; None for any.
        sides: without ``size``, the smallest and the largest height and width of pictures.

    Raises:
        ExportError: the model cannot be exported with these options.
        ImportError: a package is missing.
    """
    path = Path(path)
    if to not in WRITERS:
        raise ExportError(f"there is no format '{to}'; there are {', '.join(WRITERS)}")
    if not path.name.endswith(SUFFIXES[to]):
        raise ExportError(f"{path}: the name of this file ends with {SUFFIXES[to]}")
    if half and to not in HALVING:
        raise ExportError(f"weights are kept in 16 bits in {' and '.join(HALVING)} alone, not in {to}")
    if to == "aotinductor" and (batch is None or size is None):
        raise ExportError(
            "AOTInductor compiles programs for pictures of one size and number: give --size HxW and --batch N"
        )
    name = "" if isinstance(model, Predictor) else Path(model).name
    predictor = model if isinstance(model, Predictor) else load(model, device="cpu")
    if answers_prompts(predictor):
        raise ExportError(
            "a model that answers clicks is several files: detrex.export.export_prompts writes them to a "
            "folder"
        )
    captured = capture(predictor, tasks=tasks, batch=batch, size=size, sides=sides, name=name)
    return WRITERS[to](captured, path, **({"half": True} if half else {}))
