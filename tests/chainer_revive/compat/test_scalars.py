"""Sums of scalars are as wide as they were on NumPy 1."""

import chainer
import numpy as np
import pytest
from chainer import reporter
from chainer.optimizer_hooks import GradientClipping, GradientLARS
from chainer.training import extensions
from chainer.utils import WalkerAlias
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chainer_revive.compat.runtime import wide


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_mean_of_many_large_values(dtype):
    summary = reporter.Summary()
    for _ in range(3000):
        summary.add(np.asarray(100, dtype))
    mean, std = summary.make_statistics()
    assert (mean, std) == (100, 0)
    assert mean.dtype == np.float64


@pytest.mark.gpu
def test_half_precision_on_a_gpu():
    summary = reporter.Summary()
    for _ in range(3000):
        summary.add(chainer.get_device("@cupy:0").send(np.asarray(100, "f2")))
    assert tuple(map(float, summary.make_statistics())) == (100, 0)


def test_half_precision_of_cupy_is_widened(monkeypatch):
    class Array:
        ndim, dtype, astype = 0, np.dtype("f2"), staticmethod(np.ones(()).astype)

    monkeypatch.setattr(chainer.backends.cuda, "ndarray", Array)
    assert wide(Array()).dtype == np.float32


def elements(dtype):
    """Values whose squares add up to less than 2**63, as on NumPy 1 they had to."""
    if dtype.kind == "f":
        return hnp.from_dtype(dtype, allow_nan=False, allow_infinity=False)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return st.integers(max(low, -(2**29)), min(high, 2**29))


scalar_dtypes = st.sampled_from(["f2", "f4", "i1", "i2", "i4", "u1", "u2", "u4"])


@given(
    scalar_dtypes.flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            st.integers(1, 20),
            elements=elements(np.dtype(dtype)),
        )
    )
)
def test_statistics_are_those_of_float64(values):
    summary = reporter.Summary()
    for value in values:
        summary.add(value)
    wide_values = values.astype(np.float64)
    mean, _ = summary.make_statistics()
    np.testing.assert_allclose(mean, wide_values.mean(), rtol=1e-9, atol=1e-30)
    np.testing.assert_allclose(
        float(summary._x2), (wide_values**2).sum(), rtol=1e-9, atol=1e-30
    )


def test_weights_are_summed_wide_too():
    summary = reporter.Summary()
    for _ in range(300):
        summary.add(np.float32(2), weight=np.uint8(200))
    assert summary._n == 60000
    assert summary.compute_mean() == 2


def test_wide_leaves_everything_else_alone():
    for value in (1, 2.0, True, "a", None, np.ones(2, "f2"), np.float64(1), np.bool(1)):
        assert wide(value) is value
    variable = chainer.Variable(np.ones((), "f"))
    assert wide(variable) is variable


class Trainer:
    def __init__(self, **observation):
        self.observation = observation


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_micro_average(dtype):
    extension = extensions.MicroAverage("right", "all", "rate", lambda _: last)
    observation = {}
    for step in range(3000):
        last = step == 2999
        with reporter.Reporter().scope(observation):
            extension(Trainer(right=np.asarray(60, dtype), all=np.asarray(80, dtype)))
    assert observation == {"rate": 0.75}


def float16_link(*gradients):
    link = chainer.Link()
    with link.init_scope():
        for i, gradient in enumerate(gradients):
            setattr(link, f"p{i}", chainer.Parameter(np.ones_like(gradient)))
    for parameter, gradient in zip(link.params(), gradients, strict=True):
        parameter.grad = gradient.copy()
    return link


def test_gradient_clipping_in_half_precision():
    # Each squared norm fits float16 (40000), the sum of two does not.
    gradient = np.full(4, 100, np.float16)
    link = float16_link(gradient, gradient)
    optimizer = chainer.optimizers.SGD().setup(link)
    GradientClipping(1)(optimizer)
    for parameter in link.params():
        assert parameter.grad.dtype == np.float16
        np.testing.assert_allclose(parameter.grad, 100 / np.sqrt(80000), rtol=1e-3)


def test_norms_beyond_half_precision():
    # Neither squared norm fits float16, whose largest number is 65504.
    gradient = np.full(100, 60, np.float16)
    link = float16_link(gradient)
    link.p0.array[...] = 40
    optimizer = chainer.optimizers.SGD().setup(link)
    GradientClipping(1)(optimizer)
    np.testing.assert_allclose(link.p0.grad, 0.1, rtol=1e-3)
    link.p0.grad = gradient.copy()
    GradientLARS()(link.p0.update_rule, link.p0)
    np.testing.assert_allclose(link.p0.grad, 40, rtol=1e-3)  # times 400 / 600


def test_layer_wise_rate_of_a_vanished_gradient_in_half_precision():
    # eps is zero in float16: the rate would be 0 / 0.
    link = float16_link(np.zeros(4, np.float16))
    optimizer = chainer.optimizers.SGD(lr=1).setup(link)
    optimizer.add_hook(GradientLARS(weight_decay=0))
    optimizer.update()
    np.testing.assert_array_equal(link.p0.array, 1)


def alias_table(weights):
    """Walker's alias method as Chainer has it, in Python's floats."""
    shares = np.array(weights, np.float32)
    shares = shares / shares.sum()
    threshold, values = [], [0] * (2 * len(weights))
    done = 0
    for share, i in sorted(zip(shares.tolist(), range(len(weights)), strict=True)):
        p = share * len(weights)
        while p > 1 and done < len(threshold):
            values[2 * done + 1] = i
            p -= 1 - threshold[done]
            done += 1
        values[2 * len(threshold)] = i
        threshold.append(float(np.float32(p)))
    for i in range(done, len(weights)):
        values[2 * i + 1] = 0
    return threshold, values


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=40))
def test_walker_alias(weights):
    sampler = WalkerAlias(weights)
    threshold, values = alias_table(weights)
    assert sampler.threshold.tolist() == threshold
    assert sampler.values.tolist() == values


def test_chainermn_average_of_observations():
    from chainermn.extensions.observation_aggregator import _average_2d

    assert _average_2d([[np.float16(60000)] * 2, [np.float16(60000)]]) == 60000
