"""Categories: order, ids with gaps, bad tables, the way to a checkpoint and back."""

import json

import pytest

from detrex.structures import Categories, distinct_colors

ENTRIES = [
    {"id": 90, "name": "sky", "isthing": 0, "color": [1, 2, 3]},
    {"id": 3, "name": "cat"},
    {"id": 17, "name": "dog", "isthing": 1},
]


def test_classes_are_ordered_by_id_and_ids_may_have_gaps():
    table = Categories.from_coco(ENTRIES)
    assert table.names == ("cat", "dog", "sky")
    assert table.ids == (3, 17, 90)
    assert table.index_of == {3: 0, 17: 1, 90: 2}
    assert table.is_thing == (True, True, False)
    assert table.thing_classes == [0, 1]
    assert table.colors[2] == (1, 2, 3)
    assert len(table) == 3


def test_ids_that_occur_twice_are_named():
    with pytest.raises(ValueError, match=r"more than once: \[3\]"):
        Categories.from_coco([*ENTRIES, {"id": 3, "name": "cow"}])


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="length"):
        Categories(names=("a", "b"), ids=(1,), is_thing=(True,), colors=((0, 0, 0),))


def test_plain_lists_and_back_through_json():
    table = Categories.from_coco(ENTRIES)
    assert Categories.from_dict(json.loads(json.dumps(table.to_dict()))) == table


def test_from_names():
    table = Categories.from_names(["a", "b"], thing=False)
    assert (table.names, table.ids, table.is_thing) == (("a", "b"), (0, 1), (False, False))


def test_generated_colors_differ_and_repeat():
    colors = distinct_colors(150)
    assert len(set(colors)) == 150
    assert colors == distinct_colors(150)
    assert all(0 <= c <= 255 for color in colors for c in color)
