import numpy as np
import pytest

from chainer_mmix.datasets import check_labels


@pytest.mark.parametrize(
    "labels, message",
    [
        ([0, 1, 3], r"the label 3 at index 2.*0 to 2"),
        ([0, -1, 2], r"the label -1 at index 1"),
        ([0.0, 1.0, 2.0], "dtype float64"),
        (np.zeros(3, bool), "dtype bool"),
        ([0, 1], r"shape \(2,\) for 3 images.*\(3,\)"),
        (np.eye(3, dtype=int), r"shape \(3, 3\) for 3 images"),
    ],
)
def test_bad_labels_are_named(labels, message):
    with pytest.raises(ValueError, match=f"the set has .*{message}"):
        check_labels(np.empty((3, 1, 8, 8)), labels, 3, "the set")


def test_an_empty_dataset_is_an_error():
    with pytest.raises(ValueError, match="empty"):
        check_labels([], [], 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_good_labels_become_int32(dtype):
    labels = check_labels(np.empty((3, 2)), np.array([2, 0, 1], dtype), 3)
    assert labels.dtype == np.int32
    assert labels.tolist() == [2, 0, 1]
