"""The configs that come with this package, by name."""

from __future__ import annotations

import ast
from difflib import get_close_matches
from pathlib import Path

from detrex.config.directories import projects_directory
from detrex.config.lazy import ConfigError


def shipped_configs() -> dict[str, Path]:
    """The files of all configs that come with this package, by name, such as ``maskdino_custom_instance``."""
    files = projects_directory().resolve().glob("*/configs/*.py")
    return {file.stem: file for file in sorted(files, key=lambda file: (file.parts[-3], file.stem))}


def find_config(name: str | Path) -> Path:
    """The file of a config.

    Args:
        name: of a file; or of a config that comes with this package, with or without ``.py``; or its path
            relative to this package or checkout (``projects/maskdino/configs/...``).

    Raises:
        ConfigError: there is no such config; the message names the nearest ones.
    """
    path = Path(name)
    if path.exists():
        return path
    shipped = shipped_configs()
    if len(path.parts) == 1:
        found = shipped.get(path.stem if path.suffix == ".py" else path.name)
    else:
        found = next(
            (file for file in shipped.values() if path.parts == file.parts[-len(path.parts) :]), None
        )
    if found is not None:
        return found
    near = get_close_matches(path.stem if path.suffix == ".py" else path.name, shipped, 3, 0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ConfigError(
        f"there is no config file {name}, and no config of this package has that name: {hint}"
        "'detrex configs' lists them all"
    )


def summary_of(config: Path) -> str:
    """The first line of a config file's docstring, or an empty text; the file is not run."""
    return description_of(config).partition("\n")[0]


def description_of(config: Path) -> str:
    """The docstring of a config file, or an empty text; the file is not run."""
    return ast.get_docstring(ast.parse(config.read_text(encoding="utf-8"))) or ""
