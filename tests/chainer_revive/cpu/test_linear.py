from unittest import mock

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer.graph_optimizations.static_graph import static_graph
from hypothesis import given
from hypothesis import strategies as st

from chainer_revive.cpu.adapters import linear

pytestmark = pytest.mark.usefixtures("path")
SIZES = st.sampled_from([1, 2, 5, 16, 33])


@given(
    n=SIZES,
    c=SIZES,
    d=SIZES,
    bias=st.booleans(),
    layout=st.sampled_from(["channels first", "every second", "reversed"]),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_as_in_float64(n, c, d, bias, layout, dtype, lay_out):
    random = np.random.RandomState(n + c + d)
    x, W, b, gy = (
        random.randn(*shape).astype(dtype) for shape in ((n, c), (d, c), (d,), (n, d))
    )
    inputs = [chainer.Variable(lay_out(a, layout)) for a in (x, W)]
    inputs += [chainer.Variable(b)] * bias
    with mock.patch.object(linear, "_FEW", 1):
        y = F.linear(*inputs)
        grads = chainer.grad(
            [y], inputs, [chainer.Variable(gy)], enable_double_backprop=True
        )
        (second,) = chainer.grad([F.sum(grads[0] * grads[0])], [inputs[1]])
    x, W, gy = (a.astype("float64") for a in (x, W, gy))
    wanted = [x @ W.T + b * bias, gy @ W, gy.T @ x, *[gy.sum(0)] * bias]
    for result, right in zip((y, *grads), wanted, strict=True):
        assert result.dtype == dtype
        np.testing.assert_allclose(result.array, right, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(second.array, 2 * gy.T @ gy @ W, rtol=1e-3, atol=1e-2)


def test_static_graph_runs_again():
    class Net(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.fc = chainer.links.Linear(64, 64)

        @static_graph
        def forward(self, x):
            return chainer.functions.relu(self.fc(x))

    net = Net()
    random = np.random.RandomState(0)
    for x in random.randn(3, 32, 64).astype("float32"):
        y = net(chainer.Variable(x))
        wanted = x @ net.fc.W.array.T + net.fc.b.array
        np.testing.assert_allclose(y.array, wanted.clip(0), rtol=1e-4, atol=1e-4)
