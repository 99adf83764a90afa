"""How a run stops when a signal asks for it, so that nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator

import chainer
from chainer.training import extension

from chainer_revive.compat.runtime import decode, encoded

# What asks a run to stop. SIGHUP is what a terminal sends when it closes.
_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)
]
_received: list[int] = []
_breaks_off = [True]
_handled: list[int] = []
_mask = threading.local()


# A pool ends its forked workers by SIGTERM, and Ctrl-C is for the run alone. What is
# sent to a worker before it has its own handlers waits.
def _before_fork() -> None:
    _mask.value = signal.pthread_sigmask(signal.SIG_BLOCK, _handled)


def _after_fork() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask.value)


def _after_fork_in_worker() -> None:
    for signum in _handled:
        is_interrupt = signum == signal.SIGINT
        signal.signal(signum, signal.SIG_IGN if is_interrupt else signal.SIG_DFL)
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork,
        after_in_child=_after_fork_in_worker,
    )


class StoppedError(RuntimeError):
    """A signal stopped the training.

    Attributes:
        signum (int): The signal.
        extension (chainer.training.Extension): The extension that was interrupted, or
            ``None``.
    """

    def __init__(self, signum: int, extension: object = None) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum
        self.extension = extension


@contextlib.contextmanager
def stoppable(
    at_once: Callable[[], None] = lambda: None, breaks_off: bool = True
) -> Iterator[None]:
    """Lets signals stop a run at a point where nothing is lost.

    In the ``with`` block, SIGINT (Ctrl-C), SIGTERM and SIGHUP are noted, for
    :class:`StopOnSignal` and :func:`check_stop`. A second signal ends the process at
    once, with 128 plus its number as the exit code. The handlers raise no exception,
    which would be lost if it were raised in a callback of a weak reference. A signal
    that the process ignores, as under ``nohup``, is still ignored. SIGTERM and SIGHUP
    end forked workers. Outside the main thread, where Python handles no signals, this
    does nothing.

    Args:
        at_once (callable): Called at the second signal. By default, nothing is.
        breaks_off (bool): Whether signals interrupt evaluations, which must not happen
            if ranks evaluate together. The default is ``True``.
    """

    def handle(signum: int, frame: object) -> None:
        _received.append(signum)
        if len(_received) > 1:
            with contextlib.suppress(Exception):
                at_once()
            os._exit(128 + signum)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in _SIGNALS}
    _received.clear()
    _breaks_off[0] = breaks_off
    try:
        for signum, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(signum, handle)
                _handled.append(signum)
        yield
    finally:
        _handled.clear()
        for signum, handler in before.items():
            signal.signal(signum, handler)
        _received.clear()


def check_stop(extension: object) -> None:
    """Stops an evaluation when a signal has asked for it.

    Args:
        extension (chainer.training.Extension): The one that evaluates.

    Raises:
        StoppedError: If one has.
    """
    if _received and _breaks_off[0]:
        raise StoppedError(_received[0], extension)


class StopOnSignal(extension.Extension):
    """Saves a snapshot and stops the training when a signal has asked for it.

    It does so after the iteration, or, where :func:`check_stop` stopped an evaluation,
    in the middle of what follows an iteration. The snapshot then holds what was
    reported so far, and a resumed run begins with that evaluation.

    Args:
        save (callable): Called with the Trainer to save a snapshot.
        largest (callable): Returns the largest of the values of all ranks, which have
            to stop after the same iteration. The default is for one.
    """

    trigger = 1, "iteration"
    priority = -1000  # after all others

    def __init__(
        self,
        save: Callable[[chainer.training.Trainer], None],
        largest: Callable[[float], float] = float,
    ) -> None:
        self._save = save
        self._largest = largest
        self._rest: tuple[str, dict] | None = None

    @property
    def is_in_iteration(self) -> bool:
        """Whether extensions have yet to run for the last iteration."""
        return self._rest is not None

    def can_go_on(self, trainer: chainer.training.Trainer) -> bool:
        """Tells whether the extension that was stopped, if one was, is here."""
        return self._rest is None or self._rest[0] in trainer._extensions

    def initialize(self, trainer: chainer.training.Trainer) -> None:
        """Runs the extensions that have yet to run."""
        if self._rest is None:
            return
        (name, observation), self._rest = self._rest, None
        entries = trainer._extensions
        # The Trainer's order.
        names = sorted(entries, key=lambda name: entries[name].priority, reverse=True)
        trainer.observation = observation
        with trainer.reporter.scope(observation):
            # The trigger of the first has fired.
            for following in names[names.index(name) :] if name in names else names:
                entry = entries[following]
                if following == name or entry.trigger(trainer):
                    entry.extension(trainer)

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        signum = int(self._largest(_received[0] if _received else 0))
        if signum:
            self._save(trainer)
            raise StoppedError(signum)

    def save_in_iteration(
        self, trainer: chainer.training.Trainer, stopped: object
    ) -> None:
        """Saves a snapshot of a Trainer that an extension stopped.

        Args:
            trainer (~chainer.training.Trainer): The Trainer.
            stopped (chainer.training.Extension): The extension.
        """
        for name, entry in trainer._extensions.items():
            if entry.extension is stopped:
                self._rest = name, trainer.observation
                self._save(trainer)

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        """Saves or restores what has yet to run."""
        rest = self._rest and (self._rest[0], encoded(self._rest[1]))
        try:
            rest = json.loads(str(serializer("rest", json.dumps(rest))))
        except KeyError:  # the snapshot of a Trainer without this extension
            rest = None
        if isinstance(serializer, chainer.Deserializer):
            self._rest = rest and (
                str(rest[0]),
                {key: decode(value) for key, value in rest[1].items()},
            )
