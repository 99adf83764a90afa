from __future__ import annotations

from pathlib import Path
from typing import Any

import chainer
from chainer.training import extension


class TensorBoardReport(extension.Extension):
    """Writes the log for TensorBoard, each number under its name in the log.

    The numbers are those of :class:`~chainer.training.extensions.LogReport`, by
    iteration. The event file lies in a folder of the output folder, and ``tensorboard
    --logdir result`` shows all runs in ``result``. A run that is resumed writes its
    whole log anew, and TensorBoard discards the earlier files.

    Args:
        log_report (str): The name of the ``LogReport`` in the Trainer. The default is
            ``"LogReport"``.
        folder (str): The folder. The default is ``tensorboard``.

    Raises:
        ImportError: If tensorboardX is not installed.
    """

    # After LogReport.
    priority = extension.PRIORITY_READER - 50

    def __init__(
        self, log_report: str = "LogReport", folder: str = "tensorboard"
    ) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as e:
            raise ImportError(
                f"TensorBoard's files need tensorboardX, which cannot be imported "
                f"({e}): pip install 'chainer-mmix[tensorboard]'"
            ) from e
        self._make_writer = SummaryWriter
        self._log_report = log_report
        self._folder = folder
        self._writer: Any = None
        self._n_written = 0

    def trigger(self, trainer: chainer.training.Trainer) -> bool:
        """Says that it looks for new entries after each iteration.

        Unlike an interval it has no state, which snapshots of runs without this
        extension would lack.
        """
        return True

    def initialize(self, trainer: chainer.training.Trainer) -> None:
        folder = Path(trainer.out) / self._folder
        self._writer = self._make_writer(str(folder), purge_step=0)

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        entries = trainer.get_extension(self._log_report).log[self._n_written :]
        for entry in entries:
            for key, value in entry.items():
                if key != "iteration":
                    self._writer.add_scalar(key, value, entry["iteration"])
        if entries:
            self._n_written += len(entries)
            self._writer.flush()

    def finalize(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._writer.close()
