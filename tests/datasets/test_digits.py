import numpy as np
from chainer.dataset import concat_examples
from sklearn.datasets import load_digits

from chainer_mmix.datasets import get_digits


def test_examples_are_scaled_images_and_integer_labels():
    for part in get_digits():
        images, labels = concat_examples(part[:])
        assert images.dtype == np.float32
        assert images.shape == (len(part), 1, 8, 8)
        assert images.min() == 0
        assert images.max() == 1
        assert labels.dtype == np.int32


def test_split_is_a_partition_of_the_digits():
    train, test = get_digits()
    assert (len(train), len(test)) == (1442, 355)
    ours = sorted(
        (image.tobytes(), int(label)) for part in (train, test) for image, label in part
    )
    digits = load_digits()
    theirs = sorted(
        ((image / 16).astype(np.float32).tobytes(), int(label))
        for image, label in zip(digits.images, digits.target, strict=True)
    )
    assert ours == theirs


def test_split_is_stratified_and_fixed():
    np.random.seed(0)
    first = concat_examples(get_digits()[1][:])
    np.random.seed(1)
    images, labels = concat_examples(get_digits()[1][:])
    np.testing.assert_array_equal(images, first[0])
    counts = np.bincount(load_digits().target)
    np.testing.assert_array_equal(np.bincount(labels), counts // 5)
