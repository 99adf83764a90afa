"""What is float32 stays float32."""

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer import optimizer_hooks, optimizers
from hypothesis import given, settings
from hypothesis import strategies as st

OPTIMIZERS = {
    name: getattr(optimizers, name)
    for name in (
        "AdaBound", "AdaDelta", "AdaGrad", "Adam", "AdamW", "AMSBound", "AMSGrad",
        "CorrectedMomentumSGD", "MomentumSGD", "MSVAG", "NesterovAG", "RMSprop",
        "RMSpropGraves", "SGD", "SMORMS3",
    )
}  # fmt: skip
HOOKS = {
    "GradientClipping": lambda: optimizer_hooks.GradientClipping(0.1),
    "GradientHardClipping": lambda: optimizer_hooks.GradientHardClipping(-0.1, 0.1),
    "GradientLARS": optimizer_hooks.GradientLARS,
    "GradientNoise": lambda: optimizer_hooks.GradientNoise(0.01),
    "Lasso": lambda: optimizer_hooks.Lasso(np.float64(0.1)),
    "WeightDecay": lambda: optimizer_hooks.WeightDecay(np.float64(0.1)),
}


def assert_float32_after_updates(optimizer):
    link = L.Linear(3, 2)
    optimizer.setup(link)
    for _ in range(2):
        link.cleargrads()
        F.sum(link(np.ones((4, 3), "f")) ** 2).backward()
        optimizer.update()
    for parameter in link.params():
        assert parameter.dtype == np.float32
        assert np.isfinite(parameter.array).all()
        for key, value in (parameter.update_rule.state or {}).items():
            if isinstance(value, np.ndarray):
                assert value.dtype == np.float32, key


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name):
    optimizer = OPTIMIZERS[name]()
    # As from a schedule computed by NumPy.
    for key in {"lr", "alpha"} & vars(optimizer.hyperparam).keys():
        if name != "RMSpropGraves" or key == "lr":
            setattr(optimizer, key, np.float64(getattr(optimizer, key)))
    assert_float32_after_updates(optimizer)


@pytest.mark.parametrize("name", HOOKS)
def test_hooks(name):
    optimizer = optimizers.MomentumSGD(0.1)
    link_optimizer = optimizer
    hook = HOOKS[name]()
    original = optimizer.setup

    def setup(link):
        original(link)
        optimizer.add_hook(hook)

    link_optimizer.setup = setup
    assert_float32_after_updates(link_optimizer)


IMAGE_LINKS = {
    "Convolution2D": lambda: L.Convolution2D(2, 3, 3, pad=1),
    "Deconvolution2D": lambda: L.Deconvolution2D(2, 3, 3),
    "DepthwiseConvolution2D": lambda: L.DepthwiseConvolution2D(2, 2, 3),
    "DilatedConvolution2D": lambda: L.DilatedConvolution2D(2, 3, 3, dilate=2, pad=2),
    "BatchNormalization": lambda: L.BatchNormalization(2),
    "GroupNormalization": lambda: L.GroupNormalization(1),
    "LocalResponseNormalization": lambda: F.local_response_normalization,
    "Linear": lambda: L.Linear(None, 3),
    "Maxout": lambda: L.Maxout(None, 3, 2),
    "PReLU": lambda: L.PReLU(),
    "Swish": lambda: L.Swish(None),
    "max_pooling_2d": lambda: lambda x: F.max_pooling_2d(x, 2),
    "average_pooling_2d": lambda: lambda x: F.average_pooling_2d(x, 2),
    "resize_images": lambda: lambda x: F.resize_images(x, (3, 5)),
    "dropout": lambda: F.dropout,
    "gelu": lambda: lambda x: x * F.ndtr(x),
    "softplus": lambda: F.softplus,
    "mean": lambda: F.mean,
    "times float64": lambda: lambda x: np.float64(0.5) * x - x * np.float64(0.1) + 1,
}


@pytest.mark.parametrize("name", IMAGE_LINKS)
@settings(max_examples=3)
@given(size=st.integers(4, 7), batch=st.integers(2, 3))
def test_links_forward_and_backward(name, size, batch):
    x = chainer.Variable(np.random.rand(batch, 2, size, size).astype("f"))
    link = IMAGE_LINKS[name]()
    y = link(x)
    assert y.dtype == np.float32
    y.grad = np.ones_like(y.array)
    y.backward()
    assert x.grad.dtype == np.float32
    if isinstance(link, chainer.Link):
        assert {p.grad.dtype for p in link.params()} <= {np.dtype("f")}
        persistent = [getattr(link, key) for key in link._persistent]
        assert {p.dtype for p in persistent if isinstance(p, np.ndarray)} <= {
            np.dtype("f")
        }


LABELS = np.array([0, 2, 1], "i")
LOSSES = {
    "softmax_cross_entropy": lambda y: F.softmax_cross_entropy(y, LABELS),
    "weighted": lambda y: F.softmax_cross_entropy(
        y, LABELS, class_weight=np.array([1, 2, 3], "f")
    ),
    "sigmoid_cross_entropy": lambda y: F.sigmoid_cross_entropy(y, np.eye(3, dtype="i")),
    "mean_squared_error": lambda y: F.mean_squared_error(y, np.eye(3, dtype="f")),
    "mean_absolute_error": lambda y: F.mean_absolute_error(y, np.eye(3, dtype="f")),
    "huber_loss": lambda y: F.sum(F.huber_loss(y, np.eye(3, dtype="f"), 1.0)),
    "hinge": lambda y: F.hinge(y, LABELS),
    "gaussian_kl_divergence": lambda y: F.gaussian_kl_divergence(y, y),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name):
    y = chainer.Variable(np.random.rand(3, 3).astype("f"))
    loss = LOSSES[name](y)
    assert loss.dtype == np.float32 and loss.shape == ()
    loss.backward()
    assert y.grad.dtype == np.float32


@pytest.mark.parametrize(
    "make",
    [
        chainer.distributions.Cauchy,
        chainer.distributions.Gumbel,
        chainer.distributions.Laplace,
        chainer.distributions.Normal,
    ],
)
def test_distributions(make):
    parameters = np.zeros(3, "f"), np.ones(3, "f")
    distribution = make(*parameters)
    assert distribution.entropy.dtype == np.float32
    assert distribution.log_prob(np.ones(3, "f")).dtype == np.float32
    assert distribution.sample().dtype == np.float32
