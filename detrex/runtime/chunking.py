"""How many items to compute together: the one place that knows what fits a cache or a given memory.

A step that is repeated for many items (points, masks, rows of a layer) writes intermediate results for each.
All items together may not fit the memory; and on a CPU, once they leave the cache, every operator of the step
waits for memory. One item at a time wastes time on calls, and leaves a GPU idle.
"""

from __future__ import annotations

from pathlib import Path

import torch

FLOAT_BYTES = 4
CPU_BYTES = 2**22
"""Size of an intermediate result on a CPU: 4 MiB, which stay in its cache."""
GPU_BYTES = 2**26
"""Size on other devices: 64 MiB, enough work to keep a GPU busy."""


def items_in_cache(item_bytes: int, device: torch.device) -> int:
    """How many items to compute together so that the next operator finds the last one's results in the cache.

    Args:
        item_bytes: of one item, in the largest of the intermediate results.
        device: where they are computed.

    Returns:
        At least 1.
    """
    return max(1, (CPU_BYTES if device.type == "cpu" else GPU_BYTES) // max(1, item_bytes))


def available_bytes(device: torch.device) -> int | None:
    """Memory that is free on a device, without swapping on a CPU; None where the system does not tell."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kibibytes = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return next((1024 * int(number) for number in kibibytes), None)


def items_in_memory(item_bytes: int, limit_mb: float) -> int:
    """How many items to compute together within a limit of memory.

    Args:
        item_bytes: of one item, in all intermediate results that exist at the same time.
        limit_mb: the limit, in MiB.

    Returns:
        At least 1, even if a single item exceeds the limit.
    """
    return max(1, int(limit_mb * 2**20) // max(1, item_bytes))
