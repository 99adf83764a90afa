from __future__ import annotations

import contextlib
import functools
import os
import secrets
import select
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import chainer

from chainer_mmix.links.probe import THREAD
from chainer_mmix.training.multinode.ranks import Ranks

_BEAT, _BYE = b".", b"q"
_EVERY = 0.5  # seconds between two beats
# Where a thread is that compiles a kernel, which is kept for the next time.
_COMPILERS = tuple(map(os.path.normpath, ("numba/core", "cupy/cuda/compiler.py")))
# A step may take so many times as long as the longest one before.
_TIMES = 10
_WAITS = (
    *("multi_node_mean_grad", "bcast_data"),
    *("_multi_node_mean", "_multi_node_mean_nccl"),
)


def _hold_pmi() -> subprocess.Popen | None:
    """Lets the connection to MPICH's launcher outlive this process by some seconds.

    When it is closed too early, the launcher kills the other ranks and ends with the
    code of the dead one, which may be 0. So they have the time to end all.
    """
    fd = os.environ.get("PMI_FD", "")
    if not fd.isdigit():
        return None
    return subprocess.Popen(
        ["/bin/sh", "-c", "read _ || sleep 5"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[int(fd)],
        start_new_session=True,
    )


class Watchdog:
    """Ends all ranks when one of them no longer answers.

    Twice a second, a thread of each rank sends a byte to the first rank, and the first
    rank sends one to each, by TCP. A rank whose connection is closed is dead; if it is
    silent for too long, the process or its machine has stopped. Each rank also watches
    itself: if a step, without the time spent waiting for others, takes much longer than
    any before, it prints where it is. In each of these cases, MPI ends the job with
    exit code 1.

    If all processes are suspended and continue later, as a job scheduler may do,
    nothing happens.

    Args:
        ranks (Ranks): The ranks, all of which must make a Watchdog at the same time.
        patience (float): Seconds of silence that end the job. A step may take as long,
            or ten times as long as the longest step so far; the first step may take ten
            times ``patience``, and the time to compile does not count. 0 for no
            watchdog. The default is 6.
    """

    def __init__(self, ranks: Ranks, patience: float = 6.0) -> None:
        self._ranks = ranks
        self._patience = patience
        self._main = threading.get_ident()
        self._since: float | None = None
        self._limit, self._is_first = _TIMES * patience, True
        self._closing = threading.Event()
        self._peers: dict[socket.socket, int] = {}
        if ranks.communicator is None or not patience:
            return
        self._connect(ranks.communicator)
        self._holder = _hold_pmi()
        self._thread = threading.Thread(target=self._run, name=THREAD, daemon=True)
        self._thread.start()

    def watch(self, trainer: chainer.training.Trainer) -> None:
        """Also watches the steps of a Trainer from now on.

        Args:
            trainer (~chainer.training.Trainer): Its optimizer must be a multi-node
                optimizer with the communicator of the ranks.
        """
        communicator, updater = self._ranks.communicator, trainer.updater
        if not self._peers:
            return
        for name in _WAITS:
            if hasattr(communicator, name):
                wait = getattr(communicator, name)
                setattr(communicator, name, self._without(wait))
        update = updater.update

        def timed() -> None:
            with self._timed():
                update()

        updater.update = timed

    def close(self) -> None:
        """Ends the watch, and tells the others that this rank has finished."""
        if self._peers and not self._closing.is_set():
            self._closing.set()
            self._thread.join()
            for peer in self._peers:
                with contextlib.suppress(OSError):
                    peer.send(_BYE)
                    peer.close()
            if self._holder is not None:
                self._holder.communicate(b"\n")

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._stop_clock()

    def _stop_clock(self) -> bool:
        since, self._since = self._since, None
        if since is None:
            return False
        if self._is_first:
            self._limit, self._is_first = self._patience, False
        else:
            self._limit = max(self._limit, _TIMES * (time.monotonic() - since))
        return True

    def _without(self, wait: Any) -> Any:
        @functools.wraps(wait)
        def waiting(*args: Any, **kwargs: Any) -> Any:
            was_timed = self._stop_clock()
            try:
                return wait(*args, **kwargs)
            finally:
                if was_timed:
                    self._since = time.monotonic()

        waiting.only_waits = waiting  # type: ignore[attr-defined]
        return waiting

    def _connect(self, communicator: Any) -> None:
        local = communicator.intra_size == communicator.size
        if communicator.rank == 0:
            token = secrets.token_bytes(16)
            server = socket.create_server(("127.0.0.1" if local else "", 0))
            host = "127.0.0.1" if local else socket.gethostname()
            communicator.bcast_obj((host, server.getsockname()[1], token))
            server.settimeout(30)
            while len(self._peers) < communicator.size - 1:
                peer, _ = server.accept()
                peer.settimeout(30)
                greeting = peer.recv(20, socket.MSG_WAITALL)
                if greeting[:16] == token:
                    self._peers[peer] = int.from_bytes(greeting[16:], "big")
                else:
                    peer.close()
            server.close()
        else:
            host, port, token = communicator.bcast_obj(None)
            peer = socket.create_connection((host, port), timeout=30)
            peer.sendall(token + communicator.rank.to_bytes(4, "big"))
            self._peers[peer] = 0
        for peer in self._peers:
            peer.setblocking(False)

    def _run(self) -> None:
        heard = dict.fromkeys(self._peers, time.monotonic())
        last = time.monotonic()
        while not self._closing.wait(_EVERY):
            now = time.monotonic()
            if now - last > self._patience / 2:  # this process was stopped itself
                heard = dict.fromkeys(heard, now)
                self._since = None
            last = now
            for peer in list(heard):
                with contextlib.suppress(OSError):
                    peer.send(_BEAT)
            readable, _, _ = select.select(list(heard), [], [], 0)
            for peer in readable:
                try:
                    received = peer.recv(4096)
                except OSError:
                    received = b""
                if _BYE in received:
                    del heard[peer]
                elif not received:
                    del heard[peer]
                    self._end(f"rank {self._peers[peer]} has ended before its time")
                else:
                    heard[peer] = now
            for peer, then in heard.items():
                if now - then > self._patience:
                    silent = f"rank {self._peers[peer]} has not answered for"
                    self._end(f"{silent} {now - then:.0f} seconds")
            self._look_at_itself(now)

    def _look_at_itself(self, now: float) -> None:
        since = self._since
        if since is None or now - since <= self._limit:
            return
        stack = traceback.extract_stack(sys._current_frames().get(self._main))
        if any(place in frame.filename for frame in stack for place in _COMPILERS):
            self._since = now
            return
        self._end(
            f"rank {self._ranks.rank} has been at one step for {now - since:.0f} "
            f"seconds. It is here:\n{''.join(traceback.format_list(stack))}",
            at_once=True,
        )

    def _end(self, reason: str, at_once: bool = False) -> None:
        # Who knows better, such as a rank that prints its traceback, comes first.
        if not at_once:
            time.sleep(1 if self._ranks.rank <= 1 else 2)
        if self._closing.is_set():
            return
        text = f"{reason}: ending all ranks; the next start goes on with --resume\n"
        with contextlib.suppress(OSError, ValueError):
            os.write(2, text.encode(errors="replace"))
        threading.Timer(1.0, os._exit, (1,)).start()
        self._ranks.abort(1)
