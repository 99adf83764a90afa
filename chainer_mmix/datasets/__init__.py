"""Images and their labels: loading, checks, augmentation, wrong labels."""

from chainer_mmix.datasets.augment import Augment
from chainer_mmix.datasets.checks import check_labels
from chainer_mmix.datasets.cifar import get_cifar10, get_cifar100
from chainer_mmix.datasets.corrupt import add_label_noise, take_subset
from chainer_mmix.datasets.digits import get_digits
from chainer_mmix.datasets.emnist import get_emnist
from chainer_mmix.datasets.fashion_mnist import get_fashion_mnist
from chainer_mmix.datasets.find import KINDS, find, kind_of, short_name
from chainer_mmix.datasets.folder import find_examples, find_pictures, get_folder
from chainer_mmix.datasets.mnist import get_mnist, get_mnist5k
from chainer_mmix.datasets.npz import get_npz, read_npz
from chainer_mmix.datasets.picture import (
    RandomResizedCrop,
    UnreadablePictureError,
    centre_crop,
    read_picture,
)
from chainer_mmix.datasets.picture_dataset import PictureDataset
from chainer_mmix.datasets.preprocess import Preprocess, describe_inputs
from chainer_mmix.datasets.registry import (
    DATASETS,
    Dataset,
    as_bytes,
    load,
    load_splits,
    without_augmentation,
)
from chainer_mmix.datasets.splits import Splits, labels_of, split_off
from chainer_mmix.datasets.standardise import (
    STANDARDISE,
    Standardisation,
    standardisation,
)
from chainer_mmix.datasets.stl10 import get_stl10
from chainer_mmix.datasets.svhn import get_svhn
from chainer_mmix.datasets.tiny_imagenet import get_tiny_imagenet
from chainer_mmix.datasets.transforms import (
    Affine,
    Brightness,
    ColourJitter,
    Compose,
    Cutout,
    Flip,
    PadCrop,
    QuarterTurn,
    Transform,
    transformed,
)
from chainer_revive.example_random import example_random

__all__ = [
    "DATASETS",
    "KINDS",
    "STANDARDISE",
    "Affine",
    "Augment",
    "Brightness",
    "ColourJitter",
    "Compose",
    "Cutout",
    "Dataset",
    "Flip",
    "PadCrop",
    "PictureDataset",
    "Preprocess",
    "QuarterTurn",
    "RandomResizedCrop",
    "Splits",
    "Standardisation",
    "Transform",
    "UnreadablePictureError",
    "add_label_noise",
    "as_bytes",
    "centre_crop",
    "check_labels",
    "describe_inputs",
    "example_random",
    "find",
    "find_examples",
    "find_pictures",
    "get_cifar10",
    "get_cifar100",
    "get_digits",
    "get_emnist",
    "get_fashion_mnist",
    "get_folder",
    "get_mnist",
    "get_mnist5k",
    "get_npz",
    "get_stl10",
    "get_svhn",
    "get_tiny_imagenet",
    "kind_of",
    "labels_of",
    "load",
    "load_splits",
    "read_npz",
    "read_picture",
    "short_name",
    "split_off",
    "standardisation",
    "take_subset",
    "transformed",
    "without_augmentation",
]
