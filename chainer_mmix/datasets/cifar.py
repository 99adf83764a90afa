from __future__ import annotations

import os
import pickle
import tarfile
from typing import Any

import numpy as np
from chainer.datasets import TupleDataset

from chainer_mmix.datasets.download import RemoteFile, fetch
from chainer_mmix.datasets.idx import make_dataset

_URL = "https://www.cs.toronto.edu/~kriz"
_CIFAR10 = RemoteFile(
    f"{_URL}/cifar-10-python.tar.gz",
    ("6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",),
)
_CIFAR100 = RemoteFile(
    f"{_URL}/cifar-100-python.tar.gz",
    ("85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",),
)

# Of the fine labels, in their order.
CIFAR100_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge
    bus butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud
    cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox
    girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man
    maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree
    pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
    road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel
    streetcar sunflower sweet_pepper table tank telephone television tiger tractor train
    trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


def get_cifar10(
    data_root: str | os.PathLike | None = None,
) -> tuple[TupleDataset, TupleDataset]:
    """Gets CIFAR-10: 50000 training and 10000 test images of 10 classes.

    Source: https://www.cs.toronto.edu/~kriz/cifar.html. The checksum is that of Keras.

    Args:
        data_root (str or path-like): See
            :func:`chainer_mmix.datasets.download.fetch`.

    Returns:
        tuple of ~chainer.datasets.TupleDataset: The training and the test set. An
        example is an image, float32 of shape (3, 32, 32) in [0, 1], and its label, an
        int32.

    Raises:
        OSError: If the archive can neither be found nor be downloaded.
        ValueError: If it is not as published.
    """
    batches = [f"data_batch_{i}" for i in range(1, 6)]
    parts = (batches, ["test_batch"])
    return _load("cifar10", _CIFAR10, "cifar-10-batches-py", parts, "labels", data_root)


def get_cifar100(
    data_root: str | os.PathLike | None = None,
) -> tuple[TupleDataset, TupleDataset]:
    """Gets CIFAR-100: 50000 training and 10000 test images of 100 classes.

    The labels are the fine ones. All else is as with :func:`get_cifar10`.
    """
    parts, key = (["train"], ["test"]), "fine_labels"
    return _load("cifar100", _CIFAR100, "cifar-100-python", parts, key, data_root)


def _load(
    dataset: str,
    file: RemoteFile,
    folder: str,
    parts: tuple[list[str], list[str]],
    key: str,
    data_root: str | os.PathLike | None,
) -> tuple[TupleDataset, TupleDataset]:
    def read(names: list[str]) -> TupleDataset:
        files: list[Any] = [archive.extractfile(f"{folder}/{name}") for name in names]
        # The checksum says whose pickles these are.
        batches = [pickle.load(file, encoding="latin1") for file in files]
        images = np.concatenate([batch["data"] for batch in batches])
        labels = np.concatenate([batch[key] for batch in batches])
        return make_dataset(images.reshape(-1, 3, 32, 32), labels, dataset)

    with tarfile.open(fetch(file, dataset, data_root)) as archive:
        return read(parts[0]), read(parts[1])
