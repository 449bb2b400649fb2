"""Turns errors of commands into messages for users."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


def _user_errors() -> tuple[type[Exception], ...]:
    """Errors that a user can mend; imported late, because arguments are read before PyTorch is loaded."""
    import torch

    from detrex.checkpoint import CheckpointError
    from detrex.config import ConfigError
    from detrex.runtime.waiting import LostWorkerError

    return (
        ConfigError,
        CheckpointError,
        FloatingPointError,  # losses that are not finite
        OSError,
        ValueError,
        ImportError,
        torch.OutOfMemoryError,
        LostWorkerError,
    )


# Arguments of functions in messages of the package, with the options of commands to name instead.
_FLAGS = (
    (r"(\w+)=True \(in tools (--[\w-]+)\)", r"\2"),
    (r"load\(CONFIG_FILE_OR_ZOO_NAME, weights='([^']*)'\)", r"--model CONFIG_FILE_OR_ZOO_NAME --weights \1"),
    (r"\bweights='([^']*)'", r"--weights \1"),
    (r"\bweights=(?=[ ,])", "--weights"),
)
_PICKLE = r"allow_pickle=True \(in a config (train\.allow_pickle=true), in tools (--allow-pickle)\)"


@contextmanager
def readable_errors(
    debug: bool = False, allows_pickle: bool = False, data_root: str | None = None
) -> Iterator[None]:
    """Logs an error of the config, the data or a checkpoint without its traceback, and exits with code 1.

    The traceback goes to the log as a debug message. Other errors (bugs) are not caught.

    Args:
        debug: catch no errors.
        allows_pickle: whether the command has ``--allow-pickle``; otherwise, its config has a key for it.
        data_root: ``dataloader.root`` of the config, which is named if files below it are missing.
    """
    try:
        yield
    except BrokenPipeError:
        # For example with `| head`: nobody reads any more, and the interpreter must not complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except Exception as error:
        if debug:
            raise
        if not (isinstance(error, _user_errors()) or _is_lost_worker(error)):
            # For the log file: only the console shows the error when the interpreter ends.
            logger.debug("the run ended with an error", exc_info=True)
            raise
        logger.error("%s", _with_root(_with_flags(_message(error), allows_pickle), data_root))
        logger.debug("the traceback of this error", exc_info=True)
        raise SystemExit(1) from None


def _is_lost_worker(error: Exception) -> bool:
    """Whether PyTorch reports that a loader's worker process was killed, for which it has no class."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")


def _message(error: Exception) -> str:
    import torch

    text = str(error) or type(error).__name__
    if isinstance(error, torch.OutOfMemoryError):
        return (
            f"{text.strip()}\nLower dataloader.train.total_batch_size or image sizes, or set train.amp=bf16."
        )
    if _is_lost_worker(error):
        return f"{text.strip()}\nIt may have used too much memory: lower num_workers of the data loaders."
    # PyTorch puts the whole traceback of a loader's worker process into the message; its last error counts.
    if text.startswith("Caught ") and "Original Traceback" in text:
        last = [m.start() for m in re.finditer(r"^[A-Za-z_][\w.]*: ", text, flags=re.MULTILINE)]
        if last:
            text = text[last[-1] :].partition(": ")[2]
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    return text.strip()


def _with_flags(text: str, allows_pickle: bool) -> str:
    """The message with options of commands in place of arguments of functions."""
    for pattern, flag in _FLAGS:
        text = re.sub(pattern, flag, text)
    return re.sub(_PICKLE, r"\2" if allows_pickle else r"\1", text)


def _with_root(text: str, root: str | None) -> str:
    """The message; if files are missing, it also says where their path comes from."""
    if not root or root not in text or not re.search("does not exist|No such file|are not in", text):
        return text
    return (
        f"{text}\nThis path is below dataloader.root={root}: set dataloader.root to the folder of your data, "
        "or dataloader.{train,test}.dataset.* for another layout."
    )
