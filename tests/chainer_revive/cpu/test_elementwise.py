from unittest import mock

import chainer
import chainer.functions as F
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainer_revive.cpu.adapters import elementwise

pytestmark = pytest.mark.usefixtures("path")
LAYOUTS = ["channels first", "channels last", "every second", "reversed"]


@given(
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    layouts=st.tuples(*[st.sampled_from(LAYOUTS)] * 2),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
)
def test_as_in_chainer(shape, layouts, dtype, chainers_own, lay_out):
    random = np.random.RandomState(0)
    x, gy = random.randn(2, *shape).astype(dtype)
    gy.reshape(-1)[::3] = np.inf
    x.reshape(-1)[::5] = np.nan

    def run(x, gy):
        x, gy = chainer.Variable(x), chainer.Variable(gy)
        y = F.relu(x)
        (gx,) = chainer.grad([y], [x], [gy])
        return y.array, gx.array, (x + gy).array

    with np.errstate(invalid="ignore"):
        with chainers_own():
            wanted = run(x, gy)
        if len(shape) > 1:
            x, gy = (lay_out(a, n) for a, n in zip((x, gy), layouts, strict=True))
        with mock.patch.object(elementwise, "_SMALL", 0):
            got = run(x, gy)
    for result, right in zip(got, wanted, strict=True):
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, right)


@given(
    shape=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    layout=st.sampled_from(LAYOUTS),
    keepdims=st.booleans(),
)
def test_sum_over_all_but_the_channels(shape, layout, keepdims, lay_out):
    x = np.random.RandomState(0).randn(*shape).astype("float32")
    if len(shape) > 1:
        x = lay_out(x, layout)
    axis = (0, *range(2, len(shape)))
    with mock.patch.object(elementwise, "_SMALL", 0):
        y = F.sum(x, axis, keepdims).array
    wanted = x.astype("float64").sum(axis, keepdims=keepdims)
    assert y.dtype == np.float32 and y.shape == wanted.shape
    bound = abs(x).astype("float64").sum(axis, keepdims=keepdims)
    assert np.all(abs(y - wanted) <= 100 * np.finfo("float32").eps * bound)
