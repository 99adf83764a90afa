"""Where images and labels come from, and what is done to them before training."""

from chainer_mmix.datasets.augment import Augment
from chainer_mmix.datasets.checks import check_labels
from chainer_mmix.datasets.cifar import get_cifar10, get_cifar100
from chainer_mmix.datasets.corrupt import add_label_noise, take_subset
from chainer_mmix.datasets.digits import get_digits
from chainer_mmix.datasets.mnist import get_mnist, get_mnist5k
from chainer_mmix.datasets.registry import DATASETS, Dataset, load

__all__ = [
    "DATASETS",
    "Augment",
    "Dataset",
    "add_label_noise",
    "check_labels",
    "get_cifar10",
    "get_cifar100",
    "get_digits",
    "get_mnist",
    "get_mnist5k",
    "load",
    "take_subset",
]
