"""The annotations of a large file are held once: workers read them without growing."""

import json
import tracemalloc
from functools import partial

import pytest

from detrex.data import CocoInstances
from tests.data.scale import Sizes, epoch_in_workers, write_coco

IMAGES, OBJECTS = 2000, 20_000
# Megabytes; the texts are about 8, and as Python's objects about 40. A worker that is forked from the process
# of many tests grows by 3 as it touches what that holds.
GROWTH = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scale")
    write_coco(folder, IMAGES, OBJECTS)
    return folder


@pytest.fixture
def opened(folder, monkeypatch):
    monkeypatch.setenv("DETREX_CACHE", str(folder / "cache"))
    return CocoInstances(folder / "images", folder / "instances.json")


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_worker_does_not_grow_over_an_epoch(opened, start_method):
    dataset = Sizes(partial(opened.file.objects, masks=True), len(opened))
    for early, late in epoch_in_workers(dataset, start_method, workers=1):
        assert late.private - early.private < GROWTH and late.shared - early.shared < GROWTH


def test_it_would_show_if_it_did(folder):
    """A plain list of the same annotations is copied into a forked worker as it reads them."""
    by_id = {}
    for annotation in json.loads((folder / "instances.json").read_bytes())["annotations"]:
        by_id.setdefault(annotation["image_id"], []).append(annotation)
    entries = list(by_id.values())
    ((early, late),) = epoch_in_workers(Touching(entries.__getitem__, len(entries)), "fork", workers=1)
    assert late.private - early.private > GROWTH


class Touching(Sizes):
    """Uses each number, as a transform would."""

    def __getitem__(self, index):
        return sum(len([list(polygon) for polygon in a["segmentation"]]) for a in self.read(index))


@pytest.mark.parametrize("start", ["first", "second"])
def test_opening_takes_a_fraction_of_the_file(folder, monkeypatch, tmp_path, start):
    size = (folder / "instances.json").stat().st_size
    monkeypatch.setenv("DETREX_CACHE", str(tmp_path))
    write_coco(tmp_path / "small", 20, 200)  # what is imported at the first opening is no part of the data
    CocoInstances(tmp_path / "small/images", tmp_path / "small/instances.json")
    if start == "second":
        CocoInstances(folder / "images", folder / "instances.json")
    tracemalloc.start()
    dataset = CocoInstances(folder / "images", folder / "instances.json")
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(dataset) == IMAGES
    assert sum(len(dataset.file.objects(i, masks=True)) for i in range(IMAGES)) == OBJECTS
    assert held < size / 10 and peak < size / 2
