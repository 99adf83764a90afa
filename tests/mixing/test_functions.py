import threading
from concurrent.futures import ThreadPoolExecutor

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer import gradient_check
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chainer_mmix import current_draw, mix, mixup_data
from chainer_mmix.mixing import cutmix
from chainer_mmix.mixing.draw import MixupDraw, using_draw


def reference(x, lam, perm):
    x = np.asarray(x, np.float64)
    lam = np.broadcast_to(np.asarray(lam, np.float64), len(x))
    lam = lam.reshape((-1,) + (1,) * (x.ndim - 1))
    return lam * x + (1 - lam) * x[perm]


@st.composite
def batches(draw, dtypes=(np.float16, np.float32, np.float64)):
    dtype = draw(st.sampled_from(dtypes))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=7))
    x = draw(hnp.arrays(dtype, shape, elements=st.floats(-8, 8, width=16)))
    perm = np.array(draw(st.permutations(range(len(x)))))
    weight = st.floats(0, 1, width=32)
    lam = draw(weight | hnp.arrays(np.float32, len(x), elements=weight))
    return x, lam, perm


@given(batches())
def test_mix_equals_float64_reference(batch):
    x, lam, perm = batch
    y = mix(x, lam, perm).array
    assert y.dtype == x.dtype and y.shape == x.shape
    tolerance = {"e": 1e-3, "f": 1e-6, "d": 1e-14}[x.dtype.char]
    np.testing.assert_allclose(y, reference(x, lam, perm), tolerance, 8 * tolerance)


@settings(max_examples=25, deadline=None)
@given(batches(dtypes=(np.float64,)))
def test_mix_gradients(batch):
    x, lam, perm = batch
    gy = np.cos(np.arange(x.size, dtype=x.dtype)).reshape(x.shape)
    check = {"atol": 1e-5, "rtol": 1e-5, "dtype": np.float64}
    gradient_check.check_backward(lambda v: mix(v, lam, perm), x, gy, **check)
    gradient_check.check_double_backward(
        lambda v: mix(v, lam, perm) ** 2, x, gy, np.sin(x), **check
    )


def test_large_and_strided_batches_are_mixed_whole():
    # Larger than one chunk, and not contiguous in memory.
    x = np.random.RandomState(0).randn(37, 16, 17, 32).astype(np.float32)
    x = x.transpose(0, 3, 1, 2)
    perm = np.random.RandomState(1).permutation(37)
    y = mix(x, 0.3, perm).array
    np.testing.assert_allclose(y, reference(x, 0.3, perm), rtol=1e-5, atol=1e-6)
    assert y.strides == x.strides


@pytest.mark.parametrize("lam", [0.3, np.float64(0.3), np.float32(0.3), np.array(0.3)])
def test_float32_stays_float32(lam):
    x = chainer.Variable(np.ones((3, 2), np.float32))
    y = mix(x, lam, [2, 0, 1])
    y.grad = np.ones_like(y.array)
    y.backward()
    assert y.dtype == x.grad.dtype == np.float32


def test_half_precision_is_rounded_once():
    rng = np.random.RandomState(0)
    x = rng.randn(64, 100).astype(np.float16)
    perm = rng.permutation(64)
    # 0.9999 is 1 in float16, and would leave no trace of the partner.
    for lam in (0.3, 0.9999):
        exact = reference(x, lam, perm).astype(np.float16)
        assert (mix(x, lam, perm).array != exact).mean() < 0.05


def test_arguments_may_be_overwritten_before_the_gradient_is_computed():
    x = chainer.Variable(np.eye(3, dtype=np.float32))
    lam, perm = np.array([0.5, 0.5, 0.5]), np.array([1, 2, 0])
    y = mix(x, lam, perm)
    lam[:], perm[:] = 0, [0, 1, 2]
    y.grad = np.eye(3, dtype=np.float32)
    y.backward()
    np.testing.assert_allclose(x.grad, 0.5 * np.eye(3) + 0.5 * np.eye(3)[[2, 0, 1]])


def test_batch_of_one_is_left_alone():
    x = np.array([[1.5, -2]], np.float32)
    mixed, target_a, target_b = mixup_data(x, np.array([3]), 0.7)
    np.testing.assert_allclose(mixed, x, rtol=1e-6)
    assert target_a.tolist() == target_b.tolist() == [3]


def test_empty_batch():
    x = np.empty((0, 4), np.float32)
    assert mix(x, 0.5, np.empty(0, int)).shape == (0, 4)


@pytest.mark.parametrize(
    ("lam", "perm", "message"),
    [
        (-0.1, [1, 0], r"lam must lie in \[0, 1\], not -0.1"),
        (1.5, [1, 0], r"\[0, 1\], not 1.5"),
        (float("nan"), [1, 0], "not nan"),
        (np.array([0.5, 2]), [1, 0], r"\[0.5 2. \]"),
        (np.ones(3), [1, 0], r"shape \(2,\).*has shape \(3,\)"),
        (np.ones((2, 1)), [1, 0], r"has shape \(2, 1\)"),
        (0.5, [0], r"shape \(2,\).*perm has shape \(1,\)"),
        (0.5, [0, 2], r"permutation of 0, ..., 1.*\[0 2\]"),
        (0.5, [1, 1], "permutation"),
    ],
)
def test_bad_arguments_are_named(lam, perm, message):
    with pytest.raises(ValueError, match=message):
        mix(np.zeros((2, 3), np.float32), lam, perm)


def test_integers_are_refused():
    with pytest.raises(TypeError, match=r"dtype int64, .* convert it to float32"):
        mix(np.zeros((2, 3), int), 0.5, [1, 0])


def test_mixup_data_pairs_features_and_targets_alike():
    x = np.eye(8, dtype=np.float32)  # sample n is the n-th one-hot vector
    target = np.arange(8) + 100
    np.random.seed(0)
    mixed, target_a, target_b = mixup_data(x, target, 0.75)
    np.testing.assert_array_equal(target_a, target)
    partner = target_b - 100
    assert sorted(partner) == list(range(8)) and (partner != np.arange(8)).any()
    np.testing.assert_allclose(mixed, 0.75 * x + 0.25 * x[partner])


@pytest.mark.parametrize(
    "wrap",
    [lambda x: x, chainer.Variable, lambda x: chainer.Variable(x, requires_grad=False)],
)
def test_what_goes_in_as_an_array_comes_out_as_one(wrap):
    x, z = np.random.RandomState(0).randn(2, 3, 2).astype(np.float32)
    perm = [2, 0, 1]
    mixed, *_ = mixup_data(wrap(x), np.arange(3), 0.25, perm)
    assert type(mixed) is type(wrap(x)) and mixed.dtype == np.float32
    assert getattr(mixed, "requires_grad", None) == getattr(
        wrap(x), "requires_grad", None
    )
    np.testing.assert_array_equal(chainer.as_array(mixed), mix(x, 0.25, perm).array)
    # A mask beside a hidden state is part of the state.
    parts, *_ = mixup_data((wrap(x), z), np.arange(3), 0.25, perm)
    assert [type(part) for part in parts] == [type(wrap(x))] * 2


def test_mixup_data_takes_variables_and_multi_dimensional_targets():
    x = np.random.RandomState(0).rand(4, 3).astype(np.float32)
    target = chainer.Variable(np.random.RandomState(1).rand(4, 2).astype(np.float32))
    mixed, target_a, target_b = mixup_data(x, target, 0.5, [3, 2, 1, 0])
    np.testing.assert_array_equal(target_a.array[::-1], target_b.array)
    F.sum(mixed).backward()


def test_partners_come_from_the_active_draw_and_not_from_numpy():
    draw = MixupDraw(0, 0.5, np.array([2, 0, 1]))
    before = np.random.get_state()[1].copy()
    with using_draw(draw) as mixture:
        *_, target_b = mixup_data(np.zeros((3, 1), np.float32), np.arange(3), 0.5)
        assert current_draw() is draw
    assert target_b.tolist() == [2, 0, 1] and mixture.times_mixed == 1
    assert current_draw() is None
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_draws_nest_and_end():
    x, t = np.zeros((2, 1), np.float32), np.arange(2)
    outer, inner = (MixupDraw(0, 0.5, np.array(p)) for p in ([1, 0], [0, 1]))
    with using_draw(outer) as first:
        with using_draw(inner) as second:
            assert mixup_data(x, t, 0.5)[2].tolist() == [0, 1]
        assert mixup_data(x, t, 0.5)[2].tolist() == [1, 0]
    mixup_data(x, t, 0.5)
    assert (first.times_mixed, second.times_mixed) == (1, 1)


def test_draws_of_two_threads_do_not_mix():
    barrier = threading.Barrier(2, timeout=30)

    def partners(perm):
        with using_draw(MixupDraw(0, 0.5, np.array(perm))):
            barrier.wait()
            x = np.zeros((2, 1), np.float32)
            targets = mixup_data(x, np.arange(2), 0.5)
            barrier.wait()
        return targets[2].tolist()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(partners, ([0, 1], [1, 0]))) == [[0, 1], [1, 0]]


def cutmix_reference(x, lam, perm, center):
    """rand_bbox of CutMix's published code, a box a sample."""
    y, left = x.copy(), []
    height, width = x.shape[2:]
    for n, (lam_n, center_n) in enumerate(zip(lam, center, strict=True)):
        cut_h, cut_w = (int(size * np.sqrt(1 - lam_n)) for size in (height, width))
        cy, cx = int(center_n[0] * height), int(center_n[1] * width)
        rows = slice(
            np.clip(cy - cut_h // 2, 0, height), np.clip(cy + cut_h // 2, 0, height)
        )
        columns = slice(
            np.clip(cx - cut_w // 2, 0, width), np.clip(cx + cut_w // 2, 0, width)
        )
        y[n, :, rows, columns] = x[perm[n], :, rows, columns]
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        left.append(1 - area / (height * width))
    return y, np.array(left)


@given(
    st.integers(0, 10**6),
    st.tuples(*[st.integers(3, 9)] * 2),
    st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_cutmix_equals_the_published_code(seed, size, dtype):
    rng = np.random.RandomState(seed)
    x = rng.randn(4, 2, *size).astype(dtype)
    lam, center, perm = rng.rand(4), rng.rand(4, 3), rng.permutation(4)
    for one in (False, True):  # a box a batch, a box a sample
        arguments = (lam[0], center[0]) if one else (lam, center)
        y, left = cutmix(x, arguments[0], perm, arguments[1])
        boxes = ([lam[0]] * 4, [center[0]] * 4) if one else (lam, center)
        expected, expected_left = cutmix_reference(x, boxes[0], perm, boxes[1])
        np.testing.assert_array_equal(y.array, expected)
        assert y.dtype == dtype
        np.testing.assert_allclose(left, expected_left[0] if one else expected_left)


@pytest.mark.parametrize("size", [(16,), (4, 5), (3, 4, 5)])
def test_cutmix_keeps_the_gradient_of_what_it_keeps(size):
    rng = np.random.RandomState(0)
    x, gy = rng.randn(2, 3, 2, *size)
    perm, lam, center = np.array([2, 0, 1]), np.array([0.4, 0.9, 0]), rng.rand(3, 3)

    def function(v):
        return cutmix(v, lam, perm, center)[0]

    gradient_check.check_backward(function, x, gy, dtype=np.float64)
    assert (function(x).array != x).any()


def test_cutmix_of_everything_and_nothing():
    x = np.random.RandomState(0).randn(2, 1, 4, 4).astype(np.float32)
    whole, left = cutmix(x, 0.0, [1, 0], np.full(3, 0.5))
    np.testing.assert_array_equal(whole.array, x[::-1])
    assert left == 0.0 and type(left) is float
    same, left = cutmix(x, 1.0, [1, 0], np.full(3, 0.5))
    np.testing.assert_array_equal(same.array, x)
    assert left == 1.0


def test_cutmix_needs_a_map():
    draw = MixupDraw(0, 0.5, np.array([1, 0]), np.zeros(3))
    for x, message in (
        (np.zeros((2, 3), np.float32), r"x has shape \(2, 3\)"),
        ((np.zeros((2, 3, 4, 4), np.float32),) * 2, "the state has 2 parts"),
        (np.zeros((2, 3, 4, 2), np.float32), r"3 or longer, but x has shape \(2, 3, 4"),
    ):
        with using_draw(draw), pytest.raises(ValueError, match=message):
            mixup_data(x, np.arange(2), 0.5)


def test_a_draw_of_cutmix_corrects_its_lambda():
    x = np.random.RandomState(0).randn(2, 1, 4, 4).astype(np.float32)
    draw = MixupDraw(0, 0.7, np.array([1, 0]), np.full(3, 0.5))
    with using_draw(draw) as mixture:
        mixed, _, target_b = mixup_data(x, np.arange(2), 0.7)
        assert current_draw() is mixture.draw
    # int(4 * sqrt(0.3)) = 2 rows and columns
    assert mixture.draw.lam == 1 - 4 / 16 and target_b.tolist() == [1, 0]
    assert draw.lam == 0.7
    assert (mixed != x).sum() == 2 * 4


def test_a_state_of_several_parts_is_mixed_alike():
    rng = np.random.RandomState(0)
    h, c = rng.randn(4, 3).astype("f"), rng.randn(4, 2, 2).astype("f")
    draw = MixupDraw(0, 0.25, np.array([1, 2, 3, 0]))
    with using_draw(draw) as mixture:
        (mixed_h, mixed_c), *_ = mixup_data([h, c], np.arange(4), 0.25)
    assert mixture.times_mixed == 1
    for mixed, x in ((mixed_h, h), (mixed_c, c)):
        np.testing.assert_allclose(mixed, reference(x, 0.25, draw.perm), 1e-6)


def test_no_target_and_recomputation_are_errors():
    x = chainer.Variable(np.zeros((2, 3), np.float32))
    with pytest.raises(TypeError, match="mixup_data got no target"):
        mixup_data(x, None, 0.5)
    with pytest.raises(RuntimeError, match=r"within chainer\.functions\.forget"):
        F.forget(lambda h: mixup_data(h, np.arange(2), 0.5)[0], x)


def test_features_and_targets_of_different_length():
    with pytest.raises(ValueError, match=r"3 samples .* target has 2 \(shape \(2,\)\)"):
        mixup_data(np.zeros((3, 1), np.float32), np.zeros(2, int), 0.5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("per_sample", [False, True])
def test_gpu_equals_cpu(dtype, per_sample):
    rng = np.random.RandomState(0)
    x = rng.randn(33, 5, 7).astype(dtype)
    lam = rng.rand(33).astype(np.float32) if per_sample else 0.3
    perm = rng.permutation(33)
    gradients = []
    for to_device in (np.asarray, chainer.backends.cuda.to_gpu):
        v = chainer.Variable(to_device(x))
        y = mix(v, lam, perm)
        y.grad = v.array
        y.backward()
        gradients.append((y.array, v.grad))
    for cpu, gpu in zip(*gradients, strict=True):
        tolerance = 1e-3 if dtype == np.float16 else 1e-6
        np.testing.assert_allclose(cpu, gpu.get(), tolerance, tolerance)
