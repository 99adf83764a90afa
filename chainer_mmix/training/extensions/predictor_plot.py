from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import chainer
from chainer.dataset import concat_examples
from chainer.training import extensions

from chainer_mmix.analysis.figure import save_figure
from chainer_mmix.training.extensions.predictor_evaluator import PredictorEvaluator


class PredictorPlot(PredictorEvaluator):
    """Base of evaluators that draw a picture.

    Without Matplotlib there is a warning in place of it, as with
    :class:`~chainer.training.extensions.PlotReport`.

    Args:
        iterator, target, converter, device: See
            :class:`~chainer_mmix.training.extensions.PredictorEvaluator`.
        filename (str): Name of the PNG file in the output folder.
    """

    available = staticmethod(extensions.PlotReport.available)

    def __init__(
        self,
        iterator: chainer.dataset.Iterator,
        target: chainer.Link,
        converter: Callable = concat_examples,
        device=None,
        filename: str = "plot.png",
    ) -> None:
        super().__init__(iterator, target, converter, device)
        self._filename = filename

    def __call__(self, trainer: chainer.training.Trainer) -> dict:
        self._out = Path(trainer.out)
        return super().__call__(trainer)

    def draw(self, plot: Callable, *args) -> None:
        """Writes the figure that ``plot(*args)`` returns, if there is Matplotlib."""
        if self.available():
            save_figure(plot(*args), self._out / self._filename)
