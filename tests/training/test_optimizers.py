import chainer
import numpy as np
import pytest

from chainer_mmix.training import OPTIMIZERS, SGD, make_optimizer


class Weight(chainer.Link):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.w = chainer.Parameter(np.array([1.0, -2.0], np.float64))


def step(name, gradient, **kwargs):
    link = Weight()
    optimizer = make_optimizer(name, link, **kwargs)
    link.w.grad = np.array(gradient)
    optimizer.update()
    return link.w.array


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "momentum_sgd"])
def test_first_step_by_hand(name):
    gradient = np.array([0.5, 1.0])
    expected = {
        "adam": -0.1 * np.sign(gradient),
        "adamw": -0.1 * np.sign(gradient),
        "rmsprop": -0.1 * gradient / (np.sqrt(0.1 * gradient**2) + 1e-7),
        "momentum_sgd": -0.1 * gradient,
    }[name]
    after = step(name, gradient, lr=0.1)
    np.testing.assert_allclose(after - [1.0, -2.0], expected, rtol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_name_has_an_optimizer(name):
    optimizer = make_optimizer(name, Weight(), 0.25)
    classes = {
        "adam": chainer.optimizers.Adam,
        "adamw": chainer.optimizers.AdamW,
        "rmsprop": chainer.optimizers.RMSprop,
        "sgd": SGD,
        "momentum_sgd": chainer.optimizers.MomentumSGD,
        "nesterov": chainer.optimizers.NesterovAG,
    }
    assert type(optimizer) is classes[name]
    assert getattr(optimizer, "alpha" if "adam" in name else "lr") == 0.25
    assert getattr(optimizer, "momentum", 0.9) == 0.9


def test_l2_penalty_joins_the_gradient():
    after = step("momentum_sgd", [0.5, 1.0], lr=0.1, weight_decay=0.3)
    expected = np.array([1 - 0.1 * (0.5 + 0.3), -2 - 0.1 * (1.0 - 0.6)])
    np.testing.assert_allclose(after, expected)


def test_adamw_decays_by_lr_times_rate():
    decayed = step("adamw", [0.5, 1.0], lr=0.1, weight_decay=0.3)
    plain = step("adamw", [0.5, 1.0], lr=0.1)
    np.testing.assert_allclose(decayed - plain, -0.1 * 0.3 * np.array([1.0, -2.0]))


@pytest.mark.parametrize("name", ["sgd", "momentum_sgd", "nesterov"])
@pytest.mark.parametrize("length", [10.0, 0.1])
def test_a_gradient_is_clipped_to_the_norm_of_all(name, length):
    gradient = length * np.array([0.6, 0.8])
    kept = gradient * min(1, 2 / length)
    after = step(name, gradient, lr=0.1, weight_decay=0.3, grad_clip=2)
    expected = step(name, kept, lr=0.1, weight_decay=0.3)
    np.testing.assert_allclose(after, expected, 1e-9)
    unclipped = step(name, gradient, lr=0.1, weight_decay=0.3)
    assert np.allclose(after, unclipped) == (length < 2)


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        *[(n, "momentum", "is for 'sgd'") for n in ("adam", "adamw", "rmsprop")],
        *[(n, "nesterov", "is for 'sgd'") for n in OPTIMIZERS if n != "sgd"],
    ],
)
def test_an_option_that_the_optimizer_lacks(name, option, message):
    given = {"momentum": 0.5, "nesterov": True}[option]
    message = f"{option}.* {message}.*, not for '{name}': leave it out"
    with pytest.raises(ValueError, match=message):
        make_optimizer(name, Weight(), 0.1, **{option: given})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_squares_of_gradients_vanish_in_float16(name):
    with chainer.using_config("dtype", np.float16):
        if name in ("adam", "adamw", "rmsprop"):
            with pytest.raises(ValueError, match=f"'{name}' is not for float16.*mixed"):
                make_optimizer(name, Weight(), 0.1)
        else:
            make_optimizer(name, Weight(), 0.1)
    with chainer.using_config("dtype", chainer.mixed16):
        make_optimizer(name, Weight(), 0.1)


def test_an_unknown_name_gets_the_near_ones():
    with pytest.raises(ValueError, match="'momentum-sgd': did you mean momentum_sgd"):
        make_optimizer("momentum-sgd", chainer.Chain(), lr=0.1)
