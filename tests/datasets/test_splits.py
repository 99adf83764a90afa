import numpy as np
import pytest
from chainer.datasets import SubDataset, TupleDataset

from chainer_mmix.datasets import Splits, labels_of, split_off, take_subset


@pytest.fixture
def dataset():
    labels = np.repeat(np.arange(3, dtype=np.int32), (50, 20, 10))
    labels = np.random.default_rng(1).permutation(labels)
    return TupleDataset(np.arange(80), labels)


@pytest.mark.parametrize("seed", range(20))
def test_each_class_keeps_its_share(dataset, seed):
    train, validation = split_off(dataset, 0.2, seed)
    assert np.bincount([t for _, t in train]).tolist() == [40, 16, 8]
    assert np.bincount([t for _, t in validation]).tolist() == [10, 4, 2]
    indices = [x for x, _ in train] + [x for x, _ in validation]
    assert sorted(indices) == list(range(80))
    assert all(dataset[x][1] == t for x, t in validation)


def test_the_seed_decides(dataset):
    chosen = [{int(x) for x, _ in split_off(dataset, 0.2, s)[1]} for s in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_classes_are_drawn_apart():
    dataset = TupleDataset(np.arange(200), np.arange(200) // 100)
    chosen = np.array([x for x, _ in split_off(dataset, 0.2, 0)[1]])
    assert chosen[:20].tolist() != (chosen[20:] - 100).tolist()


def test_the_choice_is_random(dataset):
    # Of 50, 10 are drawn: over 400 seeds, each about 80 times.
    counts = np.zeros(80)
    for seed in range(400):
        counts[[x for x, _ in split_off(dataset, 0.2, seed)[1]]] += 1
    assert abs(counts - 80).max() < 5 * np.sqrt(400 * 0.2 * 0.8)


@pytest.mark.parametrize(
    "share, text",
    [
        (0, "between 0 and 1, not 0"),
        (1, "between 0 and 1, not 1"),
        (-0.2, "between 0 and 1"),
        (float("nan"), "between 0 and 1"),
        (0.04, "class 2, which has 10 examples, none for validation: .* below 0.95"),
        (0.97, "class 2, which has 10 examples, none for training"),
    ],
)
def test_bad_shares_are_named(dataset, share, text):
    with pytest.raises(ValueError, match=text):
        split_off(dataset, share, 0)


@pytest.mark.parametrize("n", [2, 3, 4, 7, 143])
def test_the_suggested_shares_work(n):
    dataset = TupleDataset(np.zeros((n, 1)), np.zeros(n, int))
    for share in (0.001, 0.999):
        with pytest.raises(ValueError, match="choose one from") as e:
            split_off(dataset, share, 0)
        low, high = str(e.value).split("choose one from ")[1].split(" to below ")
        split_off(dataset, float(low), 0)
        split_off(dataset, float(high) - 1e-4, 0)


def test_labels_of_anything(dataset):
    right = [t for _, t in dataset]
    assert labels_of(dataset).tolist() == right
    assert labels_of(list(dataset)).tolist() == right
    assert labels_of(SubDataset(dataset, 5, 9)).tolist() == right[5:9]
    for some in (*split_off(dataset, 0.3, 0), take_subset(dataset, 9, 0)):
        assert labels_of(some).tolist() == [t for _, t in some]
        nested = take_subset(some, 5, 0)
        assert labels_of(nested).tolist() == [t for _, t in nested]


def test_labels_are_had_without_reading_images(dataset):
    class Images(list):
        def __getitem__(self, i):
            raise AssertionError

    data = TupleDataset(Images(range(80)), [t for _, t in dataset])
    assert labels_of(split_off(data, 0.3, 0)[0]).shape == (56,)


def test_the_validation_set_is_what_is_looked_at():
    splits = Splits([1], [2], [3])
    assert (splits.held_out, splits.held_out_name) == ([2], "validation")
    splits = Splits([1], None, [3])
    assert (splits.held_out, splits.held_out_name) == ([3], "test")
