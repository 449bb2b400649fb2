"""How to start processes that share nothing with the process that starts them."""

from __future__ import annotations

import multiprocessing


def clean_start_method(*modules: str) -> str:
    """A start method of :mod:`multiprocessing` whose processes inherit no GPU state, thread or lock.

    Where the system allows, processes are forks of a server that has imported ``modules`` once for all of
    them, but has not used CUDA; all later processes come from the same server. Spawned processes would each
    import everything anew: eight seconds of processor time for this package.

    Args:
        modules: what the processes need, by name.

    Returns:
        ``forkserver`` or ``spawn``.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    multiprocessing.set_forkserver_preload(["detrex.runtime.process_server", *modules])
    return "forkserver"
