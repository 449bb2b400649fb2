"""Loaders, which return batches of samples for this process, read and augmented by worker processes."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from detrex.data.errors import DataError
from detrex.data.image_dataset import ImageDataset, OneClass, Record
from detrex.data.mappers import TrainingMapper
from detrex.data.samplers import Draw, ShuffledBatches, mixed_seed
from detrex.runtime import distributed
from detrex.runtime.allocation import release_freed_memory
from detrex.runtime.interruption import SIGNALS
from detrex.structures import Sample

logger = logging.getLogger(__name__)

Mapper = Callable[[Record], Sample]
_AUGMENTATION = 1  # separates the seeds of samples from those of permutations


class TrainLoader:
    """Endless batches (lists) of augmented samples, which are the same with and without interruption.

    The content of a batch depends only on the seed and the number of the batch, not on the number of workers
    or on other users of random numbers. To continue a run, restore :meth:`state_dict`.

    Attributes:
        dataset: the data set the samples come from.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        mapper: Mapper,
        batches: ShuffledBatches,
        num_workers: int,
        pin_memory: bool,
    ):
        self.dataset = dataset
        self._batches = batches
        self._consumed = 0
        self._loader = DataLoader(
            _AugmentedDraws(dataset, mapper, batches.seed),
            batch_sampler=batches,
            num_workers=num_workers,
            collate_fn=_as_list,
            worker_init_fn=_obey_the_trainer_alone,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # otherwise, every new iterator would draw from the global one
        )

    def __iter__(self) -> Iterator[list[Sample]]:
        self._batches.start = self._consumed
        for samples in _started(self._loader):
            # Counted here, because workers prepare batches ahead.
            self._consumed += 1
            yield samples

    def state_dict(self) -> dict[str, Any]:
        """The number of batches taken, and the settings without which that number has no meaning."""
        return {"consumed_batches": self._consumed, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues after the batches already taken; call it before iterating.

        With another data set, batch size or number of processes, the order of images changes; that is
        allowed, with a warning.
        """
        changed = [f"{k} {state.get(k)} -> {v}" for k, v in self._identity().items() if state.get(k) != v]
        if changed:
            logger.warning("Data loading cannot continue exactly, as it changed: %s", ", ".join(changed))
        self._consumed = int(state["consumed_batches"])

    def _identity(self) -> dict[str, int]:
        batches = self._batches
        return {
            "seed": batches.seed,
            "images": batches.length,
            "batch_size": batches.batch_size,
            "world_size": batches.world_size,
        }


class JoinedLoader:
    """Joins the batches of several loaders: each batch holds one of every loader, the first loader's first.

    Attributes:
        dataset: the data set of the first loader.
    """

    def __init__(self, first: TrainLoader, others: Mapping[str, TrainLoader]):
        """
        Args:
            first: the main loader.
            others: further loaders, whose names become the ``vocabulary`` of their samples.
        """
        self.dataset, self._first, self._others = first.dataset, first, dict(others)

    def __iter__(self) -> Iterator[list[Sample]]:
        for batches in zip(self._first, *self._others.values(), strict=True):
            named = zip(self._others, batches[1:], strict=True)
            yield [*batches[0], *(Sample(**s, vocabulary=name) for name, batch in named for s in batch)]

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`TrainLoader.state_dict`; includes the states of the other loaders."""
        others = {name: loader.state_dict() for name, loader in self._others.items()}
        return {**self._first.state_dict(), "joined": others}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See :meth:`TrainLoader.load_state_dict`."""
        self._first.load_state_dict(state)
        for name, loader in self._others.items():
            if name in state.get("joined", {}):
                loader.load_state_dict(state["joined"][name])
            else:
                logger.warning("Data loading cannot continue exactly: the batches of '%s' are new", name)


class TestLoader:
    """This process's share of all images, each once, in batches (lists) of samples.

    Attributes:
        dataset: the data set the samples come from.
    """

    __test__ = False  # pytest would take this class for a test because of its name

    def __init__(self, dataset: ImageDataset, mapper: Mapper, batch_size: int, num_workers: int):
        self.dataset = dataset
        indices = dataset.share(distributed.rank(), distributed.world_size())
        self._loader = DataLoader(
            _Mapped(dataset, mapper),
            sampler=indices,
            batch_size=batch_size,
            num_workers=num_workers,
            collate_fn=_as_list,
            worker_init_fn=_obey_the_trainer_alone,
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[Sample]]:
        return _started(self._loader)


def build_train_loader(
    dataset: ImageDataset,
    mapper: Mapper,
    total_batch_size: int = 16,
    num_workers: int = 4,
    seed: int = 0,
    aspect_ratio_grouping: bool = False,
    pin_memory: bool = False,
    joined: Mapping[str, TrainLoader] | None = None,
    one_class: bool = False,
) -> TrainLoader | JoinedLoader:
    """Endless shuffled batches for training.

    Args:
        dataset: a data set of this package.
        mapper: augments; see :mod:`detrex.data.mappers`.
        total_batch_size: images per step over all processes. The data set may have fewer.
        num_workers: worker processes for each training process; 0 loads in the training process itself.
        seed: of order and augmentation, not negative.
        aspect_ratio_grouping: whether upright and wide images are in separate batches, which saves padding if
            images are not resized to one size.
        pin_memory: whether to put images into page-locked memory, from which they reach a GPU faster.
        joined: loaders of further data sets; every batch then includes a batch of each of them. Their names
            are those of a model's vocabularies, see :class:`~detrex.modeling.text.TextDetector`. The length
            of an epoch is that of ``dataset``.
        one_class: whether all objects get one class, "object", for models that need no classes.

    Raises:
        ValueError: the batch cannot be split evenly over the processes.
        DataError: the data set is empty.
    """
    dataset = OneClass(dataset) if one_class else dataset
    world_size = distributed.world_size()
    if total_batch_size < 1 or total_batch_size % world_size:
        raise ValueError(
            f"total_batch_size={total_batch_size} cannot be split evenly over {world_size} processes: take a "
            "multiple of their number"
        )
    if not len(dataset):
        raise DataError(f"The data set of images in {dataset.images} is empty: there is nothing to train on.")
    batches = ShuffledBatches(
        len(dataset),
        total_batch_size // world_size,
        seed,
        rank=distributed.rank(),
        world_size=world_size,
        groups=_upright(dataset) if aspect_ratio_grouping else None,
    )
    loader = TrainLoader(dataset, mapper, batches, num_workers, pin_memory)
    return JoinedLoader(loader, joined) if joined else loader


def build_test_loader(
    dataset: ImageDataset, mapper: Mapper, batch_size: int = 1, num_workers: int = 4
) -> TestLoader:
    """All images once, in order, split over the processes without duplicates.

    Args:
        dataset: a data set of this package.
        mapper: see :class:`detrex.data.EvalMapper`.
        batch_size: images per step of this process.
        num_workers: worker processes for each process; 0 loads in the process itself.
    """
    return TestLoader(dataset, mapper, batch_size, num_workers)


def _upright(dataset: ImageDataset) -> list[int]:
    """For each image, 1 if it is taller than wide, else 0."""
    sizes = (dataset.image_size(i) for i in range(len(dataset)))
    return [int(height > width) for height, width in sizes]


class _Mapped(Dataset):
    """A data set's records, mapped to samples."""

    def __init__(self, dataset: ImageDataset, mapper: Mapper):
        self.dataset, self.mapper = dataset, mapper

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        # Some mappers draw masks themselves, after moving them.
        drawn = not isinstance(self.mapper, TrainingMapper)
        record = self.dataset.record(index, draw_masks=drawn)
        try:
            return self.mapper(record)
        except Exception as error:
            raise DataError(
                f"Image {self.dataset.images / record['file_name']} (image id {record['image_id']}) could "
                f"not be transformed: {type(error).__name__}: {error}"
            ) from error


class _AugmentedDraws(Dataset):
    """Samples for draws; random numbers of the augmentation depend only on the seed and the draw."""

    def __init__(self, dataset: ImageDataset, mapper: Mapper, seed: int):
        self.samples, self.seed = _Mapped(dataset, mapper), seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, draw: Draw) -> Sample:
        # Without workers, this runs in the training process, whose random numbers must not be disturbed.
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would seed the GPUs' generators as well.
            torch.default_generator.manual_seed(mixed_seed(self.seed, _AUGMENTATION, draw.number))
            return self.samples[draw.image]


def _started(loader: DataLoader) -> Iterator[list[Sample]]:
    """The batches of ``loader``; its worker processes, if any, start now."""
    if not loader.num_workers:
        return iter(loader)
    release_freed_memory()
    with _signals_blocked():
        return iter(loader)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Blocks requests to stop in this thread, and in processes and threads that start inside the block.

    Some libraries start threads in each new process before any of our code runs in it. If one of these
    threads received a signal, the process would end.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _obey_the_trainer_alone(_worker: int) -> None:
    """Makes a worker ignore requests to stop, except SIGTERM from the training process.

    Batch systems and terminals send requests to all processes; the training process acts on them, and still
    needs its workers until it ends.
    """
    if not hasattr(signal, "sigwaitinfo"):  # Windows and macOS
        return
    trainer = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # needed if a server started this process

    def listen() -> None:
        while True:
            received = signal.sigwaitinfo(SIGNALS)  # no other function tells who sent a signal
            if received.si_pid == trainer and received.si_signo == signal.SIGTERM:
                os._exit(0)

    threading.Thread(target=listen, daemon=True).start()


def _as_list(samples: list[Sample]) -> list[Sample]:
    return samples
