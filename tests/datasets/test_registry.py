import numpy as np
import pytest
from chainer.datasets import TupleDataset

from chainer_mmix.datasets import DATASETS, Augment, Dataset, load


def make(n_train=20, n_test=10, n_class=2):
    def split(n):
        images = np.random.default_rng(n).random((n, 1, 8, 8), np.float32)
        return TupleDataset(images, np.arange(n, dtype=np.int32) % 2)

    return Dataset(lambda: (split(n_train), split(n_test)), n_class, Augment(1))


def test_only_the_training_set_is_made_harder():
    train, test = load(
        make(), name="x", train_size=10, label_noise=1.0, augment=True, seed=0
    )
    plain_train, plain_test = load(make(), name="x")
    assert len(train) == 10
    originals = {image.tobytes(): label for image, label in plain_train}
    assert any(image.tobytes() not in originals for image, _ in train)
    for (image, label), (plain, right) in zip(test, plain_test, strict=True):
        np.testing.assert_array_equal(image, plain)
        assert label == right


def test_noise_comes_after_the_subset():
    train, _ = load(make(), name="x", train_size=10, label_noise=0.5, seed=0)
    originals = {image.tobytes(): label for image, label in make().load()[0]}
    assert sum(originals[image.tobytes()] != label for image, label in train) == 5


@pytest.mark.parametrize("name", DATASETS)
def test_all_entries_are_complete(name):
    entry = DATASETS[name]
    n_class = {"cifar100": 100, "emnist": 47, "tiny-imagenet": 200}.get(name, 10)
    assert entry.n_class == n_class
    if name != "tiny-imagenet":  # which has them in its files
        assert len(set(entry.class_names)) == n_class
    assert callable(entry.load)


def test_bad_labels_name_the_dataset_and_the_part():
    with pytest.raises(ValueError, match="the training set of x has the label 1 at"):
        load(make(n_class=1), name="x")
