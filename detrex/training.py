"""Training in one call: ``train(config, ...)`` does the same as ``detrex train``, and returns its results."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from detrex.cli.own_data import choose
from detrex.cli.train import main
from detrex.config import LazyConfig
from detrex.config.override_text import overrides_of
from detrex.config.untrusted import load_config_file
from detrex.engine.launch import launch
from detrex.runtime.interruption import Interrupted

if TYPE_CHECKING:
    from detrex.predict import Predictor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedRun:
    """A run that has ended.

    Attributes:
        folder: with ``report.html``, ``model_final.safetensors`` and all other files of the run.
        metrics: of the last evaluation by name, such as ``segm/AP``; empty if the config evaluates nothing.
    """

    folder: Path
    metrics: Mapping[str, float]

    def load(self, **options: Any) -> Predictor:
        """The trained model.

        Args:
            options: of :func:`detrex.load`.
        """
        from detrex.predict import load

        return load(self.folder, **options)


def train(
    config: str | Path | DictConfig | None = None,
    *overrides: str,
    data: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    num_gpus: int = 1,
    trust_code: bool = False,
    **settings: Any,
) -> TrainedRun:
    """Trains as a config says, evaluates, and saves the run in ``train.output_dir``.

    These are the same::

        train("maskdino_custom_instance", "dataloader.root=mydata", "train.max_iter=500")
        train("maskdino_custom_instance", dataloader={"root": "mydata"}, train={"max_iter": 500})

    ``train(data="mydata")`` chooses config and settings, like ``detrex train --data mydata``.

    Ctrl-C, or interrupting the cell of a notebook, saves a checkpoint first; ``resume=True`` continues from
    it.

    Args:
        config: the name of a config of this package (``detrex configs`` lists them), a file, or a config;
            None with ``data``.
        overrides: changes to the config, as on the command line.
        data: a folder with images and COCO files, or one such file; see :func:`detrex.cli.own_data.choose`.
        resume: continue from the last checkpoint in ``train.output_dir``, if there is one.
        overwrite: delete an earlier run in ``train.output_dir``.
        num_gpus: processes that train together: one per GPU, or on the CPU.
        trust_code: allow a saved config beside weights to name any code; see ``docs/security.md``.
        settings: changes to the config as nested dicts of Python values, made after ``overrides``.

    Raises:
        ConfigError: there is no such config, or a change does not fit it.
        FileExistsError: ``train.output_dir`` has an earlier run, and neither ``resume`` nor ``overwrite`` is
            set.
        DataError, CheckpointError, FileNotFoundError, ValueError: data, weights or values are wrong.
        KeyboardInterrupt: training was interrupted; a checkpoint was saved.
        SystemExit: one of several processes failed after it logged the reason.
    """
    changes = [*overrides, *overrides_of(settings)]
    if (config is None) == (data is None):
        raise ValueError("train() takes a config, or data= for which one is chosen")
    if data is not None:
        choice = choose(Path(data), changes)
        logger.info("%s\nThe same as:\n%s", "\n".join(choice.words), choice.command(changes))
        config, changes = choice.config, [*choice.overrides, *changes]
    assert config is not None
    if isinstance(config, DictConfig):
        config = LazyConfig.apply_overrides(config, changes)
    else:
        config = load_config_file(config, changes, trust_code)
    folder = Path(config.train.output_dir)
    arguments = (config, False, resume, overwrite, True)
    try:
        if num_gpus == 1:
            return TrainedRun(folder, main(*arguments))
        launch(main, arguments, num_gpus=num_gpus, timeout=config.train.process_timeout)
    except Interrupted:
        raise KeyboardInterrupt(f"stopped; resume=True goes on from the checkpoint in {folder}") from None
    return TrainedRun(folder, _metrics(folder / "results.json"))


def _metrics(path: Path) -> dict[str, float]:
    """The metrics that an evaluation has written; empty without an evaluation."""
    if not path.is_file():
        return {}
    written = json.loads(path.read_text(encoding="utf-8"))["metrics"]
    return {name: math.nan if value is None else value for name, value in written.items()}
