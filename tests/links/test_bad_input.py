"""What is given in a wrong way is named in one sentence."""

import re

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from chainer_mmix import (
    ManifoldMixupClassifier,
    MixupLayers,
    MixupPolicy,
    MixupSequential,
    mix,
    mixup_data,
)

X, T = np.zeros((4, 3), np.float32), np.zeros(4, np.int32)


class NoForward(chainer.Chain):
    pass


def net():
    return MixupSequential(
        (L.Linear(3, 4), True), (F.relu, False), (L.Linear(2), False)
    )


def cycle():
    chain, child = chainer.Sequential(L.Linear(3)), chainer.Sequential()
    chain.append(child)
    child.append(chain)
    return chain


def classifier():
    return ManifoldMixupClassifier(net(), seed=0)


CASES = {
    "an empty batch": (
        lambda: classifier()(X[:0], T[:0]),
        "the target has shape (0,): a batch has at least one sample",
    ),
    "an empty batch in evaluation": (
        lambda: ManifoldMixupClassifier(net(), False)(X[:0], T[:0]),
        "the target has shape (0,)",
    ),
    "one label": (lambda: classifier()(X, T[0]), "the target has shape ()"),
    "a list of labels": (
        lambda: classifier()(X, [0] * 4),
        "one array, not list: join a list of labels, as by numpy.hstack(labels)",
    ),
    "a list to mix": (lambda: mix([1.0], 0.5, [0]), "x must be an array, not list"),
    "a word as lambda": (
        lambda: mix(X, "a", np.arange(4)),
        "lam must be a number or an array of them, not a",
    ),
    "a complex lambda": (
        lambda: mix(X, 0.5 + 1j, np.arange(4)),
        "lam must be a number or an array of them, not (0.5+1j)",
    ),
    "lists to mix": (
        lambda: mixup_data([[1.0]], T[:1], 0.5),
        "x must be an array, not list",
    ),
    "a list of targets": (
        lambda: mixup_data(X, [0] * 4, 0.5),
        "target must be an array, not list",
    ),
    "a negative seed": (lambda: MixupPolicy(seed=-1), "seed must be >= 0, not -1"),
    "a word as seed": (lambda: MixupPolicy(seed="a"), "whole number or None, not 'a'"),
    "a float as seed": (lambda: MixupPolicy(seed=1.5), "or None, not 1.5"),
    "a class": (
        lambda: ManifoldMixupClassifier(NoForward),
        "predictor must be a link, not the class NoForward: call it",
    ),
    "a class to wrap": (
        lambda: MixupLayers(L.Linear, ["l"]),
        "net must be a link, not the class Linear: call it",
    ),
    "no link": (
        lambda: ManifoldMixupClassifier(None),
        "predictor must be a chainer.Link, not None",
    ),
    "no forward": (
        lambda: ManifoldMixupClassifier(NoForward()),
        "predictor is a NoForward, which has no forward: give it one",
    ),
    "a classifier": (
        lambda: ManifoldMixupClassifier(L.Classifier(net())),
        "predictor is a Classifier, which computes a loss itself: give its predictor",
    ),
    "a cycle": (
        lambda: ManifoldMixupClassifier(cycle(), False),
        "predictor contains itself (a Sequential)",
    ),
    "a cycle to wrap": (
        lambda: MixupLayers(cycle(), ["0"]),
        "net contains itself (a Sequential)",
    ),
    "no mixing point": (
        lambda: MixupLayers(L.Linear(3), []),
        "layers chooses none of 'input': name some of them, as MixupLayers.suggest(",
    ),
    "a function that takes no link": (
        lambda: MixupLayers(chainer.Sequential(L.Linear(3)), lambda name, link: False),
        "layers chooses none of 'input', '[0]': name some of them, as MixupLayers",
    ),
    "no list of mixing points": (
        lambda: MixupLayers(L.Linear(3), None),
        "layers must be a list of names, such as ['input'], not None",
    ),
    "a link as mixing point": (
        lambda: MixupLayers(L.Linear(3), [None]),
        "None is not a name. There are 'input': give one of these",
    ),
    "too few targets": (
        lambda: point("l", X, T[:3]),
        "the batch has inputs of shape (4, 3), but targets of shape (3,): give one "
        "target a sample (the output of 'l' has shape (4, 5), but there are 3 targets",
    ),
    "too few targets at the input": (
        lambda: point("input", X, T[:3]),
        "the input has shape (4, 3), but there are 3 targets",
    ),
    "too many targets": (
        lambda: point("l", X[:2], T),
        "the batch has inputs of shape (2, 3), but targets of shape (4,): give one "
        "target a sample (the output of 'l' has shape (2, 5), but there are 4 targets",
    ),
    "too few targets in evaluation": (
        lambda: ManifoldMixupClassifier(net(), False)(X, T[:3]),
        "the batch has inputs of shape (4, 3), but targets of shape (3,): give one "
        "target a sample",
    ),
    "too few numbers to predict": (
        lambda: ManifoldMixupClassifier(
            net(), False, lossfun=F.mean_squared_error, accfun=None
        )(X, np.zeros((3, 2), np.float32)),
        "the batch has inputs of shape (4, 3), but targets of shape (3, 2): give one",
    ),
}


class Other(chainer.Chain):
    def __init__(self):
        super().__init__(l=L.Linear(3, 5), m=L.Linear(5, 2))

    def forward(self, x):
        return self.m(self.l(x))


def point(name, x, t):
    return ManifoldMixupClassifier(MixupLayers(Other(), [name]), seed=0)(x, t)


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_named_in_one_sentence(name):
    call, message = CASES[name]
    with pytest.raises((TypeError, ValueError), match=re.escape(message)) as e:
        call()
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("shape", [(3,), (2, 5, 5)])
def test_a_sample_without_the_axis_of_a_batch(shape):
    first = L.Linear(3, 4) if len(shape) == 1 else L.Convolution2D(2, 4, 3)
    chain = chainer.Sequential(first, F.relu, L.Linear(None, 2))
    message = rf"x is one sample, of shape \({shape[0]},.*pass x\[None\]"
    with pytest.raises(ValueError, match=message):
        MixupLayers.suggest(chain, np.zeros(shape, np.float32))


def test_errors_of_the_network_itself_stay_what_they_are():
    chain = chainer.Sequential(L.Linear(3, 4), L.Linear(5, 2))
    with pytest.raises(chainer.utils.type_check.InvalidType):
        MixupLayers.suggest(chain, X)
    for x in (np.float32(1), ()):
        with pytest.raises(ValueError, match="one row a sample"):
            MixupLayers.suggest(chain, x)


@pytest.mark.parametrize("labels", [[np.int32(0)] * 4, [np.zeros(1, np.int32)] * 4])
def test_joined_labels_are_taken(labels):
    classifier()(X, np.hstack(labels))


def test_a_batch_whose_first_axis_is_time():
    """Time comes first: the network is at fault, not the number of targets."""

    class Steps(chainer.Chain):
        def __init__(self):
            super().__init__(l=L.Linear(3, 2))

        def forward(self, x):
            return self.l(x[-1])

    model = ManifoldMixupClassifier(Steps(), mixup_hidden=False)
    x = np.zeros((7, 4, 3), np.float32)
    model(x, T)
    with pytest.raises(chainer.utils.type_check.InvalidType):
        model(x[..., :2], T)
