"""How many items are computed together."""

import os
from pathlib import Path

import pytest
import torch

from detrex.runtime.chunking import CPU_BYTES, GPU_BYTES, available_bytes, items_in_cache, items_in_memory


@pytest.mark.parametrize(("device", "cache"), [("cpu", CPU_BYTES), ("cuda", GPU_BYTES)])
def test_as_many_as_fit_the_cache(device, cache):
    device = torch.device(device)
    assert items_in_cache(cache // 7, device) == 7
    assert items_in_cache(cache // 7 + 1, device) == 6
    assert items_in_cache(10 * cache, device) == 1  # one at a time, whatever it takes
    assert items_in_cache(0, device) == cache


def test_as_many_as_fit_the_memory():
    assert items_in_memory(2**20, 2) == 2
    assert items_in_memory(2**20 + 1, 2) == 1
    assert items_in_memory(2**20, 0.5) == 1
    assert items_in_memory(0, 1) == 2**20


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="this system tells its free memory elsewhere")
def test_free_memory():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 2**20 < available_bytes(torch.device("cpu")) <= total
