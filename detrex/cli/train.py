"""Runs training as a command, with its folder, its log and readable errors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from detrex.cli.errors import readable_errors
from detrex.engine.folder import make_room
from detrex.engine.log import run_logging
from detrex.engine.run import do_eval, do_train
from detrex.runtime import interruption
from detrex.runtime.distributed import barrier, is_main_process
from detrex.runtime.lock import locked_folder

logger = logging.getLogger(__name__)


def main(
    config: DictConfig,
    eval_only: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    debug: bool = False,
    resume_command: str = "",
) -> dict[str, float]:
    """Trains and evaluates, or only evaluates; call it in every process of a run.

    Args:
        config: with ``model``, ``dataloader``, ``optimizer``, ``scheduler`` and ``train``.
        eval_only: evaluate ``train.init_checkpoint`` or, with ``resume``, the last checkpoint of the run.
        resume: continue from the last checkpoint in ``train.output_dir``, if there is one.
        overwrite: delete an earlier run in ``train.output_dir``.
        debug: raise errors with their traceback.
        resume_command: the command with which the user can resume an interrupted run.

    Returns:
        The metrics of the last evaluation, empty if the config evaluates nothing.

    Raises:
        SystemExit: with code 1, after an error that the user can solve was logged; with code 75, if the run
            was asked to stop.
    """
    output_dir = Path(config.train.output_dir)
    with ExitStack() as stack:
        stack.enter_context(interruption.listening())
        stack.enter_context(readable_errors(debug))
        if is_main_process():
            stack.enter_context(locked_folder(output_dir))
            if not (eval_only or resume):
                make_room(output_dir, overwrite)
        barrier()
        console = stack.enter_context(run_logging(output_dir))
        root = OmegaConf.select(config, "dataloader.root")
        stack.enter_context(readable_errors(debug, data_root=root if isinstance(root, str) else None))
        stack.enter_context(_told_how_to_resume(resume_command))
        return do_eval(config, resume) if eval_only else do_train(config, resume, console)
    raise AssertionError("a context swallowed an error")


@contextmanager
def _told_how_to_resume(command: str) -> Iterator[None]:
    try:
        yield
    except interruption.Interrupted:
        if command and is_main_process():
            logger.info("to go on: %s", command)
        raise
