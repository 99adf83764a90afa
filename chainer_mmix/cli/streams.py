from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO


class _Lasting:
    """Writes to a stream while there is one, and else nowhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._while_it_lasts():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._while_it_lasts():
            self._stream.flush()

    @contextlib.contextmanager
    def _while_it_lasts(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            # Also for what is still in its buffer, which Python writes at the end.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def lasting_streams() -> Iterator[None]:
    """Lets a terminal, a pipe or a full disk go away without an error.

    What the ``with`` block prints from then on goes nowhere.
    """
    with (
        contextlib.redirect_stdout(_Lasting(sys.stdout)),
        contextlib.redirect_stderr(_Lasting(sys.stderr)),
    ):
        yield


@contextlib.contextmanager
def plain_warnings(prog: str, shows: bool = True) -> Iterator[None]:
    """Writes warnings for users as one line, without a place in the source.

    Args:
        prog (str): What the line begins with.
        shows (bool): Whether to write them. All ranks have the same. The default is
            ``True``.
    """
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_plainly(message, category, *place, **more) -> None:
            if category is UserWarning:
                text = " ".join(str(message).split())
                if shows:
                    print(f"{prog}: warning: {text}", file=sys.stderr)
            else:
                show(message, category, *place, **more)

        warnings.showwarning = show_plainly
        yield
