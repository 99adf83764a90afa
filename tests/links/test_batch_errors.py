"""Arrays of a wrong form, and what is no predictor."""

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from chainer.utils.type_check import InvalidType

from chainer_mmix import (
    ManifoldMixupClassifier,
    MixupLayers,
    MixupPolicy,
    training,
)
from chainer_mmix.mixing import softmax_binary_cross_entropy
from chainer_mmix.models import CNN

RNG = np.random.RandomState(0)
X = RNG.rand(6, 3, 16, 16).astype(np.float32)
T = np.arange(6, dtype=np.int32) % 3


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    ("x", "t", "remedy"),
    [
        (X.transpose(0, 2, 3, 1), T, r"x.transpose\(0, 3, 1, 2\)"),
        (X[:, :1].transpose(0, 2, 3, 1), T, r"x.transpose\(0, 3, 1, 2\)"),
        ((255 * X).astype(np.uint8), T, r"x.astype\(numpy.float32\) / 255"),
        ((255 * X).astype(np.int32), T, r"x.astype\(numpy.float32\) / 255"),
        (X.astype(np.float64), T, r"x.astype\(numpy.float32\)"),
        (X[:, 0], T, r"\(N, C, H, W\), and .* \(6, 16, 16\): .* x\[:, None\]"),
        (X.reshape(6, -1), T, r"\(N, C, H, W\), and .* \(6, 768\): give it that"),
        (X > 0.5, T, r"dtype bool, .* x.astype\(numpy.float32\)"),
        (X.astype(np.float16), T, r"dtype float16, .* x.astype\(numpy.float32\)"),
        (X, np.full((6, 3), 2, np.float32), r"probabilities in \[0, 1\]; found 2.0"),
        (X, np.full((6, 3), -1, np.float32), r"probabilities in \[0, 1\]; found -1.0"),
        (X, np.full((6, 3), np.nan, np.float32), r"probabilities in \[0, 1\]; found"),
        (X, T.astype(np.uint8), r"t.astype\(numpy.int32\)"),
        (X, T.astype(bool), r"t.astype\(numpy.int32\)"),
        (X, np.array(["cat", "dog", "hen"])[T], r"t = numpy.unique\("),
        (X, T[:, None], r"t.ravel\(\).astype\(numpy.int32\)"),
        (X, np.eye(3, dtype=int)[T], r"t.argmax\(axis=1\).astype"),
        (X, T.astype(np.float32), r"t.astype\(numpy.int32\)|signed integer dtype"),
    ],
)
def test_the_remedy_is_named(x, t, remedy, train):
    model = ManifoldMixupClassifier(CNN(3), seed=0)
    with (
        chainer.using_config("train", train),
        pytest.raises((TypeError, ValueError), match=remedy),
    ):
        model(x, t)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("alpha", [0, 1])
@pytest.mark.parametrize("n_label", [1, 4])
def test_several_labels_need_an_accuracy_of_theirs(train, alpha, n_label):
    t = (RNG.rand(6, n_label) > 0.5).astype(np.int32)

    def classifier(**options):
        options = {"lossfun": F.sigmoid_cross_entropy, "mixup_alpha": alpha} | options
        return ManifoldMixupClassifier(CNN(n_label), seed=0, **options)

    with chainer.using_config("train", train):
        with pytest.raises(TypeError, match=r"no accuracy .*accfun=.*binary_acc"):
            classifier()(X, t)
        classifier(accfun=F.binary_accuracy)(X, t)


class OneNumber(chainer.Chain):
    def __init__(self):
        super().__init__(fc=L.Linear(None, 1))

    def forward(self, x):
        return self.fc(x)[:, 0]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("alpha", [0, 1])
@pytest.mark.parametrize("smoothing", [0, 0.1])
@pytest.mark.parametrize(
    ("lossfun", "name"),
    [
        (F.softmax_cross_entropy, "softmax_cross_entropy"),
        (softmax_binary_cross_entropy, "softmax_binary_cross_entropy"),
        (F.sigmoid_cross_entropy, "accuracy"),
    ],
)
@pytest.mark.parametrize("t", [T % 2, np.float32(T) / 2])
def test_one_number_a_sample_is_no_score_a_class(
    train, alpha, smoothing, lossfun, name, t
):
    net = MixupLayers(OneNumber(), ["input"])
    options = {"mixup_alpha": alpha, "label_smoothing": smoothing, "lossfun": lossfun}
    model = ManifoldMixupClassifier(net, seed=0, **options)
    message = rf"shape \(6,\), and {name} takes .* lossfun=sigmoid_cross_entropy and"
    with (
        chainer.using_config("train", train),
        pytest.raises(ValueError, match=message),
    ):
        model(X, t)


class OfAnyDtype(chainer.Chain):
    """Takes images of any dtype, and indices, as it likes."""

    def __init__(self):
        super().__init__(embed=L.EmbedID(9, 4), fc=L.Linear(4, 3))

    def forward(self, x):
        if x.dtype.kind == "f":
            return self.fc(F.cast(F.mean(x, axis=(2, 3)), np.float32))
        return self.fc(F.mean(self.embed(x), axis=(1, 2, 3)))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
@pytest.mark.parametrize("mixes", [False, True])
def test_inputs_that_the_network_has_taken_are_not_blamed(dtype, mixes):
    net = MixupLayers(OfAnyDtype(), ["fc"])
    model = ManifoldMixupClassifier(net, mixup_alpha=0.2 * mixes, seed=0)
    x = (np.arange(6 * 4 * 4 * 4).reshape(6, 4, 4, 4) % 9).astype(dtype)
    model(x, T)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 3\)"):
        model(x, T + 5)
    with pytest.raises(TypeError, match=r"t.astype\(numpy.int32\)"):
        model(x, T.astype(np.uint8))


ONE = T.astype(np.float32)[:, None]


@pytest.mark.parametrize("lossfun", [F.mean_squared_error, F.sigmoid_cross_entropy])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    ("t", "n_out", "remedy"),
    [
        (ONE.ravel(), 1, r"\(6, 1\), not .*(: t\[:, None\]|float32 of shape \(6,\))"),
        (ONE.astype(np.float64), 1, r"float32, not float64: t.astype\(numpy.float32\)"),
        (T[:, None], 1, r"float32, not int32: t.astype\(numpy.float32\)"),
        (T % 2, 1, r"\(6, 1\), not \(6,\): t\[:, None\]|t.astype\(numpy.float32\)"),
        (
            T % 2,
            3,
            r"\(6, 3\), not \(6,\): give a number for|t.astype\(numpy.float32\)",
        ),
    ],
)
def test_targets_of_losses_that_take_them_like_the_predictions(
    t, n_out, remedy, train, lossfun
):
    net = MixupLayers(chainer.Sequential(L.Linear(None, n_out)), ["input"])
    model = ManifoldMixupClassifier(net, lossfun=lossfun, accfun=None, seed=0)
    with chainer.using_config("train", train):
        if lossfun is F.sigmoid_cross_entropy and t.ndim == 2:
            model(X, t % 2)  # of which it takes any dtype
            return
        with pytest.raises((TypeError, ValueError), match=remedy):
            model(X, t)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    ("maps", "remedy"),
    [
        (np.zeros((6, 1, 16, 16), np.int32), r"\(6, 1, 16, 16\), .*: t\[:, 0\]$"),
        (np.zeros((6, 8, 8), np.int32), r"\(6, 8, 8\), but .* \(6, 16, 16\)$"),
        (T, r"\(6,\), but those of predictions of shape \(6, 3, 16, 16\) have"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"alpha": 0, "cutmix_alpha": 1}])
def test_label_maps_of_another_shape(maps, remedy, train, options):
    net = MixupLayers(chainer.Sequential(L.Convolution2D(3, 3, 1)), ["input"])
    policy = MixupPolicy(**options, seed=0)
    model = ManifoldMixupClassifier(net, policy=policy)
    with (
        chainer.using_config("train", train),
        pytest.raises((TypeError, ValueError), match=remedy),
    ):
        model(X, maps)


def test_a_call_without_a_target():
    with pytest.raises(
        TypeError, match=r"no input beside the target: .* model\(x, t\)"
    ):
        ManifoldMixupClassifier(CNN(3), seed=0)(X)


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_inputs_of_a_survey_get_the_same_remedies(dtype):
    with pytest.raises(
        TypeError, match=r"an input is of dtype .*astype\(numpy.float32"
    ):
        MixupLayers.suggest(CNN(3), X.astype(dtype))


@pytest.mark.parametrize("n", [1, 4])
def test_images_of_other_channels_are_named(n):
    model = ManifoldMixupClassifier(CNN(3), seed=0)
    model(X, T)
    error = rf"takes 3 channels, and the input has {n}, shape \(6, {n}, 16, 16\): give"
    with pytest.raises(TypeError, match=error):
        model(np.ones((6, n, 16, 16), np.float32), T)


def test_the_remedies_are_right():
    labels = np.array(["cat", "dog", "hen"])[T]
    _, numbers = np.unique(labels, return_inverse=True)
    for x, t in [
        (X.transpose(0, 2, 3, 1).transpose(0, 3, 1, 2), T),
        ((255 * X).astype(np.uint8).astype(np.float32) / 255, T),
        (X, numbers.astype(np.int32)),
        (X, T[:, None].ravel().astype(np.int32)),
        (X, np.eye(3, dtype=np.float32)[T]),
        (X[:, 0][:, None], T),
        ((255 * X).astype(np.int32).astype(np.float32), T),
    ]:
        ManifoldMixupClassifier(CNN(3), seed=0)(x, t)


def test_a_training_is_refused_before_its_folder_is_made(tmp_path):
    model = ManifoldMixupClassifier(CNN(3), seed=0)
    optimizer = chainer.optimizers.Adam().setup(model)
    data = list(zip(X.transpose(0, 2, 3, 1), T, strict=True))
    device = chainer.get_device("@numpy")
    with pytest.raises(ValueError, match="channels last"):
        training.build_trainer(
            *(optimizer, data, data), epoch=1, batchsize=2, out=tmp_path / "out",
            device=device,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


SHRINKING = {
    "convolution": lambda: L.Convolution2D(None, 4, 17),
    "max": lambda: lambda x: F.max_pooling_2d(x, 19, cover_all=False),
    "average": lambda: lambda x: F.average_pooling_2d(x, 17),
}


@pytest.mark.parametrize("layer", SHRINKING)
def test_images_that_are_too_small_are_refused_before_a_folder_is_made(tmp_path, layer):
    def net():
        return chainer.Sequential(SHRINKING[layer](), L.Linear(None, 3))

    model = ManifoldMixupClassifier(MixupLayers(net(), ["input"]), seed=0)
    error = r"inputs of size 16x16 are too small for the network.*: give larger ones"
    data = list(zip(X, T, strict=True))
    with pytest.raises(ValueError, match=error):
        training.build_trainer(
            *(chainer.optimizers.Adam().setup(model), data, data), epoch=1,
            batchsize=2, out=tmp_path / "out", device="@numpy",
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=error):
        model(X, T)
    with pytest.raises(ValueError, match=error):
        MixupLayers.suggest(net(), X)
    larger = np.pad(X, [(0, 0), (0, 0), (0, 9), (0, 9)])
    ManifoldMixupClassifier(MixupLayers(net(), ["input"]), seed=0)(larger, T)


class Forgetful(chainer.Chain):
    """Takes inputs of any dtype, and raises an error of its own, or forgets to mix."""

    def __init__(self, error=None):
        super().__init__(fc=L.Linear(None, 3))
        self.error = error

    def forward(self, x, target=None, mixup_hidden=False, lam=1.0, layer_mix=None):
        if self.error is not None:
            raise self.error
        y = self.fc(chainer.as_array(x).astype(np.float32))
        return (y, target, target) if mixup_hidden else y


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8, np.int32])
@pytest.mark.parametrize("labels", [np.int32, np.uint8])
def test_no_dtype_is_blamed_for_another_error(dtype, labels):
    x, t = (9 * X).astype(dtype), T.astype(labels)
    model = ManifoldMixupClassifier(Forgetful(), mixup_alpha=1, seed=0)
    with pytest.raises(RuntimeError, match="called mixup_data 0 times"):
        model(x, t)
    for error in (TypeError("mine"), ValueError("mine"), RuntimeError("mine")):
        model = ManifoldMixupClassifier(Forgetful(error), mixup_alpha=1, seed=0)
        with pytest.raises(type(error), match=r"^mine"):
            model(x, t)


def test_a_network_of_indices_is_not_told_to_take_floats():
    net = MixupLayers(chainer.Sequential(L.EmbedID(9, 2), L.Linear(None, 3)), [0])
    with pytest.raises(InvalidType, match=r"dtype.kind == i"):
        ManifoldMixupClassifier(net, seed=0)(X.astype(np.float64), T)


def test_an_assertion_of_the_network_stays_as_it_is():
    class Net(chainer.Chain):
        def forward(self, x):
            raise AssertionError("mine")

    model = ManifoldMixupClassifier(Net(), mixup_hidden=False)
    with pytest.raises(AssertionError, match=r"^mine"):
        model(X, T)


def test_a_network_may_take_the_channels_last():
    class Net(chainer.Chain):
        def __init__(self):
            super().__init__(net=CNN(3))

        def forward(self, x):
            return self.net(x.transpose(0, 3, 1, 2))

    x = X.transpose(0, 2, 3, 1).copy()
    model = ManifoldMixupClassifier(MixupLayers(Net(), ["input"]), seed=0)
    optimizer = chainer.optimizers.Adam().setup(model)
    optimizer.update(model, x, T)


@pytest.mark.parametrize("shape", [(6, 3, 16, 16), (6, 16, 100, 1), (6, 64, 4, 3)])
def test_other_shapes_go_to_a_convolution(shape):
    x = np.zeros(shape, np.float32)
    net = chainer.Sequential(L.Convolution2D(None, 4, 1), L.Linear(None, 3))
    ManifoldMixupClassifier(net, mixup_hidden=False)(x, T)


def test_another_error_stays_as_it_is():
    def wrong(y, t):
        raise ValueError("an error of the loss")

    model = ManifoldMixupClassifier(CNN(3), lossfun=wrong, seed=0)
    with pytest.raises(ValueError, match=r"^an error of the loss$"):
        model(X, T)


def test_targets_of_other_losses_stay_as_they_are():
    t = RNG.rand(6, 1).astype(np.float32)
    net = chainer.Sequential(L.Linear(None, 1))
    model = ManifoldMixupClassifier(
        MixupLayers(net, ["input"]), lossfun=F.mean_squared_error, accfun=None
    )
    model(X, t)
    several = ManifoldMixupClassifier(
        MixupLayers(chainer.Sequential(L.Linear(None, 1)), ["input"]),
        lossfun=F.sigmoid_cross_entropy,
        accfun=F.binary_accuracy,
        mixup_alpha=0,
    )
    several(X, T[:, None] % 2)


class Plain(chainer.Chain):
    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("predictor", "error"),
    [
        (L.Classifier(CNN(3)), "is a Classifier, which computes a loss itself"),
        (CNN, "must be a link, not the class CNN: call it"),
        (chainer.Chain(), "is a Chain, which has no forward"),
        (chainer.ChainList(), "is a ChainList, which has no forward"),
        (chainer.Sequential(), "is a Sequential of no links"),
        (F.relu, "must be a chainer.Link"),
        (Plain(), r"^Plain does not mix by itself: wrap it, MixupLayers\(net, names\)"),
    ],
)
def test_what_is_no_predictor_is_refused_at_once(predictor, error):
    with pytest.raises(TypeError, match=error):
        ManifoldMixupClassifier(predictor)
