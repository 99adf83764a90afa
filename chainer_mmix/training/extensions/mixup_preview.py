from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import chainer
from chainer.dataset import concat_examples
from chainer.training import extension, extensions

from chainer_mmix.analysis.figure import save_figure
from chainer_mmix.analysis.predictions import to_host
from chainer_mmix.analysis.preview import mixed_pairs, plot_pairs
from chainer_mmix.training.seeds import kept_random_state


class MixupPreview(extension.Extension):
    r"""Draws pairs of images and what mixing at the input makes of them.

    Each row of the picture has the first image, the second and the mixed one, with
    both labels and their weights, :math:`\lambda` and :math:`1 - \lambda`. The policy
    is that of the main optimizer's target, a
    :class:`~chainer_mmix.ManifoldMixupClassifier`, at that moment; if it has both
    mixup and CutMix, there are pairs of both. They are drawn from a copy of it.

    Where the classifier does not mix, or without Matplotlib, there is no picture. To
    see one before the training, pass ``call_before_training=True`` to
    :meth:`~chainer.training.Trainer.extend`.

    Args:
        dataset: Examples (image, target); the images are float arrays of shape
            (C, H, W) with one channel or three.
        n_pair (int): How many pairs to show, of the first examples as first partners
            and as second ones. The default is 6.
        label_names (sequence of str): The names of the classes. By default they are
            numbers.
        filename (str): Name of the file in the output folder. The default is
            ``mixup_preview.png``.
        converter (~chainer.dataset.Converter): Makes arrays of a batch of examples.

    Raises:
        ValueError: If the examples are no such images.
    """

    trigger = 1, "epoch"
    available = staticmethod(extensions.PlotReport.available)

    def __init__(
        self,
        dataset: Sequence,
        n_pair: int = 6,
        label_names: Sequence[str] | None = None,
        filename: str = "mixup_preview.png",
        converter: Callable = concat_examples,
    ) -> None:
        with kept_random_state():  # the examples may be augmented at random
            batch = converter([dataset[i] for i in range(min(n_pair, len(dataset)))])
        self._x, self._t = map(to_host, batch)
        shape = self._x.shape
        if len(shape) != 4 or shape[1] not in (1, 3) or self._x.dtype.kind != "f":
            raise ValueError(
                "MixupPreview shows float images of shape (C, H, W) with one or three "
                f"channels, not {self._x.dtype} of shape {shape[1:]}"
            )
        self._label_names = label_names
        self._filename = filename

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        target = trainer.updater.get_optimizer("main").target
        if getattr(target, "mixes", False) and self.available():
            pairs = mixed_pairs(target.policy, self._x, self._t)
            figure = plot_pairs(pairs, self._label_names)
            save_figure(figure, Path(trainer.out, self._filename))
