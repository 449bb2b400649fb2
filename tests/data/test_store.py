"""Records, and the file that holds them."""

import io
import pickle

import numpy as np
import pytest

from detrex.data.coco.store import DamagedStoreError, Records, Store, StoreWriter

ITEMS = [{"a": [1, 2.5]}, {}, {"b": "x" * 1000}, {"c": float("inf")}]


def test_items_come_back_also_after_pickling():
    records = Records.in_memory(ITEMS, dict)
    for copy in (records, pickle.loads(pickle.dumps(records))):
        assert len(copy) == 4 and [copy[i] for i in range(4)] == ITEMS == list(copy)
    assert list(records.part(1, 3, dict)) == ITEMS[1:3]
    assert list(Records.in_memory([], dict)) == []


@pytest.mark.parametrize("index", [4, -1])
def test_no_such_item(index):
    with pytest.raises(IndexError):
        Records.in_memory(ITEMS, dict)[index]


def written() -> bytes:
    file = io.BytesIO()
    writer = StoreWriter(file)
    for item in ITEMS:
        writer.add(item)
    writer.close({"text": "é"}, {"sizes": np.arange(6, dtype=np.int32).reshape(2, 3)})
    return file.getvalue()


def test_a_store_holds_records_arrays_and_a_header():
    store = Store(np.frombuffer(written(), np.uint8))
    assert list(store.records(0, 4, dict)) == ITEMS and list(store.records(2, 3, dict)) == ITEMS[2:3]
    assert store.header == {"text": "é"}
    assert (
        store.arrays["sizes"].tolist() == [[0, 1, 2], [3, 4, 5]] and store.arrays["sizes"].dtype == np.int32
    )


def test_every_changed_byte_and_every_cut_is_found():
    data = written()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x55
        with pytest.raises(DamagedStoreError):
            Store(np.frombuffer(changed, np.uint8))
        with pytest.raises(DamagedStoreError):
            Store(np.frombuffer(data[:place], np.uint8))
