"""What users do with arrays gives the same values, whatever their strides."""

import io
import pickle

import chainer
import chainer.functions as F
import matplotlib.image
import numpy as np
import pytest
from chainer.dataset import concat_examples
from chainer.serializers import load_npz, save_npz

pytestmark = pytest.mark.usefixtures("path")


@pytest.fixture
def arrays():
    """An output with its channels last in memory, and the same in the usual order."""
    random = np.random.RandomState(0)
    x, W = random.rand(2, 3, 6, 5).astype("f"), random.rand(3, 3, 3, 3).astype("f")
    y = F.convolution_2d(x, W, pad=1).array
    assert not y.flags.c_contiguous
    return y, np.array(y, order="C")


@pytest.mark.parametrize(
    "use",
    [
        np.ravel,
        lambda y: y.reshape(2, -1),
        lambda y: y.reshape(-1, 5),
        lambda y: y.flatten(),
        lambda y: y[1, 2],
        lambda y: y.sum((2, 3)),
        lambda y: list(y.flat),
        lambda y: y.tobytes(),
        lambda y: F.reshape(y, (2, -1)).array,
        lambda y: F.concat([y, y], axis=1).array,
        lambda y: pickle.loads(pickle.dumps(y)),
        lambda y: concat_examples(list(zip(y, range(2), strict=True))),
        lambda y: concat_examples([y, y], padding=0),
        lambda y: chainer.get_device("@numpy").send(y),
    ],
)
def test_values(use, arrays):
    strided, contiguous = map(use, arrays)
    for a, b in zip(strided, contiguous, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_serializers(arrays):
    strided, contiguous = arrays
    link = chainer.Link(W=strided.shape)
    link.W.array = strided
    file = io.BytesIO()
    save_npz(file, link)
    file.seek(0)
    other = chainer.Link(W=strided.shape)
    load_npz(file, other)
    np.testing.assert_array_equal(other.W.array, contiguous)
    load_npz(io.BytesIO(file.getvalue()), link)
    np.testing.assert_array_equal(link.W.array, contiguous)


def test_matplotlib(arrays, tmp_path):
    for name, y in zip("ab", arrays, strict=True):
        image = y[0].transpose(1, 2, 0)
        matplotlib.image.imsave(tmp_path / f"{name}.png", image / image.max())
    a, b = (matplotlib.image.imread(tmp_path / f"{name}.png") for name in "ab")
    np.testing.assert_array_equal(a, b)
