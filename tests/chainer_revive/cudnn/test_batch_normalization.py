import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.backends import cuda

X = (4, 6, 3, 5)
EPS = {"e": 4e-3, "f": 1e-5, "d": 1e-10}


def arrays(x_dtype, gamma_dtype, shape=X):
    random = np.random.RandomState(0)
    c = shape[1]
    x = random.uniform(-1, 2, shape).astype(x_dtype)
    gamma, beta, mean = random.uniform(0.5, 1.5, (3, c)).astype(gamma_dtype)
    var = random.uniform(0.5, 1.5, c).astype(gamma_dtype)
    return x, gamma, beta, mean, var


def doubled(arrays):
    return [a.astype(np.float64) for a in arrays]


@pytest.mark.parametrize("x_dtype, gamma_dtype", ["ff", "ee", "ef"])
@pytest.mark.parametrize("refused", ["nothing", "by x", "batch"])
def test_training(fake, gradients, compare, x_dtype, gamma_dtype, refused):
    inputs = arrays(x_dtype, gamma_dtype)

    def normalize(stats):
        def function(x, gamma, beta):
            return F.batch_normalization(
                x, gamma, beta, running_mean=stats[0], running_var=stats[1], decay=0.8
            )

        return function

    expected_stats = doubled(inputs[3:])
    expected = gradients(normalize(expected_stats), doubled(inputs[:3]))
    stats = [a.copy() for a in inputs[3:]]
    with fake() as executor:
        executor.refuses = lambda operation: refused in operation.kind
        actual = gradients(normalize(stats), inputs[:3])
    kinds = {
        "nothing": {"batch normalization", "batch normalization by x"},
        "by x": {"batch normalization"},
        "batch": set(),
    }
    assert {o.kind for o in executor.operations} == kinds[refused]
    n = 4  # the output and its gradients
    compare(actual[:n], expected[:n], EPS[x_dtype])
    compare(stats, expected_stats, EPS[gamma_dtype])
    if x_dtype == gamma_dtype:
        # Half precision adds up the errors of a dozen steps of Chainer's own.
        compare(actual[n:], expected[n:], 10 * EPS[x_dtype])
    dtypes = [x_dtype, x_dtype, gamma_dtype, gamma_dtype]
    assert [a.dtype.char for a in actual[:n]] == dtypes


def test_dtypes_of_the_node(fake):
    """Chainer computes gradients of gradients from them."""
    x, gamma, beta, *_ = arrays("e", "e")
    with fake():
        y = F.batch_normalization(x, gamma, beta)
    node = y.creator
    assert node.mean.dtype == node.inv_std.dtype == np.float16


@pytest.mark.parametrize("axis", [None, (0, 2, 3)])
def test_link(fake, compare, axis):
    x = arrays("f", "f")[0]
    links = [L.BatchNormalization(X[1], axis=axis, dtype=d) for d in "fd"]
    with fake() as executor:
        ys = [links[0](x), links[0](x[:2])]
    expected = [links[1](x.astype("d")), links[1](x[:2].astype("d"))]
    assert len(executor.operations) == 2
    compare([y.array for y in ys], [y.array for y in expected], 1e-5)
    compare(
        [links[0].avg_mean, links[0].avg_var],
        [links[1].avg_mean, links[1].avg_var],
        1e-5,
    )


def test_recomputing_leaves_statistics_alone(fake):
    link = L.BatchNormalization(X[1], dtype="f")
    x = chainer.Variable(arrays("f", "f")[0])
    with fake():
        y = F.forget(link, x)
        after_one = link.avg_mean.copy()
        F.sum(y).backward()
    np.testing.assert_array_equal(link.avg_mean, after_one)
    assert x.grad is not None


@pytest.mark.parametrize("x_dtype, gamma_dtype", ["ff", "ee", "ef"])
@pytest.mark.parametrize("layout", ["first", "last"])
def test_inference(fake, gradients, compare, x_dtype, gamma_dtype, layout):
    x, *rest = arrays(x_dtype, gamma_dtype)
    if layout == "last":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)

    def normalize(x):
        return F.fixed_batch_normalization(x, *rest, eps=1e-3)

    expected = gradients(normalize, [x])
    with fake():
        actual = gradients(normalize, [x])
    compare(actual, doubled(expected), EPS[x_dtype])
    assert actual[0].transpose(0, 2, 3, 1).flags.c_contiguous
    assert actual[0].dtype.char == x_dtype


@pytest.mark.filterwarnings("ignore:A batch with no more than one sample")
@pytest.mark.parametrize(
    "shape, axis",
    [((4, 6), None), ((4, 6, 5), None), (X, (0, 1)), ((1, 6, 1, 1), None)],
)
def test_not_covered(fake, shape, axis):
    x = np.random.RandomState(0).uniform(-1, 2, shape).astype("f")
    c = shape[1:2] if axis is None else shape[2:]
    gamma, beta = np.ones(c, "f"), np.zeros(c, "f")
    with fake() as executor:
        F.batch_normalization(x, gamma, beta, axis=axis)
    assert not executor.operations


def test_other_selectors_keep_their_implementation(fake):
    """As ChainerMN's, whose statistics are those of several processes."""
    from chainer.functions.normalization import batch_normalization as chainers_bn

    used = []

    class Own(chainers_bn.GeneralBatchNormalizationImpl):
        def forward(self, **kwargs):
            used.append(self)
            return super().forward(**kwargs)

    x, gamma, beta, *_ = arrays("f", "f")
    with fake() as executor:
        node = chainers_bn.BatchNormalization(impl_selector=lambda *_: Own())
        node.apply((x, gamma, beta))
    assert used and not executor.operations


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [64, 63, 2])
@pytest.mark.parametrize("x_dtype, gamma_dtype", ["ff", "ee", "ef", "dd"])
def test_training_on_a_gpu(on_gpu, gradients, compare, x_dtype, gamma_dtype, channels):
    inputs = arrays(x_dtype, gamma_dtype, (8, channels, 7, 5))

    def run(inputs):
        stats = inputs[3:]

        def normalize(x, gamma, beta):
            return F.batch_normalization(
                x, gamma, beta, running_mean=stats[0], running_var=stats[1], decay=0.8
            )

        return gradients(normalize, inputs[:3])[:4] + list(map(cuda.to_cpu, stats))

    expected = run(doubled(inputs))
    actual = run(list(map(on_gpu.asarray, inputs)))
    compare(actual, expected, {"e": 1e-2, "f": 1e-4, "d": 1e-10}[x_dtype])


@pytest.mark.gpu
@pytest.mark.parametrize("x_dtype, gamma_dtype", ["ff", "ee", "ef", "dd"])
def test_inference_on_a_gpu(on_gpu, gradients, compare, x_dtype, gamma_dtype):
    inputs = arrays(x_dtype, gamma_dtype)

    def normalize(x):
        return F.fixed_batch_normalization(
            x, *(x.xp.asarray(values) for values in inputs[1:])
        )

    x = on_gpu.asarray(inputs[0].transpose(0, 2, 3, 1).copy()).transpose(0, 3, 1, 2)
    expected = gradients(normalize, [inputs[0]])
    compare(gradients(normalize, [x]), doubled(expected), EPS[x_dtype])
    y = normalize(chainer.Variable(x)).array
    # float64 is Chainer's own, which puts channels first.
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous == (x_dtype != "d")
