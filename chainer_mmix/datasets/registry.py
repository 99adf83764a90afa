from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from chainer.datasets import TransformDataset

from chainer_mmix.datasets.augment import Augment
from chainer_mmix.datasets.checks import check_labels
from chainer_mmix.datasets.cifar import get_cifar10, get_cifar100
from chainer_mmix.datasets.corrupt import add_label_noise, take_subset
from chainer_mmix.datasets.digits import get_digits
from chainer_mmix.datasets.mnist import get_mnist, get_mnist5k


class Dataset(NamedTuple):
    """A dataset that can be trained on by name.

    Attributes:
        load (callable): Returns the training and the test set.
        n_class (int): The number of classes.
        augment (Augment): Its augmentation. Images are flipped only where a mirrored
            one still shows the same class.
    """

    load: Callable
    n_class: int
    augment: Augment


DATASETS = {
    "digits": Dataset(get_digits, 10, Augment(padding=1)),
    "mnist5k": Dataset(get_mnist5k, 10, Augment(padding=2)),
    "mnist": Dataset(get_mnist, 10, Augment(padding=2)),
    "cifar10": Dataset(get_cifar10, 10, Augment(padding=4, flip=True)),
    "cifar100": Dataset(get_cifar100, 100, Augment(padding=4, flip=True)),
}


def load(
    dataset: Dataset,
    *,
    name: str,
    train_size: int | None = None,
    label_noise: float = 0.0,
    augment: bool = False,
    seed: int = 0,
) -> tuple[Sequence, Sequence]:
    """Loads a dataset, checks its labels, and makes the training harder if asked to.

    The test set is left as it is.

    Args:
        dataset (Dataset): An entry of :data:`DATASETS`.
        name (str): What the errors call it.
        train_size (int): Train on a subset of this size, see :func:`take_subset`. The
            default is all.
        label_noise (float): Share of wrong training labels, see
            :func:`add_label_noise`. The default is 0.
        augment (bool): Whether to transform the training images.
        seed (int): Fixes the subset and the wrong labels. The default is 0.

    Returns:
        tuple of sequences: The training and the test set, examples ``(image, label)``.

    Raises:
        ValueError: If the labels are bad or ``train_size`` is too large.
        OSError, ImportError: If the dataset cannot be had.
    """
    train, test = dataset.load()
    for part, examples in (("training", train), ("test", test)):
        images, labels = zip(*examples, strict=True)
        check_labels(images, labels, dataset.n_class, f"the {part} set of {name}")
    if train_size is not None:
        train = take_subset(train, train_size, seed)
    if label_noise:
        train = add_label_noise(train, label_noise, dataset.n_class, seed)
    if augment:
        train = TransformDataset(train, dataset.augment)
    return train, test
