from __future__ import annotations

import sys
import time

# Seconds: what takes less needs no progress, and plain lines are that far apart.
_PATIENCE = 3.0


class Progress:
    """Tells on standard error how far some work is and about how long it will take.

    On a terminal, a line that is replaced by the next and vanishes at the end;
    elsewhere plain lines, one each few seconds at most. Work of a few seconds goes
    without.

    Use it as a context manager, and call it as each step begins.

    Args:
        total (int): The number of steps, or the most that there can be.
        quiet (bool): Whether to write plain lines on a terminal too. The default is
            ``False``.
    """

    def __init__(self, total: int, quiet: bool = False) -> None:
        self._total = total
        self._replaces = sys.stderr.isatty() and not quiet
        self._durations: list[float] = []
        self._shown = self._began = 0.0
        self._n = 0

    def __enter__(self) -> Progress:
        self._shown = time.monotonic()
        return self

    def __call__(self, name: str) -> None:
        """Says that the next step begins.

        Args:
            name (str): What it is.
        """
        now = time.monotonic()
        if self._n:
            self._durations.append(now - self._began)
        self._began = now
        self._n += 1
        if self._replaces or now - self._shown >= _PATIENCE:
            self._write(f"{self._n} of {self._total}: {name}{self._estimate()}")
            self._shown = now

    def __exit__(self, *_) -> None:
        if self._replaces:
            self._write("")

    def _estimate(self) -> str:
        # What takes no time was done before, and says nothing of the others.
        own = [d for d in self._durations if d > 0.01]
        if not own:
            return ""
        left = sum(own) / len(own) * (self._total - self._n + 1)
        amount = f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min"
        return f", about {amount} left"

    def _write(self, text: str) -> None:
        # Back to the margin, and what was there is erased.
        text = f"\r\033[K{text}" if self._replaces else f"{text}\n"
        print(text, end="", file=sys.stderr, flush=True)
