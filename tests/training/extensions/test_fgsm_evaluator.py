import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest

from chainer_mmix import ManifoldMixupClassifier
from chainer_mmix.training.extensions import FgsmEvaluator


def reference_accuracy(w, x, t, eps, clip=(-np.inf, np.inf)):
    w, x = w.astype(np.float64), x.astype(np.float64)
    e = np.exp(x @ w.T)
    gradient = (e / e.sum(axis=1, keepdims=True) - np.eye(len(w))[t]) @ w
    x = np.clip(x + eps * np.sign(gradient), *clip)
    return ((x @ w.T).argmax(axis=1) == t).mean()


@pytest.mark.parametrize("clip", [None, (0, 1)])
def test_accuracies_are_those_of_a_linear_model(iterate, clip):
    rng = np.random.default_rng(0)
    x = rng.random((64, 5)).astype(np.float32)
    net = L.Linear(5, 3, initialW=rng.standard_normal((3, 5)))
    t = net(x).array.argmax(axis=1).astype(np.int32)
    t[:6] = 0
    eps = (0, 0.05, 0.2, 0.5)
    target = ManifoldMixupClassifier(net, mixup_hidden=False)
    expected = [
        reference_accuracy(net.W.array, x, t, value, *([] if clip is None else [clip]))
        for value in eps
    ]
    assert expected[0] > expected[1] > expected[2] > expected[3]
    evaluator = FgsmEvaluator(iterate(x, t), target, eps=eps, clip=clip)
    keys = [f"main/fgsm_accuracy/{value}" for value in ("0", "0.05", "0.2", "0.5")]
    assert evaluator() == dict(zip(keys, expected, strict=True))
    assert target.y is None  # the classifier itself was not called


def test_the_loss_function_is_that_of_the_classifier(iterate):
    rng = np.random.default_rng(0)
    x = rng.random((64, 5)).astype(np.float32)
    net = L.Linear(5, 3, initialW=rng.standard_normal((3, 5)))
    t = np.arange(64, dtype=np.int32) % 3

    def gain(y, t):
        return -F.softmax_cross_entropy(y, t)

    evaluator = FgsmEvaluator(iterate(x, t), L.Classifier(net, gain), eps=[0.2])
    expected = reference_accuracy(net.W.array, x, t, -0.2)
    assert expected > reference_accuracy(net.W.array, x, t, 0)
    assert evaluator() == {"main/fgsm_accuracy/0.2": expected}


@pytest.mark.parametrize("eps", [-0.1, float("nan"), float("inf")])
def test_a_bad_eps_is_an_error(iterate, eps):
    x = np.zeros((2, 5), np.float32)
    iterator = iterate(x, np.zeros(2, np.int32))
    with pytest.raises(ValueError, match=str(eps)):
        FgsmEvaluator(iterator, L.Classifier(L.Linear(5, 3)), eps=[0.1, eps])
