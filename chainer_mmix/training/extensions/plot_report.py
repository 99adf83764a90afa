from __future__ import annotations

from pathlib import Path

import chainer
from chainer.training import extensions

from chainer_mmix.training.not_essential import not_essential


class PlotReport(extensions.PlotReport):
    """Chainer's PlotReport, which goes on in the middle of an epoch.

    A snapshot of :class:`chainer.training.extensions.PlotReport` lacks what came since
    the last point of the curves. When the picture cannot be written, this one warns
    and the training goes on.

    Args:
        args, options: As for :class:`chainer.training.extensions.PlotReport`.
    """

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        with not_essential(Path(trainer.out, self._file_name)):
            try:
                super().__call__(trainer)
            except OSError:
                import matplotlib.pyplot as plt

                plt.close()
                self._init_summary()
                raise

    def serialize(self, serializer: chainer.AbstractSerializer) -> None:
        """Saves or restores the curves and what comes into their next points."""
        super().serialize(serializer)
        try:
            self._summary.serialize(serializer["_summary"])
        except KeyError:  # Chainer's
            self._init_summary()
