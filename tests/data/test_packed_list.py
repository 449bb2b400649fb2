import pickle

import pytest

from detrex.data.packed_list import PackedList

ITEMS = [{"a": [1, 2.5]}, "", None, {"b": "x" * 1000}]


def test_items_come_back_also_after_pickling():
    packed = PackedList.of(ITEMS)
    for copy in (packed, pickle.loads(pickle.dumps(packed))):
        assert len(copy) == 4 and [copy[i] for i in range(4)] == ITEMS == list(copy)


@pytest.mark.parametrize("index", [4, -1])
def test_no_such_item(index):
    with pytest.raises(IndexError):
        PackedList.of(ITEMS)[index]


def test_no_items():
    assert list(PackedList.of([])) == []
