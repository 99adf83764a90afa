from unittest import mock

import chainer
import numpy as np
import pytest
from chainer.backends import cuda
from chainer.optimizer_hooks import GradientClipping
from chainer.optimizers import MomentumSGD, NesterovAG
from chainer.serializers import load_npz, save_npz

from chainer_mmix.training import SGD, make_optimizer
from chainer_mmix.training.sgd import sgd_kernel
from chainer_revive.cpu import compiled


class Weight(chainer.Link):
    def __init__(self, array):
        super().__init__()
        with self.init_scope():
            self.w = chainer.Parameter(np.array(array))


def step(optimizer, *gradients, array=(0.0, 0.0)):
    """Makes a step for each gradient; returns the weights after each."""
    link = Weight(array)
    optimizer.setup(link)
    after = []
    for gradient in gradients:
        link.w.grad = np.array(gradient, link.w.dtype)
        optimizer.update()
        after.append(link.w.array.copy())
    return after


def on_parabola(optimizer, steps=200):
    """Minimizes w**2 / 2 from 1; returns the largest of the last ten."""
    link = Weight(1.0)
    optimizer.setup(link)
    seen = []
    for _ in range(steps):
        link.w.grad = link.w.array.copy()
        optimizer.update()
        seen.append(abs(link.w.array))
    return max(seen[-10:])


@pytest.mark.parametrize(
    ("make", "factor"),
    [
        (lambda: SGD(0.5), 1),
        (lambda: SGD(0.5, nesterov=True), 1.9),
        (lambda: MomentumSGD(0.5), 1),
        (lambda: NesterovAG(0.5), 2.71),
    ],
)
def test_first_step(make, factor):
    (after,) = step(make(), [1.0, -2.0])
    np.testing.assert_allclose(after, -0.5 * factor * np.array([1, -2]), rtol=1e-12)


# With momentum m, PyTorch's bounds are 2 (1 + m) / (1 + 2 m) and 2 (1 + m).
@pytest.mark.parametrize(
    ("make", "bound"),
    [
        (lambda lr: SGD(lr, nesterov=True), 3.8 / 2.8),
        (lambda lr: SGD(lr), 3.8),
        (lambda lr: NesterovAG(lr), 0.862),
    ],
)
def test_parabola_up_to_which_it_is_stable(make, bound):
    assert on_parabola(make(0.99 * bound)) < 0.5
    assert on_parabola(make(1.01 * bound)) > 2


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 0.0), (0.7, 0.3)])
def test_steps_are_pytorchs(nesterov, momentum, weight_decay):
    random = np.random.RandomState(0)
    start, gradients = random.standard_normal(5), random.standard_normal((8, 5))
    optimizer = SGD(0.1, momentum, weight_decay, nesterov)
    actual = step(optimizer, *gradients, array=start)
    p, buffer = start, None
    for gradient, after in zip(gradients, actual, strict=True):
        # As torch.optim.sgd has it.
        gradient = gradient + weight_decay * p
        buffer = gradient if buffer is None else momentum * buffer + gradient
        p = p - 0.1 * (gradient + momentum * buffer if nesterov else buffer)
        np.testing.assert_allclose(after, p, rtol=1e-13)


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_drop_of_the_rate_takes_effect_in_the_next_step(nesterov):
    lengths = {}
    for optimizer in (SGD(1.0, nesterov=nesterov), MomentumSGD(1.0)):
        link = Weight(0.0)
        optimizer.setup(link)
        at = []
        for lr in (*[1.0] * 200, 0.1):
            optimizer.lr = lr
            link.w.grad = np.array(1.0)
            optimizer.update()
            at.append(float(link.w.array))
        before, last = np.diff(at)[-2:]
        lengths[type(optimizer)] = last / before
    assert lengths[SGD] == pytest.approx(0.1)
    assert lengths[MomentumSGD] == pytest.approx(0.9 + 0.01)


def test_weight_decay_comes_after_clipping():
    optimizer = SGD(1.0, weight_decay=0.5)
    link = Weight([3.0, 4.0])
    optimizer.setup(link).add_hook(GradientClipping(1.0))
    link.w.grad = np.array([30.0, 40.0])
    optimizer.update()
    # The gradient becomes [0.6, 0.8], to which half the weight is added.
    np.testing.assert_allclose(link.w.array, [3 - 0.6 - 1.5, 4 - 0.8 - 2], rtol=1e-6)


def test_a_parameter_may_have_hyperparameters_of_its_own():
    optimizer = SGD(1.0, weight_decay=0.5)
    link = Weight([2.0])
    optimizer.setup(link)
    link.w.update_rule.hyperparam.weight_decay = 0
    link.w.grad = np.array([1.0])
    optimizer.update()
    assert link.w.array == 1


@pytest.mark.parametrize("shape", [(), (3,), (0,), (41, 30), (1 << 16,)])
@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.3}, {"nesterov": True, "weight_decay": 0.3}]
)
def test_compiled_loops_round_as_numpy(options, shape, layout, monkeypatch):
    pytest.importorskip("numba")

    def train():
        random = np.random.RandomState(0)
        start, *gradients = random.standard_normal((4, *shape)).astype("f")
        array = np.asarray(start, order=layout)
        return [a.tobytes() for a in step(SGD(**options), *gradients, array=array)]

    fast = train()
    monkeypatch.setattr(compiled, "wanted", False)
    assert fast == train()


def test_one_loop_steps_over_all_parameters(monkeypatch):
    pytest.importorskip("numba")

    def train():
        random = np.random.RandomState(0)
        model = chainer.Chain(a=Weight(random.randn(40, 30).astype("f")))
        model.add_link("b", Weight(random.randn(7).astype("f")))
        optimizer = SGD(0.1, weight_decay=0.3, nesterov=True).setup(model)
        model.a.w.update_rule.hyperparam.weight_decay = 0
        for _ in range(3):
            for param in model.params():
                param.grad = random.randn(*param.shape).astype("f")
            optimizer.update()
        rules = [param.update_rule for param in model.params()]
        assert [rule.t for rule in rules] == [3, 3] and optimizer.t == 3
        states = [rule.state["velocity"] for rule in rules]
        return [a.tobytes() for a in (model.a.w.array, model.b.w.array, *states)]

    loops = compiled.loops(np.dtype("f")).threads
    with mock.patch.object(loops, "run", wraps=loops.run) as run:
        fast = train()
    assert run.call_count == 3
    monkeypatch.setattr(compiled, "wanted", False)
    assert fast == train()


@pytest.mark.parametrize("is_there", [False, True])
def test_a_parameter_without_a_gradient_stays(is_there):
    model = chainer.Chain(
        used=chainer.links.Linear(3, 2),
        unused=chainer.links.Linear(3 if is_there else None, 2, initialW=7),
    )
    optimizer = SGD(0.1).setup(model)
    for _ in range(2):
        y = model.used(np.ones((4, 3), "f"))
        optimizer.update(lambda y=y: chainer.functions.sum(y))
    if is_there:
        assert np.all(model.unused.W.array == 7)
    else:
        assert model.unused.W.array is None


def test_a_resumed_run_is_one_without_a_break(tmp_path):
    gradients = np.random.RandomState(0).standard_normal((6, 4)).astype("f")

    def make():
        link = Weight(np.ones(4, "f"))
        return link, SGD(0.1, weight_decay=0.1, nesterov=True).setup(link)

    def train(link, optimizer, gradients):
        for gradient in gradients:
            link.w.grad = gradient
            optimizer.update()

    whole, first, second = make(), make(), make()
    train(*whole, gradients)
    train(*first, gradients[:3])
    for i, file in enumerate((tmp_path / "link.npz", tmp_path / "optimizer.npz")):
        save_npz(file, first[i])
        load_npz(file, second[i])
    train(*second, gradients[3:])
    np.testing.assert_array_equal(second[0].w.array, whole[0].w.array)
    assert second[1].t == 6


def test_half_precision_with_a_float32_copy():
    """Steps too small for float16 add up in the copy; the loss scale is divided out."""
    with chainer.using_config("dtype", chainer.mixed16):
        link = chainer.links.Linear(1, 1, initialW=1, nobias=True)
    optimizer = SGD(1e-4, momentum=0.0)
    optimizer.use_fp32_update()
    optimizer.setup(link)
    optimizer.set_loss_scale(8.0)
    for _ in range(10):
        optimizer.update(
            lambda: chainer.functions.sum(link(np.ones((1, 1), np.float16)))
        )
    assert link.W.dtype == np.float16
    copy = link.W.update_rule._fp32_param.array
    np.testing.assert_allclose(copy, 1 - 1e-3, rtol=1e-5)
    np.testing.assert_array_equal(link.W.array, copy.astype(np.float16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1}, "lr must be a finite number >= 0, not -1"),
        ({"lr": float("nan")}, "lr must be a finite number >= 0, not nan"),
        ({"momentum": -0.1}, "momentum must be a finite number >= 0, not -0.1"),
        ({"weight_decay": -1}, "weight_decay must be a finite number >= 0, not -1"),
        ({"lr": "0.1"}, "lr must be a finite number >= 0, not '0.1'"),
        ({"momentum": 0, "nesterov": True}, "nesterov=True needs a momentum above 0"),
    ],
)
def test_refuses_what_pytorch_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        SGD(**options)


def test_by_name():
    optimizer = make_optimizer("sgd", Weight([1.0]), 0.5, 0.1, 0.8, nesterov=True)
    assert type(optimizer) is SGD and not optimizer._hookable._pre_update_hooks
    hp = optimizer.hyperparam
    assert (hp.lr, hp.momentum, hp.weight_decay, hp.nesterov) == (0.5, 0.8, 0.1, True)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_kernel_compiles(dtype, elementwise_source, nvrtc, monkeypatch):
    cupy = pytest.importorskip("cupy")
    monkeypatch.setattr(cuda, "elementwise", cupy.ElementwiseKernel)
    inputs = [dtype] * 4 + ["bool"]
    nvrtc(elementwise_source(sgd_kernel(), inputs, [dtype, dtype]), "mmix_sgd")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["e", "f", "d"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_on_a_gpu(nesterov, dtype):
    random = np.random.RandomState(0)
    start, *gradients = random.standard_normal((4, 1000)).astype(dtype)
    results = []
    for device in map(chainer.get_device, ("@numpy", "@cupy:0")):
        link = Weight(start)
        link.to_device(device)
        optimizer = SGD(0.1, weight_decay=0.3, nesterov=nesterov).setup(link)
        for gradient in gradients:
            link.w.grad = device.send(gradient)
            optimizer.update()
        link.to_device("@numpy")
        results.append(link.w.array)
    tolerance = {"e": 1e-2, "f": 1e-5, "d": 1e-12}[dtype]
    np.testing.assert_allclose(*results, tolerance, tolerance)
