from __future__ import annotations

import html
import sys
import time
from collections.abc import Sequence
from typing import Any

import chainer
from chainer.training import extension

_PAUSE = 0.5  # seconds between two pictures of the bar
_ROWS = 12  # of the table


def in_notebook() -> bool:
    """Tells whether the code runs in a notebook, which shows HTML and pictures."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class NotebookReport(extension.Extension):
    """Shows progress, the log and its curves in a notebook, and keeps them up to date.

    In Jupyter it takes the place of :class:`~chainer.training.extensions.PrintReport`
    and :class:`~chainer.training.extensions.ProgressBar`, whose codes for a terminal
    Jupyter prints one after the other. It needs IPython, which a notebook has, and a
    :class:`~chainer.training.extensions.LogReport`.

    Args:
        columns (sequence of str): Keys of the log, for the table. By default, the
            epoch, losses and accuracies of training and validation, and the time.
        curves (sequence): For each panel, the keys that it shows against the epoch. By
            default, one has the losses and one the accuracies.
    """

    trigger = 1, "iteration"
    priority = extension.PRIORITY_READER - 1  # after LogReport

    def __init__(
        self,
        columns: Sequence[str] = (
            *("epoch", "main/loss", "validation/main/loss"),
            *("main/accuracy", "validation/main/accuracy", "elapsed_time"),
        ),
        curves: Sequence[Sequence[str]] = (
            ("main/loss", "validation/main/loss"),
            ("main/accuracy", "validation/main/accuracy"),
        ),
    ) -> None:
        self._columns = tuple(columns)
        self._curves = [tuple(keys) for keys in curves]
        self._shown = self._began = 0.0
        self._n_rows = -1
        self._text: Any = None
        self._picture: Any = None

    def initialize(self, trainer: chainer.training.Trainer) -> None:
        """Shows an empty bar."""
        from IPython.display import HTML, display

        self._began = time.monotonic()
        self._from = trainer.updater.epoch_detail
        self._n_rows = len(self._log(trainer))
        self._text = display(HTML(self._page(trainer)), display_id=True)
        self._picture = None
        if self._n_rows:
            self._draw(trainer)

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        now, n_rows = time.monotonic(), len(self._log(trainer))
        if n_rows == self._n_rows and now - self._shown < _PAUSE:
            return
        self._shown = now
        self._update(trainer)
        if n_rows != self._n_rows:
            self._n_rows = n_rows
            self._draw(trainer)

    def _update(self, trainer: chainer.training.Trainer) -> None:
        from IPython.display import HTML

        self._text.update(HTML(self._page(trainer)))

    def _draw(self, trainer: chainer.training.Trainer) -> None:
        from IPython.display import Image, display

        picture = Image(draw_curves(self._log(trainer), self._curves))
        if self._picture is None:
            self._picture = display(picture, display_id=True)
        else:
            self._picture.update(picture)

    def _log(self, trainer: chainer.training.Trainer) -> list[dict]:
        return trainer.get_extension("LogReport").log

    def _page(self, trainer: chainer.training.Trainer) -> str:
        length, unit = trainer.stop_trigger.get_training_length()
        updater = trainer.updater
        done = updater.epoch_detail if unit == "epoch" else updater.iteration
        share = min(1.0, done / length)
        bar = f'<progress value="{share:.4f}" max="1" style="width: 20em"></progress>'
        head = f"{bar} {share:.0%}, {unit} {done:.4g} of {length}"
        passed = time.monotonic() - self._began
        gone = updater.epoch_detail - self._from
        if 0 < share < 1 and gone > 0 and passed > 1:
            left = passed / gone * updater.epoch_detail * (1 / share - 1)
            head += f", about {left:.0f} s left" if left < 90 else ""
            head += f", about {left / 60:.0f} min left" if left >= 90 else ""
        return f"<p>{head}</p>{self._table(self._log(trainer))}"

    def _table(self, log: Sequence[dict]) -> str:
        if not log:
            return ""
        columns = [key for key in self._columns if any(key in entry for entry in log)]
        cells = "".join(f"<th>{html.escape(key)}</th>" for key in columns)
        rows = [f"<tr>{cells}</tr>"]
        for entry in log[-_ROWS:]:
            values = (entry.get(key, "") for key in columns)
            texts = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in values)
            rows.append(f"<tr>{''.join(f'<td>{text}</td>' for text in texts)}</tr>")
        return f"<table>{''.join(rows)}</table>"


def draw_curves(log: Sequence[dict], curves: Sequence[Sequence[str]]) -> bytes:
    """Draws keys of a log against the epoch, each group in a panel.

    Returns:
        bytes: A PNG.
    """
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from chainer_mmix.analysis.figure import OKABE_ITO

    figure = Figure(figsize=(4 * len(curves), 3), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, keys in zip(panels, curves, strict=True):
        for color, key in zip(OKABE_ITO[4:], keys, strict=False):
            points = [(e["epoch"], e[key]) for e in log if key in e]
            if points:
                axes.plot(*zip(*points, strict=True), ".-", color=color, label=key)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small")
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream)
    return stream.getvalue()
