"""Signals that reach the worker processes of an iterator."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def outlast_signals() -> None:
    """Lets a worker go on when a signal is sent to all processes of a run at once.

    So do Ctrl-C, a terminal that closes and a job scheduler. The main process decides
    what is to be done; it may want to finish a step, with examples of this worker. A
    worker that dies may hold a lock of its pool, for which all others wait for ever.
    It still ends by the SIGTERM of its own pool, where the system tells who has sent a
    signal, and when the main process has ended.
    """
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None and hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_wait, args=(parent.pid,), daemon=True).start()


def _wait(parent: int | None) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(128 + signal.SIGTERM)
