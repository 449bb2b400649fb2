"""Makes the server that imports it, and forks the processes of a run, ignore requests to stop.

Batch systems and terminals send such requests to all processes. Without this server the exit codes of the
forked processes would be lost, so it stays until the process that started it has ended.
"""

from __future__ import annotations

import signal
import sys

from detrex.runtime.interruption import SIGNALS

if any("multiprocessing.forkserver" in argument for argument in sys.orig_argv):
    for _number in SIGNALS:
        signal.signal(_number, signal.SIG_IGN)
