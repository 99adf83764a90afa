from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import chainer
from chainer.dataset import concat_examples
from chainer.training import extension, extensions

from chainer_mmix.analysis.figure import save_figure
from chainer_mmix.analysis.predictions import to_host
from chainer_mmix.analysis.preview import mixed_pairs, plot_pairs
from chainer_mmix.links import ManifoldMixupClassifier
from chainer_mmix.mixing import ignored_label
from chainer_mmix.training.trainer_parts import classifier_of


class MixupPreview(extension.Extension):
    r"""Draws pairs of images and their mixtures at the input.

    Each row of the picture shows the first image, the second and the mixed one, with
    both labels and their weights, :math:`\lambda` and :math:`1 - \lambda`. The pairs
    are drawn from a copy of the classifier's current policy; there are pairs for each
    of its methods, such as mixup and CutMix. Label maps, and maps of probabilities, are
    shown below the images, with a colour for each class.

    There is no picture if the classifier does not mix, or without Matplotlib. To see
    one before the training, pass ``call_before_training=True`` to
    :meth:`~chainer.training.Trainer.extend`.

    Args:
        dataset: Examples (image, target); the images are float arrays of shape
            (C, H, W) with one or three channels. A few are read once, when the
            extension is made; if they are augmented at random, this draws from the
            generators of the training.
        n_pair (int): The number of pairs. The first examples are the partners. The
            default is 6.
        label_names (sequence of str): The names of the classes. By default, classes are
            shown as numbers.
        filename (str): Name of the file in the output folder. The default is
            ``mixup_preview.png``.
        converter (~chainer.dataset.Converter): Converts a batch of examples to arrays.
        classifier (~chainer_mmix.ManifoldMixupClassifier): The classifier. By default,
            it is the main optimizer's target, or else the only one that the updater
            trains.

    Raises:
        TypeError: If there is no classifier, when the run begins.
        ValueError: If the examples are no such images; and if there are several
            classifiers, when the run begins.
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
        classifier: ManifoldMixupClassifier | None = None,
    ) -> None:
        batch = converter([dataset[i] for i in range(min(n_pair, len(dataset)))])
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            parts = "names" if isinstance(batch, dict) else f"{len(batch)} parts"
            raise ValueError(
                "MixupPreview shows examples (image, target), but these have "
                f"{parts}: pass a dataset of one image and its target each"
            )
        self._x, self._t = map(to_host, batch)
        shape = self._x.shape
        if len(shape) != 4 or shape[1] not in (1, 3) or self._x.dtype.kind != "f":
            raise ValueError(
                "MixupPreview shows float images of shape (C, H, W) with one or three "
                f"channels, not {self._x.dtype} of shape {shape[1:]}"
            )
        if label_names is not None:
            self._check_names(label_names)
        self._label_names = label_names
        self._filename = filename
        self._classifier = classifier

    def _check_names(self, names: Sequence[str]) -> None:
        t = self._t
        if t.dtype.kind in "iu" and t.ndim == 1:
            largest = int(t.max())
        elif t.dtype.kind == "f" and t.ndim == 2:
            largest = t.shape[1] - 1
        else:
            return
        if isinstance(names, str) or largest >= len(names):
            raise ValueError(
                f"label_names has {len(names)} names, but there is a label {largest}: "
                f"give {largest + 1} names at least, in a list"
            )

    def initialize(self, trainer: chainer.training.Trainer) -> None:
        self._find(trainer)

    def __call__(self, trainer: chainer.training.Trainer) -> None:
        classifier = self._find(trainer)
        if classifier.mixes and self.available():
            pairs = mixed_pairs(classifier.policy, self._x, self._t)
            ignored = ignored_label(classifier.lossfun)
            figure = plot_pairs(pairs, self._label_names, ignored)
            save_figure(figure, Path(trainer.out, self._filename))

    def _find(self, trainer: chainer.training.Trainer) -> ManifoldMixupClassifier:
        classifier = self._classifier or classifier_of(trainer, "MixupPreview")
        if classifier is None:
            raise TypeError(
                "MixupPreview finds no ManifoldMixupClassifier in the updater: pass "
                "it, as MixupPreview(..., classifier=model)"
            )
        return classifier
