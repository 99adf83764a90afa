import pickle
import warnings

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer import optimizer_hooks
from chainer.datasets import TupleDataset

from chainer_mmix import training
from chainer_mmix.training import DTYPES, convert_examples, scale_loss
from chainer_mmix.training.precision import convert_bytes


@pytest.fixture(params=["float16", "mixed16"])
def half(request):
    with chainer.using_config("dtype", DTYPES[request.param]):
        yield request.param


def batch(dtype):
    return [(np.full(3, 0.1, dtype), np.int32(i)) for i in range(2)]


@pytest.mark.parametrize("device", [None, -1, chainer.get_device("@numpy")])
def test_floats_are_rounded_and_labels_are_not(half, device):
    x, t = convert_examples(batch("f"), device)
    assert (x.dtype, t.dtype) == (np.float16, np.int32)
    np.testing.assert_array_equal(x, np.full((2, 3), 0.1, np.float16))
    np.testing.assert_array_equal(t, [0, 1])


@pytest.mark.parametrize("dtype", ["f", "d"])
def test_otherwise_examples_stay_as_they_are(dtype):
    x, _ = convert_examples(batch(dtype), -1)
    assert x.dtype == dtype


BYTES = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)


@pytest.mark.parametrize("device", [None, -1, "@numpy"])
def test_images_of_bytes_become_floats_as_if_divided_by_255(device):
    x, t = convert_bytes([(BYTES, np.int32(3))] * 2, device)
    assert (x.dtype, x.shape, t.tolist()) == (np.float32, (2, 1, 16, 16), [3, 3])
    expected = BYTES / np.float64(255)
    np.testing.assert_array_equal(x[1], expected.astype(np.float32))


def test_images_of_bytes_become_halves_of_such_floats(half):
    x, _ = convert_bytes([(BYTES, np.int32(3))], "@numpy")
    assert x.dtype == np.float16
    floats = (BYTES / np.float32(255)).astype(np.float16)
    np.testing.assert_array_equal(x[0], floats)


class Weight(chainer.Link):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.w = chainer.Parameter(np.ones(1, chainer.get_dtype(map_mixed16="e")))


def test_small_steps_add_up_in_float32_copies_only(half):
    link = Weight()
    optimizer = chainer.optimizers.SGD(1.0).setup(link)
    scale_loss(optimizer, 4.0)
    for _ in range(8):
        # Less than half of the distance between 1 and its neighbour.
        optimizer.update(lambda: chainer.functions.sum(link.w * np.float16(2.0**-13)))
    assert link.w.dtype == np.float16
    expected = 1 - 8 * 2.0**-13 if half == "mixed16" else 1
    assert float(link.w.array[0]) == expected


def test_a_gradient_that_underflows_without_a_scale(half):
    def step(scale):
        link = Weight()
        optimizer = chainer.optimizers.SGD(2.0**12).setup(link)
        scale_loss(optimizer, scale)
        y = np.float16(2.0**-13) * link.w
        optimizer.update(lambda: chainer.functions.sum(np.float16(2.0**-12) * y))
        return float(link.w.array[0])

    assert step(1.0) == 1
    assert step(1024.0) == pytest.approx(1 - 2.0**-13 * (half == "mixed16"), abs=5e-4)


def test_float32_is_left_alone():
    optimizer = chainer.optimizers.SGD().setup(Weight())
    scale_loss(optimizer, None)
    assert optimizer._loss_scale is None and not optimizer._loss_scaling_is_dynamic


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 0, -1, "128"])
def test_scales_that_are_no_positive_numbers(half, scale):
    optimizer = chainer.optimizers.SGD().setup(Weight())
    with pytest.raises(ValueError, match="scale must be a finite number > 0"):
        scale_loss(optimizer, scale)


def test_a_scale_that_changes_nothing():
    optimizer = chainer.optimizers.SGD().setup(Weight())
    with pytest.raises(ValueError, match=r"scale 64.0 .*: leave it out"):
        scale_loss(optimizer, 64.0)


HOOKS = [
    optimizer_hooks.GradientClipping(1),
    optimizer_hooks.GradientHardClipping(-1, 1),
    optimizer_hooks.GradientLARS(),
    optimizer_hooks.GradientNoise(0.1),
    optimizer_hooks.Lasso(0.1),
]


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.name)
@pytest.mark.parametrize("scale", [None, 64.0])
@pytest.mark.parametrize("is_late", [False, True])
def test_hooks_that_know_no_scale_are_refused(half, hook, scale, is_late):
    optimizer = training.make_optimizer("sgd", Weight(), 0.1)
    if is_late:
        scale_loss(optimizer, scale)
        optimizer = pickle.loads(pickle.dumps(optimizer))
        with pytest.raises(ValueError, match=f"^{hook.name} .* leave out this hook"):
            optimizer.add_hook(hook)
        with pytest.raises(ValueError, match=f"^{hook.name} .* leave out this hook"):
            optimizer.add_hook(hook, "mine", timing="pre")
        optimizer.add_hook(hook, timing="post")  # when steps have been made
        return
    optimizer.add_hook(hook)
    with pytest.raises(ValueError, match=f"^{hook.name} .* leave out this hook"):
        scale_loss(optimizer, scale)


@pytest.mark.parametrize("is_late", [False, True])
def test_hooks_are_called_in_their_order(half, is_late):
    optimizer, called = chainer.optimizers.SGD().setup(Weight()), []
    if is_late:
        scale_loss(optimizer, 4.0)
    for name, timing in (("a", "post"), ("b", "pre"), ("c", "auto"), ("d", "post")):
        optimizer.add_hook(lambda _, name=name: called.append(name), name, timing)
    optimizer.remove_hook("d")
    if not is_late:
        scale_loss(optimizer, 4.0)
    optimizer.update(lambda: F.sum(2 * optimizer.target.w))
    assert called == ["b", "c", "a"]


def test_a_trainer_of_scaled_gradients_that_are_clipped(tmp_path, make_trainer):
    optimizer = make_trainer(tmp_path).updater.get_optimizer("main")
    optimizer.add_hook(optimizer_hooks.GradientClipping(1))
    optimizer.loss_scaling(scale=64.0)  # Chainer's own, which looks at no hooks
    data = TupleDataset(np.zeros((8, 1, 8, 8), "f"), np.zeros(8, "i"))
    options = {"epoch": 1, "batchsize": 4, "device": "@numpy", "quiet": True}
    with pytest.raises(ValueError, match="GradientClipping does not know"):
        training.build_trainer(optimizer, data, data, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_an_optimizer_without_a_model():
    with pytest.raises(ValueError, match=r"MomentumSGD, is not set up: optimizer.set"):
        scale_loss(chainer.optimizers.MomentumSGD())


@pytest.mark.parametrize("scale", [1.0, 64.0])
@pytest.mark.parametrize("dtype", ["e", "f"])  # statistics are float32 in mixed16
@pytest.mark.parametrize("is_of_rule", [False, True])
def test_a_decay_of_weights_is_that_of_gradients_without_a_scale(
    half, scale, dtype, is_of_rule
):
    optimizer = chainer.optimizers.SGD(1.0).setup(Weight())
    w = optimizer.target.w
    w.array = w.array.astype(dtype)
    (w.update_rule if is_of_rule else optimizer).add_hook(
        optimizer_hooks.WeightDecay(0.25)
    )
    scale_loss(optimizer, scale)
    for _ in range(2):
        before = w.array.copy()
        optimizer.update(lambda: F.sum(w * w.dtype.type(0.5)))
        moved = before - w.array
        np.testing.assert_allclose(moved, 0.25 * before + 0.5, rtol=1e-3)


@pytest.mark.parametrize(
    "dtype, scale, optimizer",
    [("mixed16", None, "adam"), ("float16", 64.0, "momentum_sgd")],
)
def test_resume_equals_a_run_without_a_break(
    dtype, scale, optimizer, tmp_path, make_trainer, log_of, serialized
):
    def make(out, epoch):
        out = tmp_path / out
        return make_trainer(out, epoch=epoch, loss_scale=scale, optimizer=optimizer)

    with chainer.using_config("dtype", DTYPES[dtype]):
        straight = make("straight", 2)
        straight.run()
        make("broken", 1).run()
        resumed = make("broken", 2)
        training.load_snapshot(training.find_snapshot(tmp_path / "broken"), resumed)
        resumed.run()
    assert log_of(resumed) == log_of(straight)
    models = [t.updater.get_optimizer("main").target for t in (straight, resumed)]
    for name, value in serialized(models[0]).items():
        np.testing.assert_array_equal(serialized(models[1])[name], value)
    scales = [entry["loss_scale"] for entry in log_of(straight)]
    assert scales == ([16, 128] if scale is None else [64, 64])  # doubled 4 and 7 times
    net = models[0].predictor
    assert net.l1.W.dtype == np.float16
    assert net.bn.gamma.dtype == ("float32" if dtype == "mixed16" else "float16")


def test_an_overflow_is_no_warning(tmp_path, make_trainer, log_of):
    with chainer.using_config("dtype", chainer.mixed16):
        trainer = make_trainer(tmp_path, epoch=1)
        optimizer = trainer.updater.get_optimizer("main")
        optimizer._loss_scale = optimizer._loss_scale_max = 2.0**30
        record = training.RunRecord(tmp_path, {}, "", chainer.get_device("@numpy"), 0)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            training.run(trainer, record)
    assert optimizer._loss_scale == 2.0**26  # halved in each of 4 iterations
    assert optimizer.target.predictor.l1.W.update_rule.t == 0
    assert np.isfinite(log_of(trainer)[-1]["main/loss"])
