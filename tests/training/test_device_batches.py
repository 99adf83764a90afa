import random

import chainer
import numpy as np
import pytest
from chainer import iterators
from chainer.datasets import SubDataset, TransformDataset, TupleDataset

from chainer_mmix import training
from chainer_mmix.datasets import DATASETS, Augment
from chainer_mmix.training import DeviceBatches, convert_examples


def make_dataset(n=11, shape=(3, 8, 8), dtype="f"):
    images = np.random.default_rng(0).random((n, *shape)).astype(dtype)
    return TupleDataset(images, np.arange(n, dtype=np.int32))


def batches_of(iterator, converter, n):
    random.seed(3)
    device = chainer.get_device("@numpy")
    return [converter(iterator.next(), device) for _ in range(n)], random.random()


def assert_same_batches(dataset, **kwargs):
    """Compares with an iterator over the dataset, over two epochs."""
    ours = DeviceBatches(dataset, "@numpy")
    found = []
    for data, converter in ((ours.indices, ours), (dataset, convert_examples)):
        np.random.seed(1)
        iterator = iterators.SerialIterator(data, 4, **kwargs)
        found.append(batches_of(iterator, converter, 6))
    (ours, following), (expected, expected_following) = found
    assert following == expected_following
    for batch, wanted in zip(ours, expected, strict=True):
        for array, other in zip(batch, wanted, strict=True):
            assert array.dtype == other.dtype
            np.testing.assert_array_equal(array, other)


@pytest.mark.parametrize("dtype", ["float32", "mixed16"])
@pytest.mark.parametrize(
    "augment",
    [None, Augment(2, 0, flip=True), Augment(1, 0)],
    ids=["none", "flip", "crop"],
)
def test_batches_are_those_of_an_iterator_over_the_dataset(augment, dtype):
    dataset = SubDataset(make_dataset(15), 0, 11, order=np.arange(15)[::-1])
    if augment:
        dataset = TransformDataset(dataset, augment)
    with chainer.using_config("dtype", training.DTYPES[dtype]):
        assert_same_batches(dataset)
        assert_same_batches(dataset, shuffle=False)


def test_images_of_integers_and_targets_of_floats_stay_what_they_are():
    images = np.arange(11 * 4, dtype=np.uint8).reshape(11, 1, 2, 2)
    targets = np.random.default_rng(0).random((11, 3))
    assert_same_batches(TupleDataset(images, targets))


@pytest.mark.parametrize("dtype", ["float32", "mixed16"])
def test_a_training_is_that_without_it_and_snapshots_are_interchangeable(
    tmp_path, make_trainer, log_of, serialized, monkeypatch, dtype
):
    # No rotation, which Pillow may round otherwise.
    monkeypatch.setattr(DATASETS["digits"].augment, "angle", 0.0)
    monkeypatch.setattr(DATASETS["digits"].augment, "flip", True)
    with chainer.using_config("dtype", training.DTYPES[dtype]):
        straight = make_trainer(tmp_path / "straight", epoch=3)
        straight.run()
        for name, first in (("ours", True), ("theirs", False)):
            make_trainer(tmp_path / name, epoch=1, data_on_device=first).run()
            random.seed(99)
            np.random.seed(99)
            resumed = make_trainer(tmp_path / name, epoch=3, data_on_device=not first)
            training.load_snapshot(training.find_snapshot(tmp_path / name), resumed)
            resumed.run()
            assert log_of(resumed) == log_of(straight)
            saved, expected = (
                serialized(trainer.updater.get_optimizer("main").target)
                for trainer in (resumed, straight)
            )
            for key, value in expected.items():
                np.testing.assert_array_equal(saved[key], value)


def test_images_are_read_and_sent_once(monkeypatch):
    class Counting(chainer.dataset.DatasetMixin):
        read = 0

        def __len__(self):
            return 11

        def get_example(self, i):
            Counting.read += 1
            return make_dataset()[i]

    sent = []
    device = chainer.get_device("@numpy")
    send = type(device).send
    monkeypatch.setattr(
        type(device), "send", lambda self, x: sent.append(x) or send(self, x)
    )
    ours = DeviceBatches(TransformDataset(Counting(), Augment(1)), device)
    assert Counting.read == 11 and len(sent) == 1
    for _ in range(3):
        ours([1, 5, 2, 10], device)
    assert Counting.read == 11
    assert [array.shape for array in sent[1:]] == [(4, 8)] * 3


def test_images_of_several_shapes_are_refused():
    dataset = [(np.zeros((3, 8, n), "f"), np.int32(0)) for n in (8, 9, 8)]
    with pytest.raises(ValueError, match=r"\(3, 8, 8\) and \(3, 8, 9\), cannot"):
        DeviceBatches(dataset, "@numpy")


def test_examples_of_several_inputs_are_refused():
    image = np.zeros((3, 8, 8), "f")
    with pytest.raises(ValueError, match="have 3 parts"):
        DeviceBatches([(image, image, 0)] * 2, "@numpy")
    with pytest.raises(ValueError, match="have names"):
        DeviceBatches([{"image": image, "label": 0}] * 2, "@numpy")


def test_another_transform_is_refused():
    def darken(example):
        return example[0] / 2, example[1]

    class Darken(Augment):
        def __call__(self, example):
            return darken(super().__call__(example))

    for transform in (darken, Darken(1)):
        with pytest.raises(ValueError, match=r"[dD]arken.*, which cannot be done"):
            DeviceBatches(TransformDataset(make_dataset(), transform), "@numpy")


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float64"])
def test_augmented_images_of_another_dtype_are_refused(dtype):
    dataset = TransformDataset(make_dataset(dtype=dtype), Augment(1))
    with pytest.raises(ValueError, match=f"{dtype} .* make them float32"):
        DeviceBatches(dataset, "@numpy")


def test_examples_in_place_of_indices_are_refused():
    dataset = make_dataset()
    with pytest.raises(TypeError, match="takes indices, not tuple: iterate over its"):
        DeviceBatches(dataset, "@numpy")([dataset[0]])


@pytest.mark.gpu
def test_on_a_gpu():
    dataset = TransformDataset(make_dataset(), Augment(2, flip=True))
    found = []
    for device in ("@numpy", "@cupy:0"):
        random.seed(0)
        found.append(DeviceBatches(dataset, device)([3, 0, 7, 7]))
    for array, expected in zip(found[1], found[0], strict=True):
        np.testing.assert_array_equal(array.get(), expected)
