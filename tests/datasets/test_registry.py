import functools
import random

import chainer
import numpy as np
import pytest
from chainer.datasets import TransformDataset, TupleDataset
from PIL import Image

from chainer_mmix.datasets import (
    DATASETS,
    Augment,
    Dataset,
    as_bytes,
    find,
    load,
    load_splits,
)
from chainer_mmix.training import convert_examples
from chainer_mmix.training.precision import convert_bytes


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


def test_pictures_as_bytes_are_the_same_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "chainer.dataset.download._dataset_root", str(tmp_path / "cache")
    )
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 12, 3), np.uint8)
    for i, image in enumerate(pixels):
        folder = tmp_path / "pictures" / str(i % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    found = find(f"folder:{tmp_path / 'pictures'}", size=6, validation_split=0.5)
    load = functools.partial(load_splits, found, name="pictures")
    plain = load()
    for examples in (
        *(plain.train, plain.held_out, load(augment=True).train),
        load(augment=True, train_size=2).train,
    ):
        random.seed(0)
        floats = [examples[i] for i in range(len(examples))]
        random.seed(0)
        bytes_ = [as_bytes(examples)[i] for i in range(len(examples))]
        for (x, t), (y, s) in zip(floats, bytes_, strict=True):
            assert x.dtype == np.float32 and y.dtype == np.uint8
            assert t == s
        x, _ = convert_examples(floats, chainer.get_device("@numpy"))
        y, _ = convert_bytes(bytes_, chainer.get_device("@numpy"))
        np.testing.assert_array_equal(x, y, strict=True)
    # What is done to floats is done to floats.
    for examples in (
        TransformDataset(plain.train, lambda example: example),
        load(label_noise=0.5).train,
        plain.train[:2],
    ):
        assert as_bytes(examples) is examples
