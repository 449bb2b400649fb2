import multiprocessing
import os
import signal
import subprocess
from itertools import islice

import pytest
import torch

from detrex.data import (
    CocoInstances,
    DataError,
    EvalMapper,
    LargeScaleJitterMapper,
    build_test_loader,
    build_train_loader,
    loaders,
)
from detrex.data.samplers import ShuffledBatches
from detrex.runtime import distributed

SIZES = [(20, 30), (30, 20), (20, 30), (20, 30), (24, 24), (30, 20), (20, 30)]


@pytest.fixture
def dataset(coco):
    for height, width in SIZES:
        coco.add_object(coco.add_image(height, width))
    return CocoInstances(*coco.write())


def train_loader(dataset, **options):
    return build_train_loader(dataset, LargeScaleJitterMapper(32), **{"num_workers": 0, **options})


def take(loader, count):
    return list(islice(loader, count))


def fingerprint(batches):
    """Everything that is random about the batches."""
    return [
        (s["image_id"], s["image"].tolist(), s["targets"].boxes.tolist()) for batch in batches for s in batch
    ]


def image_ids(batches):
    return [[s["image_id"] for s in batch] for batch in batches]


@pytest.mark.parametrize("grouping", [False, True])
def test_workers_do_not_change_the_batches(dataset, grouping):
    options = {"total_batch_size": 3, "aspect_ratio_grouping": grouping, "seed": 5}
    alone = take(train_loader(dataset, **options), 8)
    with_workers = take(train_loader(dataset, num_workers=2, **options), 8)
    assert fingerprint(alone) == fingerprint(with_workers)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("grouping", [False, True])
def test_resumed_loading_goes_on_with_the_next_batch(dataset, workers, grouping):
    options = {"total_batch_size": 2, "aspect_ratio_grouping": grouping, "num_workers": workers}
    first = train_loader(dataset, **options)
    iterator = iter(first)
    for _ in range(5):
        next(iterator)
    state = first.state_dict()
    expected = [next(iterator) for _ in range(6)]
    second = train_loader(dataset, **options)
    second.load_state_dict(state)
    assert fingerprint(take(second, 6)) == fingerprint(expected)


def test_state_counts_what_was_taken_not_what_workers_prepared(dataset):
    loader = train_loader(dataset, total_batch_size=2, num_workers=2)
    assert loader.state_dict()["consumed_batches"] == 0
    iterator = iter(loader)
    next(iterator)
    assert loader.state_dict()["consumed_batches"] == 1


def test_a_new_iterator_goes_on_where_the_old_one_was_left(dataset):
    loader = train_loader(dataset, total_batch_size=2)
    whole = take(train_loader(dataset, total_batch_size=2), 6)
    assert fingerprint(take(loader, 2) + take(loader, 4)) == fingerprint(whole)


def test_every_epoch_has_every_image_once_in_another_order(dataset):
    ids = [i for batch in image_ids(take(train_loader(dataset, total_batch_size=7), 3)) for i in batch]
    epochs = [ids[k : k + 7] for k in range(0, 21, 7)]
    assert all(sorted(e) == list(range(1, 8)) for e in epochs)
    assert len({tuple(e) for e in epochs}) == 3


def test_seeds_differ(dataset):
    a, b = (take(train_loader(dataset, total_batch_size=7, seed=s), 1) for s in (0, 1))
    assert fingerprint(a) != fingerprint(b)


def test_the_same_image_is_augmented_differently_each_time(dataset):
    batches = take(train_loader(dataset, total_batch_size=7), 4)
    boxes = [str(s["targets"].boxes) for batch in batches for s in batch if s["image_id"] == 1]
    assert len(boxes) == 4 and len(set(boxes)) > 1


def test_the_training_process_keeps_its_own_random_numbers(dataset):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    take(train_loader(dataset, total_batch_size=2), 3)
    take(build_test_loader(dataset, EvalMapper(20), num_workers=0), 3)
    assert torch.equal(torch.rand(3), expected)


def test_no_other_generator_is_seeded(dataset, monkeypatch):
    def seeded(_):
        raise AssertionError("a GPU's generator was seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded)
    take(train_loader(dataset, total_batch_size=2), 1)


def test_data_set_smaller_than_a_batch(dataset):
    batches = take(train_loader(dataset, total_batch_size=16), 2)
    assert [len(b) for b in batches] == [16, 16]


def test_grouped_batches_do_not_mix_upright_and_wide(dataset):
    loader = build_train_loader(dataset, EvalMapper(20), 3, num_workers=0, aspect_ratio_grouping=True)
    seen = set()
    for batch in take(loader, 14):
        kinds = {s["height"] > s["width"] for s in batch}
        assert len(kinds) == 1
        seen |= {s["image_id"] for s in batch}
    assert seen == set(range(1, 8))


@pytest.mark.parametrize("groups", [None, [0, 1, 0, 0, 0, 1, 0, 1, 1, 0]])
def test_processes_take_different_parts_of_the_same_draws(groups):
    shards = [ShuffledBatches(10, 2, seed=0, rank=r, world_size=3, groups=groups) for r in range(3)]
    taken = [list(islice(shard, 20)) for shard in shards]
    whole = list(islice(ShuffledBatches(10, 2, seed=0, groups=groups), 60))
    assert [b for step in zip(*taken, strict=True) for b in step] == whole
    numbers = [draw.number for b in whole for draw in b]
    assert len(set(numbers)) == len(numbers)


def test_the_batch_is_split_over_processes(dataset, monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    batches = take(train_loader(dataset, total_batch_size=4), 2)
    assert [len(b) for b in batches] == [2, 2]
    with pytest.raises(ValueError, match="total_batch_size=5 cannot be split evenly over 2"):
        train_loader(dataset, total_batch_size=5)


def test_another_batch_size_on_resume_is_reported(dataset, caplog):
    state = train_loader(dataset, total_batch_size=2).state_dict()
    train_loader(dataset, total_batch_size=3).load_state_dict(state)
    assert "batch_size 2 -> 3" in caplog.text


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_stops_training_and_is_named(dataset, workers):
    (dataset.images / "3.png").write_text("no image")
    with pytest.raises(DataError, match=r"3.png \(image id 3\) cannot be decoded"):
        take(train_loader(dataset, total_batch_size=7, num_workers=workers), 1)


def test_an_augmentation_that_fails_names_the_image(dataset):
    def broken(_):
        raise KeyError("colour")

    with pytest.raises(DataError, match=r"1.png \(image id 1\) could not be transformed: KeyError: 'colour'"):
        take(build_test_loader(dataset, broken, num_workers=0), 1)


def test_nothing_to_train_on(coco):
    coco.add_image()
    with pytest.raises(DataError, match="is empty"):
        train_loader(CocoInstances(*coco.write(), skip_empty=True))


def test_test_loader_gives_every_image_once_and_can_be_repeated(dataset):
    loader = build_test_loader(dataset, EvalMapper(20), batch_size=3, num_workers=0)
    for _ in range(2):
        assert image_ids(loader) == [[1, 2, 3], [4, 5, 6], [7]]
    assert len(loader) == 3 and loader.dataset is dataset


def test_test_images_are_split_over_processes_without_duplicates(dataset, monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        loader = build_test_loader(dataset, EvalMapper(20), batch_size=2, num_workers=0)
        shares.append([i for batch in image_ids(loader) for i in batch])
    assert sorted(i for share in shares for i in share) == list(range(1, 8))
    assert [len(s) for s in shares] == [3, 2, 2]


@pytest.mark.parametrize("train", [True, False])
def test_free_memory_goes_back_before_workers_share_it(dataset, monkeypatch, train):
    order, fork = [], os.fork
    monkeypatch.setattr(loaders, "release_freed_memory", lambda: order.append("released"))
    monkeypatch.setattr(os, "fork", lambda: order.append("forked") or fork())
    mapper = LargeScaleJitterMapper(32) if train else EvalMapper(20)
    next(iter((build_train_loader if train else build_test_loader)(dataset, mapper, num_workers=1)))
    assert order[:2] == ["released", "forked"]


def test_batch_of_images_without_objects(coco):
    for _ in range(3):
        coco.add_image()
    batch = take(train_loader(CocoInstances(*coco.write()), total_batch_size=3), 1)[0]
    assert [s["targets"].masks.shape for s in batch] == [(0, 32, 32)] * 3


def test_workers_leave_signals_to_the_training_process(dataset):
    loader = train_loader(dataset, total_batch_size=1, num_workers=2)
    others = multiprocessing.active_children()
    batches = iter(loader)
    for _ in range(2):  # one from each
        next(batches)
    workers = [child for child in multiprocessing.active_children() if child not in others]
    for worker in workers:
        for name in ("TERM", "USR1"):
            subprocess.run(["kill", "-s", name, str(worker.pid)], check=True)
    for _ in range(6):  # more than were ready
        next(batches)
    assert len(workers) == 2 and all(worker.is_alive() for worker in workers)
    # When Python ends, after an error too, it waits for workers that it has sent this.
    for worker in workers:
        worker.terminate()
        worker.join(timeout=60)
    assert not any(worker.is_alive() for worker in workers)


@pytest.mark.parametrize(
    "missing", [["sigwaitinfo"], ["sigwaitinfo", "pthread_sigmask"]], ids=["macOS", "Windows"]
)
def test_workers_start_where_signals_cannot_be_waited_for(dataset, monkeypatch, missing):
    for name in missing:
        monkeypatch.delattr(signal, name)
    before = [s["image_id"] for batch in take(train_loader(dataset, num_workers=0), 2) for s in batch]
    assert [s["image_id"] for batch in take(train_loader(dataset, num_workers=1), 2) for s in batch] == before
