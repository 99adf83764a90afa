import numpy as np
import pytest
from chainer.datasets import TupleDataset

from chainer_mmix.datasets import add_label_noise, take_subset


def labelled(counts):
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    return TupleDataset(np.arange(len(labels)), labels)


def indices(dataset):
    return [int(image) for image, _ in dataset]


@pytest.mark.parametrize("size", [1, 7, 30, 99, 100])
def test_subset_keeps_the_share_of_each_class(size):
    counts = np.array([60, 30, 10])
    subset = take_subset(labelled(counts), size, seed=3)
    assert len(set(indices(subset))) == len(subset) == size
    found = np.bincount([label for _, label in subset], minlength=3)
    assert np.abs(found - counts * size / 100).max() <= 1


def test_subset_depends_on_the_seed_alone_and_is_nested():
    dataset = labelled([50, 50])
    np.random.seed(0)
    first = indices(take_subset(dataset, 20, seed=0))
    np.random.seed(1)
    assert indices(take_subset(dataset, 20, seed=0)) == first
    assert set(indices(take_subset(dataset, 20, seed=1))) != set(first)
    assert set(first) < set(indices(take_subset(dataset, 40, seed=0)))


@pytest.mark.parametrize("size", [0, 11])
def test_subset_of_impossible_size(size):
    with pytest.raises(ValueError, match=f"{size} examples.* has 10"):
        take_subset(labelled([5, 5]), size, seed=0)


def test_noise_replaces_the_share_by_every_other_class_equally_often():
    dataset = labelled([3000, 3000, 3000, 3000])
    noisy = add_label_noise(dataset, 0.5, 4, seed=0)
    before = np.array([label for _, label in dataset])
    after = np.array([label for _, label in noisy])
    assert indices(noisy) == indices(dataset)
    assert after.dtype == np.int32
    assert (before != after).sum() == 6000
    shifts = np.bincount((after - before) % 4, minlength=4)
    np.testing.assert_allclose(shifts[1:], 2000, atol=150)  # 4 standard deviations


def test_noise_depends_on_the_seed_and_spares_its_input():
    dataset = labelled([10, 10])
    first = [label for _, label in add_label_noise(dataset, 0.4, 2, seed=0)]
    assert [label for _, label in add_label_noise(dataset, 0.4, 2, seed=0)] == first
    assert [label for _, label in add_label_noise(dataset, 0.4, 2, seed=1)] != first
    assert [label for _, label in dataset] == [0] * 10 + [1] * 10


def test_all_labels_can_be_wrong():
    noisy = add_label_noise(labelled([5, 5]), 1.0, 2, seed=0)
    assert [label for _, label in noisy] == [1] * 5 + [0] * 5


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_impossible_noise(share):
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        add_label_noise(labelled([5, 5]), share, 2, seed=0)
