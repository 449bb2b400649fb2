"""Evaluates checkpoints in a separate process while training continues."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from detrex.checkpoint import Checkpointer, load_weights
from detrex.config import ConfigError
from detrex.engine.ema import read_average
from detrex.engine.parallel import compile_modules
from detrex.engine.run_evaluation import build_evaluation
from detrex.engine.settings import prepare_device
from detrex.modeling.build import build_model
from detrex.runtime import interruption
from detrex.runtime.distributed import world_size
from detrex.runtime.processes import clean_start_method
from detrex.runtime.random_state import seed_everything

logger = logging.getLogger(__name__)

_END = 5.0  # seconds that a process has to end by itself


class EvaluationError(RuntimeError):
    """An evaluation beside training has failed; the message says how."""


class EvaluationProcess:
    """Evaluates checkpoints, one at a time, in a process that starts with the first one.

    The process has its own model, test data and evaluators, so it needs their memory once more. It ends with
    :meth:`close`, or with the process that started it.

    Args:
        config: of the run; ``train.eval_beside`` sets the device and the number of threads.

    Raises:
        ConfigError: the run has several processes, which would have to wait for one another.
    """

    def __init__(self, config: DictConfig):
        if world_size() > 1:
            raise ConfigError(
                "train.eval_beside.enabled=true is for runs of one process; with several, all of them "
                "evaluate together: set it to false"
            )
        self._config = config
        self._process: Any = None
        self._connection: Connection | None = None

    def start(self, checkpoint: Path) -> None:
        """Begins to evaluate the folder of a checkpoint; the previous evaluation must be done."""
        if self._connection is None:
            self._connection = self._begin()
        try:
            self._connection.send(str(checkpoint))
        except OSError:  # the process has ended since the last time
            self.close()
            self._connection = self._begin()
            self._connection.send(str(checkpoint))

    def is_done(self) -> bool:
        """Whether :meth:`metrics` will return without waiting."""
        return self._connection is None or self._connection.poll()

    def metrics(self) -> dict[str, float]:
        """Waits for the evaluation that was begun, and returns its metrics. A request to stop ends the wait.

        Raises:
            EvaluationError: the evaluation failed, or its process has ended.
        """
        assert self._connection is not None, "nothing was begun"
        try:
            with interruption.interruptible():
                metrics, failure = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(_END)
            code = self._process.exitcode
            self.close()
            raise EvaluationError(
                f"its process has ended (exit code {code}); it may have used too much memory"
            ) from None
        if failure is not None:
            raise EvaluationError(failure)
        return metrics

    def close(self) -> None:
        """Ends the process, whatever it is doing."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            self._process.kill()
            self._process.join(_END)

    def _begin(self) -> Connection:
        context: Any = multiprocessing.get_context(clean_start_method("detrex.engine"))
        parent_end, child_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(child_end, self._config), name="evaluation")
        self._process.start()
        child_end.close()
        return parent_end


def _serve(connection: Connection, config: DictConfig) -> None:
    """Answers each path of a checkpoint with its metrics, or with the reason why there are none."""
    for number in interruption.SIGNALS:  # signals to all processes of a terminal or job are for the run alone
        signal.signal(number, signal.SIG_IGN)
    evaluate: _Evaluator | None = None
    while True:
        try:
            path = connection.recv()
        except (EOFError, OSError):
            return
        try:
            evaluate = evaluate or _Evaluator(config)
            answer: tuple[dict[str, float], str | None] = evaluate(Path(path)), None
        except Exception as error:
            place = "".join(traceback.format_tb(error.__traceback__)[-1:]).strip()
            answer = {}, f"{type(error).__name__}: {error}\n{place}"
        try:
            connection.send(answer)
        except OSError:
            return


class _Evaluator:
    """The model and the evaluation of this process."""

    def __init__(self, config: DictConfig):
        options = config.train.eval_beside
        torch.set_num_threads(options.threads or max(1, torch.get_num_threads() // 2))
        if options.device is not None:
            config.train.device = options.device
        seed_everything(config.train.seed)
        self._ema = config.train.ema
        self._device = prepare_device(config.train)
        self._model = build_model(config.model, self._device)
        compile_modules(self._model, **config.train.compile)
        self._evaluation = build_evaluation(config, self._model)

    def __call__(self, path: Path) -> dict[str, float]:
        assert self._evaluation is not None, "training has one, so it is configured"
        checkpoint = Checkpointer(path.parent).load(path)
        load_weights(self._model, checkpoint.weights, strict=True, source=path)
        self._evaluation.average = read_average(self._model, self._ema, checkpoint)
        return self._evaluation.run()
