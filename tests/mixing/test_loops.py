"""Mixing in NumPy and in compiled loops, of arrays in many memory layouts."""

import chainer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainer_mmix import mix

pytestmark = pytest.mark.usefixtures("path")
LAYOUTS = ["channels first", "channels last", "every second", "reversed"]


@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    layout=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    each=st.booleans(),
)
def test_mix_equals_a_matrix_product(shape, layout, dtype, each, lay_out):
    random = np.random.RandomState(0)
    n = shape[0]
    x, gy = random.randn(2, *shape).astype(dtype)
    lam = random.rand(n) if each else 0.3
    perm = random.permutation(n)
    if len(shape) > 1:
        x = lay_out(x, layout)
    matrix = np.diag(np.broadcast_to(lam, n)).astype("float64")
    matrix[np.arange(n), perm] += 1 - lam
    v = chainer.Variable(x)
    y = mix(v, lam, perm)
    (gx,) = chainer.grad([y], [v], [chainer.Variable(gy)])
    tolerance = {"rtol": 0, "atol": 20 * np.finfo(dtype).eps}
    for result, factor, values in ((y, matrix, x), (gx, matrix.T, gy)):
        wanted = np.tensordot(factor, values.astype("float64"), 1)
        assert result.dtype == dtype
        np.testing.assert_allclose(result.array, wanted, **tolerance)
