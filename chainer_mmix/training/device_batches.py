from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import NamedTuple

import chainer
import numpy as np
from chainer.dataset import Converter, concat_examples
from chainer.datasets import TransformDataset

from chainer_mmix.datasets import Augment
from chainer_mmix.datasets.augment import AugmentDraw
from chainer_mmix.datasets.augment_batch import augment_batch, make_table
from chainer_mmix.training.precision import is_half


class _Drawn(NamedTuple):
    number: int
    draw: AugmentDraw


class _Indices(chainer.dataset.DatasetMixin):
    """Draws while the iterator reads, as the dataset itself would."""

    def __init__(self, n: int, augment: Augment) -> None:
        self._n = n
        self._augment = augment

    def __len__(self) -> int:
        return self._n

    def get_example(self, i: int) -> _Drawn:
        return _Drawn(i, self._augment.draw())


class DeviceBatches(Converter):
    """Makes batches of images that are kept on a device, from their indices.

    It is a converter for an iterator over :attr:`indices` in place of the dataset::

        batches = DeviceBatches(train, device)
        iterator = SerialIterator(batches.indices, batchsize)
        updater = StandardUpdater(iterator, optimizer, converter=batches, device=device)

    Batches, random numbers and snapshots equal those of an iterator over the dataset,
    but images are sent to the device once, and augmented there in one kernel. On a CPU,
    too, this is faster than one example after the other. On a GPU it is experimental:
    it has not run on one yet.

    Args:
        dataset (sequence): Examples ``(image, label)``, the images of one shape and
            dtype, or a :class:`chainer.datasets.TransformDataset` of such examples and
            an :class:`~chainer_mmix.datasets.Augment`. They are read once, so nothing
            else about them may be random.
        device (device specifier): Where to keep them, such as ``"@cupy:0"``.

    Attributes:
        indices (sequence): The indices of the examples, with what to do to each if they
            are augmented.

    Raises:
        ValueError: If the examples are no such pairs, the images have several shapes,
            are transformed by something else than an Augment, or are to be augmented
            but are not float32.

    Where ``chainer.config.dtype`` is float16 or mixed16 when it is made, images of
    floats are rounded to float16, as by
    :func:`~chainer_mmix.training.convert_examples`.
    """

    def __init__(
        self, dataset: Sequence, device: str | int | chainer.backend.Device
    ) -> None:
        self._augment: Augment | None = None
        if isinstance(dataset, TransformDataset):
            augment, dataset = dataset._transform, dataset._dataset
            if type(augment).__call__ is not Augment.__call__:
                raise ValueError(
                    f"the examples are transformed by {augment!r}, which cannot be "
                    "done to examples on a device, but for a chainer_mmix.datasets."
                    "Augment: iterate over the dataset itself, or transform it before"
                )
            self._augment = augment
        examples = dataset[:]
        first = examples[0]
        if isinstance(first, dict) or len(first) != 2:
            parts = "names" if isinstance(first, dict) else f"{len(first)} parts"
            raise ValueError(
                "DeviceBatches is for examples (image, label), but these have "
                f"{parts}: iterate over the dataset itself"
            )
        shapes = {np.shape(image) for image, _ in examples}
        if len(shapes) > 1:
            some = " and ".join(map(str, sorted(shapes)[:2]))
            raise ValueError(
                f"images of several shapes, such as {some}, cannot be kept on a device "
                "as one array: iterate over the dataset itself, or resize them before"
            )
        images, labels = concat_examples(examples)
        if self._augment and images.dtype != np.float32:
            raise ValueError(
                f"images of dtype {images.dtype} cannot be augmented: make them float32"
            )
        self._dtype = images.dtype
        if is_half() and images.dtype.kind == "f":
            self._dtype = np.dtype(np.float16)
        if self._augment is None:
            images = images.astype(self._dtype, copy=False)
        self._device = chainer.get_device(device)
        self._images, self._labels = self._device.send((images, labels))
        n = len(labels)
        self.indices = range(n) if self._augment is None else _Indices(n, self._augment)

    def __call__(self, batch: Sequence[int], device=None) -> tuple:
        """Makes a batch.

        Args:
            batch (sequence): B elements of :attr:`indices`, or indices alone, which are
                augmented as :func:`~chainer_mmix.datasets.example_random` says now.
            device: Not used, for the images are where they are.

        Returns:
            tuple of arrays: The images, of shape (B, C, H, W), and their labels.
        """
        if not isinstance(batch[0], Integral | _Drawn):
            raise TypeError(
                f"DeviceBatches takes indices, not {type(batch[0]).__name__}: iterate "
                "over its attribute indices"
            )
        with chainer.using_device(self._device):
            if self._augment is None:
                indices = self._device.send(np.array(batch))
                images = self._images.take(indices, axis=0)
            else:
                # An index alone is drawn for now.
                items = (
                    item if isinstance(item, _Drawn) else self.indices[item]
                    for item in batch
                )
                indices, draws = zip(*items, strict=True)
                size = self._images.shape[2:]
                table = make_table(indices, draws, self._augment.padding, size)
                table = self._device.send(table)
                images = augment_batch(self._images, table, self._dtype)
                indices = table[:, 0].astype(np.int64)
            return images, self._labels.take(indices, axis=0)
