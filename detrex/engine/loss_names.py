"""Which of many losses are shown."""

from __future__ import annotations

from collections.abc import Iterable


def main_names(names: Iterable[str]) -> list[str]:
    """Of names like ``loss_ce``, ``loss_ce_0`` and ``loss_ce_dn``, only the first: the final layer's."""
    names = list(names)
    return [n for n in names if not any(n.startswith(f"{other}_") for other in names)]
