"""Compiling parts of a model with ``torch.compile``."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from detrex.config import ConfigError

logger = logging.getLogger(__name__)


def compile_modules(
    model: nn.Module, modules: Sequence[str], backend: str = "inductor", dynamic: bool | None = None
) -> None:
    """Has modules of ``model`` compiled at their first call; names of modules and weights stay as they are.

    Args:
        model: on its device.
        modules: patterns for names of modules, such as ``backbone`` or ``encoder.layers.*``. They must be
            called as modules, not part by part.
        backend: of :func:`torch.compile`.
        dynamic: whether one compilation is to serve all sizes of images; None: from the second size on.

    Raises:
        ConfigError: a pattern fits no module, or the machine lacks the compiler that the backend calls.
    """
    names = [name for name, _ in model.named_modules() if name]
    for pattern in modules:
        chosen = [name for name in names if fnmatchcase(name, pattern)]
        if not chosen:
            children = ", ".join(name for name, _ in model.named_children())
            raise ConfigError(
                f"train.compile.modules: {pattern!r} is the name of no module; those of the model are "
                f"{children} and parts of these"
            )
        for name in chosen:
            model.get_submodule(name).compile(backend=backend, dynamic=dynamic)
        logger.info("torch.compile (%s): %s", backend, ", ".join(chosen))
    if modules and backend == "inductor" and next(model.parameters()).device.type == "cpu":
        compiler = os.environ.get("CXX", "g++")
        if not (shutil.which(compiler) or shutil.which("clang++")):
            raise ConfigError(
                f"train.compile on a CPU needs a C++ compiler, and there is no {compiler}: install one, or "
                "set train.compile.modules=[]"
            )
