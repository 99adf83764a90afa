"""What holds for all models, and the parameters that each is known to have."""

import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.initializers import HeNormal
from chainer.serializers import DictionarySerializer, save_npz
from scipy.stats import kstest

from chainer_mmix import models
from chainer_mmix.models import (
    MODELS,
    PreActResNet,
    PreActResNet18,
    ResNet,
    ResNet18,
    ResNet50,
    WideResNet,
)
from chainer_mmix.training import load_weights


@pytest.fixture
def no_random_weights(monkeypatch):
    """Makes big models in no time."""
    monkeypatch.setattr(HeNormal, "__call__", lambda self, array: array.fill(0))


def structure(net):
    serializer = DictionarySerializer()
    serializer.save(net)
    return {name: np.shape(value) for name, value in serializer.target.items()}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("n_class", ["10", 2.5, 0, None])
def test_numbers_of_classes_that_are_none(make, n_class):
    with pytest.raises(ValueError, match=f"n_class must be .* >= 1, not {n_class!r}"):
        make(n_class)


# torchvision's documentation. Its first convolution has no bias; Chainer's has.
TORCHVISION = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032 + 64,
    "resnet101": 44_549_160 + 64,
    "resnet152": 60_192_808 + 64,
}
# kuangliu's pytorch-cifar, of which the paper's code is made, for 10 classes; tables
# that list PreActResNet101 and 152 round them to float32.
KUANGLIU_RESNET = {
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "resnet50": 23_520_842,
    "resnet101": 42_512_970,
    "resnet152": 58_156_618,
}
KUANGLIU_PREACTRESNET = {
    "preactresnet18": 11_171_146,
    "preactresnet34": 21_279_306,
    "preactresnet50": 23_509_066,
    "preactresnet101": 42_501_194,
    "preactresnet152": 58_144_842,
}


@pytest.mark.usefixtures("no_random_weights")
@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        # The paper's code.
        ("preactresnet18", {"n_class": 10, "published": True}, 11_171_146),
        ("wideresnet28_10", {"n_class": 10, "published": True}, 36_489_290),
        *((k, {"n_class": 1000}, n) for k, n in TORCHVISION.items()),
        *((k, {"n_class": 10, "stem": "cifar"}, n) for k, n in KUANGLIU_RESNET.items()),
        *((k, {"n_class": 10}, n) for k, n in KUANGLIU_PREACTRESNET.items()),
        ("wideresnet28_10", {"n_class": 10}, 36_479_194),  # "36.5M" in arXiv 1605.07146
    ],
)
def test_parameter_count_is_the_published_one(name, options, count):
    net = MODELS[name](**options)
    net.conv1(np.zeros((1, 3, 8, 8), np.float32))
    assert net.count_params() == count


def test_the_elucnn_is_that_of_the_notebook():
    net = models.ELUCNN(10)
    net(np.zeros((1, 3, 32, 32), np.float32))
    # Keras counts the running statistics too, 107,306 in all.
    assert net.count_params() == 106_922


@pytest.mark.usefixtures("no_random_weights")
@pytest.mark.parametrize("name", ["preactresnet18", "wideresnet28_10"])
def test_a_stride_of_the_stem_halves_all_maps(name):
    x = np.zeros((1, 3, 16, 16), np.float32)
    net = MODELS[name](10, stem_stride=2)
    assert net.stages()[0](x).shape[2:] == (8, 8)


@pytest.mark.usefixtures("no_random_weights")
@pytest.mark.parametrize(
    ("depth", "width", "millions"),
    [(40, 1, 0.6), (40, 2, 2.2), (40, 4, 8.9), (16, 8, 11.0), (22, 8, 17.2)],
)
def test_wide_resnets_have_the_papers_sizes(depth, width, millions):
    # arXiv 1605.07146, table 4.
    net = WideResNet(10, depth, width)
    net.conv1(np.zeros((1, 3, 8, 8), np.float32))
    assert round(net.count_params() / 1e6, 1) == millions


@pytest.mark.usefixtures("no_random_weights")
@pytest.mark.parametrize("depth", [50, 101, 152])
def test_structure_is_that_of_chainers_resnets(depth):
    net = MODELS[f"resnet{depth}"](n_class=1000)
    net.conv1(np.zeros((1, 3, 8, 8), np.float32))
    theirs = getattr(L, f"ResNet{depth}Layers")(pretrained_model=None)
    assert structure(net) == structure(theirs)


SMALL = {
    "resnet18": lambda: ResNet18(10),
    "resnet18-cifar": lambda: ResNet18(10, stem="cifar"),
    "resnet50": lambda: ResNet50(10, downsample_fb=True),
    "preactresnet18": lambda: PreActResNet18(10),
    "preactresnet-bottleneck": lambda: type(
        "Bottlenecks", (PreActResNet,), {"n_units": (1, 1, 1, 1), "bottleneck": True}
    )(10),
    "wideresnet": lambda: WideResNet(10, depth=16, width=2),
}


@pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)
def test_weights_are_hes_and_gradients_reach_all_of_them(make):
    np.random.seed(0)
    net = make()
    x = np.random.randn(4, 3, 16, 16).astype(np.float32)
    F.sum(net(x) ** 2).backward()
    for name, param in net.namedparams():
        assert param.grad is not None and param.grad.any(), name
        if param.ndim == 4:
            he = np.sqrt(2 / param.array[0].size)
            error = 5 / np.sqrt(2 * param.size)  # five standard errors
            assert param.array.std() == pytest.approx(he, rel=error), name
            assert abs(param.array.mean()) < 5 * he / np.sqrt(param.size), name


PUBLISHED = {
    "preactresnet18": lambda: PreActResNet18(10, published=True),
    "preactresnet-bottleneck": lambda: type(
        "Bottlenecks", (PreActResNet,), {"n_units": (1, 1, 1, 1), "bottleneck": True}
    )(10, published=True),
    "wideresnet": lambda: WideResNet(10, depth=16, width=2, published=True),
}


@pytest.mark.parametrize("make", PUBLISHED.values(), ids=PUBLISHED)
def test_published_networks_begin_as_pytorch_has_them_begin(make):
    np.random.seed(0)
    net = make()
    biases = []
    F.sum(net(np.random.randn(4, 3, 16, 16).astype(np.float32)) ** 2).backward()
    for name, link in net.namedlinks():
        if isinstance(link, L.BatchNormalization):
            assert link.eps == 1e-5, name
        elif hasattr(link, "W"):
            bound = link.W.array[0].size ** -0.5
            drawn = [link.W.array] if link.b is None else [link.W.array, link.b.array]
            biases += [x.ravel() / bound for x in drawn[1:]]
            assert all(np.abs(x).max() <= bound for x in drawn), name
            error = 5 * 0.45 / np.sqrt(link.W.size)  # five standard errors
            std = pytest.approx(bound / np.sqrt(3), rel=error)
            assert link.W.array.std() == std, name
            assert link.W.grad.any(), name
    # Kolmogorov and Smirnov's statistic against the uniform distribution.
    assert kstest(np.concatenate(biases), "uniform", (-1, 2)).pvalue > 1e-3


def test_the_published_wide_resnet_is_another_network():
    net = WideResNet(10, depth=10, width=1, published=True)
    assert net.bn.decay == 0.1 and net.block1.a.bn1.decay == 0.9
    assert net.block2.a.conv1.stride == (1, 1) and net.block2.a.conv2.stride == (2, 2)
    with pytest.raises(ValueError, match=r"no dropout, not one of 0\.3"):
        WideResNet(10, dropout=0.3, published=True)


@pytest.mark.parametrize("saved, made", [(False, True), (True, False)])
def test_weights_of_a_published_network_are_not_taken_for_others(saved, made, tmp_path):
    """They fit, but eps of batch normalisation does not."""
    first, second = (PreActResNet18(3, made, width=1) for made in (saved, made))
    for net in (first, second):
        net.conv1(np.zeros((1, 1, 8, 8), "f"))
    save_npz(tmp_path / "weights", first)
    for load in (load_weights, models.load_pretrained):
        with pytest.raises(ValueError, match="published"):
            load(second, tmp_path / "weights.npz")
        load(first, tmp_path / "weights.npz")


@pytest.mark.parametrize("name", MODELS)
def test_default_points_are_points(name):
    model = MODELS[name]
    assert set(model.default_layer_mix) <= set(model.mixup_layers)
    assert model.mixup_layers == tuple(range(len(model.mixup_layers)))


@pytest.mark.parametrize("model", [PreActResNet, WideResNet, ResNet])
def test_default_points_are_the_papers(model):
    # The input and the outputs of the first two residual stages.
    assert model.default_layer_mix == ((0, 2, 3) if model is ResNet else (0, 1, 2))


def test_every_class_of_a_fixed_size_has_a_name():
    sized = {c for n, c in vars(models).items() if n[-1].isdigit() and n[0].isupper()}
    assert sized == set(MODELS.values()) - {models.CNN, models.ELUCNN}
    assert all(name == model.__name__.lower() for name, model in MODELS.items())


@pytest.mark.parametrize(
    "option, message",
    [
        ({"stem": "cifar"}, r"stem and downsample_fb \(--stem, --downsample-fb\) are"),
        ({"published": True}, r"published \(--published\) is for preactresnet18"),
        ({"stem_stride": 2}, r"stem_stride \(--stem-stride\) is for preactresnet18"),
    ],
)
def test_an_option_that_a_model_lacks_is_named_as_in_python(option, message):
    with pytest.raises(ValueError, match=message):
        models.make_model("cnn", 3, **option)
