"""How much memory tensors take, counted storage by storage; works on a CPU too."""

from __future__ import annotations

from typing import Any
from weakref import finalize

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """Within it, ``peak`` is the most bytes that tensors made here took together."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None) -> Any:
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            storage = tensor.untyped_storage() if isinstance(tensor, Tensor) else None
            if storage is not None and storage._cdata not in given | self.sizes.keys():
                self.sizes[storage._cdata] = storage.nbytes()
                self.live += storage.nbytes()
                finalize(storage, self._freed, storage._cdata)
        self.peak = max(self.peak, self.live)
        return result

    def _freed(self, storage: int) -> None:
        self.live -= self.sizes.pop(storage)
