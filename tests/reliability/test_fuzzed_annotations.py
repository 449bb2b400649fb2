"""Damaged and hostile annotation and result files: read, or refused with an error that names the file.

No other exception, no hang (the time limit of every test), and no more than 1 GiB of memory.
"""

import copy
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detrex.data import CocoInstances, CocoPanoptic, DataError
from detrex.evaluation import CocoEvaluator, PanopticEvaluator
from detrex.evaluation.saved_results import read_saved_results
from detrex.structures import Categories, encode_masks
from detrex.structures.panoptic import rgb_from_ids
from tests.reliability.fuzzing import (
    FEW,
    MANY,
    REASONABLE,
    edited,
    edits,
    within_a_gibibyte,
)

amounts = pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
HEIGHT, WIDTH = 20, 30
NAMES = ("a.png", "b.png")
CATEGORIES = [{"id": 1, "name": "cat", "isthing": 1}, {"id": 7, "name": "sky", "isthing": 0}]

ODD = st.one_of(
    st.sampled_from(
        [None, True, False, "", "x", "7", "../../etc/passwd", "/etc/passwd", "a\\b.png", "\ud800"]
    ),
    st.sampled_from([0, -1, 1, 2, 7, 10**6, 10**12, 10**30, -(10**30), 0.5, 1e7, -1e7, 1e308, -0.0]),
    st.sampled_from([math.nan, math.inf, -math.inf]),
    st.sampled_from([[], {}, [[]], [{}], {"": None}, [1, 2, 3], [[1, 2, 3]], [math.nan] * 8, "9" * 5000]),
    st.sampled_from(
        [{"size": [HEIGHT, WIDTH], "counts": c} for c in ([5], [-5, 605], "P", "", [10**12], None)]
    ),
    st.lists(st.floats(-1e9, 1e9), max_size=12),
    st.text(max_size=12),
)
CHANGES = st.lists(
    st.tuples(st.sampled_from(["set", "drop", "repeat", "rename"]), st.integers(0, 10**6), ODD),
    min_size=1,
    max_size=4,
)


def changed(content, changes):
    """Values replaced, left out, given twice or under another key, by their number."""
    content = copy.deepcopy(content)
    for kind, number, value in changes:
        places = list(containers(content))
        if not places:
            return copy.deepcopy(value)
        container, key = places[number % len(places)]
        if kind == "set":
            container[key] = copy.deepcopy(value)
        elif kind == "drop":
            del container[key]
        elif kind == "repeat" and isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        elif kind == "rename" and isinstance(container, dict):
            container[str(value)] = container.pop(key)
    return content


def containers(value):
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from containers(value[key])


class Files:
    """Two images with objects of all forms, as annotation files of each kind and as results."""

    def __init__(self, folder):
        self.folder, self.images = folder, folder / "images"
        self.images.mkdir()
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[3:9, 4:15] = True
        (rle,) = encode_masks(torch.from_numpy(mask)[None])
        ids = np.where(mask, 258, 3).astype(np.int64)
        for name in NAMES:
            Image.fromarray(np.full((HEIGHT, WIDTH, 3), 99, np.uint8)).save(self.images / name)
            Image.fromarray(rgb_from_ids(ids)).save(folder / name)
        images = [
            {"id": i, "file_name": name, "height": HEIGHT, "width": WIDTH} for i, name in enumerate(NAMES, 1)
        ]
        shapes = [[[4, 2, 14, 2, 14, 10, 4, 10]], rle, {"size": [HEIGHT, WIDTH], "counts": [30, 50, 520]}]
        objects = [
            {"id": k, "image_id": 1 + k % 2, "category_id": 1, "segmentation": shape, "bbox": [4, 2, 10, 8]}
            for k, shape in enumerate(shapes, 1)
        ]
        crowds = [{**objects[1], "id": 9, "iscrowd": 1, "area": 66.0}]
        segments = [{"id": 258, "category_id": 1, "iscrowd": 0}, {"id": 3, "category_id": 7, "iscrowd": 0}]
        maps = [{"image_id": i, "file_name": n, "segments_info": segments} for i, n in enumerate(NAMES, 1)]
        results = [
            {**{k: o[k] for k in ("image_id", "category_id", "bbox", "segmentation")}, "score": 0.5}
            for o in objects[1:]
        ]
        common = {"images": images, "categories": CATEGORIES}
        self.contents = {
            "instances": {**common, "annotations": objects + crowds},
            "panoptic": {**common, "annotations": maps},
            "results": results,
        }

    def use(self, kind, path):
        """All that training and evaluation do with a file before a model is asked."""
        if kind == "instances":
            CocoEvaluator(path, images=self.images)
            dataset = CocoInstances(self.images, path)
        elif kind == "panoptic":
            PanopticEvaluator(path, self.folder)
            dataset = CocoPanoptic(self.images, path, self.folder)
        else:
            found = read_saved_results(path, Categories.from_coco(CATEGORIES), dict(enumerate(NAMES, 1)))
            for image_id in found.image_ids:
                found.read(image_id, HEIGHT, WIDTH)
            return
        dataset.counts()
        for k in range(len(dataset)):
            record = dataset[k]
            assert record["targets"].boxes.isfinite().all()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("annotations"))


def check_outcome(files, kind, path):
    try:
        files.use(kind, path)
    except DataError as error:
        assert str(path) in str(error) or str(files.folder) in str(error), str(error)


@pytest.mark.timeout(3600)
@amounts
@pytest.mark.parametrize("kind", ["instances", "panoptic", "results"])
def test_changed_values(files, tmp_path, monkeypatch, kind, examples):
    monkeypatch.setenv("DETREX_CACHE", str(tmp_path / "cache"))
    path = tmp_path / f"{kind}.json"
    path.write_text(json.dumps(files.contents[kind]))
    files.use(kind, path)

    @settings(REASONABLE, max_examples=examples)
    @given(CHANGES)
    def check(changes):
        path.write_text(json.dumps(changed(files.contents[kind], changes)))
        check_outcome(files, kind, path)

    with within_a_gibibyte():
        check()


@pytest.mark.timeout(3600)
@amounts
@pytest.mark.parametrize("kind", ["instances", "panoptic", "results"])
def test_changed_bytes(files, tmp_path, monkeypatch, kind, examples):
    monkeypatch.setenv("DETREX_CACHE", str(tmp_path / "cache"))
    path = tmp_path / f"{kind}.json"
    original = json.dumps(files.contents[kind]).encode()

    @settings(REASONABLE, max_examples=examples)
    @given(edits)
    def check(changes):
        path.write_bytes(edited(original, changes))
        check_outcome(files, kind, path)

    with within_a_gibibyte():
        check()
