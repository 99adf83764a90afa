from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import chainer
import numpy as np
from chainer.dataset import Converter, concat_examples
from chainer.datasets import TransformDataset

from chainer_mmix.datasets import Augment, Transform
from chainer_mmix.datasets.augment_batch import augment_batch, make_table
from chainer_mmix.training.device import get_device
from chainer_mmix.training.precision import is_half
from chainer_revive.example_random import example_random


class _Drawn(NamedTuple):
    number: int
    draw: Any


class _Indices(chainer.dataset.DatasetMixin):
    """Draws while the iterator reads, as the dataset itself would."""

    def __init__(self, n: int, shape: tuple[int, ...], transform: Transform) -> None:
        self._n = n
        self._shape = shape
        self._transform = transform

    def __len__(self) -> int:
        return self._n

    def get_example(self, i: int) -> _Drawn:
        return _Drawn(i, self._transform.draw(self._shape, example_random()))


class DeviceBatches(Converter):
    """Makes batches of images that are kept on a device, from their indices.

    It is a converter for an iterator over :attr:`indices` in place of the dataset::

        batches = DeviceBatches(train, device)
        iterator = SerialIterator(batches.indices, batchsize)
        updater = StandardUpdater(iterator, optimizer, converter=batches, device=device)

    Batches, random numbers and snapshots equal those of an iterator over the dataset,
    but images are sent to the device once, and augmented there a batch at a time. This
    is faster on a CPU, too, than augmenting one example after the other. On a GPU, an
    :class:`~chainer_mmix.datasets.Augment` is one kernel, and other transforms are
    refused. The GPU version is experimental: it has not run on a GPU yet.

    If ``chainer.config.dtype`` is float16 or mixed16 when it is made, images of floats
    are rounded to float16, as by :func:`~chainer_mmix.training.convert_examples`.

    Args:
        dataset (sequence): Examples ``(image, label)``, the images of one shape and
            dtype, or a :class:`chainer.datasets.TransformDataset` of such examples and
            a :class:`~chainer_mmix.datasets.Transform`. They are read once, so nothing
            else about them may be random.
        device (device specifier): Where to keep them, such as ``"@cupy:0"``.

    Attributes:
        indices (sequence): The indices of the examples, with the random draws for each
            if they are augmented.

    Raises:
        ValueError: If the examples are not such pairs; if the images have several
            shapes; if they are transformed by anything but a Transform (on a GPU, an
            Augment); or if they are to be transformed but are not float32.
    """

    def __init__(
        self, dataset: Sequence, device: str | int | chainer.backend.Device
    ) -> None:
        self._device = get_device(device)
        self._transform: Transform | None = None
        if isinstance(dataset, TransformDataset):
            transform, dataset = dataset._transform, dataset._dataset
            is_cpu = isinstance(self._device, chainer.backend.CpuDevice)
            known: Any = Transform if is_cpu else Augment
            if (
                not isinstance(transform, known)
                or type(transform).__call__ is not Transform.__call__
            ):
                raise ValueError(
                    f"the examples are transformed by {transform!r}, which cannot be "
                    f"done to a batch on {self._device}, but for a chainer_mmix."
                    f"datasets.{known.__name__}: iterate over the dataset itself, or "
                    "transform it before"
                )
            self._transform = transform
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
        if self._transform and images.dtype != np.float32:
            raise ValueError(
                f"images of dtype {images.dtype} cannot be augmented: make them float32"
            )
        self._dtype = images.dtype
        if is_half() and images.dtype.kind == "f":
            self._dtype = np.dtype(np.float16)
        if self._transform is None:
            images = images.astype(self._dtype, copy=False)
        self._images, self._labels = self._device.send((images, labels))
        n = len(labels)
        self.indices = (
            range(n)
            if self._transform is None
            else _Indices(n, self._images.shape[1:], self._transform)
        )

    def __call__(self, batch: Sequence[int], device=None) -> tuple:
        """Makes a batch.

        Args:
            batch (sequence): B elements of :attr:`indices`, or mere indices, for which
                :func:`~chainer_mmix.datasets.example_random` draws now.
            device: Not used: the images stay on their device.

        Returns:
            tuple of arrays: The images, of shape (B, C, H, W), and their labels.
        """
        if not isinstance(batch[0], Integral | _Drawn):
            raise TypeError(
                f"DeviceBatches takes indices, not {type(batch[0]).__name__}: iterate "
                "over its attribute indices"
            )
        with chainer.using_device(self._device):
            if self._transform is None:
                indices = self._device.send(np.array(batch))
                images = self._images.take(indices, axis=0)
                return images, self._labels.take(indices, axis=0)
            # An index alone is drawn for now.
            items = (
                item if isinstance(item, _Drawn) else self.indices[item]
                for item in batch
            )
            numbers, draws = zip(*items, strict=True)
            if isinstance(self._transform, Augment):
                size = self._images.shape[2:]
                table = make_table(numbers, draws, self._transform.padding, size)
                table = self._device.send(table)
                images = augment_batch(self._images, table, self._dtype)
                indices = table[:, 0].astype(np.int64)
            else:
                indices = np.array(numbers)
                images = self._transform.apply(self._images[indices], draws)
                images = images.astype(self._dtype, copy=False)
            return images, self._labels.take(indices, axis=0)
