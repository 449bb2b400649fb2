"""Finds the configs and projects that come with this package, in a checkout or in the installed package."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import detrex


def configs_directory() -> Path:
    """The directory of the configs that come with this project."""
    return _directory("configs")


def projects_directory() -> Path:
    """The directory of the projects that come with this package, in folders such as ``maskdino``.

    It is ``projects/`` in a checkout; an installed package contains a copy of the configs and model zoos.
    """
    return _directory("projects")


def make_projects_importable() -> None:
    """Makes ``import projects.<name>...`` find :func:`projects_directory`, wherever Python was started.

    Configs name the classes of a project in this way. It is called when such a name occurs, not on import. If
    there is another package called ``projects``, it keeps its contents.
    """
    try:
        projects = importlib.import_module("projects")
    except ModuleNotFoundError:
        projects = sys.modules["projects"] = ModuleType("projects")
        projects.__path__ = []
    directory = str(projects_directory())
    if directory not in projects.__path__:
        projects.__path__ = [*projects.__path__, directory]


def _directory(name: str) -> Path:
    package = Path(detrex.__file__).resolve().parent
    for candidate in (package / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"{package} has no {name}/ in it or beside it: install this project again")
