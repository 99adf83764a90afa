from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from chainer.datasets import SubDataset, TransformDataset, get_fashion_mnist_labels

from chainer_mmix.datasets.augment import Augment
from chainer_mmix.datasets.checks import check_labels
from chainer_mmix.datasets.cifar import CIFAR100_CLASSES, get_cifar10, get_cifar100
from chainer_mmix.datasets.corrupt import add_label_noise, take_subset
from chainer_mmix.datasets.digits import get_digits
from chainer_mmix.datasets.emnist import get_emnist
from chainer_mmix.datasets.fashion_mnist import get_fashion_mnist
from chainer_mmix.datasets.mnist import get_mnist, get_mnist5k
from chainer_mmix.datasets.picture import RandomResizedCrop
from chainer_mmix.datasets.picture_dataset import AsBytes, PictureDataset
from chainer_mmix.datasets.splits import Splits, as_splits, labels_of
from chainer_mmix.datasets.stl10 import get_stl10
from chainer_mmix.datasets.svhn import get_svhn
from chainer_mmix.datasets.tiny_imagenet import get_tiny_imagenet
from chainer_mmix.datasets.transforms import Transform


class Dataset(NamedTuple):
    """A dataset that can be trained on.

    Attributes:
        load (callable): Returns the training and the test set, or a :class:`Splits`.
        n_class (int): The number of classes.
        augment (callable): Its augmentation, or ``None`` if it has none. Images are
            flipped only where a mirrored one still shows the same class.
        class_names (tuple of str): The name of each label, if they have names and
            those are not in the files.
        has_files (bool): Whether ``load`` takes a ``data_root``, see
            :func:`chainer_mmix.datasets.download.fetch`.
    """

    load: Callable
    n_class: int
    augment: Callable | None
    class_names: tuple[str, ...] = ()
    has_files: bool = False


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_DIGITS = tuple("0123456789")
DATASETS = {
    "digits": Dataset(get_digits, 10, Augment(padding=1), _DIGITS),
    "mnist5k": Dataset(get_mnist5k, 10, Augment(padding=2), _DIGITS),
    "mnist": Dataset(get_mnist, 10, Augment(padding=2), _DIGITS, True),
    "cifar10": Dataset(
        get_cifar10,
        10,
        Augment(padding=4, flip=True),
        _names("airplane automobile bird cat deer dog frog horse ship truck"),
        True,
    ),
    "cifar100": Dataset(
        get_cifar100,
        100,
        Augment(padding=4, flip=True),
        _names(CIFAR100_CLASSES),
        True,
    ),
    "fashion-mnist": Dataset(
        get_fashion_mnist,
        10,
        Augment(padding=2, flip=True),
        tuple(get_fashion_mnist_labels()),
        True,
    ),
    "emnist": Dataset(
        # Small letters that look like their capitals are one class with them.
        partial(get_emnist, "balanced"),
        47,
        Augment(padding=2),
        (*_DIGITS, *"ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"),
        True,
    ),
    "svhn": Dataset(get_svhn, 10, Augment(padding=4), _DIGITS, True),
    "stl10": Dataset(
        get_stl10,
        10,
        Augment(padding=12, flip=True),
        _names("airplane bird car cat deer dog horse monkey ship truck"),
        True,
    ),
    "tiny-imagenet": Dataset(
        get_tiny_imagenet, 200, Augment(padding=8, flip=True), has_files=True
    ),
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
    """Loads a dataset, checks its labels, and changes the training set as requested.

    The test set stays unchanged.

    Args:
        dataset (Dataset): An entry of :data:`DATASETS`, or the result of :func:`find`.
        name (str): What the errors call it.
        train_size (int): Train on a subset of this size, see :func:`take_subset`. The
            default is all.
        label_noise (float): Share of wrong training labels, see
            :func:`add_label_noise`. The default is 0.
        augment (bool): Whether to augment the training images. The default is
            ``False``.
        seed (int): Determines the subset and the wrong labels. The default is 0.

    Returns:
        tuple of sequences: The training set, and the validation set if there is one,
        else the test set; examples ``(image, label)``.

    Raises:
        ValueError: If the labels are bad, ``train_size`` is too large, or the dataset
            has no augmentation.
        OSError, ImportError: If the dataset cannot be read.
    """
    splits = load_splits(
        dataset,
        name=name,
        train_size=train_size,
        label_noise=label_noise,
        augment=augment,
        seed=seed,
    )
    return splits.train, splits.held_out


def load_splits(
    dataset: Dataset,
    *,
    name: str,
    train_size: int | None = None,
    label_noise: float = 0.0,
    augment: bool = False,
    seed: int = 0,
) -> Splits:
    """Loads a dataset like :func:`load`, but returns all its parts.

    The arguments and errors are those of :func:`load`.

    Returns:
        Splits: The parts. Only the training set is changed.
    """
    loaded = as_splits(dataset.load())
    for part, examples in zip(("training", "validation", "test"), loaded, strict=False):
        if examples is not None:
            labels = labels_of(examples)
            check_labels(examples, labels, dataset.n_class, f"the {part} set of {name}")
    train: Any = loaded.train
    if augment and dataset.augment is None:
        raise ValueError(f"there is no augmentation of {name}: leave it out")
    if augment and isinstance(dataset.augment, RandomResizedCrop):
        train = train.whole(dataset.augment.shortest)
    if train_size is not None:
        train = take_subset(train, train_size, seed)
    if label_noise:
        train = add_label_noise(train, label_noise, dataset.n_class, seed)
    if augment:
        train = TransformDataset(train, dataset.augment)
    class_names = loaded.class_names or dataset.class_names
    return loaded._replace(train=train, class_names=class_names)


def as_bytes(examples: Sequence) -> Sequence:
    """Returns examples whose images stay bytes, if they are read from files.

    Only a quarter of the memory then has to be copied. The images must later be divided
    by 255 in float32.

    Args:
        examples (sequence): Examples ``(image, label)``.

    Returns:
        sequence: Examples whose images are uint8; or ``examples`` itself if the images
        are not read from files, or are transformed other than by cropping.
    """
    return AsBytes(examples) if _are_from_files(examples) else examples


def _are_from_files(examples: Sequence) -> bool:
    if isinstance(examples, SubDataset):
        return _are_from_files(examples._dataset)
    if isinstance(examples, TransformDataset):
        is_crop = isinstance(examples._transform, RandomResizedCrop)
        return is_crop and _are_from_files(examples._dataset)
    return isinstance(examples, PictureDataset)


def without_augmentation(train: Sequence) -> Sequence:
    """Returns the examples of a training set as they would be evaluated.

    Args:
        train (sequence): The training set of :func:`load_splits`, augmented or not.

    Returns:
        sequence: Examples ``(image, label)``, the same at each reading.
    """
    if not isinstance(train, TransformDataset):
        return train
    if isinstance(train._transform, RandomResizedCrop):
        return TransformDataset(train._dataset, train._transform.centre)
    if isinstance(train._transform, Transform):
        return without_augmentation(train._dataset)
    return train._dataset
