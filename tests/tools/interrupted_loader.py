"""A loader in whose run the batch system wants the machine back."""

import os
from pathlib import Path

from detrex.runtime.distributed import rank
from tests.engine import dummy


class InterruptedLoader(dummy.TrainLoader):
    """Signals its own process at the fourth batch, as Slurm does with all of them; once in ``folder``."""

    def __init__(self, dataset: dummy.Dataset, folder: str, number: int, **options):
        super().__init__(dataset, **options)
        self._mark = Path(folder, f"signalled_{rank()}")
        self._number = number

    def batch(self, position: int) -> list[dict]:
        if position == 3 and not self._mark.exists():
            self._mark.touch()
            os.kill(os.getpid(), self._number)
        return super().batch(position)
